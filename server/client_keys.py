"""Who may ask: the keys that a listener accepts, and the one comparison of what a caller presents with them."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from actors import Secret


class KeyRing:
    """The keys of one listener. False if there are none; whether anonymous callers are let in then is the listener's decision.

    Raises:
      ValueError: a key is empty; it would fit everyone who presents none.
    """

    def __init__(self, keys: Iterable[Secret]) -> None:
        keys = tuple(keys)
        if any(not key.reveal() for key in keys):
            raise ValueError("a client key is empty")
        # Digests are all of one length, so that the comparison says nothing about a key's length either.
        self._digests = tuple(hashlib.sha256(key.reveal().encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Mapping[str, str]) -> str | None:
        """The id of the key that a request presents as `Authorization: Bearer` or as `x-api-key`.

        Takes the same time whichever key it is and however much of it is right: every key is compared, none ends the loop.

        Args:
          headers: names in lower case, values as an ASGI server's bytes decoded as Latin-1.

        Returns:
          The first letters of the key's SHA-256, for logs and for what has to stay the same per key; None if no key fits.
        """
        found = None
        for presented in (_bearer(headers.get("authorization", "")), headers.get("x-api-key", "").strip()):
            digest = hashlib.sha256(_wire_bytes(presented)).digest()
            for known in self._digests:
                if hmac.compare_digest(digest, known):
                    found = f"key-{known.hex()[:8]}"
        return found


def _bearer(authorization: str) -> str:
    scheme, _, credential = authorization.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else ""


def _wire_bytes(value: str) -> bytes:
    """The bytes that came over the wire, so that a key outside ASCII compares equal to the configured one in UTF-8."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")
