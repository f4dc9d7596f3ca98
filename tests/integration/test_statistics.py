"""Statistics: each attempt is counted once, whenever it commits; what is read is what the attempts add up to."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from outbox import statistics
from outbox.ids import SubscriptionId
from tests.support import databases, seeding

INSERT = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds,
                             error, at)
values (%s, %s, %s, 1, %s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s))
"""
DEAD = """
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload, recorded_at,
                                 attempts, reason)
select gen_random_uuid(), e.seq, e.id, %s, e.tenant, e.type, '1', now(), 1, 'crash' from outbox.events e where seq = %s
"""
BOUND = 0.0434  # how wrong a percentile is at most
TYPES = ("order.created", "order.paid", "user.left")
OUTCOMES = ("timeout", "timeout", "slowed", "stood_still")
VERDICTS = ("delivered", "delivered", "delivered", "retry", "dead", "cancelled", "test")


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


class World:
    """Subscriptions of three tenants, events of three types, and attempts in transactions that end when they like."""

    def __init__(self, url: str, database: psycopg.Connection[Any], seed: int) -> None:
        self.url = url
        self.database = database
        self.dice = random.Random(seed)
        self.open: list[psycopg.Connection[Any]] = []
        self.outcomes: tuple[str, ...] = OUTCOMES
        tenants = ("", "acme", "globex")
        self.subscriptions: list[tuple[UUID, str]] = [
            (row[0], tenant)
            for tenant in tenants
            for _ in range(2)
            for row in database.execute(
                "insert into outbox.subscriptions (url, types, tenant) values ('https://example.com', '{*}', %s)"
                " returning id",
                (tenant,),
            ).fetchall()
        ]
        self.events: list[int] = [
            database.execute("insert into outbox.events (type, payload) values (%s, '1') returning seq", (type_,))
            .fetchall()[0][0]
            for type_ in TYPES
        ]  # fmt: skip

    def begin_earlier(self, days: int) -> None:
        """Let hours and days be closed from so many days ago on, as if a relay had not run since."""
        self.database.execute(
            "update outbox.rollup_state set hour_until = date_bin('1 day', now() - make_interval(days => %(days)s),"
            " '2000-01-01Z'), day_until = date_bin('1 day', now() - make_interval(days => %(days)s), '2000-01-01Z')",
            {"days": days},
        )

    def attempt(self, connection: psycopg.Connection[Any], age_seconds: float = 0.0) -> None:
        verdict = self.dice.choice(VERDICTS)
        failed = verdict in ("retry", "dead")
        milliseconds = int(math.exp(self.dice.uniform(0, 12)))
        row = (uuid4(), self.dice.choice(self.events), self.dice.choice(self.subscriptions)[0], verdict,
               self.dice.choice(self.outcomes) if failed else verdict, 503 if failed else None, milliseconds,
               f"no answer {self.dice.random()}" if failed else None, age_seconds)  # fmt: skip
        connection.execute(INSERT, row)

    def bury(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(DEAD, (self.dice.choice(self.subscriptions)[0], self.dice.choice(self.events)))

    def step(self) -> None:  # noqa: C901 - one line a case
        match self.dice.choice(
            ("insert", "insert", "begin", "more", "savepoint", "commit", "abort", "roll", "hours", "bury")
        ):
            case "insert":
                for _ in range(self.dice.randrange(1, 6)):
                    self.attempt(self.database, self.dice.choice((0, 100, 4000, 90_000, 200_000)))
            case "begin":
                self.open.append(psycopg.connect(self.url))
                self.attempt(self.open[-1], self.dice.choice((0, 7200, 100_000)))
            case "more" if self.open:
                self.attempt(self.dice.choice(self.open))
            case "savepoint" if self.open:
                one = self.dice.choice(self.open)
                try:
                    with one.transaction():
                        self.attempt(one)
                        if self.dice.random() < 0.5:
                            raise _UndoError
                except _UndoError:
                    pass
            case "commit" if self.open:
                with self.open.pop(self.dice.randrange(len(self.open))) as one:
                    one.commit()
            case "abort" if self.open:
                with self.open.pop(self.dice.randrange(len(self.open))) as one:
                    one.rollback()
            case "roll":
                self.database.execute("select outbox.roll_up(%s, 1)", (self.dice.choice((1, 3, 100)),))
            case "hours":  # one is closed a call
                for _ in range(30):
                    self.database.execute("select outbox.roll_up()")
            case "bury":
                self.bury(self.database)

    def close(self) -> None:
        for one in self.open:
            one.close()


class _UndoError(Exception):
    pass


def drain(database: psycopg.Connection[Any]) -> None:
    for _ in range(200):
        if not database.execute("select outbox.roll_up()").fetchone()[0]:  # type: ignore[index]
            return
    raise AssertionError("never empty")


def nearest_rank(values: list[int], part: float) -> int:
    return sorted(values)[math.ceil(len(values) * part) - 1]


def recount(rows: list[Any], since: datetime) -> dict[str, Any]:
    """The statistics of attempts, added up one by one."""
    rows = [row for row in rows if row.at >= since]
    delivered = [row.milliseconds for row in rows if row.verdict == "delivered"]
    failures = [row for row in rows if row.verdict in ("retry", "dead") and row.outcome != "stood_still"]
    last = max(failures, key=lambda row: row.at, default=None)
    return {
        "delivered": len(delivered),
        "failed": len(failures),
        "cancelled": sum(row.verdict == "cancelled" for row in rows),
        "mean": sum(delivered) / len(delivered) if delivered else None,
        "last_delivered_at": max((row.at for row in rows if row.verdict == "delivered"), default=None),
        "last_failed_at": last and last.at,
        "last_outcome": last and last.outcome,
        "last_error": last and last.error,
        "percentiles": {name: nearest_rank(delivered, part) if delivered else None
                        for name, part in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
    }  # fmt: skip


def compare(found: statistics.Statistics, expected: dict[str, Any]) -> None:
    percentiles = expected.pop("percentiles")
    assert found.mean == pytest.approx(expected.pop("mean"))
    assert {name: getattr(found, name) for name in expected} == expected
    for name, value in percentiles.items():
        got = getattr(found, name)
        assert (got is None) == (value is None)
        if value is not None:
            assert got == pytest.approx(value, rel=BOUND + 1e-9) if value >= 16 else got == value


def check(engine: sa.Engine, world: World) -> None:
    """Compare every scope over every window with a recount, in one snapshot."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection, connection.begin():
        rows = connection.execute(
            sa.text("select a.*, s.tenant, e.type from outbox.attempts a join outbox.subscriptions s"
                    " on s.id = a.subscription_id join outbox.events e on e.seq = a.event_seq")
        ).all()  # fmt: skip
        some, tenant = world.dice.choice(world.subscriptions)
        type_, name = world.dice.choice(TYPES), str(SubscriptionId.of(some))
        asked: list[tuple[dict[str, Any], Any, list[Any]]] = [
            ({}, outbox.EVERY_TENANT, list(rows)),
            ({"type": type_}, outbox.EVERY_TENANT, [row for row in rows if row.type == type_]),
            ({}, tenant, [row for row in rows if row.tenant == tenant]),
            ({"type": type_}, tenant, [row for row in rows if (row.tenant, row.type) == (tenant, type_)]),
            ({"subscription": name}, tenant, [row for row in rows if row.subscription_id == some]),
            ({"subscription": name, "type": type_}, tenant,
             [row for row in rows if (row.subscription_id, row.type) == (some, type_)]),
        ]  # fmt: skip
        for given_, whose, among in asked:
            for over in ("1h", "24h", "7d", "30d"):
                found = statistics.read(connection, whose, over=over, **given_)
                compare(found, recount(among, found.since))
        total = connection.execute(sa.text("select count(*) from outbox.dead_letters")).scalar_one()
        assert statistics.read(connection, outbox.EVERY_TENANT, over="7d").dead == total
        for over, step in (("1h", 60), ("24h", 900), ("7d", 3600), ("30d", 86_400)):
            compare_points(statistics.series(connection, tenant, over=over, step_seconds=step), step,
                           [row for row in rows if row.tenant == tenant])  # fmt: skip


def compare_points(points: list[statistics.Point], step: int, rows: list[Any]) -> None:
    assert {after.start - before.start for before, after in pairwise(points)} == {timedelta(seconds=step)}
    for point in points:
        inside = [row for row in rows if point.start <= row.at < point.start + timedelta(seconds=step)]
        expected = recount(inside, point.start)
        assert (point.delivered, point.failed) == (expected["delivered"], expected["failed"])


@pytest.mark.parametrize("seed", range(6))
def test_every_number_is_what_the_attempts_add_up_to_whenever_they_commit(
    database_url: str, engine: sa.Engine, database: psycopg.Connection[Any], seed: int
) -> None:
    """Random programs: late commits, savepoints, aborts, roll-ups in between, hours and days that close."""
    world = World(database_url, database, seed)
    world.begin_earlier(4)
    try:
        for number in range(60):
            world.step()
            if number % 10 == 9:
                check(engine, world)
        while world.open:
            with world.open.pop() as one:
                one.commit()
        drain(database)
        assert database.execute("select count(*) from outbox.uncounted").fetchone() == (0,)
        check(engine, world)
    finally:
        world.close()


def test_two_that_roll_up_at_once_count_nothing_twice(database_url: str, database: psycopg.Connection[Any]) -> None:
    """The second finds the turn taken; when the first aborts, nothing is lost."""
    world = World(database_url, database, 1)
    for _ in range(20):
        world.attempt(database)
    with psycopg.connect(database_url) as first:
        assert first.execute("select outbox.roll_up()").fetchone()[0] > 10  # type: ignore[index]
        assert database.execute("select outbox.roll_up()").fetchone() == (None,)
        first.rollback()
    expected = database.execute("select count(*) filter (where verdict = 'delivered') from outbox.attempts").fetchone()
    for _ in range(2):
        assert database.execute("select delivered from outbox.statistics()").fetchone() == expected
        drain(database)
    assert database.execute("select count(*) from outbox.uncounted").fetchone() == (0,)


def test_a_snapshot_that_would_miss_others_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("set transaction isolation level repeatable read")
        with pytest.raises(psycopg.errors.RaiseException, match="READ COMMITTED"):
            connection.execute("select outbox.roll_up()")


def test_what_waits_under_a_held_snapshot_is_not_stepped_over_again(
    database_url: str, database: psycopg.Connection[Any]
) -> None:
    """Dead rows stay in the table, and `counted` lets the index skip them; an open transaction's rows are not lost."""
    world = World(database_url, database, 2)
    with psycopg.connect(database_url) as holding, psycopg.connect(database_url) as late:
        holding.execute("set transaction isolation level repeatable read")
        holding.execute("select 1 from outbox.uncounted")
        world.attempt(late)
        for _ in range(300):
            world.attempt(database)
        drain(database)
        world.attempt(late)
        late.commit()
        plan = database.execute("explain (analyze, format json) select * from outbox.uncounted_attempts()").fetchone()
        assert scanned(plan[0][0]["Plan"]) <= 10  # type: ignore[index]
        world.attempt(database)
        drain(database)
    assert database.execute("select count(*) from outbox.uncounted").fetchone() == (0,)
    attempts = database.execute(
        "select count(*) from outbox.attempts where verdict <> 'test' and outcome <> 'stood_still'"
    ).fetchone()
    counted = database.execute("select sum(delivered + failed + cancelled) from outbox.statistics()").fetchone()
    assert counted == attempts


def scanned(plan: dict[str, Any]) -> int:
    """The rows of outbox.uncounted that a plan looked at."""
    own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0) if plan.get("Relation Name") == "uncounted" else 0
    return int(own * plan["Actual Loops"]) + sum(map(scanned, plan.get("Plans", [])))


def test_attempts_of_before_the_migration_are_counted_once(empty_database_url: str) -> None:
    databases.migrate_to(empty_database_url, 19)
    with psycopg.connect(empty_database_url, autocommit=True) as database:
        world = World(empty_database_url, database, 3)
        world.outcomes = ("timeout",)
        for _ in range(400):
            world.attempt(database, world.dice.choice((0, 50_000)))
        databases.migrate(empty_database_url)
        for _ in range(50):
            world.attempt(database)
        while database.execute("select outbox.note_old_attempts()").fetchone() == (True,):
            pass
        drain(database)
        expected = database.execute(
            "select count(*) filter (where verdict = 'delivered'),"
            " count(*) filter (where verdict in ('retry', 'dead')),"
            " count(*) filter (where verdict = 'cancelled') from outbox.attempts"
        ).fetchone()
        found = "select delivered, failed, cancelled from outbox.statistics('30 days')"
        assert database.execute(found).fetchone() == expected


def test_statistics_outlive_the_attempts_and_go_by_their_own_retention(
    database_url: str, engine: sa.Engine, database: psycopg.Connection[Any]
) -> None:
    world = World(database_url, database, 4)
    world.begin_earlier(30)
    for _ in range(30):
        world.attempt(database, 20 * 86_400)
    for _ in range(40):
        drain(database)
    database.execute("truncate outbox.attempts")
    with engine.begin() as connection:
        before = statistics.read(connection, outbox.EVERY_TENANT, over="30d")
    assert before.delivered > 0
    assert before.last_outcome in ("timeout", "slowed")
    assert before.last_error is None
    for _ in range(800):  # an hour a call, until the days are closed
        database.execute("select outbox.roll_up()")
    assert database.execute("select outbox.prune_rollups(400, 2000)").fetchone() != (0,)  # those of minutes
    assert database.execute("select outbox.prune_rollups(400, 2000)").fetchone() == (0,)
    with engine.begin() as connection:
        assert statistics.read(connection, outbox.EVERY_TENANT, over="30d").delivered == before.delivered
    assert database.execute("select outbox.prune_rollups(10, 2000)").fetchone() != (0,)
    assert database.execute("select delivered from outbox.statistics('30 days')").fetchone() == (0,)


def test_another_tenants_subscription_is_not_found(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="acme")
        assert statistics.read(connection, "acme", subscription=name).delivered == 0
        for tenant, subscription in (("globex", name), ("acme", str(SubscriptionId.of(uuid4())))):
            with pytest.raises(outbox.NotFoundError, match="subscription: no sub_"):
                statistics.read(connection, tenant, subscription=subscription)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"over": "soon"}, "over"),
        ({"over": "0h"}, "over"),
        ({"over": timedelta(seconds=1)}, "over"),
        ({"over": None}, "over"),
        ({"type": "order.*"}, "type"),
        ({"tenant": None}, "tenant"),
        ({"tenant": "*"}, "tenant"),
    ],
)
def test_a_wrong_argument_is_refused_by_name(engine: sa.Engine, arguments: dict[str, Any], named: str) -> None:
    with engine.begin() as connection, pytest.raises(outbox.OutboxError, match=f"^{named}: "):
        statistics.read(connection, **({"tenant": ""} | arguments))


@pytest.mark.parametrize("step", [0, 59, 90, 3601, 90_000, True, "60"])
def test_a_wrong_step_is_refused(engine: sa.Engine, step: Any) -> None:
    with engine.begin() as connection, pytest.raises(outbox.ArgumentError, match="step_seconds"):
        statistics.series(connection, "", step_seconds=step)


@pytest.mark.parametrize(("over", "step"), [("7d", 60), ("90d", 3600), ("36500d", 86_400)])
def test_a_step_reaches_back_as_far_as_its_rows_are_kept(engine: sa.Engine, over: str, step: int) -> None:
    with engine.begin() as connection, pytest.raises(outbox.ArgumentError, match="step_seconds"):
        statistics.series(connection, "", over=over, step_seconds=step)


def test_the_worst_are_ranked_first(engine: sa.Engine, database: psycopg.Connection[Any], database_url: str) -> None:
    world = World(database_url, database, 5)
    for _ in range(60):
        world.attempt(database)
    with engine.begin() as connection:
        found = statistics.rank(connection, outbox.EVERY_TENANT, "subscription")
        assert [one.failed for one in found] == sorted((one.failed for one in found), reverse=True)
        assert {one.subscription_id for one in found} == {SubscriptionId.of(id_) for id_, _ in world.subscriptions}
        assert {one.type for one in statistics.rank(connection, "acme", "type")} <= set(TYPES)
        assert [one.tenant for one in statistics.rank(connection, "acme", "tenant")] == ["acme"]


def test_each_of_several_is_what_it_is_by_itself(
    engine: sa.Engine, database: psycopg.Connection[Any], database_url: str
) -> None:
    world = World(database_url, database, 6)
    for _ in range(40):
        world.attempt(database)
    with engine.begin() as connection:
        quiet = seeding.subscribe(connection, tenant="acme")
        ranked = statistics.rank(connection, "acme", "subscription")
        ids = [str(one.subscription_id) for one in ranked]
        found = statistics.read_each(connection, "acme", [*ids, quiet])
        assert {name: (one.delivered, one.failed, one.dead, one.last_error) for name, one in found.items()} == {
            str(one.subscription_id): (one.delivered, one.failed, one.dead, one.last_error) for one in ranked
        }
        alone = statistics.read(connection, "acme", subscription=ids[0])
        assert statistics.read_each(connection, "acme", ids[:1])[ids[0]].delivered == alone.delivered
        for tenant, wanted in (("globex", ids), ("globex", ids[:1]), ("acme", [quiet]), ("acme", [])):
            assert statistics.read_each(connection, tenant, wanted) == {}
        for wrong in (ids[0], ids * 1000, None):
            with pytest.raises(outbox.ArgumentError, match="subscriptions: "):
                statistics.read_each(connection, "acme", wrong)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_asynchronous_code_reads_them_too(database_url: str) -> None:
    engine = create_async_engine(sa.engine.make_url(database_url).set(drivername="postgresql+psycopg"))
    async with engine.connect() as connection:
        assert (await connection.run_sync(statistics.read, "")).delivered == 0
        assert len(await connection.run_sync(statistics.series, "")) == 97
    await engine.dispose()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_percentile_is_within_its_bound() -> None:
    """Whatever value of a bucket is the true one."""
    bounds = _bounds()
    for value in {0, *range(1, 1000), *bounds, *(bound - 1 for bound in bounds)}:
        bucket = sum(bound <= value for bound in bounds)
        assert _shown(bounds, bucket) == pytest.approx(value, rel=BOUND if value >= 16 else 0)


def _bounds() -> list[int]:
    return sorted({math.ceil(2 ** (number / 8)) for number in range(161)})


def _shown(bounds: list[int], bucket: int) -> float:
    if bucket < 1:
        return 0.0
    if bucket >= len(bounds):
        return float(bounds[-1])
    low, high = bounds[bucket - 1], bounds[bucket] - 1
    return 2 * low * high / (low + high)


def test_the_buckets_of_the_database_are_those(database: psycopg.Connection[Any]) -> None:
    bounds = _bounds()
    assert database.execute("select outbox.latency_bounds()").fetchone() == (bounds,)
    rows = database.execute("select i, outbox.latency_of(i) from generate_series(0, 144) i").fetchall()
    assert dict(rows) == pytest.approx({bucket: _shown(bounds, bucket) for bucket in range(145)})


def test_since_is_a_whole_minute_hour_or_day(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        found = {over: statistics.read(connection, "", over=over).since for over in ("24h", "7d", "300d")}
    assert found["24h"].second == 0
    assert (found["7d"].minute, found["7d"].second) == (0, 0)
    assert found["300d"].astimezone(UTC).timetz().replace(tzinfo=None).isoformat() == "00:00:00"
