"""Check a subscription's certificates and key, once, when they are given. Needs the cryptography package."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from outbox.errors import SubscriptionError
from outbox.subscriptions.authentication import TLS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["check_tls"]

MIN_RSA_BITS = 2048
"""OpenSSL loads no smaller key at the security level that it starts with."""

_FOR_TLS = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)


def check_tls(own: TLS, now: datetime | None = None) -> str:
    """Return what may be shown: `client certificate CN=…, until 2027-01-31; own CA`.

    Raises SubscriptionError when the key is not the certificate's, is of no use for TLS, or a date has passed.
    """
    now = now or datetime.now(UTC)
    hints = []
    if own.client_certificate:
        leaf, *_ = _certificates("tls.client_certificate", own.client_certificate)
        _check_key(own.client_key, leaf)
        _check_dates(leaf, now)
        hints.append(f"client certificate {_name(leaf)}, until {leaf.not_valid_after_utc:%Y-%m-%d}")
    if own.ca:
        authorities = _certificates("tls.ca", own.ca)
        if all(authority.not_valid_after_utc <= now for authority in authorities):
            raise SubscriptionError("tls.ca: no certificate in it is valid any more; give a current one")
        hints.append("own CA")
    return "; ".join(hints)


def _certificates(name: str, pem: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text; raise SubscriptionError where one cannot be read as a whole."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a serial number of a forbidden form is no concern of ours
            found = x509.load_pem_x509_certificates(pem.encode())
        for certificate in found:  # a name and a date are parsed only when they are asked for
            _name(certificate)
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    except (ValueError, TypeError, x509.InvalidVersion):
        raise SubscriptionError(f"{name}: holds a block that is no certificate; give PEM as it was issued") from None
    return found


def _check_key(pem: str, leaf: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
        is_its_key = _public(key) == leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SubscriptionError("tls.client_key: is no private key that can be read; give PEM, unencrypted") from None
    if not isinstance(key, _FOR_TLS):
        raise SubscriptionError("tls.client_key: is of no kind that TLS uses; give an RSA, EC or Ed25519 key")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise SubscriptionError(f"tls.client_key: {key.key_size} bits of RSA; at least {MIN_RSA_BITS} are needed")
    if not is_its_key:
        raise SubscriptionError(
            "tls.client_key: is not the key of the certificate; the certificate it belongs to comes first"
        )


def _public(key: PrivateKeyTypes) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_dates(leaf: x509.Certificate, now: datetime) -> None:
    if leaf.not_valid_after_utc <= now:
        raise SubscriptionError(f"tls.client_certificate: expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
    if leaf.not_valid_before_utc > now:
        raise SubscriptionError(
            f"tls.client_certificate: is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%MZ} on; give it then"
        )


def _name(leaf: x509.Certificate) -> str:
    common = [str(name.value) for name in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    text = f"CN={common[0]}" if common else leaf.subject.rfc4514_string() or "without a subject"
    return "".join(character if character.isprintable() else "?" for character in text)[:100]
