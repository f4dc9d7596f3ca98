"""Leaves: made ahead, emptied and dropped, while applications hold transactions open and nobody queues behind us."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from tests.support import databases

RECORD = "select outbox.record('order.created', '{}')"
EVENT = "insert into outbox.events (type, payload) values ('order.created', '{}') returning seq"
ATTEMPT = (
    "insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, milliseconds)"
    " values (gen_random_uuid(), 1, gen_random_uuid(), 1, %s, 'delivered', 'delivered', 5)"
)


@pytest.fixture
def open_connections(database_url: str) -> Iterator[Any]:
    """Makes connections, transaction by transaction, that are closed at the end."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(psycopg.connect(database_url, **options))


@pytest.fixture
def upkeep(open_connections: Any) -> psycopg.Connection:
    return open_connections(autocommit=True)


def one(connection: psycopg.Connection, statement: str, *parameters: Any) -> Any:
    row = connection.execute(statement, parameters).fetchone()
    return row[0] if row else None


def until_null(connection: psycopg.Connection, statement: str, *parameters: Any) -> list[Any]:
    answers = []
    while (answer := one(connection, statement, *parameters)) is not None:
        answers.append(answer)
    return answers


def bounds(connection: psycopg.Connection, table: str) -> list[tuple[str, str]]:
    return connection.execute(
        "select from_value, to_value from outbox.leaves_of(%s::regclass) order by leaf", (f"outbox.{table}",)
    ).fetchall()


def leaf_of(connection: psycopg.Connection, seq: int) -> str:
    return str(one(connection, "select tableoid::regclass::text from outbox.events where seq = %s", seq))


def exists(connection: psycopg.Connection, leaf: str) -> bool:
    return one(connection, "select to_regclass(%s)", leaf) is not None


def age(connection: psycopg.Connection, days: int) -> None:
    connection.execute("update outbox.events set recorded_at = recorded_at - make_interval(days => %s)", (days,))


def finish(connection: psycopg.Connection) -> None:
    """Mark every event as resolved, by nobody, long ago."""
    connection.execute("delete from outbox.pending")


def retire_events(connection: psycopg.Connection, days: int = 30) -> str | None:
    statement = "select leaf from outbox.retire_event_leaf(clock_timestamp() - make_interval(days => %s))"
    return one(connection, statement, days)


@pytest.fixture
def a_finished_old_leaf(upkeep: psycopg.Connection) -> str:
    """The first leaf: full, 31 days old, nothing left to deliver."""
    for _ in range(3):
        upkeep.execute(EVENT)
    upkeep.execute("select setval('outbox.events_seq', 1000000)")
    age(upkeep, 31)
    finish(upkeep)
    return "outbox.events_1"


# Making


def test_a_fresh_schema_has_leaves_ahead_and_uses_them(upkeep: psycopg.Connection) -> None:
    seq = one(upkeep, EVENT)
    assert leaf_of(upkeep, seq) == "outbox.events_1"
    assert bounds(upkeep, "events")[:2] == [("1", "1000000"), ("1000000", "2000000")]
    assert len(bounds(upkeep, "events")) >= 8
    today = datetime.now(UTC).date()
    firsts = [datetime.fromisoformat(low).date() for low, _ in bounds(upkeep, "attempts")]
    assert firsts in (
        [today + timedelta(days=n) for n in range(8)],
        [today + timedelta(days=n - 1) for n in range(8)],
    )


def test_making_leaves_again_makes_none(upkeep: psycopg.Connection) -> None:
    assert until_null(upkeep, "select outbox.make_event_leaf()") == []


def test_leaves_follow_the_sequence(upkeep: psycopg.Connection) -> None:
    upkeep.execute("select setval('outbox.events_seq', 2500000)")
    assert until_null(upkeep, "select outbox.make_event_leaf()") == [
        "outbox.events_9000000",
        "outbox.events_10000000",
    ]
    assert leaf_of(upkeep, one(upkeep, EVENT)) == "outbox.events_2000000"


def test_midnight_passes(upkeep: psycopg.Connection) -> None:
    last = datetime.fromisoformat(bounds(upkeep, "attempts")[-1][1])
    tomorrow = (last - timedelta(days=7)).date()
    made = until_null(upkeep, "select outbox.make_attempt_leaf(today => %s)", tomorrow)
    assert made == [f"outbox.attempts_{last:%Y%m%d}"]
    upkeep.execute(ATTEMPT, (last,))
    assert one(upkeep, "select tableoid::regclass::text from outbox.attempts") == made[0]


def test_a_relay_wakes_after_ten_days(upkeep: psycopg.Connection) -> None:
    """Nothing failed meanwhile: what found no leaf is in the default one, and what comes next has leaves again."""
    wakes = datetime.now(UTC) + timedelta(days=10)
    upkeep.execute("select setval('outbox.events_seq', 20000000)")
    while_asleep = one(upkeep, EVENT)
    upkeep.execute(ATTEMPT, (wakes,))
    assert leaf_of(upkeep, while_asleep) == "outbox.events_default"

    made = until_null(upkeep, "select outbox.make_event_leaf()")
    assert made[0] == f"outbox.events_{while_asleep + 1}"
    assert len(made) == 9
    assert leaf_of(upkeep, one(upkeep, EVENT)) == made[0]
    assert leaf_of(upkeep, while_asleep) == "outbox.events_default"

    made = until_null(upkeep, "select outbox.make_attempt_leaf(today => %s)", wakes.date())
    tomorrow = wakes + timedelta(days=1)
    assert made == [f"outbox.attempts_{wakes + timedelta(days=n):%Y%m%d}" for n in range(1, 8)]
    upkeep.execute(ATTEMPT, (tomorrow,))
    assert one(upkeep, "select count(*) from only outbox.attempts_default") == 1


def attach(connection: psycopg.Connection, leaf: str, low: int, past: int) -> str:
    """Attach a leaf of events by hand, under a name of one's own."""
    statement = "select outbox.attach_leaf('outbox.events', %s::name, 'seq', %s, %s)"
    connection.execute(statement, (leaf, str(low), str(past)))
    return f"outbox.{leaf}"


@pytest.mark.field("F64")
@pytest.mark.parametrize("name", ["archive", "events_of_mine", "events_2", "events_99000000"])
def test_a_leaf_that_was_attached_by_hand_is_followed_by_the_next(upkeep: psycopg.Connection, name: str) -> None:
    """Its name says nothing of its bounds, or something else."""
    last = int(bounds(upkeep, "events")[-1][1])
    attach(upkeep, name, last, last + 500_000)
    upkeep.execute("select setval('outbox.events_seq', %s)", (last,))
    made = until_null(upkeep, "select outbox.make_event_leaf()")
    assert made[0] == f"outbox.events_{last + 500_000}"
    assert len(made) == len(set(made)) == 9


@pytest.mark.field("F64")
def test_only_few_leaves_are_asked_for_their_bounds(upkeep: psycopg.Connection) -> None:
    """To ask each costs 11 µs a leaf, as often as a leaf is made."""
    asked = "select coalesce(sum(calls), 0) from pg_stat_xact_user_functions where funcname = %s"
    upkeep.execute("select setval('outbox.events_seq', 2500000)")
    with upkeep.transaction():
        upkeep.execute("set local track_functions = 'all'")
        assert one(upkeep, "select outbox.make_event_leaf()") == "outbox.events_9000000"
        assert one(upkeep, asked, "bounds_of") == 2
        assert one(upkeep, asked, "leaves_of") == 0
        assert one(upkeep, "select outbox.drop_empty_leaf()") in ("outbox.events_1", "outbox.events_1000000")
        assert one(upkeep, asked, "leaves_of") == 1, "of attempts"


def test_a_large_default_leaf_is_left_alone_when_asked(upkeep: psycopg.Connection) -> None:
    upkeep.execute("select setval('outbox.events_seq', 20000000)")
    upkeep.execute(EVENT)
    assert one(upkeep, "select outbox.make_event_leaf(max_default_bytes => 1)") is None
    assert one(upkeep, "select outbox.make_event_leaf()") is not None


def test_a_new_leaf_has_the_parents_indexes_and_constraints(upkeep: psycopg.Connection) -> None:
    leaf = one(upkeep, "select outbox.make_event_leaf(20)")
    columns = "select count(*) from pg_index where indrelid = %s::regclass"
    assert one(upkeep, columns, leaf) == one(upkeep, columns, "outbox.events")
    checks = (
        "select array_agg(conname order by conname) from pg_constraint where conrelid = %s::regclass and contype = 'c'"
    )
    assert one(upkeep, checks, leaf) == one(upkeep, checks, "outbox.events")
    invalid = "select count(*) from pg_index where indrelid = 'outbox.events'::regclass and not indisvalid"
    assert one(upkeep, invalid) == 0


def test_default_privileges_give_nobody_rights_on_a_leaf(upkeep: psycopg.Connection) -> None:
    upkeep.execute("alter default privileges in schema outbox grant insert on tables to public")
    upkeep.execute("alter default privileges in schema outbox grant all on tables to outbox_reader")
    leaf = one(upkeep, "select outbox.make_event_leaf(20)")
    others = "select count(*) from pg_class c, aclexplode(relacl) a where c.oid = %s::regclass and grantee <> relowner"
    assert one(upkeep, others, leaf) == 0


# Beside open transactions


@pytest.mark.parametrize(
    "statement",
    ["select outbox.make_event_leaf(20)", "select outbox.make_attempt_leaf(20)"],
)
def test_a_leaf_is_made_while_an_application_holds_events(
    open_connections: Any, upkeep: psycopg.Connection, statement: str
) -> None:
    application = open_connections()
    application.execute(RECORD)
    assert one(upkeep, statement) is not None
    application.commit()
    assert one(upkeep, "select count(*) from outbox.pending") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "select outbox.make_event_leaf(20)",
        "select outbox.make_attempt_leaf(20)",
        "select outbox.retire_event_leaf(clock_timestamp())",
    ],
)
def test_upkeep_that_has_not_committed_stops_nobody_who_records(
    open_connections: Any, upkeep: psycopg.Connection, a_finished_old_leaf: str, statement: str
) -> None:
    """An application holds events, upkeep has done its work and not committed: another records without waiting."""
    holder, maintenance, other = open_connections(), open_connections(), open_connections()
    holder.execute(RECORD)
    assert one(maintenance, statement) is not None
    other.execute("set lock_timeout = '1ms'")
    other.execute(RECORD)
    other.commit()
    assert one(upkeep, "select count(*) from outbox.pending") == 1


def test_upkeep_that_waits_for_a_lock_lets_record_pass(
    open_connections: Any, upkeep: psycopg.Connection, database_url: str
) -> None:
    """While leaves are made again and again in vain, behind a writer to the default leaf, another records."""
    upkeep.execute("select setval('outbox.events_seq', 8500000)")
    holder, other = open_connections(), open_connections(autocommit=True)
    holder.execute("insert into outbox.events (seq, type, payload) values (9000001, 'order.far', '{}')")
    other.execute("set lock_timeout = '1ms'")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(upkeep.execute, "select outbox.make_event_leaf()")
        while not waiting.done():
            other.execute(RECORD)
        with pytest.raises(LockNotAvailable):
            waiting.result()
    assert one(other, "select count(*) from outbox.pending") >= 1


def test_the_wait_for_a_lock_is_bounded_and_lets_record_pass(open_connections: Any, upkeep: psycopg.Connection) -> None:
    """An application wrote into the default leaf and stays open: no leaf can be made, and others still record."""
    upkeep.execute("select setval('outbox.events_seq', 20000000)")
    application = open_connections()
    application.execute(RECORD)
    with pytest.raises(LockNotAvailable):
        upkeep.execute("select outbox.make_event_leaf()")
    upkeep.execute(RECORD)
    application.commit()
    assert one(upkeep, "select outbox.make_event_leaf()") == "outbox.events_20000003"
    assert one(upkeep, "select count(*) from outbox.pending") == 2


# Retiring


def test_an_old_finished_leaf_is_emptied_then_dropped(upkeep: psycopg.Connection, a_finished_old_leaf: str) -> None:
    later = one(upkeep, EVENT)
    row = upkeep.execute("select * from outbox.retire_event_leaf(clock_timestamp() - interval '30 days')").fetchone()
    assert row == (a_finished_old_leaf, 3)
    assert upkeep.execute("select seq from outbox.events").fetchall() == [(later,)]
    assert until_null(upkeep, "select outbox.drop_empty_leaf()") == [a_finished_old_leaf]
    assert not exists(upkeep, a_finished_old_leaf)


def test_a_leaf_with_one_young_event_stays(upkeep: psycopg.Connection, a_finished_old_leaf: str) -> None:
    upkeep.execute("update outbox.events set recorded_at = clock_timestamp() where seq = 2")
    assert retire_events(upkeep) is None


def test_a_leaf_whose_numbers_are_not_all_drawn_stays(upkeep: psycopg.Connection) -> None:
    upkeep.execute(EVENT)
    age(upkeep, 31)
    finish(upkeep)
    assert retire_events(upkeep) is None


@pytest.mark.parametrize(
    "undelivered",
    [
        "insert into outbox.pending values (2)",
        """insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
           values (gen_random_uuid(), 2, gen_random_uuid(), 'infinity')""",
    ],
)
def test_a_leaf_with_something_undelivered_stays(
    upkeep: psycopg.Connection, a_finished_old_leaf: str, undelivered: str
) -> None:
    age(upkeep, 3650)
    upkeep.execute(undelivered)
    assert retire_events(upkeep) is None
    assert one(upkeep, "select count(*) from outbox.events") == 3


def test_a_leaf_with_an_open_writer_stays(
    open_connections: Any, upkeep: psycopg.Connection, a_finished_old_leaf: str
) -> None:
    """A transaction drew its number long ago and wrote just now, unseen: the leaf's lock finds it."""
    late = open_connections()
    late.execute("insert into outbox.events (seq, type, payload) values (999, 'order.late', '{}')")
    with pytest.raises(LockNotAvailable):
        retire_events(upkeep)
    late.commit()
    assert retire_events(upkeep) is None
    assert one(upkeep, "select count(*) from outbox.events") == 4


def test_an_event_resolved_between_the_two_looks_keeps_its_leaf(
    upkeep: psycopg.Connection, a_finished_old_leaf: str
) -> None:
    """All rows look old, but one of them was resolved within the last hour: it came in late."""
    upkeep.execute("insert into outbox.resolutions (first_seq, seqs, matches) values (2, '{2}', '{0}')")
    assert retire_events(upkeep) is None
    upkeep.execute("update outbox.resolutions set at = at - interval '2 hours'")
    assert retire_events(upkeep) == a_finished_old_leaf


def test_retention_refuses_a_snapshot_that_would_not_see_others(
    open_connections: Any, a_finished_old_leaf: str
) -> None:
    blind = open_connections()
    blind.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
        retire_events(blind)


def test_a_leaf_ahead_is_never_dropped(upkeep: psycopg.Connection) -> None:
    assert until_null(upkeep, "select outbox.drop_empty_leaf()") == []


@pytest.mark.field("F64")
@pytest.mark.parametrize("name", ["archive", "events_of_mine", "events_2"])
def test_where_a_leaf_lies_counts_for_its_end_and_not_its_name(upkeep: psycopg.Connection, name: str) -> None:
    last = int(bounds(upkeep, "events")[-1][1])
    leaf = attach(upkeep, name, last, last + 500_000)
    made = {f"outbox.events_{low}" for low, _ in bounds(upkeep, "events")} - {f"outbox.events_{last}"}
    upkeep.execute("select setval('outbox.events_seq', %s)", (last + 499_999,))
    assert set(until_null(upkeep, "select outbox.drop_empty_leaf()")) == made
    upkeep.execute("select setval('outbox.events_seq', %s)", (last + 500_000,))
    assert until_null(upkeep, "select outbox.drop_empty_leaf()") == [leaf]


def test_a_leaf_in_use_is_not_dropped_until_it_is_free(
    open_connections: Any, upkeep: psycopg.Connection, a_finished_old_leaf: str
) -> None:
    assert retire_events(upkeep) == a_finished_old_leaf
    application = open_connections()
    application.execute(RECORD)
    with pytest.raises(LockNotAvailable):
        upkeep.execute("select outbox.drop_empty_leaf()")
    application.commit()
    assert one(upkeep, "select outbox.drop_empty_leaf()") == a_finished_old_leaf


def test_a_detached_partition_in_the_way_of_the_next_one_fails_no_migration(
    upkeep: psycopg.Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    last, bounds = upkeep.execute(
        "select inhrelid::regclass::text, pg_get_expr(relpartbound, inhrelid) from pg_inherits"
        " join pg_class c on c.oid = inhrelid where inhparent = 'outbox.events'::regclass"
        " order by (regexp_match(relname, '[0-9]+'))[1]::bigint desc nulls last limit 1"
    ).fetchone()
    upkeep.execute(f"alter table outbox.events detach partition {last}")
    assert databases.migrate(database_url) == []
    assert f'relation "{last.removeprefix("outbox.")}" already exists' in caplog.text
    assert "attach it again" in caplog.text
    assert one(upkeep, EVENT)
    upkeep.execute(f"alter table outbox.events attach partition {last} {bounds}")
    caplog.clear()
    assert databases.migrate(database_url) == []
    assert not caplog.text
