"""Views: what docs/views.md shows works as it stands for outbox_reader, and shows no secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from outbox import subscriptions
from tests.support import seeding
from tests.support.readme import ROOT, blocks

VIEWS = ROOT / "docs" / "views.md"
QUERIES = [statement.strip() for block in blocks(VIEWS) if block.language == "sql"
           for statement in block.text.split(";") if statement.strip()]  # fmt: skip
NAMES = {
    *("v_backlog", "v_dead_letters", "v_deliveries_by_state", "v_recent_failures", "v_statistics_1h"),
    *("v_statistics_24h", "v_statistics_7d", "v_statistics_30d", "v_statistics_types_24h", "v_subscriptions_health"),
    *("v_messages", "shown_attempts"),
}
CANARY = "c4n4ry"


@pytest.fixture
def names(engine: sa.Engine) -> dict[str, str]:
    """A subscription that works and one that fails, whose URL has credentials; all kinds of deliveries."""
    with engine.begin() as connection:
        good = seeding.subscribe(connection, tenant="acme", url=f"https://good.example/{CANARY}?token={CANARY}")
        bad = seeding.subscribe(connection, tenant="acme", url="https://bad.example:8443/hook")
        for verdict, outcome, error, name in (
            ("delivered", "delivered", None, good),
            ("delivered", "delivered", None, good),
            ("retry", "timeout", "no answer", bad),
        ):
            event = seeding.record(connection, f'{{"secret": "{CANARY}"}}', tenant="acme")
            (delivery,) = seeding.resolve(connection, event, name)
            connection.execute(
                sa.text("insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict,"
                        " outcome, milliseconds, error) values (outbox.uuid_of(:delivery), :seq,"
                        " outbox.uuid_of(:name), 1, :verdict, :outcome, 20, :error)"),
                {"delivery": delivery, "seq": seeding.seq_of(connection, event), "name": name, "verdict": verdict,
                 "outcome": outcome, "error": error},
            )  # fmt: skip
        connection.execute(
            sa.text("delete from outbox.deliveries where subscription_id = outbox.uuid_of(:id)"), {"id": good}
        )
        connection.execute(sa.text("update outbox.deliveries set attempts = 1"))
        connection.execute(
            sa.text("insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type,"
                    " payload, recorded_at, attempts, reason) select gen_random_uuid(), 1, gen_random_uuid(),"
                    " outbox.uuid_of(:id), 'acme', 'order.paid', :payload, now(), 3, 'http_5xx'"),
            {"id": bad, "payload": f'"{CANARY}"'},
        )  # fmt: skip
        # No verb takes such a URL; a row that was written by hand may have one.
        connection.execute(
            sa.text("update outbox.subscriptions set url = :url where id = outbox.uuid_of(:id)"),
            {"id": bad, "url": f"https://user:{CANARY}@bad.example:8443/hook"},
        )
        subscriptions.pause(connection, seeding.subscribe(connection), drop=True)
    return {"good": good, "bad": bad}


@pytest.fixture
def reader(database_url: str, names: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    """A connection with the rights of outbox_reader only."""
    with psycopg.connect(database_url, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        connection.execute("set role outbox_reader")
        yield connection


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_page_has_an_answer(reader: psycopg.Connection[Any], query: str) -> None:
    assert reader.execute(query).fetchall()


def test_the_page_names_every_view(reader: psycopg.Connection[Any]) -> None:
    found = reader.execute("select viewname from pg_views where schemaname = 'outbox'").fetchall()
    assert {row["viewname"] for row in found} == NAMES
    page = VIEWS.read_text(encoding="utf-8")
    assert {name for name in NAMES if f"`outbox.{name}`" not in page} == set()


@pytest.mark.parametrize("view", sorted(NAMES))
def test_no_view_shows_a_secret(reader: psycopg.Connection[Any], view: str) -> None:
    rows = reader.execute(f"select * from outbox.{view}").fetchall()
    assert rows
    assert CANARY not in str(rows)


def test_health_and_statistics_say_what_happened(reader: psycopg.Connection[Any], names: dict[str, str]) -> None:
    rows = {
        row["subscription_id"]: row for row in reader.execute("select * from outbox.v_subscriptions_health").fetchall()
    }
    good, bad = rows[names["good"]], rows[names["bad"]]
    assert (good["host"], good["delivered_7d"], good["success_percent_7d"]) == ("good.example", 2, 100)
    assert (bad["failed_7d"], bad["last_outcome"], bad["last_error"]) == (1, "timeout", "no answer")
    assert {row["state"] for row in rows.values()} == {"active", "paused"}


def test_the_backlog_and_its_states(reader: psycopg.Connection[Any], names: dict[str, str]) -> None:
    (row,) = reader.execute("select * from outbox.v_backlog").fetchall()
    assert (row["subscription_id"], row["due"], row["retries_due"]) == (names["bad"], 1, 1)
    states = reader.execute("select state, deliveries from outbox.v_deliveries_by_state").fetchall()
    assert {row["state"]: row["deliveries"] for row in states} == {"due": 1, "dead": 1}


def test_failures_name_their_event(reader: psycopg.Connection[Any], names: dict[str, str]) -> None:
    (row,) = reader.execute("select * from outbox.v_recent_failures").fetchall()
    assert row["event_id"].startswith("evt_")
    assert (row["subscription_id"], row["type"], row["attempt"]) == (names["bad"], "order.created", 1)
