"""Python programs of ours that start at once: forked from a process that has imported what they need.

Half a second of a relay's start is Python that reads modules, and tests start hundreds of relays. `python -m
tests.support.warm N` imports them once and waits at the socket with the descriptor N. For each request it forks a
process, which becomes the program; it tells the process id, and later how the process ended. Whoever asks sees it as
`subprocess.Popen` shows a child of its own.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

MODULES = ("relay.cli.run", "relay.cli.streams", "relay.process.daemon", "relay.process.startup", "uvloop",
           "anyio._backends._asyncio",
           "importlib.resources.readers", "sqlalchemy.dialects.postgresql.psycopg", "psutil", "encodings.idna",
           "tests.support.incidents")  # fmt: skip
OF_COMMANDS = {
    "serve": ("relay.cli.serve", "relay.web.serving", "relay.web.app", "uvicorn"),
    "dev": ("relay.cli.dev", "relay.local.embedded"),
}
"""What these commands need besides; imported before the first of them is started."""
_REQUEST_BYTES = 1 << 18
_STATUS_BYTES = 4


class Forked:
    """A process that the warm one made for us; it has what we use of `subprocess.Popen`."""

    def __init__(self, pid: int, command: str, stdin: IO[str], status: int) -> None:
        self.pid, self.stdin, self.args = pid, stdin, command
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return its exit code, minus the signal that ended it, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            told = os.read(self._status, _STATUS_BYTES)
            os.close(self._status)
            self.returncode = int.from_bytes(told, sys.byteorder, signed=True)
            assert told, "the warm process is gone"
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Warm:
    """Our end of the socket to the warm process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.support.warm", str(theirs.fileno())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()

    def start(
        self, program: Sequence[str], environment: Mapping[str, str], written: IO[bytes], complained: IO[bytes]
    ) -> Forked:
        theirs, ours = os.pipe()
        status, telling = os.pipe()
        request = json.dumps([program, dict(environment)]).encode()
        socket.send_fds(self._socket, [request], [theirs, written.fileno(), complained.fileno(), telling])
        os.close(theirs)
        os.close(telling)
        pid = int.from_bytes(self._socket.recv(8), sys.byteorder)
        assert pid, "the warm process is gone"
        return Forked(pid, " ".join(program), os.fdopen(ours, "w"), status)


_warm: list[_Warm] = []


def start(program: Sequence[str], environment: Mapping[str, str], written: IO[bytes], complained: IO[bytes]) -> Forked:
    """Start `python program` ("-m", module, arguments) with this environment, output and complaints."""
    if not _warm:
        _warm.append(_Warm({name: text for name, text in environment.items() if not _is_of_one(name)}))
    return _warm[0].start(program, environment, written, complained)


def suits(program: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether a fork would be the same: nothing asks for another interpreter or other constants."""
    others = {name for name in environment if name.startswith("PYTHON")} - {"PYTHONPATH"}
    return program[0] == "-m" and not others and "RELAY_TEST_CONSTANTS" not in environment


def _is_of_one(name: str) -> bool:
    return name.startswith(("RELAY_", "WRITER_"))


class _Server:
    """The warm process: it forks, and tells how its children ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, int] = {}  # process id: where to tell its end
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> list[str] | None:
        """Return the program in each child, and None when nobody is there any more who could ask."""
        while True:
            ready, _, _ = select.select([self._control, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 1024)
                self._tell_ends()
            if self._control in ready:
                request, descriptors, _, _ = socket.recv_fds(self._control, _REQUEST_BYTES, 4)
                if not request:
                    return None
                program, environment = json.loads(request)
                _import_for(program)
                if pid := os.fork():
                    self._running[pid] = descriptors.pop()
                    for descriptor in descriptors:
                        os.close(descriptor)
                    self._control.send(pid.to_bytes(8, sys.byteorder))
                else:
                    self._become(environment, descriptors)
                    return list(program)

    def _tell_ends(self) -> None:
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code, told = os.waitstatus_to_exitcode(status), self._running.pop(pid)
                with suppress(BrokenPipeError):
                    os.write(told, code.to_bytes(_STATUS_BYTES, sys.byteorder, signed=True))
                os.close(told)

    def _become(self, environment: Mapping[str, str], descriptors: list[int]) -> None:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        self._control.close()
        for descriptor in [*descriptors, self._wake, self._woken, *self._running.values()]:
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(environment)


def _import_for(program: Sequence[str]) -> None:
    """Import what this command of `relay` needs, once."""
    module, command = (*program[1:3], "")[:2]
    _import(OF_COMMANDS.pop(command, ()) if module == "relay" else ())


def _import(modules: Sequence[str]) -> None:
    if modules:
        for module in modules:
            importlib.import_module(module)
        gc.collect()
        gc.freeze()


def main() -> None:
    """Import, then serve; in a child, be the program."""
    _import(MODULES)
    program = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if program is not None:
        _, module, *sys.argv[1:] = program
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
