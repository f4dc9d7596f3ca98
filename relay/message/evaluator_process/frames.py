"""What goes through a pipe, in either direction: four bytes of length, then so many bytes."""

from __future__ import annotations

from typing import IO

__all__ = ["read_frame", "write_frame"]

_LENGTH = 4


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Write one frame, and wait until the pipe has all of it. Raises OSError where nobody reads any more."""
    stream.write(len(content).to_bytes(_LENGTH, "big"))
    stream.write(content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Wait for one frame and return it; None at the end of the stream, also where that is within a frame."""
    head = stream.read(_LENGTH)
    size = int.from_bytes(head, "big")
    content = stream.read(size)
    return content if len(head) == _LENGTH and len(content) == size else None
