"""URLs as they may be shown: many are credentials, whoever knows them can post there, or hold one.

Some are known by their host, or by the subscription's format where the host can be any. Of every other URL what looks
like a credential is redacted: a user and password, the value of `token=` and the like, a part of the path or a value
that looks made by a machine. A short word that is secret all the same cannot be told from any other. The column
shown_url is made by the same rule in SQL (outbox.shown_url, 0025_file.sql; outbox.looks_secret, 0031_long_words.sql).
"""

from __future__ import annotations

import re
from functools import lru_cache

from outbox.formats.declared import FORMATS

__all__ = ["REDACTED", "shown_url"]

REDACTED = "***"
"""Stands for what is redacted of a URL."""

_URL = re.compile(
    r"(?P<scheme>[^:/?#]*://)(?P<user>[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^:/?#]*)(?P<port>[^/?#]*)"
    r"(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?(?P<fragment>#.*)?",
    re.DOTALL,
)

# What may be shown of the path, by host; of a query nothing is.
_SHOWN_PATHS = tuple(
    (re.compile(host), re.compile(path))
    for host, path in (
        (r"hooks\.slack(-gov)?\.com", r"/[a-z]+/"),
        (r"([a-z]+\.)?discord(app)?\.com", r"/api/(v[0-9]+/)?webhooks/[0-9]+/"),
        (r"([a-z0-9.-]+\.)?webhook\.office\.com|outlook\.office(365)?\.com", r"/[a-z0-9]+/"),
        (r"[a-z0-9.-]+\.logic\.azure\.(com|us)|[a-z0-9.-]+\.powerplatform\.com", r"/[^?]*"),
        (r"hooks\.zapier\.com", r"/hooks/[a-z]+/"),
        (r"chat\.googleapis\.com", r"/[^?]*"),
    )
)
_FIRST_SEGMENT = re.compile(r"/[^/?]+/")

_SECRET_NAME = re.compile(r"auth|code|cred|hmac|jwt|key|pass|pwd|secret|session|sig|token", re.IGNORECASE)
_SECRET_WORD = re.compile(r"(api[-_]?|access[-_]?)?(key|token|secret|auth|password)s?", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_MIXED = (re.compile("[0-9].*[0-9].*[0-9]"), re.compile("[A-Z]"), re.compile("[a-z]"))


@lru_cache(maxsize=1024)
def shown_url(url: str, form: str = "standard") -> str:
    """Return the URL as it may be shown, with *** for what is a credential in it."""
    parts = _URL.fullmatch(url)
    if parts is None:
        return url
    origin = f"{parts['scheme']}{REDACTED + '@' if parts['user'] else ''}{parts['host']}{parts['port']}"
    path, query = parts["path"] or "", parts["query"] or ""
    fragment = f"#{REDACTED}" if parts["fragment"] else ""
    known = next((path for host, path in _SHOWN_PATHS if host.fullmatch(parts["host"].lower())), None)
    if known is None and not (form in FORMATS and FORMATS[form].hides_url):
        return f"{origin}{_shown_path(path)}{_shown_query(query)}{fragment}"
    shown = (known or _FIRST_SEGMENT).match(path)
    kept = shown[0] if shown else "/"
    rest = REDACTED if len(path) > len(kept) else ""
    return f"{origin}{kept}{rest}{'?' + REDACTED if query else ''}{fragment}"


def _shown_path(path: str) -> str:
    """Hide the segments that look like a credential, and one that follows a segment such as `token`."""
    segments = path.split("/")
    after = ["", *segments]
    return "/".join(
        REDACTED if segment and (_looks_secret(segment) or _SECRET_WORD.fullmatch(before)) else segment
        for before, segment in zip(after, segments, strict=False)
    )


def _shown_query(query: str) -> str:
    pairs = re.split("([&;])", query[1:])
    return query[:1] + "".join(_shown_pair(pair) for pair in pairs)


def _shown_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return REDACTED if _looks_secret(name) else name
    return f"{name}={REDACTED}" if value and (_SECRET_NAME.search(name) or _looks_secret(value)) else pair


def _looks_secret(text: str) -> bool:
    """Tell whether it looks made by a machine: long, with letters and digits in no order that a person would choose."""
    if _UUID.search(text):
        return True
    runs = _RUN.findall(text)
    if any(re.search("[0-9]", run) and re.search("[A-Za-z]", run) for run in runs):
        return True
    return len(text) >= 20 and all(one.search(text) for one in _MIXED)
