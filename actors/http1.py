"""HTTP/1.1 as bytes: how a request is written and how a response is read. No I/O, no clock, no connection.

Owns the framing: it alone says where a response ends, whether it is whole, and whether another may follow on the same connection.
It knows nothing of retries, pools or httpx.

Theory of operation: llhttp (httptools) finds the structure and calls back; the callbacks only collect. `feed()` never raises. What is
wrong with the bytes becomes `failure`, beside everything that came before it: a body is good up to the place where its framing breaks.
Once the response is `complete`, any further byte is surplus, which spoils the connection and not the response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httptools

from .errors import UpstreamDisconnected, UpstreamError, UpstreamProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Bytes of a response's head, interim ones included; also of chunk extensions or trailers in a row. Guessed; Node's limit is 16 KiB.
HEAD_BYTES: Final = 64 * 1024
#: Header lines of a response.
HEADER_LINES: Final = 200
#: They describe this connection or the body's framing, so that they are written here or not at all. `Expect` would make us wait for an
#: interim response, and a client that may not send its body waits for nothing here: it has sent it.
NOT_PASSED: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
#: Methods whose requests say "no body" with a length of zero (RFC 9110, 8.6).
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def encode_head(method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], length: int) -> bytes:
    """A request's head.

    Args:
      target: path and query, as the request line carries them.
      headers: `host` among them; those that belong to a connection are left out.
      length: of the body, in bytes.

    Raises:
      UpstreamProtocolError: a line break or a NUL stands where it would make another request of this one.
    """
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target)]
    lines += [name + b": " + value for name, value in headers if name.lower() not in NOT_PASSED]
    if length or method in WITH_BODY:
        lines.append(b"content-length: %d" % length)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head or b" " in target:
        raise UpstreamProtocolError("the request holds a character that HTTP does not allow there")
    return head


class ResponseParser:
    """One response, from its first byte to its last. Interim ones (1xx) before it are skipped.

    Args:
      method: of the request; the answer to HEAD has no body.

    Closing: `close()` breaks the reference cycle with llhttp's callbacks, so that nothing waits for the garbage collector.
    """

    __slots__ = (
        "_barren",
        "_head_bytes",
        "_keep_alive",
        "_llhttp",
        "_no_body",
        "_pieces",
        "_surplus",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "on_body",
        "started",
        "status",
    )

    def __init__(self, method: str) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self.started = False  # a byte has come
        self.head_complete = False
        self.complete = False  # the body's end has come; what is left of it is in take()
        self.failure: UpstreamError | None = None  # why the rest will not come; read what take() has first
        self._no_body = method == "HEAD"
        self._pieces: list[bytes] = []
        self._barren = 0  # bytes since the last one of the body
        self._head_bytes = 0
        self._keep_alive = False
        self._surplus = False
        self.on_body: Callable[[bytes], None] = self._pieces.append  # llhttp's callback: one per chunk and read, so without a frame of ours
        self._llhttp: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        # Both lengths: RFC 9112, 6.3 lets us go by the chunks if the connection is closed afterwards.
        self._llhttp.set_dangerous_leniencies(lenient_chunked_length=True)

    @property
    def over(self) -> bool:
        """Nothing more will come: it is complete, or failed."""
        return self.complete or self.failure is not None

    @property
    def held(self) -> int:
        """Bytes of the body that were not taken yet."""
        return sum(map(len, self._pieces))

    @property
    def reusable(self) -> bool:
        """Another request may follow on the connection."""
        return self.complete and self._keep_alive and not self._surplus

    def feed(self, data: bytes) -> None:
        """Take what a read brought; b"" is the peer's end. Of no effect once the response is over."""
        if self._llhttp is None or self.over:
            return
        if not data:
            self._end()
            return
        self.started = True
        try:
            self._llhttp.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._surplus = True
            if not self.complete:
                own = exc.__context__
                self.failure = own if isinstance(own, UpstreamError) else UpstreamProtocolError(f"the response is no HTTP: {exc}")
        if self._pieces:
            self._barren = 0
            if self._no_body:
                self._surplus = True
                self._pieces.clear()
        elif not self.complete:
            self._barren += len(data)
            if self._barren > HEAD_BYTES and self.failure is None:
                where = "chunk extensions or trailers" if self.head_complete else "response head"
                self.failure = UpstreamProtocolError(f"the {where} exceeded {HEAD_BYTES} bytes")

    def _end(self) -> None:
        if not self.started:
            self.failure = UpstreamDisconnected("the upstream closed the connection without an answer")
        elif not self.head_complete:
            self.failure = UpstreamDisconnected("the upstream closed the connection inside the response head")
        elif self._ends_with_connection():
            self.complete = True
        else:
            self.failure = UpstreamDisconnected("the upstream closed the connection before the end of the response")

    def take(self) -> bytes:
        """The body that has come since the last call, b"" if none."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def close(self) -> None:
        self._llhttp = None

    def _ends_with_connection(self) -> bool:
        names = {name for name, _ in self.headers}
        return b"content-length" not in names and (b"transfer-encoding", b"chunked") not in self.headers

    # ---- llhttp calls these by their names; what they raise it hands back as the context of its own exception ----------------

    def on_message_begin(self) -> None:
        if self.complete:
            raise UpstreamProtocolError("another response follows")  # not told to anybody: it stops llhttp, see feed()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_complete:
            return  # trailers say nothing that is needed
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES:
            raise UpstreamProtocolError(f"the response head exceeded {HEAD_BYTES} bytes")
        if len(self.headers) == HEADER_LINES:
            raise UpstreamProtocolError(f"the response head has more than {HEADER_LINES} lines")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"transfer-encoding":
            value = value.lower()
            if value not in (b"chunked", b"identity"):
                raise UpstreamProtocolError(f"the response has transfer-encoding '{value[:40].decode('latin-1')}', which was not asked for")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._llhttp is not None  # it is what calls
        status = self._llhttp.get_status_code()
        if status == 101:
            raise UpstreamProtocolError("the upstream switched protocols, which was not asked for")
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        self.head_complete = True
        fields = dict(self.headers)
        both = b"content-length" in fields and b"transfer-encoding" in fields
        self._keep_alive = self._llhttp.should_keep_alive() and not both
        self.complete = self._no_body

    def on_message_complete(self) -> None:
        self.complete = self.head_complete  # not at the end of an interim response
