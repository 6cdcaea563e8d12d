"""Hard negatives: legitimate streams that look like stutter. Each must leave byte for byte as it came.

The rows are grouped by what makes them repeat. Each names the rule that it would trip: what a repair would have to believe to damage it.
Streams that nothing could tell from a fault are not here but in twins.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .code import CODE
from .digits import DIGITS
from .envelopes import ENVELOPES
from .growth import GROWTH
from .lanes import LANES
from .markup import MARKUP
from .pieces import PIECES
from .scripts import SCRIPTS
from .speech import SPEECH
from .tools import TOOLS

if TYPE_CHECKING:
    from .stream import Negative

NEGATIVES: Final[tuple[Negative, ...]] = (*SPEECH, *DIGITS, *MARKUP, *CODE, *SCRIPTS, *GROWTH, *TOOLS, *LANES, *ENVELOPES, *PIECES)
