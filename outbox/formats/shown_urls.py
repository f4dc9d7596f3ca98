"""URLs that are credentials, as they may be shown: whoever knows one of these can post there.

They are known by their host, or by the subscription's format where the host can be any.
"""

from __future__ import annotations

import re
from functools import lru_cache

from outbox.formats.declared import FORMATS

__all__ = ["HIDDEN", "shown_url"]

HIDDEN = "***"
"""Stands for what is not shown of a URL."""

_URL = re.compile(r"(?P<origin>[^:/?]*://(?P<host>[^:/?]*)[^/?]*)(?P<path>/[^?]*)?(?P<query>\?.*)?", re.DOTALL)

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


@lru_cache(maxsize=1024)
def shown_url(url: str, form: str = "standard") -> str:
    """Return the URL as it may be shown, with *** for what is a credential in it."""
    parts = _URL.fullmatch(url)
    known = parts and next((path for host, path in _SHOWN_PATHS if host.fullmatch(parts["host"].lower())), None)
    if parts is None or (known is None and not (form in FORMATS and FORMATS[form].hides_url)):
        return url
    path, query = parts["path"] or "", parts["query"] or ""
    shown = (known or _FIRST_SEGMENT).match(path)
    kept = shown[0] if shown else "/"
    rest = HIDDEN if len(path) > len(kept) else ""
    return f"{parts['origin']}{kept}{rest}{'?' + HIDDEN if query else ''}"
