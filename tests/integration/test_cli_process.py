"""The console script as people run it: exit codes, one line on stderr, closed pipes, nothing secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from relay.__main__ import run_command
from relay.cli import cli
from tests.support import seeding

RELAY = Path(sys.executable).with_name("relay")
PASSWORD = "s3cret-pa55"


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    returncode: int
    stdout: str
    stderr: str

    def one_line(self) -> str:
        """The one line of stderr of a command that failed."""
        (line,) = self.stderr.splitlines()
        assert line.startswith("relay: ")
        assert "Traceback" not in self.stdout + self.stderr
        return line.removeprefix("relay: ")


@pytest.fixture
def relay(capsys, monkeypatch):
    """Run one command as the console script does, in this process: a new one takes a second to start."""

    def run(*arguments: str, database_url: str = "", **environ: str) -> Ended:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith(("RELAY_", "DATABASE_"))]:
                patch.delenv(name)
            for name, value in (environ | ({"RELAY_DATABASE_URL": database_url} if database_url else {})).items():
                patch.setenv(name, value)
            returncode = run_command(list(arguments))
        captured = capsys.readouterr()
        return Ended(returncode, captured.out, captured.err)

    return run


def process(*arguments: str, database_url: str = "", stdin: str = "", **environ: str) -> Ended:
    """Run the console script itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "DATABASE_"))}
    if database_url:
        environ["RELAY_DATABASE_URL"] = database_url
    ended = subprocess.run(
        [RELAY, *arguments], env=clean | environ, capture_output=True, text=True, timeout=120, check=False, input=stdin
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def test_the_console_script_leaves_with_the_exit_code():
    ended = process("status", database_url=f"mysql://u:{PASSWORD}@h/d")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("relay: database_url (env RELAY_DATABASE_URL): mysql:// is not")
    assert PASSWORD not in ended.stderr


def test_help_is_there_and_every_command_answers_it(relay):
    ended = relay("--help")
    assert ended.returncode == 0
    for command in ("migrate", "run", "status", "subscriptions", "dead-letters", "replay", "completion"):
        assert f"  {command} " in ended.stdout


@pytest.mark.parametrize("command", list(cli.list_commands(None)))
def test_every_command_has_help_with_what_it_does(relay, command):
    ended = relay(command, "--help")
    assert ended.returncode == 0
    assert f"relay {command}" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 100


@pytest.mark.parametrize("arguments", [["nonsense"], ["status", "--nonsense"], ["events", "list", "--limit", "0"]])
def test_a_mistake_in_usage_exits_2(relay, arguments):
    ended = relay(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Usage:" in ended.stderr


@pytest.mark.case("C1")
def test_no_database_exits_2_and_names_the_setting(relay):
    ended = relay("status")
    assert ended.returncode == 2
    assert ended.one_line().startswith("database_url: not set; give --database-url, RELAY_DATABASE_URL")


@pytest.mark.case("C1")
def test_a_malformed_database_exits_2_without_the_password(relay):
    ended = relay("status", database_url=f"mysql://u:{PASSWORD}@h/d")
    assert ended.returncode == 2
    assert ended.one_line().startswith("database_url (env RELAY_DATABASE_URL): mysql:// is not a PostgreSQL URL")
    assert PASSWORD not in ended.stderr


def test_allowing_every_address_exits_2_and_names_the_mend(relay, database_url):
    ended = relay("run", "--allow-networks", "10.0.0.0/8,0.0.0.0/0", database_url=database_url)
    assert ended.returncode == 2
    assert ended.one_line() == (
        "allow_networks (flag --allow-networks): 0.0.0.0/0 is every address; "
        "name only the networks that are needed, e.g. 10.1.0.0/16"
    )


def test_a_database_that_cannot_be_reached_exits_3_without_the_password(relay):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ended = relay("status", database_url=f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/d")
    assert ended.returncode == 3
    assert "unreachable" in ended.one_line()
    assert PASSWORD not in ended.stderr


@pytest.mark.case("C4")
def test_a_missing_schema_exits_2_and_says_migrate(relay, empty_database_url):
    for arguments in (["status"], ["events", "list"], ["replay", "--since", "1h"], ["prune"], ["migrate", "--check"]):
        ended = relay(*arguments, database_url=empty_database_url)
        assert ended.returncode == 2, arguments
        assert "relay migrate" in ended.one_line()


@pytest.mark.case("C5")
@pytest.mark.parametrize("shift", [-1, 1])
def test_an_older_or_newer_schema_exits_2(relay, database_url, engine, shift):
    change = "delete from outbox.schema_migrations where version > 1"
    if shift > 0:
        change = "insert into outbox.schema_migrations (version, name, checksum) values (99, 'later', '')"
    with engine.begin() as connection:
        connection.execute(text(change))
    ended = relay("status", database_url=database_url)
    assert ended.returncode == 2
    assert ("upgrade" if shift > 0 else "relay migrate") in ended.one_line()


@pytest.mark.case("C6")
def test_a_missing_right_exits_2_with_the_grant(relay, database_url):
    role = f"nobody_{make_url(database_url).database}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"create role {role} login password 'x'")
        connection.execute(f"grant usage on schema outbox to {role}")
        connection.execute(f"grant select on outbox.schema_migrations, outbox.subscriptions to {role}")
        limited = make_url(database_url).set(username=role, password="x").render_as_string(hide_password=False)
        try:
            reading = relay("events", "list", database_url=limited)
            writing = relay("subscriptions", "add", "https://example.com/", "*", database_url=limited)
        finally:
            connection.execute(f"drop owned by {role}")
            connection.execute(f"drop role {role}")
    assert (reading.returncode, writing.returncode) == (2, 2)
    assert f"grant select on outbox.events to {role}" in reading.one_line()
    assert f"grant select, insert on outbox.subscriptions to {role}" in writing.one_line()


def test_an_unexpected_error_names_a_traceback_without_secrets(relay, database_url, engine, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with engine.begin() as connection:
        connection.execute(text("alter table outbox.secrets add constraint odd check (secret = '')"))
    ended = relay("subscriptions", "add", "https://example.com/", "*", database_url=database_url)
    assert ended.returncode == 1
    (report,) = tmp_path.iterdir()
    assert ended.one_line() == f"unexpected: IntegrityError; the traceback is in {report}"
    content = report.read_text()
    assert "IntegrityError" in content
    assert "whsec_***" in content
    assert (make_url(database_url).password or PASSWORD) not in content
    assert report.stat().st_mode & 0o077 == 0


# How the interpreter buffers standard output: PYTHONUNBUFFERED as empty (as unset) and as set.
buffering = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")


@pytest.mark.slow
@buffering
@pytest.mark.parametrize(
    "arguments", [["events", "list", "--limit", "2000", "--json"], ["events", "list", "--limit", "2000"]]
)
def test_a_closed_pipe_ends_quietly(database_url, engine, arguments, unbuffered):
    with engine.begin() as connection:
        connection.execute(
            text("""insert into outbox.events (type, payload, key)
                                   select 'a.b', '1', repeat('k', 900) from generate_series(1, 2000)""")
        )
    environ = os.environ | {"RELAY_DATABASE_URL": database_url, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        [RELAY, *arguments], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:  # fmt: skip
        assert running.stdout.readline()
        running.stdout.close()
        assert running.wait(timeout=60) == 0
        assert running.stderr.read() == ""


@buffering
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"]])
def test_a_reader_that_is_gone_before_the_first_line_is_no_failure(arguments, unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [RELAY, *arguments], env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=writing, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.slow
@buffering
@needs_a_full_disk
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "bash"]])
def test_a_full_disk_is_one_line(arguments, unbuffered):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [RELAY, *arguments], env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (1, "relay: output: No space left on device\n")


@pytest.mark.slow
@buffering
@needs_a_full_disk
@pytest.mark.parametrize("arguments", [["status", "--database-url", "mysql://u:p@h/d"], ["nonsense"]])
def test_the_exit_code_holds_where_no_error_can_be_written(arguments, unbuffered):
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [RELAY, *arguments], env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full, stderr=full, check=False,
        )  # fmt: skip
    assert ended.returncode == 2


def test_a_closed_output_is_no_failure():
    command = ["sh", "-c", 'exec "$0" --help >&-', str(RELAY)]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_read_only_database_exits_1_and_says_so(relay, database_url, engine):
    with engine.begin() as connection:
        subscription_id = seeding.subscribe(connection)
    read_only = {"PGOPTIONS": "-c default_transaction_read_only=on"}
    ended = relay("subscriptions", "pause", subscription_id, database_url=database_url, **read_only)
    assert ended.returncode == 1
    assert ended.one_line().endswith("it is read-only, a standby perhaps: give the primary's URL")


def test_a_migration_of_a_read_only_database_exits_1_and_says_so(relay, empty_database_url):
    read_only = {"PGOPTIONS": "-c default_transaction_read_only=on"}
    ended = relay("migrate", database_url=empty_database_url, **read_only)
    assert ended.returncode == 1
    assert ended.one_line().endswith("it is read-only, a standby perhaps: give the primary's URL")


SLOW_TABLE = """
create function public.take_long() returns event_trigger language plpgsql as $$ begin
    if exists (select from pg_event_trigger_ddl_commands() where object_identity = 'outbox.events') then
        perform pg_sleep(1.5);
    end if;
end $$;
create event trigger take_long on ddl_command_end when tag in ('CREATE TABLE') execute function public.take_long()"""


@pytest.mark.parametrize("limit", ["statement_timeout", "transaction_timeout"])
def test_a_migration_takes_longer_than_others_may(relay, empty_database_url, limit):
    """Of the role or the database, where people set it against statements of theirs that never end."""
    with psycopg.connect(empty_database_url) as connection:
        if connection.info.server_version < 170_000 and limit.startswith("transaction"):
            pytest.skip("PostgreSQL 17 brought transaction_timeout")
        connection.execute(SLOW_TABLE)
    ended = relay("migrate", database_url=empty_database_url, PGOPTIONS=f"-c {limit}=1000")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_migrate_makes_the_schema_twice_over(relay, empty_database_url):
    first, second = (relay("migrate", database_url=empty_database_url) for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert first.stdout.splitlines()[0] == "applied 0001 tables"
    assert second.stdout == "the schema is up to date\n"
    assert relay("migrate", "--check", database_url=empty_database_url).returncode == 0


def test_migrate_check_exits_1_and_names_a_change(relay, database_url, engine):
    with engine.begin() as connection:
        connection.execute(text("alter table outbox.events add column odd integer"))
    ended = relay("migrate", "--check", database_url=database_url)
    assert ended.returncode == 1
    assert "odd" in ended.stdout


def test_migrate_prints_its_sql_without_a_database(relay):
    ended = relay("migrate", "--sql")
    assert ended.returncode == 0
    assert "create table outbox.events" in ended.stdout


def test_an_own_secret_comes_from_stdin_and_leaves_no_trace(database_url, relay):
    secret = "whsec_" + "QUJD" * 11
    ended = process(
        "subscriptions", "add", "https://example.com/", "*", "--secret-file", "-", "--json",
        database_url=database_url, stdin=f"\ufeff{secret}\r\n",
    )  # fmt: skip
    made = json.loads(ended.stdout)
    assert made["secret"] == secret
    assert ended.stderr == ""
    listed = relay("subscriptions", "show", made["id"], database_url=database_url)
    assert secret not in listed.stdout + relay("subscriptions", "list", "--json", database_url=database_url).stdout


def test_a_question_without_a_terminal_is_not_answered(relay, database_url, engine):
    with engine.begin() as connection:
        subscription_id = seeding.subscribe(connection)
    ended = relay("subscriptions", "remove", subscription_id, database_url=database_url)
    assert ended.returncode == 2
    assert "Add --yes to do it." in ended.stderr
    assert relay("subscriptions", "remove", subscription_id, "--yes", database_url=database_url).returncode == 0


@pytest.mark.case("C16")
def test_unknown_variables_only_warn(relay, database_url):
    ended = relay("events", "list", database_url=database_url, RELAY_SERVICE_HOST="10.0.0.1")
    assert ended.returncode == 0
    assert ended.stderr == "warning: ignored, not options: RELAY_SERVICE_HOST\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(relay, shell):
    assert "_RELAY_COMPLETE" in relay("completion", shell).stdout


def test_completion_offers_commands_and_options():
    environ = {"_RELAY_COMPLETE": "bash_complete", "COMP_WORDS": "relay subscriptions ro", "COMP_CWORD": "2"}
    assert process(**environ).stdout.strip() == "plain,rotate-secret"


def test_help_and_completion_load_no_sqlalchemy_and_no_driver():
    """They are asked for at every press of the tab key."""
    code = "import sys, relay.__main__ as m; m.run_command(['--help']); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sqlalchemy", "psycopg", "outbox", "anyio", "httptools"} & set(loaded)


@pytest.mark.case("C29")
def test_few_files_no_home_and_nowhere_to_write(database_url, engine):
    """`relay run` says that it has little, and does what it can."""
    with engine.begin() as connection:
        seeding.record(connection)
    command = f"ulimit -n 64; exec {RELAY} run --until-drained"
    nowhere = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "RELAY_DATABASE_URL": database_url}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RELAY_", "DATABASE_"))}
    ended = subprocess.run(
        ["sh", "-c", command], env=environment | nowhere, capture_output=True, text=True, timeout=60, cwd="/"
    )
    assert ended.returncode == 0, ended.stderr
    assert "only 64 files may be open (ulimit -n)" in ended.stderr
    assert "Traceback" not in ended.stderr
