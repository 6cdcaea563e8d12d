"""Writes docs/simulator.md from the simulator's own table of fault models: `python docs/make_simulator_page.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from server.simulator import faults_table  # noqa: E402 - the checkout is not always installed

_BEFORE = """\
# The simulator

An OpenAI-compatible upstream that misbehaves on request. `evenflow dev` runs it behind a proxy; `evenflow simulate` runs it alone:

```
$ evenflow simulate --bind 127.0.0.1:8150 --pace 20
$ curl -N http://127.0.0.1:8150/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "cut:after=5", "stream": true, "messages": []}'
```

The model's name chooses the fault: `NAME`, `NAME:ARG` or `NAME:KEY=VALUE,KEY=VALUE`, values percent-encoded where they hold a comma. Every model also takes

| argument | meaning |
|---|---|
| `pace=MS` | time between two events (also the request header `x-simulator-pace-ms`) |
| `text=...` | what is answered |
| `envelope=...` | how chunks are wrapped: `constant`, `nonce` (a different `obfuscation` in each), `usage` (running token counts), `dashscope` (its key order) |
| `times=N` | the fault shows in the first N identical requests, after that the answer is `ok` |

`recording:NAME` plays the events of NAME.sse from `--recordings DIR`. A scenario file (`--scenario FILE`, see `server/simulator/scenario.py`) chooses by the order of requests instead:

```toml
[[step]]                # the first request for gpt-4o gets a 503 ...
model = "gpt-4o"
answer = "http-503"
times = 1

[[step]]                # ... every other one a stream
model = "gpt-4o"
answer = "ok"
```

What it saw (requests, attempts, how each answer ended and when) is at `GET /_simulator/report`; `POST /_simulator/reset` forgets it.

## Fault models

"""


def page() -> str:
    """The page, its table as `evenflow simulate --list` prints it."""
    return _BEFORE + faults_table().rstrip("\n") + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "simulator.md").write_text(page())
