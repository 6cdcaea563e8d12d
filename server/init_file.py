"""The configuration that `evenflow init` writes: one known upstream, and beside it, commented out, what most people come to change.

Owns what is known about each kind of upstream. Names, defaults and reasons come from the settings themselves, so that the file says what
the program does. Refuses to know where the file goes (cli_configuration.py).
"""

from __future__ import annotations

import json
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .settings_schema import Leaf, SettingPath, dotted, node_at, shown
from .version import MINOR

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_FILE: Final = "evenflow.schema.json"
_WIDTH: Final = 120


@dataclass(frozen=True, slots=True)
class Kind:
    """An upstream that evenflow knows something about.

    Args:
      title: how it calls itself.
      base_url: where it usually is.
      key_env: the variable that its own tools read the key from; empty where it usually wants none.
      lines: further settings of its table, as TOML with their comments.
    """

    title: str
    base_url: str
    key_env: str = ""
    lines: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    "ollama": Kind(
        "Ollama",
        "http://127.0.0.1:11434/v1",
        lines="""\
            # What it works on at once (OLLAMA_NUM_PARALLEL); more requests wait here in a fair order, and leave with their clients.
            slots = 1
            # A large model is loaded from disk before its first token, and a long prompt is read on the CPU.
            timers.first_token = 600
            """,
    ),
    "llama.cpp": Kind(
        "llama.cpp's llama-server",
        "http://127.0.0.1:8080/v1",
        lines="""\
            # What it works on at once (--parallel); more requests wait here in a fair order, and leave with their clients.
            slots = 1
            timers.first_token = 600
            """,
    ),
    "vllm": Kind(
        "vLLM",
        "http://127.0.0.1:8000/v1",
        lines="""\
            # What `vllm serve --api-key` was given, if it was given one:
            # key_env = "VLLM_API_KEY"
            # It can go on from the beginning of an answer; see streaming.resume.
            continuation = "continue_final_message"
            """,
    ),
    "dashscope": Kind(
        "DashScope",
        "https://dashscope.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        """\
            # Outside China: https://dashscope-intl.aliyuncs.com/compatible-mode/v1
            # Its serialiser writes the first content chunk differently from all others, which proves a repeated first chunk.
            stutter.profile = "dashscope"
            # It can go on from the beginning of an answer; see streaming.resume.
            continuation = "partial"
            """,
    ),
    "openai": Kind("OpenAI", "https://api.openai.com/v1", "OPENAI_API_KEY"),
    "openrouter": Kind("OpenRouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
}
DEFAULT_KIND: Final = "ollama"

#: What is shown beside the upstream, at its default. With dotted names, so that one line can be uncommented by itself.
_SHOWN: Final[tuple[SettingPath, ...]] = (
    ("bind",),
    ("admin_bind",),
    ("drain",),
    ("timers", "first_token"),
    ("timers", "idle"),
    ("timers", "total"),
    ("timers", "keepalive_after"),
    ("retry", "retries"),
    ("retry", "backoff_cap"),
    ("streaming", "resume"),
    ("streaming", "engine"),
    ("stutter", "mode"),
    ("loop_guard", "action"),
    ("admission", "max_streams"),
    ("admission", "max_waiting"),
    ("log", "format"),
    ("log", "level"),
)


def configuration(kind: str, base_url: str = "", key_env: str = "") -> str:
    """The text of evenflow.toml for one kind of upstream.

    Args:
      base_url: in place of the usual one.
      key_env: in place of the usual variable.
    """
    known = KINDS[kind]
    url, variable = base_url or known.base_url, key_env or known.key_env
    name = kind.replace(".", "-")
    table = [f"[upstreams.{name}]", f"base_url = {json.dumps(url)}"]
    if variable:
        table += ["# The key itself stays out of this file: the name of the variable that holds it.", f"key_env = {json.dumps(variable)}"]
    parts = [
        f"#:schema ./{SCHEMA_FILE}",
        f"# evenflow {MINOR} in front of {known.title}, which stands at the end. `evenflow check` says whether this holds.\n"
        "# What is commented out stands at its default. A setting may as well come from the environment: EVENFLOW_TIMERS__IDLE=60.",
        "# Who may ask; needed as soon as other machines can. Make a key with: openssl rand -hex 32\n"
        '# client_keys = ["env:EVENFLOW_CLIENT_KEY"]',
        *map(_commented, _SHOWN),
        "\n".join(table) + "\n" + textwrap.dedent(known.lines),
        "# Which upstreams serve which model, in order; without any, every upstream serves every model. A second upstream takes over\n"
        f'# when the first one fails: add an [upstreams.spare] and name it behind "{name}".\n'
        f'# [[routes]]\n# model = "*"\n# upstreams = ["{name}"]',
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _commented(path: SettingPath) -> str:
    """One setting at its default, commented out, below its reason."""
    leaf = node_at(path)
    assert isinstance(leaf, Leaf)
    unit = {"s": " (seconds)", "": ""}.get(leaf.unit, f" ({leaf.unit})")
    choices = f"; one of {', '.join(leaf.choices())}" if leaf.choices() else ""
    why = textwrap.fill(leaf.why + unit + choices, _WIDTH, initial_indent="# ", subsequent_indent="# ")
    return f"{why}\n# {dotted(path)} = {shown(leaf.default)}"
