"""Gauges for monitors: what they count, and that neither their work nor their labels grow with the backlog."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from outbox import subscriptions
from outbox.errors import NotFoundError
from relay.operations.gauges import read_gauges
from relay.telemetry import metrics
from relay.telemetry.gauges import COUNTED_UP_TO, Reading
from tests.support import seeding
from tests.support.scrape import Scrape


def test_what_waits_is_counted_and_what_may_not_be_sent_is_not(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        open_, paused = seeding.subscribe(connection), seeding.subscribe(connection)
        subscriptions.pause(connection, paused)
        subscriptions.disable(connection, seeding.subscribe(connection), reason="gone")
        for _ in range(3):
            seeding.resolve(connection, seeding.record(connection), open_, paused)
        seeding.record(connection)
        connection.execute(sa.text("update outbox.deliveries set due_at = now() - interval '1 hour'"))
        connection.execute(sa.text("update outbox.deliveries set due_at = now() - interval '1 day'"
                                   " where subscription_id = outbox.uuid_of(:id)"), {"id": paused})  # fmt: skip
        seeding.sign_in(connection, leased=7)
        found = read_gauges(connection, None)
    assert (found.due, found.pending, found.leased, found.relays) == (3, 2, 7, 1)  # one more tells that it was disabled
    assert found.oldest_due_seconds == pytest.approx(3600, abs=60)
    assert found.subscriptions == {"active": 1, "paused": 1, "disabled": 1, "held": 0, "broken": 0}
    assert found.sending_paused is False


def test_they_are_for_the_operator_only(engine: sa.Engine) -> None:
    with engine.begin() as connection, pytest.raises(NotFoundError):
        read_gauges(connection, "acme")


def many(database: psycopg.Connection[Any], count: int) -> None:
    database.execute("insert into outbox.subscriptions (url, types) select 'https://example.com/' || i, '{*}'"
                     " from generate_series(1, %s) i", (count,))  # fmt: skip


def scraped(engine: sa.Engine) -> Scrape:
    with engine.begin() as connection:
        reading = Reading(0, read_gauges(connection, None))
    registry = metrics.make_registry(lambda: reading, lambda: 0)
    own = metrics.own_registry()
    metrics.Metrics(own)
    return Scrape(metrics.render(registry, own).decode())


@pytest.mark.slow
@pytest.mark.case("D20")
def test_ten_thousand_subscriptions_make_no_time_series_more(engine: sa.Engine, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        many(database, 10)
        before = scraped(engine)
        many(database, 9_990)
        after = scraped(engine)
    assert after.value("outbox_relay_subscriptions") == 10_000
    assert len(after.samples) == len(before.samples) < 150
    assert {label for _, labels, _ in after.samples for label in labels} == {
        "le",
        "outcome",
        "result",
        "state",
        "version",
    }


def test_names_follow_the_conventions_of_prometheus(engine: sa.Engine) -> None:
    for name, family in scraped(engine).families.items():
        assert name.startswith("outbox_relay_")
        assert family.documentation.endswith(".")
        if family.type == "histogram":
            assert name.endswith("_seconds")
        if family.type == "gauge":
            assert not name.endswith("_total")


def test_a_backlog_is_counted_up_to_a_bound(engine: sa.Engine, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        many(database, 3)
        database.execute("insert into outbox.deliveries (id, event_seq, subscription_id, due_at) select"
                         " gen_random_uuid(), i, s.id, now() - interval '5 seconds' from outbox.subscriptions s,"
                         " generate_series(1, 10000) i")  # fmt: skip
        database.execute("analyze outbox.deliveries")
    with engine.begin() as connection:
        found = read_gauges(connection, None)
    assert found.due == COUNTED_UP_TO
