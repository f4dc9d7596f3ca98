"""Check that text can be stored; the longest texts that events and subscriptions have in common; values in errors."""

from __future__ import annotations

__all__ = ["MAX_TENANT_BYTES", "MAX_TYPE_BYTES", "brief", "complaint"]

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
