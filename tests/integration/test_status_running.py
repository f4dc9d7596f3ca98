"""Status says who runs and what is in the way, by what relays wrote, and counts what is leased: never by guess."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from uuid import uuid4

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from outbox import subscriptions
from outbox.control.findings import Action
from outbox.control.times import utc
from outbox.ids import parse_id
from relay.cli import cli
from relay.engine.unsent import UnsentTo
from relay.operations.status import running as running_module
from relay.operations.status.running import HeldTurn, OpenTransaction, Running
from relay.operations.status.running_findings import findings_of_running
from relay.operations.status.status import status
from relay.process.presence import Presence
from relay.secrets.keyring import new_private_key
from tests.support import seeding

HOOKS = "(https://example.com/hooks)"
OF_THE_SERVER = ("settings.", "secrets.in_clear")


@pytest.fixture
def connection(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def found(connection, severity: str = "problem") -> dict[str, str]:
    """What is found of this severity, by its code, without what the test server's settings say."""
    findings = status(connection, None).findings
    return {f.code: f.seen for f in findings if f.severity == severity and not f.code.startswith(OF_THE_SERVER)}


def deliver(connection, subscription_id: str, count: int, lease: int | None = None, *, due: int = -60) -> None:
    """Insert deliveries in bulk, without ANALYZE; due so many seconds from now, leased if there is a lease."""
    statement = text("""insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)
        select gen_random_uuid(), 1, outbox.uuid_of(:sub), clock_timestamp() + make_interval(secs => :due), 1,
               cast(:lease as bigint)
        from generate_series(1, :count)""")
    connection.execute(statement, {"sub": subscription_id, "count": count, "lease": lease, "due": due})


def counts(connection) -> dict[str, str]:
    deliveries = status(connection, None).deliveries
    names = ("due", "open", "closed", "waiting", "leased", "left", "ended")
    return {name: str(getattr(deliveries, name)) for name in names}


@pytest.mark.field("F28")
def test_that_no_relay_runs_is_a_problem_at_once_when_something_waits(connection):
    assert "relays.none" not in found(connection)
    assert "no relay runs" in found(connection, "note")["relays.none"]
    seeding.record(connection)
    assert "no relay runs, and 1 event waits" in found(connection)["relays.none"]


@pytest.mark.field("F97")
def test_a_strangers_application_name_is_no_relay(connection):
    connection.execute(text("set application_name = 'outbox-relay'"))
    seeding.record(connection)
    assert "relays.none" in found(connection)
    seeding.sign_in(connection)
    assert found(connection) == {}


@pytest.mark.field("F02")
def test_a_machine_that_cannot_send_for_long_is_a_problem(connection):
    name = seeding.subscribe(connection)
    seeding.sign_in(connection, cannot_send=3, cannot_send_to=parse_id("sub", name))
    assert found(connection) == {
        "relays.cannot_send": f"the relay at relay-1 pid 4711 could send nothing to {name} {HOOKS} and 2 more for a"
        " minute or longer; no attempt is charged for that"
    }


@pytest.mark.field("F02")
def test_a_relay_signs_to_whom_it_could_not_send(connection, database_url, monkeypatch):
    monkeypatch.setattr("relay.process.presence.EVERY_SECONDS", 0.0)
    name = parse_id("sub", seeding.subscribe(connection))
    unsent = [UnsentTo(name.bytes, 0.0, "no free file descriptor", 0.0, 0.0)]
    told = iter([unsent, []])
    presence = Presence(lambda: database_url, processes=1, key_ids=(), leased=lambda: 2, unsent=lambda: next(told))

    def signed() -> tuple[object, ...]:
        asyncio.run(presence.sign_in())
        return tuple(connection.execute(text("select leased, cannot_send, cannot_send_to from outbox.relays")).one())

    assert signed() == (2, 1, name)
    assert signed() == (2, 0, None)


@pytest.mark.field("F97")
def test_backlog_that_nobody_works_on_is_not_blamed_on_the_endpoint(connection):
    name = seeding.subscribe(connection)
    deliver(connection, name, 2, due=-7200)
    assert list(found(connection)) == ["relays.none"]
    seeding.sign_in(connection)
    assert found(connection) == {"subscription.behind": f"{name} {HOOKS} is behind by 2h 0m: not attempted yet"}


@pytest.mark.field("F97")
def test_a_relay_without_a_sign_of_life_is_named_until_another_started(connection):
    seeding.sign_in(connection)
    seeding.sign_in(connection, host="relay-2", pid=2, seen=60)
    assert "relay-2 pid 2 ended without signing out, or stands still" in found(connection)["relays.silent"]
    seeding.sign_in(connection, host="relay-2", pid=3, started=10)
    assert found(connection) == {}
    assert found(connection, "note") == {}


def test_relays_that_fell_silent_are_one_line_gone_when_as_many_run_as_before(connection):
    for pid in (1, 2, 3):
        seeding.sign_in(connection, host="relay-2", pid=pid, seen=300)
    seeding.sign_in(connection, started=500)
    ((code, seen),) = found(connection).items()
    assert code == "relays.silent"
    assert re.fullmatch("3 relay processes ended without signing out, or stand still: no sign of life from the last,"
                        " relay-2 pid 3, for 5m [0-9]s", seen)  # fmt: skip
    seeding.sign_in(connection, pid=5, started=200)
    assert found(connection) == {}
    assert found(connection, "note")["relays.silent"].startswith("2 relay processes ended without signing out")
    connection.execute(text("update outbox.relays set seen_at = seen_at - interval '5 minutes' where host = 'relay-2'"))
    assert found(connection, "note") == {}
    connection.execute(text("update outbox.relays set seen_at = seen_at + interval '5 minutes' where host = 'relay-2'"))
    for pid in (6, 7):
        seeding.sign_in(connection, pid=pid, started=200)
    assert found(connection, "note") == {}


def test_relays_that_end_again_and_again_are_a_problem_and_named_once(connection):
    for pid, started in enumerate((300, 200, 100)):
        seeding.sign_in(connection, pid=pid, started=started, seen=started - 60)
    seeding.sign_in(connection, pid=9, started=20)
    assert found(connection) == {
        "relays.ending": "relays end again and again: 3 processes within 10m 0s without signing out,"
        " the last one at relay-1 pid 2"
    }
    assert found(connection, "note") == {}


def test_processes_of_a_relay_that_end_at_once_are_no_row_of_ends(connection):
    for pid in range(5):
        seeding.sign_in(connection, pid=pid, started=300, seen=200)
    seeding.sign_in(connection, pid=9, started=100)
    assert found(connection) == {}


def test_a_relay_that_cannot_sign_in_may_run_all_the_same(connection):
    seeding.record(connection)
    seeding.sign_in(connection, seen=60)
    (none,) = [one for one in status(connection, None).findings if one.code == "relays.none"]
    assert none.mend.startswith("start `relay run`; where one runs, its log says why it cannot write here")


@pytest.mark.field("F94")
def test_fewer_processes_than_asked_are_counted(connection):
    seeding.sign_in(connection, processes=3, started=5)
    assert found(connection) == {}
    run = uuid4()
    for pid in (1, 2):
        seeding.sign_in(connection, run_id=run, processes=3, host="relay-9", pid=pid)
    assert found(connection) == {"relays.fewer": "2 of 3 processes of the relay at relay-9 run"}


@pytest.mark.field("F97")
def test_different_versions_are_a_note_while_an_update_goes_on(connection):
    seeding.sign_in(connection)
    seeding.sign_in(connection, host="relay-2", version="2.0", started=60)
    assert found(connection) == {}
    assert found(connection, "note")["relays.versions"] == (
        "relays of different versions run: 1.0 at relay-1; 2.0 at relay-2"
    )
    connection.execute(text("update outbox.relays set started_at = started_at - interval '1 hour'"))
    assert list(found(connection)) == ["relays.versions"]


@pytest.mark.field("F97")
def test_a_key_that_no_living_relay_holds_is_named_and_one_that_some_lack(connection):
    _, public = new_private_key()
    key = public.id
    seeding.sign_in(connection)
    seeding.sign_in(connection, host="relay-2", seen=60, started=7200, key_ids=[key])
    connection.execute(
        text("insert into outbox.sealing_keys (id, key) values (:id, :key)"), {"id": key, "key": public.text}
    )
    seeding.subscribe(connection)  # sealed to the newest key
    assert "no relay that runs holds it" in found(connection)["secrets.key_missing"]
    seeding.sign_in(connection, host="relay-3", key_ids=[key])
    assert "relay-1 pid 4711 lacks it" in found(connection)["secrets.key_missing"]
    connection.execute(text("update outbox.relays set key_ids = array[:key]"), {"key": key})
    assert "secrets.key_missing" not in found(connection)


def test_the_keys_of_each_relay_are_shown(connection, database_url):
    seeding.sign_in(connection, key_ids=["0e2a3f80f4d6ac20", "77d1a0c2b9e84f13"])
    seeding.sign_in(connection, host="relay-2")
    shown = CliRunner().invoke(cli, ["status"], env={"RELAY_DATABASE_URL": database_url}).stdout
    header, one, other = shown.partition("\nRelays\n")[2].splitlines()[:3]
    assert header.split("\t")[-1] == "keys"
    assert one.split("\t")[-1] == "0e2a3f80f4d6ac20, 77d1a0c2b9e84f13"
    assert other.split("\t")[-1] == "-"


@pytest.mark.field("F97")
def test_deliveries_that_wait_for_a_paused_subscription_are_a_note_and_after_a_day_a_problem(connection):
    seeding.sign_in(connection)
    name = seeding.subscribe(connection)
    subscriptions.update(connection, name, description="Paused while\nthey migrate")
    paused = subscriptions.pause(connection, name)
    assert found(connection) == {}
    deliver(connection, name, 2000)
    assert found(connection) == {}
    who = connection.execute(text("select session_user")).scalar_one()
    said = rf"{name} \(\S+\) is paused since {utc(paused.paused_at)} by {who} \(Paused while they migrate\)"
    told = found(connection, "note")["subscription.paused"]
    assert re.fullmatch(rf"{said}; more than 1,000 deliveries wait, the oldest for 1m \ds", told)
    deliver(connection, name, 1, due=-90_000)
    told = found(connection)["subscription.paused"]
    assert told.endswith("; more than 1,000 deliveries wait, the oldest for 1d 1h")


def test_what_a_person_paused_comes_after_what_is_broken_and_is_not_resumed_unread(connection):
    seeding.sign_in(connection)
    paused, broken = seeding.subscribe(connection), seeding.subscribe(connection)
    deliver(connection, paused, 1, due=-90_000)
    subscriptions.pause(connection, paused)
    deliver(connection, broken, 1, due=-600)
    codes = [one for one in status(connection, None).findings if one.code.startswith("subscription.")]
    assert [one.code for one in codes] == ["subscription.behind", "subscription.paused"]
    assert codes[1].action == Action("subscription", paused)


@pytest.mark.field("F97")
def test_a_transaction_that_is_open_for_long_is_named_and_ours_is_not(connection, engine, monkeypatch):
    seeding.sign_in(connection)
    assert found(connection) == {}
    monkeypatch.setattr(running_module, "LONG_TRANSACTION_SECONDS", -1)
    with engine.begin() as other:
        pid = other.execute(text("select pg_backend_pid() from pg_current_xact_id()")).scalar_one()
        open_ = status(connection, None).running.transactions
        assert [one.pid for one in open_] == [pid]
        assert f"server process {pid} " in found(connection)["transactions.open"]
        connection.execute(text("set role outbox_reader"))
        assert status(connection, None).running.hidden_sessions >= 1


def test_a_transaction_is_a_line_from_a_minute_on_and_a_finding_after_ten(
    connection, engine, database_url, monkeypatch
):
    seeding.sign_in(connection)
    with engine.begin() as other:
        other.execute(text("set application_name = 'nightly-report'"))
        pid = other.execute(text("select pg_backend_pid() from pg_current_xact_id()")).scalar_one()
        assert status(connection, None).running.younger_transactions == ()
        monkeypatch.setattr(running_module, "YOUNGER_TRANSACTION_SECONDS", -1)
        (line,) = status(connection, None).running.younger_transactions
        assert (line.pid, line.application_name, line.state) == (pid, "nightly-report", "idle in transaction")
        assert "transactions.open" not in found(connection)
        shown = CliRunner().invoke(cli, ["status"], env={"RELAY_DATABASE_URL": database_url}).stdout
        shown = " ".join(shown.split())
        assert f"not so long yet: pid {pid} (nightly-report, idle in transaction) for " in shown


NOTHING = Running(relays=(), needed_keys=(), transactions=(), hidden_sessions=0, turns=(), late_rounds=())


@pytest.mark.field("F97")
def test_a_prepared_transaction_and_a_turn_that_is_held_are_named_with_their_mend():
    prepared = OpenTransaction(
        pid=None, gid="it's", role="app", application_name=None, state="prepared", seconds=7200.0
    )
    held = HeldTurn(turn="fan_out", pid=7, application_name="psql", address=None, seconds=300.0)
    _, turn, transaction = findings_of_running(replace(NOTHING, transactions=(prepared,), turns=(held,)), "")
    assert transaction.mend == "commit prepared 'it''s', or rollback prepared 'it''s'"
    assert "the turn fan_out is held for 5m 0s by server process 7 (psql)" in turn.seen
    assert turn.mend.endswith("select pg_terminate_backend(7)")


@pytest.mark.field("F97")
def test_who_holds_a_turn_is_read_from_the_row(connection, engine, monkeypatch):
    monkeypatch.setattr(running_module, "LONG_TURN_SECONDS", -1.0)
    assert status(connection, None).running.turns == ()
    with engine.begin() as other:
        pid = other.execute(
            text("select pg_backend_pid() from outbox.turns where name = 'fan_out' for update")
        ).scalar()
        (held,) = status(connection, None).running.turns
        assert (held.turn, held.pid) == ("fan_out", pid)


LATE = """insert into outbox.rounds (name, every_seconds, succeeded_at, failed_at, error)
values ('event leaves', 60, now() - interval '1 hour', now() - interval '1 minute', 'disk full'),
       ('attempt leaves', 60, now() - interval '2 minutes', now() - interval '1 minute', 'in use'),
       ('of another version', 60, now() - interval '1 year', null, null),
       ('secrets in clear', 30, now() - interval '1 day', null, null)"""


@pytest.mark.field("F97")
def test_a_round_that_has_not_succeeded_for_long_is_named_with_its_error(connection):
    seeding.sign_in(connection)
    connection.execute(text(LATE))
    assert found(connection) == {
        "rounds.late": "housekeeping: 'event leaves', which is due every 1m 0s, has not for 1h 0m succeeded;"
        " its last error: disk full"
    }


@pytest.mark.slow
@pytest.mark.field("F21")
def test_300_000_due_rows_that_nobody_analysed_are_not_being_sent(connection):
    seeding.sign_in(connection)
    name = seeding.subscribe(connection)
    deliver(connection, name, 300_000)
    more, none = "10,000 or more", "0"
    assert counts(connection) | {"ended": ""} == {
        "due": more, "open": more, "closed": none, "waiting": none, "leased": none, "left": none, "ended": "",
    }  # fmt: skip
    deliver(connection, name, 50, lease=7, due=600)
    deliver(connection, name, 3, lease=8, due=-1)
    assert (counts(connection)["leased"], counts(connection)["ended"]) == ("50", "3 or more")
    subscriptions.pause(connection, name)
    assert (counts(connection)["open"], counts(connection)["closed"]) == (none, more)


@pytest.mark.field("F93")
def test_leases_of_a_relay_that_is_gone_are_not_being_sent(connection):
    name = seeding.subscribe(connection)
    deliver(connection, name, 30, lease=7, due=600)
    deliver(connection, name, 4, lease=8, due=-1)
    assert counts(connection)["ended"] == "4"
    assert (counts(connection)["leased"], counts(connection)["left"]) == ("0", "30")
    seeding.sign_in(connection, leased=10)
    seeding.sign_in(connection, host="relay-2", seen=60, leased=20)
    assert (counts(connection)["leased"], counts(connection)["left"]) == ("10", "20")


@pytest.mark.field("F28")
def test_check_tells_a_monitor_by_its_exit_code(connection, database_url):
    def check(url: str = database_url, *more: str):
        return CliRunner().invoke(cli, ["status", "--check", *more], env={"RELAY_DATABASE_URL": url})

    of_the_server = check().stdout.splitlines()  # a test server runs without fsync
    seeding.record(connection)
    ended = check()
    (line,) = [line for line in ended.stdout.splitlines() if line not in of_the_server]
    assert (ended.exit_code, line.partition(",")[0]) == (1, "no relay runs")
    ended = check(database_url, "--json")
    (none,) = [one for one in json.loads(ended.stdout)["findings"] if one["code"] == "relays.none"]
    assert (ended.exit_code, none["severity"], none["mend"]) == (1, "problem", "start `relay run`")
    ended = check("postgresql://nobody@127.0.0.1:1/none")
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "unreachable" in ended.stderr


@pytest.mark.field("F28")
def test_check_of_a_well_outbox_is_one_line_and_0(connection, database_url, monkeypatch):
    seeding.sign_in(connection)
    whole = status(connection, None)
    well = replace(whole, findings=tuple(f for f in whole.findings if not f.code.startswith("settings.")))
    monkeypatch.setattr("relay.cli.status.status_of", lambda *_: well)
    ended = CliRunner().invoke(cli, ["status", "--check"], env={"RELAY_DATABASE_URL": database_url})
    assert (ended.exit_code, ended.stdout) == (0, "nothing needs a person\n")


@pytest.mark.field("F28")
def test_a_check_that_takes_too_long_is_not_known(database_url, monkeypatch):
    def slow(connection, _tenant):
        connection.execute(text("set local statement_timeout = 50"))
        connection.execute(text("select pg_sleep(30)"))

    monkeypatch.setattr("relay.cli.status.status_of", slow)
    ended = CliRunner().invoke(cli, ["status", "--check"], env={"RELAY_DATABASE_URL": database_url})
    assert (ended.exit_code, "took too long" in ended.stderr) == (3, True)
