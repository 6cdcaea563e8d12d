"""HTTP/2 as bytes, for connections that carry one stream at a time: how a request is written and how a response is read.

Owns what http1.py owns there: where a response ends, whether it is whole, and whether another request may follow on the connection.
It knows nothing of retries, pools, sockets or httpx.

Theory of operation: the library h2 finds the structure and keeps the windows. It gets one frame at a time, so that a frame that is wrong
takes nothing away from those before it, and never a GOAWAY: after one it refuses all that follows, while RFC 9113, 6.8 has the streams
up to its last one go on. A server says it as it is restarted, and nginx after every thousandth request. `feed()` never raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError, TooManyStreamsError
from h2.settings import SettingCodes, Settings

from .errors import UpstreamDisconnected, UpstreamError, UpstreamProtocolError
from .http1 import HEAD_BYTES, HEADER_LINES, NOT_PASSED, WITH_BODY

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What a server may send ahead of whoever reads, in bytes. A stream of text never fills it, so that an update of the window, which is a
#: write of its own, is due every few thousand events. Guessed.
WINDOW: Final = 1 << 20
#: What one call of `outgoing()` takes of a request's body at most.
PIECE: Final = 64 * 1024
#: What a frame may bring; the least that a client may say, and the most that servers send if it says nothing (RFC 9113, 4.2).
_FRAME_BYTES: Final = 16384
_FRAME_HEAD: Final = 9
_GOAWAY: Final = 7
_INITIAL_WINDOW: Final = 65535
#: Ends of a stream by which a server says that we broke the protocol, or that it will not speak it.
_COMPLAINTS: Final = frozenset(
    {
        ErrorCodes.PROTOCOL_ERROR,
        ErrorCodes.FLOW_CONTROL_ERROR,
        ErrorCodes.FRAME_SIZE_ERROR,
        ErrorCodes.COMPRESSION_ERROR,
        ErrorCodes.INADEQUATE_SECURITY,
        ErrorCodes.HTTP_1_1_REQUIRED,
    }
)


class Http2Session:
    """What HTTP/2 keeps of one connection from one request to the next."""

    __slots__ = ("_current", "_h2", "_held", "closing")

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        # In its place before the preface: an update of the settings would be a second frame, and be in force only when it is confirmed.
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW - _INITIAL_WINDOW)
        self._held = b""  # the beginning of a frame
        self._current: Http2Response | None = None
        self.closing = False  # no other request may follow

    def ask(self, method: str, scheme: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> Http2Response:
        """Begin a request; what is to be sent is in its `outgoing()`. One that cannot be said has failed already.

        Args:
          target: path and query.
          headers: `host` among them; those that belong to a connection are left out.
        """
        passed = [(name.lower(), value) for name, value in headers if name.lower() not in NOT_PASSED]
        authority = next((value for name, value in passed if name == b"host"), b"")
        lines = [(b":method", method.encode("ascii")), (b":scheme", scheme.encode("ascii")), (b":authority", authority), (b":path", target)]
        lines += [(name, value) for name, value in passed if name != b"host"]
        if body or method in WITH_BODY:
            lines.append((b"content-length", b"%d" % len(body)))
        stream = self._h2.get_next_available_stream_id()
        response = self._current = Http2Response(self, self._h2, stream, body)
        # A gateway that speaks HTTP/1.1 behind itself would write them there.
        if any(char in part for line in lines for part in line for char in (b"\r", b"\n", b"\0")) or b" " in target:
            response.fail(UpstreamProtocolError("the request holds a character that HTTP does not allow there"))
            return response
        try:
            self._h2.send_headers(stream, lines, end_stream=not body)
        except TooManyStreamsError:
            self.closing = True  # some say so before they close
            response.fail(UpstreamDisconnected("the upstream takes no further request on this connection"))
        except ProtocolError as exc:
            self._fail(f"it takes no request ({exc})")
        return response

    def feed(self, data: bytes) -> None:
        """Take what a read brought; b"" is the peer's end."""
        if not data:
            self.closing = True
            if self._current is not None:
                self._current.cut()
            return
        data = self._held + data if self._held else data
        start, size = 0, len(data)
        while size - start >= _FRAME_HEAD:
            length = int.from_bytes(data[start : start + 3], "big")
            if length > _FRAME_BYTES:
                self._fail(f"a frame of {length} bytes")
                return
            end = start + _FRAME_HEAD + length
            if end > size:
                break
            self._take(data[start:end])
            start = end
        self._held = data[start:]

    def _take(self, frame: bytes) -> None:
        if frame[3] == _GOAWAY:
            self._goaway(frame[_FRAME_HEAD:])
            return
        try:
            events = self._h2.receive_data(frame)
        except ProtocolError as exc:
            self._fail(str(exc) or type(exc).__name__)
            return
        if self._current is not None:
            for event in events:
                self._current.note(event)

    def _goaway(self, payload: bytes) -> None:
        self.closing = True
        if len(payload) < 8:
            self._fail("a GOAWAY that is too short")
        elif self._current is not None:
            self._current.note_goaway(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF, int.from_bytes(payload[4:8], "big"))

    def _fail(self, what: str) -> None:
        self.closing = True
        self._held = b""
        if self._current is not None:
            self._current.fail(
                UpstreamProtocolError(f"the upstream does not speak HTTP/2 as it is agreed on: {' '.join(what.split())[:200]}")
            )


class Http2Response:
    """One response, from its first frame to its last, and the request that it answers. Made by `Http2Session.ask()`.

    The same surface as http1.ResponseParser, for those who read a body.
    """

    __slots__ = (
        "_barren",
        "_body",
        "_farewell",
        "_h2",
        "_pieces",
        "_session",
        "_stream",
        "_unconfirmed",
        "complete",
        "failure",
        "head_complete",
        "headers",
        "said",
        "started",
        "status",
    )

    def __init__(self, session: Http2Session, h2: H2Connection, stream: int, body: bytes) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self.started = False  # the server has said something to this request
        self.head_complete = False
        self.complete = False  # the body's end has come; what is left of it is in take()
        self.failure: UpstreamError | None = None  # why the rest will not come; read what take() has first
        self.said = not body  # the whole request is in what outgoing() gave
        self._session = session
        self._h2 = h2
        self._stream = stream
        self._body = memoryview(body)
        self._pieces: list[bytes] = []
        self._unconfirmed = 0  # bytes of the window that nobody has taken yet
        self._barren = 0  # bytes since the last one of the body
        self._farewell = ""

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
        return self.complete and not self._session.closing

    def outgoing(self) -> bytes:
        """What is to be sent now: of the request as much as the server takes, at most PIECE of its body, and what else is due."""
        left = PIECE
        while not self.said and not self.over and left:
            room = min(self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size, left)
            if room <= 0:
                break
            piece, self._body = bytes(self._body[:room]), self._body[room:]
            self.said = not self._body
            self._h2.send_data(self._stream, piece, end_stream=self.said)
            left -= len(piece)
        return self.due()

    def due(self) -> bytes:
        """What is due to the server beside the request: confirmations, room in the window."""
        return self._h2.data_to_send()

    def feed(self, data: bytes) -> None:
        """Take what a read brought; b"" is the peer's end. Of no effect once the response is over."""
        if self.over:
            return
        self._barren += len(data)
        self._session.feed(data)
        if self._barren > HEAD_BYTES:
            self.fail(UpstreamProtocolError(f"{HEAD_BYTES} bytes of HTTP/2 came, and nothing of a body was among them"))

    def take(self) -> bytes:
        """The body that has come since the last call, b"" if none."""
        if not self._pieces:
            return b""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._confirm()
        return data

    def close(self) -> None:
        """Nobody feeds it any more. What was not taken must not count against the window of the next one on the connection."""
        self._confirm()

    def _confirm(self) -> None:
        """Make room in the window. No sooner than bytes are taken, so that it bounds what is held of a server faster than its reader."""
        if self._unconfirmed and self.failure is None:
            self._h2.acknowledge_received_data(self._unconfirmed, self._stream)
        self._unconfirmed = 0

    # ---- the session tells ------------------------------------------------------------------------------------------------

    def note(self, event: Event) -> None:
        if self.over or getattr(event, "stream_id", None) != self._stream:
            return
        match event:
            case DataReceived():
                self.started = True
                self._unconfirmed += event.flow_controlled_length
                if event.data:
                    self._barren = 0
                    self._pieces.append(event.data)
            case ResponseReceived():
                self.started = True
                self._head(event.headers)
            case StreamEnded():
                self.complete = True
            case StreamReset():
                self._reset(event.error_code)
            case InformationalResponseReceived() | TrailersReceived():
                self.started = True  # neither says anything that is needed
            case _:
                pass  # of windows and priorities, which h2 keeps

    def note_goaway(self, last: int, code: int) -> None:
        if self._stream > last:
            self.fail(UpstreamDisconnected(f"the upstream closes the connection and did not take the request ({_name(code)})"))
        elif code:
            self._farewell = f" ({_name(code)})"

    def cut(self) -> None:
        """The peer closed its side."""
        if not self.started:
            what = "without an answer"
        elif not self.head_complete:
            what = "inside the response head"
        else:
            what = "before the end of the response"
        self.fail(UpstreamDisconnected(f"the upstream closed the connection {what}{self._farewell}"))

    def fail(self, failure: UpstreamError) -> None:
        if not self.over:
            self.failure = failure

    def _head(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        lines = [(bytes(name), bytes(value)) for name, value in headers]
        status = next((value for name, value in lines if name == b":status"), b"")
        if len(lines) > HEADER_LINES:
            self.fail(UpstreamProtocolError(f"the response head has more than {HEADER_LINES} lines"))
        elif not status.isdigit() or len(status) != 3:
            self.fail(UpstreamProtocolError("the response has no status"))
        else:
            self.status = int(status)
            self.headers = [(name, value) for name, value in lines if not name.startswith(b":")]
            self.head_complete = True

    def _reset(self, code: int) -> None:
        # A stream that was refused was not looked at (RFC 9113, 8.7): it can be tried again as if nothing had come of it.
        self.started = self.started or code != ErrorCodes.REFUSED_STREAM
        what = f"the upstream ended the stream with {_name(code)}"
        self.fail(UpstreamProtocolError(what) if code in _COMPLAINTS else UpstreamDisconnected(what))


def _name(code: int) -> str:
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
