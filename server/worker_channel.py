"""What the supervisor and a worker say to each other, over a pair of connected sockets that nobody else can reach.

Owns the messages and how they travel. One of them carries the settings with every credential in them: that is why they go this way,
and neither through arguments nor through the environment, where other processes could read them.

A channel ends with the process at its other end, however that ends. So a worker knows when its supervisor is gone, and need not be
looked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

import msgspec
import trio

from actors import Secret

from .settings import Settings

if TYPE_CHECKING:
    import socket

#: Messages that may wait for a peer that reads none: it is blocked, and what is asked of it then finds no answer anyhow.
_WAITING: Final = 256
_READ: Final = 65_536
_LENGTH: Final = struct.Struct(">I")


class Begin(msgspec.Struct, frozen=True, tag=True):
    """The first message: serve under these settings."""

    settings: Settings


class Reload(msgspec.Struct, frozen=True, tag=True):
    """The configuration was read anew; it is good, or `refusal` says why it is not."""

    id: int
    settings: Settings | None
    refusal: str = ""
    warnings: tuple[str, ...] = ()


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End in order."""

    signal: str


class Abort(msgspec.Struct, frozen=True, tag=True):
    """End at once."""


class Ask(msgspec.Struct, frozen=True, tag=True):
    """A request to the admin listener. Header names are in lower case."""

    id: int
    method: str
    path: str
    query: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Look(msgspec.Struct, frozen=True, tag=True):
    """Somebody watches: what came after this serial number?"""

    id: int
    after: int


class Serving(msgspec.Struct, frozen=True, tag=True):
    """It takes requests from now on."""

    base_url: str


class Reloaded(msgspec.Struct, frozen=True, tag=True):
    """What became of the `Reload` of the same id."""

    id: int
    accepted: bool


class Answer(msgspec.Struct, frozen=True, tag=True):
    """The answer to the `Ask` of the same id."""

    id: int
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Seen(msgspec.Struct, frozen=True, tag=True):
    """What the `Look` of the same id asked for: a Snapshot as JSON, which the supervisor reads where it can do no harm."""

    id: int
    snapshot: bytes


ToWorker: TypeAlias = Begin | Reload | Stop | Abort | Ask | Look
ToSupervisor: TypeAlias = Serving | Reloaded | Answer | Seen

Outgoing = TypeVar("Outgoing", ToWorker, ToSupervisor)
Incoming = TypeVar("Incoming", ToWorker, ToSupervisor)


class WorkerChannel(Generic[Outgoing, Incoming]):
    """One end of it.

    Args:
      sock: connected; owned from now on.
      incoming: what comes from the other end, ToWorker or ToSupervisor.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._outbox_in, self._outbox_out = trio.open_memory_channel[bytes](_WAITING)
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_reveal)
        self._decoder = msgspec.msgpack.Decoder(incoming, dec_hook=_conceal)
        self._came = bytearray()

    def tell(self, message: Outgoing) -> bool:
        """Send a message, without waiting for anything.

        Returns:
          False if it will not arrive: the other end is gone, or blocked for so long that its messages pile up.
        """
        data = self._encoder.encode(message)
        try:
            self._outbox_in.send_nowait(_LENGTH.pack(len(data)) + data)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        return True

    async def send_all(self) -> None:
        """Send what is told, until the other end is gone. One task runs this, as long as the channel is open."""
        with self._outbox_out:
            try:
                async for data in self._outbox_out:
                    await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def receive(self) -> Incoming:
        """The next message.

        Raises:
          trio.EndOfChannel: the other end is gone.
        """
        while (message := self._take()) is None:
            try:
                data = await self._stream.receive_some(_READ)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                raise trio.EndOfChannel
            self._came += data
        decoded: Incoming = self._decoder.decode(message)
        return decoded

    def close(self) -> None:
        """Without waiting for anything. Idempotent."""
        self._outbox_in.close()
        self._stream.socket.close()

    def _take(self) -> bytes | None:
        if len(self._came) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._came)[0]
        if len(self._came) < end:
            return None
        message = bytes(self._came[_LENGTH.size : end])
        del self._came[:end]
        return message


def _reveal(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(type(value))


def _conceal(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(wanted)
