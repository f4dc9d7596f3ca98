"""A name server for measurements, on a UDP port of loopback: `python -m benchmarks.name_server` prints its port.

Names that begin with `dead` get no answer at all, as from a server that is gone; every other one is 127.0.0.1. The
end of standard input ends it. `believe` makes the machine's own resolver of this process ask it: no rights, no files.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import threading

__all__ = ["believe"]

_HEADER = struct.Struct("!6H")
_ANSWERED = 0x8180  # a response, recursion desired and available, no error
_A, _IN, _TTL = 1, 1, 0


def reply(query: bytes) -> bytes | None:
    """Return the answer to one query, or None where there is to be none."""
    identity, _, questions, *_ = _HEADER.unpack_from(query)
    if questions != 1 or query[13:17] == b"dead":
        return None
    end = query.index(b"\0", _HEADER.size) + 5
    (kind,) = struct.unpack_from("!H", query, end - 4)
    answers = b""
    if kind == _A:
        answers = struct.pack("!HHHIH4s", 0xC000 | _HEADER.size, _A, _IN, _TTL, 4, bytes((127, 0, 0, 1)))
    return _HEADER.pack(identity, _ANSWERED, 1, 1 if answers else 0, 0, 0) + query[_HEADER.size : end] + answers


def serve(listening: socket.socket) -> None:
    """Answer for ever."""
    while True:
        query, sender = listening.recvfrom(4096)
        answer = reply(query)
        if answer is not None:
            listening.sendto(answer, sender)


class _ResolverState(ctypes.Structure):
    """The beginning of glibc's `struct __res_state` (resolv/bits/types/res_state.h), one for each thread."""

    _fields_ = [
        ("retrans", ctypes.c_int),
        ("retry", ctypes.c_int),
        ("options", ctypes.c_ulong),
        ("nscount", ctypes.c_int),
        ("nsaddr", ctypes.c_ubyte * 16 * 3),
    ]


def believe(port: int) -> None:
    """Make getaddrinfo of the calling thread ask 127.0.0.1:port, and nobody else."""
    libc = ctypes.CDLL(None)
    libc["__res_init"]()
    state_of_thread = libc["__res_state"]
    state_of_thread.restype = ctypes.POINTER(_ResolverState)
    state = state_of_thread().contents
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, bytes((127, 0, 0, 1)))
    state.nscount = 1
    state.nsaddr[0][:] = address


def main() -> None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    threading.Thread(target=serve, args=(listening,), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
