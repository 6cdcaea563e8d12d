"""Whether a text can be the beginning of one JSON object or array: the grammar that tool-call arguments must obey.

Owns one fact: after these characters, is a complete value still reachable, or reached? Knows nothing of lanes or repeats.
Incremental, so that asking again about a longer text costs only the new characters.
"""

from __future__ import annotations

import re
from typing import Final

#: Everything inside a string up to the next character that matters (RFC 8259 forbids raw control characters; models do write
#: them, and clients' lenient parsers accept them, so they do not refute).
_PLAIN: Final = re.compile(r'[^"\\]*')
_BLANKS: Final = " \t\r\n"
_LITERALS: Final = ("true", "false", "null")
#: A plain number. A prefix of one is recognised by its characters only: "1-2" passes, which errs towards "possible".
_NUMBER: Final = frozenset("0123456789.eE+-")


class JsonPrefix:
    """A validator that is fed a text piece by piece.

    Attributes:
      possible: False once no continuation can make the text one JSON value.
      complete: True once the text is one complete object or array (blanks may follow).
    """

    __slots__ = ("_literal", "_stack", "_state", "possible")

    def __init__(self) -> None:
        self.possible = True
        self._state = "value"
        self._stack: list[str] = []  # the closing bracket that each open one needs
        self._literal = ""

    @property
    def complete(self) -> bool:
        return self.possible and self._state == "end"

    def copy(self) -> JsonPrefix:
        other = JsonPrefix()
        other.possible, other._state, other._stack, other._literal = self.possible, self._state, self._stack.copy(), self._literal
        return other

    def feed(self, text: str) -> JsonPrefix:
        """Takes the next piece. Returns: itself."""
        at, end = 0, len(text)
        while at < end and self.possible:
            if self._state in ("string", "key"):
                match = _PLAIN.match(text, at)
                at = match.end() if match else at
                if at < end:
                    self._in_string(text[at])
                    at += 1
            else:
                self._take(text[at])
                at += 1
        return self

    def _in_string(self, character: str) -> None:
        if character == "\\":
            self._state = "escaped " + self._state
        elif self._state == "key":
            self._state = "colon"
        else:
            self._after_value()

    def _take(self, character: str) -> None:
        state = self._state
        if state.startswith("escaped "):
            self._state = state.removeprefix("escaped ")
            self.possible = character in '"\\/bfnrtu'
            return
        if state == "number":
            if character in _NUMBER:
                return
            self._after_value()
            state = self._state
        if state == "literal":
            self._literal += character
            self.possible = any(word.startswith(self._literal) for word in _LITERALS)
            if self._literal in _LITERALS:
                self._after_value()
            return
        if character in _BLANKS:
            return
        match state:
            case "value" | "first item":
                self._begin_value(character, state)
            case "first key" | "next key":
                self._begin_key(character, state)
            case "colon":
                self.possible = character == ":"
                self._state = "value"
            case "comma":
                self._separator(character)
            case _:  # "end": nothing but blanks may follow a complete value
                self.possible = False

    def _begin_value(self, character: str, state: str) -> None:
        if character in "{[":
            self._stack.append("}" if character == "{" else "]")
            self._state = "first key" if character == "{" else "first item"
        elif character == "]" and state == "first item":
            self._stack.pop()
            self._after_value()
        elif not self._stack:
            self.possible = False  # arguments are an object (or, rarely, an array), never a bare scalar
        elif character == '"':
            self._state = "string"
        elif character in "-0123456789":
            self._state = "number"
        elif character in "tfn":
            self._state, self._literal = "literal", character
        else:
            self.possible = False

    def _begin_key(self, character: str, state: str) -> None:
        if character == '"':
            self._state = "key"
        elif character == "}" and state == "first key":
            self._stack.pop()
            self._after_value()
        else:
            self.possible = False

    def _separator(self, character: str) -> None:
        if character == ",":
            self._state = "next key" if self._stack[-1] == "}" else "value"
        elif character == self._stack[-1]:
            self._stack.pop()
            self._after_value()
        else:
            self.possible = False

    def _after_value(self) -> None:
        self._state = "comma" if self._stack else "end"
