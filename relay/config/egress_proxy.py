"""The address of an egress proxy: as operators write it, parsed, and redacted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from outbox.errors import SubscriptionError
from outbox.secret import Secret
from outbox.subscriptions.url import bracketed, parse_url

__all__ = ["EgressProxy", "parse_egress_proxy"]

_SHAPE = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]*)://(?:(?P<user>.*)@)?(?P<place>[^/?#@]*)(?P<rest>.*)")
_PORT = re.compile(r".*:[0-9]+")
_USER = re.compile(r"(?!:)(?:[A-Za-z0-9\-._~!$&'()*+,;=:]|%[0-9A-Fa-f]{2})+")
_SCHEMES = {"http": "http", "https": "https", "socks5": "socks5", "socks5h": "socks5"}
_EXAMPLE = "write http://user:password@proxy.example.com:3128, or https:// or socks5://"


@dataclass(frozen=True, slots=True)
class EgressProxy:
    """Where the proxy listens and how to log in: scheme 'http', 'https' or 'socks5', host without brackets.

    user is None without a login; user and password are sent as UTF-8.
    """

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: Secret = field(default_factory=lambda: Secret(""))

    @property
    def place(self) -> str:
        """Host and port, as in a URL."""
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def redacted(self) -> str:
        """The URL with user and password redacted: either may be the secret."""
        return f"{self.scheme}://{'' if self.user is None else '***@'}{self.place}"

    def __repr__(self) -> str:
        return f"EgressProxy({self.redacted})"


def parse_egress_proxy(text: str) -> EgressProxy:
    """Parse a proxy's URL. Raises ValueError; its message repeats nothing of user and password."""
    shape = _SHAPE.fullmatch(text)
    scheme = _SCHEMES.get(shape["scheme"].lower()) if shape else None
    if shape is None or scheme is None:
        raise ValueError(f"its scheme must be http, https or socks5; {_EXAMPLE}")
    if shape["rest"] not in ("", "/"):
        raise ValueError(f"nothing may follow host and port; {_EXAMPLE}")
    if not _PORT.fullmatch(shape["place"]):
        raise ValueError(f"must end with the proxy's port, such as :3128; {_EXAMPLE}")
    try:
        url = parse_url(f"http://{shape['place']}/")
    except SubscriptionError as error:
        raise ValueError(str(error).removeprefix("url: ")) from None
    return EgressProxy(scheme, url.host, url.port, *_login(shape["user"]))


def _login(written: str | None) -> tuple[()] | tuple[str, Secret]:
    if written is None:
        return ()
    if not _USER.fullmatch(written):
        raise ValueError("user and password may hold letters, digits and -._~!$&'()*+,;= only; percent-encode the rest")
    try:
        user, password = (unquote_to_bytes(part).decode() for part in written.partition(":")[::2])
    except UnicodeDecodeError:
        raise ValueError("user and password, percent-decoded, must be UTF-8 text") from None
    if ":" in user or not (user + password).isprintable():
        raise ValueError("the user may not hold a colon, nor user or password a control character")
    if max(len(user.encode()), len(password.encode())) > 255:
        raise ValueError("user and password may be at most 255 bytes long")  # RFC 1929 has one byte for the length
    return user, Secret(password)
