"""TLS on top of any transport, as a transport itself: with an https proxy, with the endpoint behind one, or both.

The loops' own start_tls is not used, because asyncio's of Python 3.11 breaks where a handshake inside TLS fails, and
because only a layer of our own can tell whether it holds a byte that it has not passed on.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TLSLayer", "start_tls"]

PIECE_BYTES = 262_144
"""How much is encrypted before it is passed down."""

HEADER_BYTES, RECORD_BYTES = 5, 16_384
"""Of a record: its header, and the most that it holds (RFC 8446, 5.1)."""


async def start_tls(
    below: asyncio.Transport, protocol: asyncio.Protocol, name: str, context: ssl.SSLContext, deadline: float
) -> TLSLayer:
    """Shake hands with a server of this name or address, then give the protocol the connection inside TLS.

    `deadline` is `loop.time()`. Raises OSError (ssl.SSLError is one); then `below` is to be closed.
    """
    layer = TLSLayer(below, protocol, name, context)
    below.set_protocol(layer)
    try:
        async with asyncio.timeout_at(deadline):
            await layer.shake_hands()
    except TimeoutError:
        raise ConnectionAbortedError("the handshake did not finish in time") from None
    return layer


class Records:
    """Follows where TLS records end (RFC 8446, 5.1). OpenSSL keeps half a record to itself and tells nobody."""

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def follow(self, data: bytes) -> None:
        """Take what was received next."""
        at = 0
        while at < len(data):
            if self._left:
                taken = min(self._left, len(data) - at)
                self._left -= taken
            else:
                taken = min(HEADER_BYTES - len(self._header), len(data) - at)
                self._header += data[at : at + taken]
                if len(self._header) == HEADER_BYTES:
                    self._left, self._header = int.from_bytes(self._header[3:], "big"), b""
            at += taken

    def are_whole(self) -> bool:
        """Tell whether the last record has come to its end."""
        return not self._left and not self._header


class TLSLayer(asyncio.Protocol, asyncio.Transport):
    """Protocol to what is below it, transport to what is above; `connection_made` comes when hands are shaken."""

    def __init__(self, below: asyncio.Transport, above: asyncio.BaseProtocol, name: str, context: ssl.SSLContext):
        super().__init__()
        self._below, self._above = below, above
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._records = Records()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_made = self._is_closed = False
        self._error: Exception | None = None

    async def shake_hands(self) -> None:
        """Begin the handshake, and wait for its end."""
        self._advance()
        await self._shaken

    # What is above calls these.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and pass down; nothing is kept here."""
        if self._is_closed:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest[:PIECE_BYTES]) :]
                self._pass_down()
        except ssl.SSLError as error:
            self._fail(error)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write the pieces as one."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Return how many bytes no kernel has yet."""
        return self._below.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what asyncio's transports tell, and 'unread': whether part of a record waits for the rest."""
        if name == "unread":
            return not self._records.are_whole() or bool(self._below.get_extra_info(name, default))
        return self._tls if name == "ssl_object" else self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass on to another protocol from now on."""
        self._above = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return what is above."""
        return self._above

    def is_closing(self) -> bool:
        """Tell whether it is closed, or about to be."""
        return self._is_closed or self._below.is_closing()

    def close(self) -> None:
        """Close at once: nothing is kept that would have to be written."""
        self.abort()

    def abort(self) -> None:
        """Close at once, without a word to the other side."""
        self._is_closed = True
        self._below.abort()

    # What is below calls these.

    def data_received(self, data: bytes) -> None:
        """Decrypt, and pass up all that is whole."""
        if self._is_closed:
            return
        self._records.follow(data)
        self._incoming.write(data)
        self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell what is above, or whoever waits for the handshake."""
        self._is_closed = True
        if self._is_made:
            self._above.connection_lost(self._error or error)
        elif not self._shaken.done():
            self._shaken.set_exception(error or ConnectionResetError("closed during the handshake"))

    def _advance(self) -> None:
        try:
            if not self._is_made:
                self._tls.do_handshake()
                self._is_made = True
                self._above.connection_made(self)
                if not self._shaken.done():
                    self._shaken.set_result(None)
            self._pass_up()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._pass_down()  # the alert that says why
            self._fail(error)
        self._pass_down()

    def _pass_up(self) -> None:
        """Pass on what can be decrypted; ends with SSLWantReadError, or with the other side's goodbye."""
        while not self._is_closed:
            data = self._tls.read(RECORD_BYTES)
            if not data:
                self.abort()
            elif isinstance(self._above, asyncio.Protocol):
                self._above.data_received(data)

    def _pass_down(self) -> None:
        if self._outgoing.pending and not self._is_closed:
            self._below.write(self._outgoing.read())

    def _fail(self, error: ssl.SSLError) -> None:
        self._error = error
        if not self._shaken.done():
            self._shaken.set_exception(error)
        self.abort()
