"""A subscription's own side of TLS: the certificate it shows, the authority it trusts.

Verification is never less than without it: names are checked, TLS begins at 1.2, and an own authority takes the place
of the machine's store instead of joining it.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import ssl
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outbox.errors import SubscriptionError
from relay.http.response import ONLY_HTTP2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outbox.subscriptions.authentication import TLS

__all__ = [
    "ClientTLS",
    "default_ssl_context",
    "has_authorities",
    "reason_of_tls",
    "refuses_http1",
    "unverifying_context",
]

MAX_CONTEXTS = 64
"""Contexts with the machine's store, each of which takes 0.8 MB and 16 ms; beyond it they are made anew when needed."""


def default_ssl_context(ca: str = "") -> ssl.SSLContext:
    """Return a client context that verifies certificates and names, from TLS 1.2 on.

    `ca` (PEM) takes the place of the machine's store. What is given there is trusted as it is: an intermediate alone is
    enough. The same on every Python: 3.13 would refuse authorities that keep not every rule of RFC 5280, as many a
    private one does.
    """
    context = ssl.create_default_context(cadata=ca or None)  # with cadata it leaves the machine's store out
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def unverifying_context() -> ssl.SSLContext:
    """Return a context to look through; whoever uses it sends nothing and believes nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def reason_of_tls(error: ssl.SSLError) -> str:
    """Return why a handshake or a connection failed, in the words of OpenSSL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if refuses_http1(error):
        return ONLY_HTTP2
    return (error.reason or "handshake failed").replace("_", " ").lower()


def refuses_http1(error: ssl.SSLError) -> bool:
    """Tell whether the server ended the handshake because it was offered HTTP/1.1 and nothing else (ALPN, RFC 7301)."""
    return "no application protocol" in str(error).lower().replace("_", " ")  # Python 3.11 has no reason for it


def has_authorities() -> bool:
    """Tell whether this machine has any certificate authority to verify receivers by."""
    found = ssl.get_default_verify_paths()
    return bool(found.cafile or (found.capath and any(os.scandir(found.capath))))


@dataclass(frozen=True, slots=True)
class ClientTLS:
    """What the connections of one subscription show and trust.

    `digest` tells it from every other one, so that connections are shared only where both are the same.
    """

    digest: bytes
    _own: TLS
    _context: ssl.SSLContext | None  # known from the start where there is an own authority

    @classmethod
    def of(cls, own: TLS) -> ClientTLS:
        """Try the certificates out. Raises SubscriptionError when OpenSSL cannot use them."""
        texts = (own.client_certificate, own.client_key, own.ca)
        digest = hashlib.sha256("\0".join(texts).encode()).digest()
        try:
            if own.ca:
                return cls(digest, own, _context_of(own))
            _show_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), own)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or type(error).__name__
            raise SubscriptionError(f"tls: OpenSSL refuses it: {reason.replace('_', ' ').lower()}") from None
        return cls(digest, own, None)

    async def context(self) -> ssl.SSLContext:
        """Return the context to connect with; reading the machine's store happens in a thread."""
        if self._context is not None:
            return self._context
        return await asyncio.to_thread(_with_machines_store, self._own)


@functools.lru_cache(maxsize=MAX_CONTEXTS)
def _with_machines_store(own: TLS) -> ssl.SSLContext:
    return _context_of(own)


def _context_of(own: TLS) -> ssl.SSLContext:
    context = default_ssl_context(own.ca)
    _show_certificate(context, own)
    return context


def _show_certificate(context: ssl.SSLContext, own: TLS) -> None:
    if own.client_certificate:
        with _file_of(f"{own.client_certificate}\n{own.client_key}\n") as path:
            context.load_cert_chain(path, password="")  # without a word OpenSSL would ask the terminal for one


@contextmanager
def _file_of(pem: str) -> Iterator[str]:
    """Give a private key the path that OpenSSL asks for: to memory where there is such a thing, else to a 0600 file."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("outbox-relay", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(pem)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
    else:
        with tempfile.NamedTemporaryFile("w", encoding="ascii") as file:
            file.write(pem)
            file.flush()
            yield file.name
