"""Secrets at rest: sealed as they are written, sealed again by rekey and housekeeping, asked for at the start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from psycopg import IsolationLevel

from outbox import subscriptions
from outbox.errors import SubscriptionError
from outbox.ids import parse_id
from outbox.sealing import SealingKey, seal
from outbox.secret import Secret
from outbox.subscriptions.signing_secrets import put
from relay.cli import cli
from relay.cli.findings import in_words
from relay.config.option import ConfigError
from relay.config.options import Config
from relay.operations import secrets as operations
from relay.operations.status.status import status
from relay.process import housekeeping, startup
from relay.secrets.keyring import Keyring, new_private_key
from tests.support import seeding

OLD, OLDER = new_private_key()
NEW, NEWER = new_private_key()
OWN = "whsec_" + "C" * 43 + "="


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def relay(database_url: str) -> Callable[..., Any]:
    """Run one command with these private keys; return what `CliRunner` does."""

    def run(*arguments: str, keys: tuple[Secret, ...] = ()) -> Any:
        environment = {"RELAY_DATABASE_URL": database_url, "RELAY_SECRET_KEY": "\n".join(key.reveal() for key in keys)}
        return CliRunner().invoke(cli, arguments, env=environment, standalone_mode=False)

    return run


REGISTER = sa.text("""
insert into outbox.sealing_keys (id, key) values (:id, :key)
on conflict (id) do update set created_at = clock_timestamp()
""")


def register(connection: sa.Connection, key: SealingKey) -> None:
    connection.execute(REGISTER, {"id": key.id, "key": key.text})


def add(connection: sa.Connection, secret: str | None = None) -> Any:
    return subscriptions.add(connection, "https://example.com/hook", ["*"], secret=secret)


def stored(connection: sa.Connection) -> list[Any]:
    """Every row of secrets, oldest first."""
    return connection.execute(sa.text("select * from outbox.secrets order by created_at, id")).all()


def opened(connection: sa.Connection, *keys: Secret) -> list[str]:
    """What a relay with these keys reads, of every row."""
    ring = Keyring(keys)
    return [ring.open(Secret(row.secret), row.subscription_id.bytes, row.kind).reveal() for row in stored(connection)]


def rekey(connection: sa.Connection, *keys: Secret) -> operations.Rekeyed:
    with connection.engine.connect() as own:
        return operations.rekey(own, None, Keyring(keys))


class TestWriting:
    def test_without_a_key_it_lies_in_clear(self, connection):
        made = add(connection)
        assert [(row.secret, row.sealed_to) for row in stored(connection)] == [(made.secret, None)]

    def test_with_a_key_it_is_sealed_and_only_the_relay_reads_it(self, connection):
        register(connection, OLDER)
        made = add(connection)
        (row,) = stored(connection)
        assert row.sealed_to == OLDER.id
        assert made.secret not in row.secret
        assert opened(connection, OLD) == [made.secret]

    def test_the_newest_key_counts(self, connection):
        register(connection, NEWER)
        register(connection, OLDER)
        register(connection, NEWER)
        add(connection)
        assert [row.sealed_to for row in stored(connection)] == [NEWER.id]

    def test_a_rotated_secret_is_sealed_too(self, connection):
        made = add(connection)
        register(connection, OLDER)
        rotated = subscriptions.rotate_secret(connection, made.id)
        assert [row.sealed_to for row in stored(connection)] == [None, OLDER.id]
        assert opened(connection, OLD) == [made.secret, rotated.secret]

    def test_text_in_clear_never_looks_sealed(self, connection):
        """Or a relay would take it for what it cannot open."""
        subscription_id = parse_id("sub", add(connection).id)
        with pytest.raises(SubscriptionError, match=r"^authentication: begins with 'sealed:'"):
            put(connection, subscription_id, "authentication", "sealed:1:x")
        register(connection, OLDER)
        put(connection, subscription_id, "authentication", "sealed:1:x")
        assert opened(connection, OLD)[-1] == "sealed:1:x"

    @pytest.mark.parametrize(
        ("key_id", "key"),
        [(OLDER.id, NEWER.text), (OLDER.id, "QQ=="), ("x", OLDER.text), (OLDER.id, "!!")],
        ids=["of another key", "short", "no id", "no base64"],  # keys are random: workers must agree on names
    )
    def test_the_database_refuses_what_is_no_key(self, connection, key_id, key):
        with pytest.raises(sa.exc.DBAPIError, match=r"_of_the_key|32_bytes|base64"):
            connection.execute(REGISTER, {"id": key_id, "key": key})

    def test_the_documented_sql_finds_the_key(self, connection):
        """What the docstring tells other languages to ask."""
        import outbox.sealing

        words = " ".join((outbox.sealing.__doc__ or "").split())
        statement = words[words.index("select id, key") : words.index("limit 1`") + len("limit 1")]
        register(connection, OLDER)
        register(connection, NEWER)
        assert connection.execute(sa.text(statement)).one() == (NEWER.id, NEWER.text)


class TestRekey:
    def test_every_row_is_sealed_to_the_newest_key(self, connection, relay):
        made = [add(connection)]
        register(connection, OLDER)
        made += [add(connection), add(connection)]
        first = json.loads(relay("secrets", "rekey", "--json", keys=(NEW, OLD)).stdout)
        assert first == {"key_id": NEWER.id, "sealed": 1, "resealed": 2, "already": 0, "busy": 0, "unopened": []}
        assert {row.sealed_to for row in stored(connection)} == {NEWER.id}
        assert opened(connection, NEW) == [one.secret for one in made]
        made.append(add(connection))
        assert opened(connection, NEW) == [one.secret for one in made]

    def test_repeating_it_changes_nothing(self, connection):
        add(connection)
        rekey(connection, NEW)
        before = stored(connection), connection.scalar(sa.text("select created_at from outbox.sealing_keys"))
        again = rekey(connection, NEW)
        assert (again.sealed, again.resealed, again.already) == (0, 0, 1)
        assert before == (stored(connection), connection.scalar(sa.text("select created_at from outbox.sealing_keys")))

    def test_it_can_go_back_to_an_older_key(self, connection):
        add(connection)
        for keys in ((OLD,), (NEW, OLD), (OLD, NEW)):
            rekey(connection, *keys)
            add(connection)
            assert {row.sealed_to for row in stored(connection)} == {Keyring(keys).newest.id}

    def test_its_key_becomes_the_newest_whatever_time_another_one_has(self, connection):
        """A clock that was set back, or a row that was written by hand."""
        later = sa.text("insert into outbox.sealing_keys values (:id, :key, clock_timestamp() + interval '1 year')")
        connection.execute(later, {"id": OLDER.id, "key": OLDER.text})
        add(connection)
        for keys in ((NEW, OLD), (OLD, NEW), (NEW, OLD)):
            assert rekey(connection, *keys).complete
            add(connection)
            assert {row.sealed_to for row in stored(connection)} == {Keyring(keys).newest.id}

    def test_no_key_is_the_newest_for_ever(self, connection):
        for moment in ("infinity", "10000-01-01Z"):
            with pytest.raises(sa.exc.IntegrityError, match="created_at_is_a_date"):
                connection.execute(
                    sa.text("insert into outbox.sealing_keys values (:id, :key, cast(:moment as timestamptz))"),
                    {"id": OLDER.id, "key": OLDER.text, "moment": moment},
                )

    def test_what_it_cannot_open_it_names_and_leaves(self, connection, relay):
        register(connection, OLDER)
        lost = add(connection)
        connection.execute(sa.text("delete from outbox.sealing_keys"))
        other = add(connection)
        before = stored(connection)[0].secret
        ended = relay("secrets", "rekey", keys=(NEW,))
        assert ended.return_value == 1
        assert f"the signing secret of {lost.id} is sealed to key {OLDER.id}" in ended.stderr
        assert "1 sealed that lay in clear, 0 sealed again" in ended.stdout
        assert [row.secret == before for row in stored(connection)] == [True, False]
        assert opened(connection, NEW, OLD)[1] == other.secret

    def test_killed_in_the_middle_it_is_finished_by_the_next(self, connection, database_url):
        made = [add(connection) for _ in range(7)]
        program = """
import sys, time
from relay.operations import secrets
from relay.__main__ import run_command
plan, calls = secrets.plan, []
def slow(*arguments):
    calls.append(1)
    if len(calls) == 3:
        print("in the middle", flush=True)
        time.sleep(60)
    return plan(*arguments)
secrets.plan, secrets.BATCH_ROWS = slow, 2
run_command(["secrets", "rekey"])
"""
        environment = os.environ | {"RELAY_DATABASE_URL": database_url, "RELAY_SECRET_KEY": NEW.reveal()}
        with subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE) as killed:
            assert killed.stdout is not None
            assert killed.stdout.readline() == b"in the middle\n"
            killed.send_signal(signal.SIGKILL)
        assert [row.sealed_to for row in stored(connection)] == [NEWER.id] * 4 + [None] * 3
        assert opened(connection, NEW) == [one.secret for one in made]
        done = rekey(connection, NEW)
        assert (done.sealed, done.already) == (3, 4)
        assert opened(connection, NEW) == [one.secret for one in made]

    def test_a_secret_that_is_rotated_meanwhile_stays_as_rotated(self, connection, monkeypatch):
        made, real = add(connection), operations.plan

        def plan_while_somebody_replaces(*arguments: Any) -> Any:
            planned = real(*arguments)
            monkeypatch.setattr(operations, "plan", real)
            connection.execute(sa.text("update outbox.secrets set secret = :own"), {"own": OWN})
            return planned

        monkeypatch.setattr(operations, "plan", plan_while_somebody_replaces)
        monkeypatch.setattr(operations, "PAUSE_SECONDS", 0)
        done = rekey(connection, NEW)
        assert done.complete
        assert opened(connection, NEW) == [OWN] != [made.secret]

    @pytest.mark.parametrize("table", ["subscriptions", "secrets"])
    def test_a_row_that_somebody_holds_is_not_waited_for(self, connection, engine, monkeypatch, table):
        monkeypatch.setattr(operations, "PAUSE_SECONDS", 0)
        free, held = add(connection), add(connection)
        with engine.connect() as holder:
            column = "id" if table == "subscriptions" else "subscription_id"
            statement = sa.text(f"select * from outbox.{table} where {column} = :id for update")
            holder.execute(statement, {"id": parse_id("sub", held.id)})
            done = rekey(connection, NEW)
            holder.rollback()
        assert (done.sealed, done.busy, done.complete) == (1, 1, False)
        assert opened(connection, NEW) == [free.secret, held.secret]
        assert rekey(connection, NEW).complete

    def test_without_a_key_it_says_what_to_give(self, relay):
        ended = relay("secrets", "rekey")
        assert isinstance(ended.exception, ConfigError)
        assert "secret_key: not set; give RELAY_SECRET_KEY" in str(ended.exception)

    def test_relays_see_each_row_that_changed(self, connection):
        """They cache by the subscription's version, which moves."""
        add(connection)
        version = sa.text("select version from outbox.subscriptions")
        before = connection.scalar(version)
        rekey(connection, NEW)
        assert connection.scalar(version) > before


class TestKeygen:
    def test_it_prints_a_key_once_and_touches_no_database(self):
        ended = CliRunner().invoke(
            cli, ["secrets", "keygen"], env={"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}
        )
        (key,) = ended.stdout.split()
        assert ended.exit_code == 0
        assert Keyring([Secret(key)]).ids[0] in ended.stderr
        assert key not in ended.stderr

    def test_a_file_gets_the_key_and_the_screen_its_public_half(self, tmp_path: Path):
        file = tmp_path / "relay.key"
        old = os.umask(0)
        try:
            ended = CliRunner().invoke(cli, ["secrets", "keygen", "--out", str(file)])
        finally:
            os.umask(old)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        ring = Keyring([Secret(file.read_text().strip())])
        assert ring.newest is not None
        assert ended.output == f"key {ring.newest.id}, public half {ring.newest.text}\n"

    def test_a_file_that_is_there_is_never_overwritten(self, tmp_path: Path):
        file = tmp_path / "relay.key"
        file.write_text("all that opens them")
        ended = CliRunner().invoke(cli, ["secrets", "keygen", "--out", str(file)])
        assert ended.exit_code == 2
        assert "exists" in ended.stderr
        assert file.read_text() == "all that opens them"
        assert CliRunner().invoke(cli, ["secrets", "keygen", "--out", str(tmp_path / "no" / "dir")]).exit_code == 2


class TestStart:
    def check(self, database_url: str, *keys: Secret) -> None:
        startup.check_database(Config(database_url=database_url, secret_key=keys))

    def refusal(self, database_url: str, *keys: Secret) -> str:
        with pytest.raises(ConfigError) as refused:
            self.check(database_url, *keys)
        assert "\n" not in str(refused.value)
        return str(refused.value)

    @pytest.mark.case("B13")
    def test_a_relay_without_any_key_does_not_start(self, connection, database_url):
        self.check(database_url)
        register(connection, OLDER)
        words = self.refusal(database_url)
        assert words.startswith(f"secret_key: not set, but secrets are sealed to {OLDER.id}; add that private key")
        self.check(database_url, OLD)

    @pytest.mark.case("B13")
    def test_a_relay_that_lacks_a_key_in_use_names_it(self, connection, database_url):
        register(connection, OLDER)
        add(connection)
        register(connection, NEWER)
        add(connection)
        assert f"holds {NEWER.id}, but secrets are sealed to {OLDER.id}" in self.refusal(database_url, NEW)
        assert f"holds {OLDER.id}, but secrets are sealed to {NEWER.id}" in self.refusal(database_url, OLD)
        both = ", ".join(sorted([OLDER.id, NEWER.id]))
        assert f"not set, but secrets are sealed to {both}; add" in self.refusal(database_url)
        self.check(database_url, NEW, OLD)

    def test_what_no_longer_counts_holds_up_nobody(self, connection, database_url):
        register(connection, OLDER)
        removed, expired = add(connection), add(connection)
        subscriptions.remove(connection, removed.id)
        expire = "update outbox.secrets set expires_at = now() - interval '1 s' where subscription_id = :id"
        connection.execute(sa.text(expire), {"id": parse_id("sub", expired.id)})
        register(connection, NEWER)
        self.check(database_url, NEW)

    def test_a_damaged_row_holds_up_its_own_subscription_only(self, connection, database_url):
        register(connection, OLDER)
        add(connection)
        connection.execute(sa.text("update outbox.secrets set secret = 'sealed:by hand'"))
        self.check(database_url, OLD)

    @pytest.mark.case("B13")
    def test_it_is_one_line_and_exit_code_2(self, connection, database_url):
        register(connection, OLDER)
        environment = os.environ | {"RELAY_DATABASE_URL": database_url, "RELAY_SECRET_KEY": NEW.reveal()}
        ended = subprocess.run(
            [sys.executable, "-m", "relay", "run", "--processes", "2"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 2
        (line,) = ended.stderr.splitlines()
        assert line.startswith(f"relay: secret_key: holds {NEWER.id}, but secrets are sealed to {OLDER.id}; add")


class TestHousekeeping:
    def keep(self, database_url: str, *keys: Secret) -> None:
        async def once() -> None:
            keeper = housekeeping.Housekeeping(Config(database_url=database_url, secret_key=keys))
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
                await keeper.do_due(connection)

        asyncio.run(once())

    def test_what_sql_inserts_in_clear_is_sealed(self, connection, database_url, monkeypatch):
        monkeypatch.setattr("relay.secrets.resealing.BATCH_ROWS", 2)
        made = [add(connection) for _ in range(5)]
        register(connection, OLDER)
        by_sql = "insert into outbox.secrets (subscription_id, kind, secret) values (:id, 'headers', '{}')"
        connection.execute(sa.text(by_sql), {"id": parse_id("sub", made[0].id)})
        self.keep(database_url, OLD)
        assert {row.sealed_to for row in stored(connection)} == {OLDER.id}
        assert opened(connection, OLD) == [*(one.secret for one in made), "{}"]

    @pytest.mark.parametrize(("registered", "held"), [(None, OLD), (OLDER, None), (OLDER, NEW)])
    def test_only_a_relay_that_can_open_it_again_seals(self, connection, database_url, registered, held):
        made = add(connection)
        if registered:
            register(connection, registered)
        self.keep(database_url, *([held] if held else []))
        assert [row.secret for row in stored(connection)] == [made.secret]

    def test_a_key_that_nothing_can_be_sealed_to_ends_no_relay(self, connection, database_url, caplog, monkeypatch):
        add(connection)
        weak = SealingKey(bytes(32))
        register(connection, weak)
        monkeypatch.setattr(Keyring, "__contains__", lambda *_: True)
        self.keep(database_url, OLD)
        assert f"secrets in clear: secret: sealing key {weak.id} of outbox.sealing_keys cannot be used" in caplog.text


REKEY = "relay secrets rekey, where the relay's secret_key is set; from then on the relay seals by itself"
GIVE = "give its private half to a relay"


class TestStatus:
    def of_secrets(self, connection: sa.Connection) -> list[str]:
        return [line for line in map(in_words, status(connection, None).findings) if "secrets" in line]

    def test_it_counts_what_lies_in_clear_and_what_an_older_key_opens(self, connection):
        assert self.of_secrets(connection) == []
        add(connection)
        (line,) = self.of_secrets(connection)
        assert line == "1 secrets lie in clear: relay secrets keygen, give the key to relays, relay secrets rekey"
        register(connection, OLDER)
        add(connection)
        add(connection)
        (line,) = self.of_secrets(connection)
        assert line == f"1 secrets lie in clear; a relay that holds key {OLDER.id} seals them within a minute"
        rekey(connection, OLD)
        assert self.of_secrets(connection) == []
        register(connection, NEWER)
        (line,) = self.of_secrets(connection)
        assert line == f"3 secrets are sealed to another key than the newest, {NEWER.id}: relay secrets rekey"

    @pytest.mark.parametrize(
        ("registered", "held", "said"),
        [
            (False, True, f", though a relay holds key {{key}}: secrets are not sealed to it yet: {REKEY}"),
            (True, True, "; a relay that holds key {key} seals them within a minute"),
            (True, False, f", and no relay that runs holds key {{key}}, which seals them: {GIVE}"),
            (False, False, ": relay secrets keygen, give the key to relays, relay secrets rekey"),
        ],
    )
    def test_what_lies_in_clear_has_the_mend_that_is_missing(self, connection, said, *, registered, held):
        add(connection)
        if registered:
            register(connection, OLDER)
        seeding.sign_in(connection, key_ids=[OLDER.id] if held else [])
        assert f"1 secrets lie in clear{said.format(key=OLDER.id)}" in self.of_secrets(connection)

    def test_the_screen_and_the_document_say_the_same(self, connection, relay):
        register(connection, OLDER)
        add(connection)
        register(connection, NEWER)
        connection.execute(sa.text("insert into outbox.secrets (subscription_id, secret) select id, :own from "
                                   "outbox.subscriptions"), {"own": OWN})  # fmt: skip
        document = json.loads(relay("status", "--json").stdout)["secrets"]
        assert document == {"count": 2, "in_clear": 1, "sealed_to_older_keys": 1, "sealing_key": NEWER.id}
        assert "1 in clear, 1 sealed, 1 of them to another key than the newest" in relay("status").stdout


def test_ids_are_bound_as_they_are_stored(connection):
    """The 16 bytes of the UUID, in the order that PostgreSQL and RFC 9562 write them."""
    made = add(connection)
    identity = UUID(str(connection.scalar(sa.text("select id::text from outbox.subscriptions"))))
    sealed = seal(OWN, OLDER, bytes.fromhex(identity.hex), "signing")
    assert Keyring([OLD]).open(Secret(sealed), parse_id("sub", made.id).bytes, "signing").reveal() == OWN
