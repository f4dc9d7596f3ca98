"""Give memory that was freed back to the operating system: glibc keeps it otherwise, when thousands of objects go."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["give_back"]


def give_back() -> None:
    """Give back what is free; it takes some milliseconds. Where the C library has no malloc_trim, nothing happens."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
