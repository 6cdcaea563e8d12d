"""The prototype that the detector has to surpass, fed with this repository's streams, where its kit is beside the checkout."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.stutter.texts import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.stutter.wire import Envelope, Piece

KIT: Final = ROOT.parent / "shared" / "stutter-kit"
_HEAD, _REST = "finish_reason,logprobs,delta,index", "delta,finish_reason,index,logprobs"
_OTHER: Final = "index,delta,logprobs,finish_reason"


class Played(NamedTuple):
    """What it made of a stream.

    Args:
      held: longest wait in seconds.
    """

    text: str
    held: float


class Prototype:
    """The kit's detector, one lane at a time. It knows no events, so that ids and finishes of tool calls (G3, H1) are beyond it."""

    def __init__(self) -> None:
        sys.path.insert(0, str(KIT))
        self.lane: Any = importlib.import_module("prototype_detector").Lane

    def play(self, stream: Sequence[Piece], style: Envelope, *, tool: bool = False) -> Played:
        lane, now, held, out = self.lane(tool=tool), 0.0, 0.0, []
        for piece in stream:
            now += piece.gap * 1000
            since = lane.t0
            if since is not None and since + 400 <= now:
                out.append(lane.tick(since + 400))
                held = 400.0
            since = lane.t0
            if piece.kind == "finish":
                out.append(lane.end())
            elif piece.text:
                out.append(lane.feed(piece.text, _envelope(piece, style), now))
            if since is not None and lane.t0 != since:
                held = max(held, now - since)
        out.append(lane.end())
        return Played("".join(out), held / 1000)


def _envelope(piece: Piece, style: Envelope) -> dict[str, Any]:
    envelope: dict[str, Any] = {"id": piece.id, "mask": 0}
    if style == "nonce":
        return envelope | {"mask": piece.nonce, "nonce_field": True}
    if style == "usage":
        return envelope | {"mask": piece.tokens, "ct": piece.tokens}
    return envelope | {"sig": _OTHER if style == "constant" else _HEAD if piece.head_order else _REST}


def load() -> Prototype | None:
    return Prototype() if KIT.is_dir() else None
