"""What a certificate says of itself, for people: read after the handshake, and no ground for trusting it."""

from __future__ import annotations

import ipaddress
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Certificate", "read_certificate"]

MAX_NAMES = 100
MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Certificate:
    """Subject and issuer (RFC 4514), the names and addresses it is for (at most 100), and from when to when.

    Texts are cut at 256 characters, and are the server's own words: escape them before a terminal sees them.
    """

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def is_for(self, host: str) -> bool:
        """Tell whether it names this host: a DNS name, its wildcard of one label (RFC 9525), or an address."""
        try:
            return str(ipaddress.ip_address(host)) in self.names
        except ValueError:
            parent = host.partition(".")[2]
            return any(name.lower() in (host.lower(), f"*.{parent}".lower()) for name in self.names)


def read_certificate(der: bytes | None) -> Certificate | None:
    """Return what a certificate in DER says; None where there is none, or it cannot be read."""
    from cryptography import x509

    unreadable = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a serial number of a forbidden form is no concern of ours
            found = x509.load_der_x509_certificate(der or b"")
            return Certificate(
                _cut(found.subject.rfc4514_string()),
                _cut(found.issuer.rfc4514_string()),
                tuple(_names(found)[:MAX_NAMES]),
                found.not_valid_before_utc,
                found.not_valid_after_utc,
            )
    except unreadable:
        return None


def _names(certificate: Any) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *(_cut(name) for name in names.get_values_for_type(x509.DNSName)),
        *(str(address) for address in names.get_values_for_type(x509.IPAddress)),
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
