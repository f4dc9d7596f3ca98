"""Status sees an event that is neither pending nor resolved, and sees none where all is well."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner
from sqlalchemy import event, text

from outbox.control.replay import replay
from outbox.ids import EventId
from relay.cli import cli
from relay.operations.status import unresolved_events as unresolved_module
from relay.operations.status.documents import Unresolved
from relay.operations.status.unresolved_events import DRAWN, find_unresolved, sql_to_mend
from tests.support import seeding

SQL = re.compile(r"insert into outbox\.pending .*")


@pytest.fixture
def connection(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def window_of_ten(monkeypatch):
    monkeypatch.setattr(unresolved_module, "NEWEST", 10)
    monkeypatch.setattr(unresolved_module, "BATCHES_BELOW", 2)


def resolve_together(connection, seqs: list[int]) -> None:
    """Resolve these events in one batch, without a subscriber."""
    parameters = {"seqs": sorted(seqs), "first": min(seqs), "matches": [0] * len(seqs)}
    connection.execute(text("delete from outbox.pending where event_seq = any(:seqs)"), parameters)
    connection.execute(
        text("insert into outbox.resolutions (first_seq, seqs, matches) values (:first, :seqs, :matches)"), parameters
    )


def record_many(connection, count: int) -> list[int]:
    return [seeding.seq_of(connection, seeding.record(connection)) for _ in range(count)]


def test_what_was_inserted_without_the_trigger_is_unresolved_until_the_printed_sql_ran(database_url, connection):
    def status(*flags: str) -> str:
        return CliRunner().invoke(cli, ["status", *flags], env={"RELAY_DATABASE_URL": database_url}).stdout

    seeding.resolve(connection, seeding.record(connection))
    connection.execute(text("set session_replication_role = replica"))
    lost = [seeding.record(connection) for _ in range(4)]
    connection.execute(text("set session_replication_role = origin"))
    assert json.loads(status("--json"))["unresolved"] == {"of_last": 5, "count": 4, "events": lost[:3]}
    (line,) = [line for line in status().splitlines() if "nobody will send them" in line]
    assert line.startswith("! 4 of the last 5 events are neither pending nor resolved")
    connection.execute(text("set role outbox_operator"))
    connection.exec_driver_sql(SQL.search(line)[0])
    assert list(map(str, find_unresolved(connection, None).events)) == lost[3:]


@pytest.mark.parametrize("role", ["outbox_reader", "outbox_operator"])
def test_a_deleted_pending_row_is_seen_by_whoever_may_look(connection, role):
    kept, lost = seeding.record(connection), seeding.record(connection)
    connection.execute(
        text("delete from outbox.pending where event_seq = :seq"), {"seq": seeding.seq_of(connection, lost)}
    )
    connection.execute(text(f"set role {role}"))
    assert find_unresolved(connection, None) == Unresolved(of_last=2, count=1, events=(EventId.of(lost),))
    assert kept not in sql_to_mend([lost])


def test_an_event_that_could_not_be_resolved_is_a_dead_letter_not_unresolved(connection):
    seeding.bury_unresolved(connection, seeding.record(connection))
    assert find_unresolved(connection, None).count == 0


def test_an_event_that_replay_wrote_again_is_not_unresolved(connection):
    """Its resolution and attempts went with their retention; what is left is its delivery."""
    subscription_id = seeding.subscribe(connection)
    event_id = seeding.record(connection)
    (delivery_id,) = seeding.resolve(connection, event_id, subscription_id)
    seeding.attempt(connection, delivery_id, "dead")
    seeding.prune_event(connection, event_id)
    connection.execute(text("delete from outbox.resolutions"))
    connection.execute(text("delete from outbox.attempts"))
    replay.replay(connection, None, replay.candidates_by_id(connection, None, delivery_id))
    assert find_unresolved(connection, None) == Unresolved(of_last=1, count=0, events=())


def test_a_batch_that_began_far_below_with_a_late_commit_counts(connection, window_of_ten):
    late, *others = record_many(connection, 30)
    for seq in others[:-5]:
        resolve_together(connection, [seq])
    resolve_together(connection, [late, *others[-5:]])
    assert find_unresolved(connection, None) == Unresolved(of_last=10, count=0, events=())


def test_a_batch_across_the_border_of_what_is_read_counts(connection, window_of_ten):
    seqs = record_many(connection, 30)
    resolve_together(connection, seqs[:25])
    resolve_together(connection, seqs[25:29])
    assert find_unresolved(connection, None).count == 0
    connection.execute(text("delete from outbox.pending"))
    assert find_unresolved(connection, None).count == 1


@pytest.mark.parametrize("resolved", [False, True], ids=["pending", "resolved"])
def test_events_recorded_after_the_last_number_was_read_hide_none(engine, connection, window_of_ten, resolved):
    """Twice as many as are looked at come between the two statements."""

    def come(count: int) -> None:
        with engine.begin() as other:
            for seq in record_many(other, count):
                if resolved:
                    resolve_together(other, [seq])

    def come_after_the_last_number(_connection, _cursor, statement, *_rest) -> None:
        if statement == str(DRAWN):
            come(20)

    come(10)
    event.listen(connection, "after_cursor_execute", come_after_the_last_number)
    assert find_unresolved(connection, None) == Unresolved(of_last=10, count=0, events=())
    assert connection.execute(text("select count(*) from outbox.events")).scalar_one() == 30


def test_a_busy_database_shows_none_at_any_moment(engine, window_of_ten):
    """While some commit late and others resolve, every look finds each event in exactly one place."""

    def write(late: bool) -> None:
        for _ in range(40):
            with engine.begin() as connection:
                seeding.record(connection)
                if late:
                    record_elsewhere()

    def record_elsewhere() -> None:
        with engine.begin() as connection:
            record_many(connection, 3)

    def resolve() -> None:
        for _ in range(200):
            with engine.begin() as connection:
                seqs = list(connection.scalars(text("select event_seq from outbox.pending limit 5 for update")))
                if seqs:
                    resolve_together(connection, seqs)

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(write, False), pool.submit(write, True), pool.submit(resolve)]
        looks = []
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not all(one.done() for one in working) or not looks:
                looks.append(find_unresolved(connection, None).count)
    for one in working:
        one.result()
    assert set(looks) == {0}
