"""How a subscription's requests prove who sends them, besides the signature: typed values whose repr is redacted.

Each is checked when it is made and again when a relay reads it. What is stored of them is JSON text, the same shape
that `relay subscriptions` reads from files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from outbox.errors import SubscriptionError
from outbox.secret import NeverPickled, hides_secrets
from outbox.subscriptions.url import parse_url

__all__ = [
    "TLS",
    "Authentication",
    "BasicAuth",
    "BearerToken",
    "OAuth2ClientCredentials",
    "authentication_of",
    "stored_authentication",
    "stored_document",
    "tls_of",
]

MAX_CHARACTERS = 4096
"""Of a user name, a password, a token, a client secret …"""

MAX_PEM_CHARACTERS = 65_536

_TOKEN = re.compile(r"[!-~]+")
_VISIBLE = re.compile(r"[ -~]+")
_NO_CONTROLS = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]*")
_PEM_BLOCK = re.compile(r"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\r?\n(?:[A-Za-z0-9+/=]+\r?\n)+-----END (?P=label)-----")
_KEY_LABELS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")


T = TypeVar("T")


def _hiding(kind: type[T]) -> type[T]:
    """Let no error of making one keep what it was made from."""
    kind.__init__ = hides_secrets(kind.__init__)  # type: ignore[method-assign]
    return kind


class _Redacted(NeverPickled):
    """A value whose repr tells its type only."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


@_hiding
@dataclass(frozen=True, repr=False)
class BasicAuth(_Redacted):
    """A user name and password for every request (RFC 7617, as UTF-8)."""

    username: str
    password: str

    def __post_init__(self) -> None:
        for name, value in (("username", self.username), ("password", self.password)):
            _check(f"authentication.{name}", value, _NO_CONTROLS, "text without control characters")
        if ":" in self.username:
            raise SubscriptionError("authentication.username: may not hold a colon, which ends it on the wire")
        if not self.username and not self.password:
            raise SubscriptionError("authentication.username: give a user name, a password, or both")

    @property
    def hint(self) -> str:
        """Return what may be shown."""
        return "basic"


@_hiding
@dataclass(frozen=True, repr=False)
class BearerToken(_Redacted):
    """A fixed token for every request, sent as `Authorization: Bearer …` (RFC 6750)."""

    token: str

    def __post_init__(self) -> None:
        _check("authentication.token", self.token, _TOKEN, "visible ASCII without spaces")

    @property
    def hint(self) -> str:
        """Return what may be shown."""
        return "bearer"


@_hiding
@dataclass(frozen=True, repr=False)
class OAuth2ClientCredentials(_Redacted):
    """A bearer token that the relay fetches with its client id and secret (RFC 6749, 4.4) and keeps while it is valid.

    Args:
        token_url: where tokens are issued, https://…; the relay's address policy holds for it.
        client_id: visible ASCII.
        client_secret: visible ASCII.
        scope: sent when given, names separated by one space.
        audience: sent when given, for servers that ask for it.
        client_authentication: 'basic' puts id and secret into the Authorization header, 'body' into the form.
    """

    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    audience: str = ""
    client_authentication: Literal["basic", "body"] = "basic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "token_url", _token_url(self.token_url).text)
        for name in ("client_id", "client_secret"):
            _check(f"authentication.{name}", getattr(self, name), _VISIBLE, "visible ASCII")
        for name in ("scope", "audience"):
            if getattr(self, name) != "":
                _check(f"authentication.{name}", getattr(self, name), _VISIBLE, "visible ASCII")
        if self.client_authentication not in ("basic", "body"):
            raise SubscriptionError("authentication.client_authentication: must be 'basic' or 'body'")

    @property
    def hint(self) -> str:
        """Return what may be shown: the server that issues the tokens."""
        url = parse_url(self.token_url)
        return f"oauth2 {url.scheme}://{url.authority}"


@_hiding
@dataclass(frozen=True, repr=False)
class TLS(_Redacted):
    """A client certificate with its key, an own certificate authority, or both; PEM text.

    The certificate may be followed by its intermediates. `ca` takes the place of the public authorities.
    The receiver's certificate and name are always verified.
    """

    client_certificate: str = ""
    client_key: str = ""
    ca: str = ""

    def __post_init__(self) -> None:
        certificates = ("CERTIFICATE",)
        read = {
            "client_certificate": _pem_blocks("tls.client_certificate", self.client_certificate, certificates),
            "client_key": _pem_blocks("tls.client_key", self.client_key, _KEY_LABELS, most=1),
            "ca": _pem_blocks("tls.ca", self.ca, certificates),
        }
        for name, blocks in read.items():
            object.__setattr__(self, name, blocks)
        if bool(self.client_certificate) != bool(self.client_key):
            missing = "client_key" if self.client_certificate else "client_certificate"
            raise SubscriptionError(f"tls.{missing}: a client certificate and its key are given together")
        if not self.client_certificate and not self.ca:
            raise SubscriptionError("tls: give a client certificate with its key, an own authority (ca), or both")


Authentication = BasicAuth | BearerToken | OAuth2ClientCredentials

_TYPES: dict[str, type[Authentication]] = {
    "basic": BasicAuth,
    "bearer": BearerToken,
    "oauth2": OAuth2ClientCredentials,
}


@hides_secrets
def authentication_of(document: object) -> Authentication:
    """Read `{"type": "basic" | "bearer" | "oauth2", …}` with the fields of that type. Raises SubscriptionError."""
    fields = dict(document) if isinstance(document, Mapping) else {}
    kind = _TYPES.get(str(fields.pop("type", None)))
    if kind is None:
        raise SubscriptionError("authentication: must be an object whose type is basic, bearer or oauth2")
    made: Authentication = _make(kind, "authentication", fields)
    return made


@hides_secrets
def tls_of(document: object) -> TLS:
    """Read `{"client_certificate", "client_key", "ca"}`. Raises SubscriptionError."""
    made: TLS = _make(TLS, "tls", dict(document) if isinstance(document, Mapping) else {"": ""})
    return made


def stored_authentication(value: Authentication) -> str:
    """Return the JSON text that `authentication_of` reads."""
    kind = next(name for name, type_ in _TYPES.items() if isinstance(value, type_))
    return json.dumps({"type": kind, **asdict(value)})


def stored_document(kind: str, text: str) -> Any:
    """Return what a stored JSON text holds. Raises SubscriptionError for what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SubscriptionError(f"{kind}: what is stored cannot be read; set it anew") from None


def _make(kind: Any, name: str, fields: dict[str, object]) -> Any:
    known = kind.__dataclass_fields__
    unknown = next((field for field in fields if field not in known), None)
    if unknown is not None:
        raise SubscriptionError(f"{name}: there is no field {ascii(unknown)[:40]} in it; {', '.join(known)} there are")
    try:
        return kind(**fields)
    except TypeError:  # its own text could quote a value, so ours names the missing fields
        missing = ", ".join(field for field in known if field not in fields)
        raise SubscriptionError(f"{name}: not complete; of {missing}, give those without a default") from None


def _check(name: str, value: object, shape: re.Pattern[str], meaning: str) -> None:
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise SubscriptionError(f"{name}: must be {meaning}")
    if len(value) > MAX_CHARACTERS:
        raise SubscriptionError(f"{name}: {len(value)} characters, the limit is {MAX_CHARACTERS}")


def _token_url(text: object) -> Any:
    try:
        return parse_url(text)
    except SubscriptionError as error:
        raise SubscriptionError(f"authentication.token_{error}") from None


def _pem_blocks(name: str, value: object, labels: tuple[str, ...], most: int = 50) -> str:
    """Return the blocks with these labels, without what else the file holds: comments, the other half of a pair."""
    if not isinstance(value, str) or not value.isascii():
        raise SubscriptionError(f"{name}: must be PEM text")
    if len(value) > MAX_PEM_CHARACTERS:
        raise SubscriptionError(f"{name}: {len(value)} characters, the limit is {MAX_PEM_CHARACTERS}")
    if name == "tls.client_key" and "ENCRYPTED" in value:
        raise SubscriptionError(f"{name}: is locked by a passphrase; give it without one")
    blocks = [block[0] for block in _PEM_BLOCK.finditer(value) if block["label"] in labels]
    begun = sum(value.count(f"-----BEGIN {label}-----") for label in labels)
    if value and not 1 <= begun == len(blocks) <= most:
        how_many = "one whole block" if most == 1 else f"1 to {most} whole blocks"
        raise SubscriptionError(f"{name}: must hold {how_many} -----BEGIN {labels[0]}-----")
    return "\n".join(blocks)
