"""Asking a running evenflow's admin listener, for the commands that show or change what runs.

Owns the request and what is said when it is refused or nobody answers. Refuses to know what the answers mean.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any, Final

import msgspec

_PATIENCE: Final = 10.0


class NoAnswer(Exception):
    """The admin listener did not do what it was asked; the text says why."""


def ask_admin(url: str, key: str, path: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that it answers.

    Args:
      url: root of the admin listener.
      key: one of its admin_keys, "" without.
      path: for example /status.
      document: sent by POST; without one it is a GET.

    Raises:
      NoAnswer: nobody is there, or it refused.
    """
    body = msgspec.json.encode(document) if document is not None else None
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    # The environment's proxies are for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}{path}", body, headers)
        with opener.open(request, timeout=_PATIENCE) as response:
            answer: dict[str, Any] = msgspec.json.decode(response.read(), type=dict[str, Any])
    except urllib.error.HTTPError as refusal:
        raise NoAnswer(f"{url} answers {refusal.code}: {_message(refusal.read())}") from None
    except (OSError, ValueError, msgspec.DecodeError) as failure:  # ValueError: what is no URL
        reason = getattr(failure, "reason", failure)
        raise NoAnswer(f"no evenflow answers at {url}: {reason}; is it running, and is this its admin_bind?") from None
    return answer


def _message(body: bytes) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return "no reason was given"
