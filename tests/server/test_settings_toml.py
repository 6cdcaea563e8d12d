"""On which line of a TOML file a setting stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.settings_toml import key_lines


def test_lines_of_a_file() -> None:
    text = '# c\na = 1\nb.c = 2\n"d e" = [\n  1,\n]\n[t]  # x\nf = 3\n[[r]]\ng = 1\n[r.u]\nh = 1\n[[r]]\ng = 2\n[t."q.r"]\ni = 1\n'
    assert key_lines(text) == {
        ("a",): 2,
        ("b", "c"): 3,
        ("d e",): 4,
        ("t",): 7,
        ("t", "f"): 8,
        ("r", 0): 9,
        ("r", 0, "g"): 10,
        ("r", 0, "u"): 11,
        ("r", 0, "u", "h"): 12,
        ("r", 1): 13,
        ("r", 1, "g"): 14,
        ("t", "q.r"): 15,
        ("t", "q.r", "i"): 16,
    }


@given(st.text(alphabet="ab.=[]\"' #\n1{}", max_size=60))
def test_lines_of_any_text(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= max(1, len(text.splitlines())) for line in lines.values())
