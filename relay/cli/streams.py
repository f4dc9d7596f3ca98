"""Standard output and standard error that take every character, whatever the locale's encoding is.

Standard error also waits for its reader for a few seconds only.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from encodings import ascii as ascii_codec
from typing import Any

__all__ = ["accept_every_character", "bound_stderr"]

READER_SECONDS = 2.0  # for a reader that takes nothing; what comes after that is discarded

_ERRORS = "outbox-relay-spelled-out"
# click takes an output in ASCII for a mistake and writes UTF-8 to it. Under another name it stays as the locale says.
_ASCII = "outbox-relay-ascii"
_SPELLINGS = {"…": "...", "→": "->", "–": "-", "—": "-", "’": "'", "“": '"', "”": '"'}


def accept_every_character() -> None:
    """Spell out what stdout and stderr cannot encode: `→` becomes `->`, other characters `\\u20ac`; nothing raises."""
    codecs.register_error(_ERRORS, _spell_out)
    codecs.register(_find_ascii)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is None:  # somebody put another stream there
            continue
        is_ascii = codecs.lookup(stream.encoding).name == "ascii"
        reconfigure(encoding=_ASCII if is_ascii else None, errors=_ERRORS)


def bound_stderr() -> None:
    """Let nothing that is told on stderr wait for ever: a pipe's reader or a terminal may stand still.

    stdout stays as it is: a reader such as a pager may take as long as it likes.
    """
    try:
        descriptor, encoding = sys.stderr.fileno(), sys.stderr.encoding
    except (OSError, ValueError):  # somebody put a stream in memory there
        return
    bounded = _BoundedWriter(descriptor)
    sys.stderr = io.TextIOWrapper(bounded, encoding, "backslashreplace", write_through=True)


class _BoundedWriter(io.RawIOBase):
    """Writes to an open file all of what it is given, or discards it once the reader has stood still for too long."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._writable = select.poll()
        self._writable.register(descriptor, select.POLLOUT)
        self._given_up = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        left = view
        while left and not self._given_up:
            self._given_up = not self._writable.poll(READER_SECONDS * 1000)
            if not self._given_up:
                left = left[self._write_some(left[: select.PIPE_BUF]) :]  # a ready pipe takes so much without waiting
        return len(view)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelling, error.object[error.start : error.end])), error.end


def _spelling(character: str) -> str:
    return _SPELLINGS.get(character) or character.encode("ascii", "backslashreplace").decode()


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name.replace("_", "-") != _ASCII:
        return None
    return codecs.CodecInfo(
        name=_ASCII,
        encode=codecs.ascii_encode,
        decode=codecs.ascii_decode,
        incrementalencoder=ascii_codec.IncrementalEncoder,
        incrementaldecoder=ascii_codec.IncrementalDecoder,
    )
