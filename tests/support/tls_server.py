"""A server that speaks TLS as OpenSSL does, alerts included, and remembers what it heard."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread

import pytest
import trustme


@dataclass
class Heard:
    """What a server heard in clear: the bytes of each connection once TLS was off them."""

    port: int = 0
    connections: int = 0
    data: bytes = b""
    open: list[socket.socket] = field(default_factory=list)


@contextmanager
def listening(context: ssl.SSLContext | None = None, answer: bytes = b"") -> Iterator[Heard]:
    """A server that keeps what it hears, and answers every piece with `answer`.

    In threads, with blocking sockets: asyncio's TLS server closes without the alert that tells the client why.
    """
    heard = Heard()

    def serve(sock: socket.socket) -> None:
        stream = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) if context else sock
        heard.open.append(stream)
        with suppress(OSError), stream:
            if isinstance(stream, ssl.SSLSocket):
                stream.do_handshake()
            while data := stream.recv(65536):
                heard.data += data
                stream.sendall(answer)

    def accept(server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, _ = server.accept()
                heard.connections += 1
                threads.append(Thread(target=serve, args=[sock]))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        heard.port = server.getsockname()[1]
        threads = [Thread(target=accept, args=[server])]
        threads[0].start()
        try:
            yield heard
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for sock in heard.open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(10)


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return a context that shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def old_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """Return a context that offers TLS 1.1 only."""
    context = server_context(certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def demanding_context(certificate: trustme.LeafCert, authority: trustme.CA) -> ssl.SSLContext:
    """Return a context that wants a client certificate of this authority."""
    context = server_context(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    return context
