"""Check that text can be stored; the longest texts that events and subscriptions share; what errors say of values."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["MAX_TENANT_BYTES", "MAX_TYPE_BYTES", "brief", "complaint", "did_you_mean", "nearest", "qualified_kind"]

MAX_TYPE_BYTES = 128
MAX_TENANT_BYTES = 256


def complaint(name: str, value: object, max_bytes: int) -> str | None:
    """Return why `value` cannot be stored as the field `name`, or None when it is a str that can be."""
    if not isinstance(value, str):
        return f"{name}: must be a str, not {type(value).__qualname__}; convert it with str()"
    if "\0" in value:
        return f"{name}: has a NUL character, which PostgreSQL cannot hold; remove it"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return f"{name}: has a lone surrogate, which is not Unicode text; remove it"
    if size > max_bytes:
        return f"{name}: is {size} bytes, at most {max_bytes} are allowed"
    return None


def brief(value: object) -> str:
    """Return a value for an error text, in at most 41 printable characters; never what a container holds."""
    if type(value) is int and value.bit_length() > 128:  # Python writes no number of over 4,300 digits
        return f"a number of {value.bit_length()} bits"
    text = ascii(value) if type(value) in (str, int, float, bool, type(None)) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:40] + "…"


def qualified_kind(value: object) -> str:
    """Return what kind of thing a value is, with its module, for an error text: `psycopg.AsyncConnection`."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word that is most like this one; None where none is like it. `cutoff`: how like, 0 to 1."""
    from difflib import get_close_matches  # loaded for an error only

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the end of an error text: `; did you mean X?`, or `otherwise` after a semicolon, or nothing."""
    close = nearest(word, known)
    mend = otherwise if close is None else f"did you mean {close}?"
    return f"; {mend}" if mend else ""
