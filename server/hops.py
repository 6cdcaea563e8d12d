"""How many evenflows a request has come through. A loop (a proxy configured as its own upstream) would otherwise never end."""

from __future__ import annotations

from typing import Final

HEADER: Final = b"x-evenflow-hops"
#: Proxies in a row. Two are a use (one on the machine, one for the team), eight are a loop: FAULTS row 78.
MOST: Final = 8
TOO_MANY: Final = f"the request came through {MOST} evenflows: one of them leads back to another; correct base_url"
CODE: Final = "loop_detected"


def hops_of(value: str) -> int:
    """What the header says; 0 where it is absent or not ours."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0


def next_hop(hops: int) -> tuple[bytes, bytes]:
    """The header that goes up."""
    return HEADER, b"%d" % (hops + 1)
