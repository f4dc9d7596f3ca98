"""The database's address: as people write it, as libpq and SQLAlchemy read it, and redacted.

It may begin with `postgres://`, `postgresql://` or `postgresql+driver://` and have everything that libpq knows (several
hosts, `?sslmode=…`, sockets by `?host=/run/postgresql`). No message here repeats any part of a password.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo
from sqlalchemy import URL

__all__ = ["LIBPQ_DEFAULTS", "RELAY_NAME", "conninfo_of", "normalised", "redacted", "sqlalchemy_url_of"]

# libpq parameters that the URL may override: a dead server is noticed within about half a minute.
LIBPQ_DEFAULTS: dict[str, str | int] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# The application_name of connections that deliver, whatever the URL says. `relay status` finds relays by it.
RELAY_NAME = "outbox-relay"

_SCHEME = re.compile(r"(postgres|postgresql)(\+[a-z0-9_]+)?://", re.IGNORECASE)
_SHAPE = "expected postgresql://user:password@host:5432/name, special characters in the password as %40 %3A %2F …"


def normalised(url: str) -> str:
    """Return the URL as libpq reads it. Raises ValueError; its message repeats no secret."""
    match = _SCHEME.match(url)
    if not match:
        scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]{0,30}(?=://)", url)
        raise ValueError(f"{scheme.group() + '://' if scheme else 'it'} is not a PostgreSQL URL; {_SHAPE}")
    libpq_url = "postgresql://" + url[match.end() :]
    _refuse_unknown_parameters(libpq_url)
    try:
        parts = conninfo_to_dict(libpq_url)
    except psycopg.Error:
        raise ValueError(f"libpq cannot read it; {_SHAPE}") from None
    ports = str(parts.get("port", "")).split(",")
    if not all(port.isdigit() and 0 < int(port) < 65536 for port in ports if port):
        raise ValueError(f"the port is not a number from 1 to 65535; {_SHAPE}")
    encoding = str(parts.get("client_encoding") or "UTF8")
    if encoding.upper().replace("-", "") not in ("UTF8", "UNICODE", "AUTO"):
        raise ValueError(f"client_encoding={encoding} cannot carry every event; remove it from the URL, UTF8 is used")
    if "@" in str(parts.get("host", "")):
        raise ValueError(f"the host has an @ in it; {_SHAPE}")
    return libpq_url


def _refuse_unknown_parameters(libpq_url: str) -> None:
    query = urlsplit(libpq_url.replace("[", "").replace("]", "")).query
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl"}  # libpq reads ssl=true in a URL
    unknown = [name for name, _ in parse_qsl(query, keep_blank_values=True) if name not in known]
    if unknown and "@" not in query:
        raise ValueError(f"libpq knows no parameter {unknown[0]!r}; remove or correct it")


def conninfo_of(url: str, **settings: str) -> str:
    """Return the conninfo of a connection that delivers: `settings` override the URL, and that the defaults.

    It leads to a primary only: of several hosts, and of several addresses of one host, to the one that takes writes.
    """
    parameters = _parameters(url, settings)
    if "target_session_attrs" not in parameters and "PGTARGETSESSIONATTRS" not in os.environ:
        parameters["target_session_attrs"] = "primary"  # not read-write: a database may be read-only by default
    return make_conninfo("", **parameters)


def sqlalchemy_url_of(url: str, **settings: str) -> URL:
    """Return the same address for SQLAlchemy on psycopg; `settings` as in `conninfo_of`.

    Of several hosts it leads to the one that takes writes. A single one may be a standby: what only reads may ask it.
    """
    parts = {name: str(value) for name, value in _parameters(url, settings).items()}
    user, password, name = (parts.pop(part, None) for part in ("user", "password", "dbname"))
    return URL.create("postgresql+psycopg", username=user, password=password, database=name, query=parts)


def _parameters(url: str, settings: dict[str, str]) -> dict[str, str | int | None]:
    given = conninfo_to_dict(url)
    hosts = str(given.get("host") or given.get("hostaddr") or os.environ.get("PGHOST", ""))
    several = "," in hosts and "PGTARGETSESSIONATTRS" not in os.environ
    attributes = {"target_session_attrs": "read-write"} if several else {}
    return {**LIBPQ_DEFAULTS, **attributes, **given, **settings, "client_encoding": "UTF8"}


def redacted(url: str) -> str:
    """Return the URL with every password redacted."""
    without_login = re.sub(r"(//[^@:]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&](?:\w*password))=[^&]*", r"\1=***", without_login)
