"""The body of a request is made in one place, once for an event; its bytes are those that SQL users see."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.string import ByteaBinaryLoader

from relay.message.body import body_of
from relay.model.event import EventParts
from relay.store.lease import new_lease
from relay.store.rows import event_of
from relay.store.store import Store
from tests.integration.engine.world import FarEnd, World, fan_out, stepping

PARTS = """
select id, tenant, type, key, recorded_at, convert_to(payload, 'UTF8'),
       convert_to(outbox.body(type, recorded_at, payload), 'UTF8')
from (select %s::uuid, %s::text, %s::text, %s::text, %s::timestamptz, %s::text)
    e(id, tenant, type, key, recorded_at, payload)
"""
TYPES = st.from_regex(r"[A-Za-z0-9_]{1,9}(\.[A-Za-z0-9_]{1,9}){0,3}", fullmatch=True)
PAYLOADS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


@pytest.fixture(scope="module")
def elsewhere(shared_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that reads ids and times as the engine does, far from UTC."""
    with psycopg.connect(shared_url, autocommit=True, options="-c timezone=Asia/Kathmandu") as connection:
        for name in ("uuid", "timestamptz"):
            connection.adapters.register_loader(name, ByteaBinaryLoader)
        yield connection


@given(moment=st.datetimes(timezones=st.just(UTC)), type_=TYPES, payload=PAYLOADS)
@example(moment=datetime(1, 1, 1, tzinfo=UTC), type_="a", payload="1")
@example(moment=datetime(1999, 12, 31, 23, 59, 59, 999_999, UTC), type_="a.b", payload=' {"n": 1.10} ')
@example(moment=datetime(2000, 1, 1, tzinfo=UTC), type_="a.b", payload='"%s %(x)s %% \\u0000 \U0001f600"')
@example(moment=datetime.max.replace(tzinfo=UTC), type_="a.b", payload="")
def test_the_bytes_are_those_of_the_function_for_sql_users(
    elsewhere: psycopg.Connection[Any], moment: datetime, type_: str, payload: str
) -> None:
    row = elsewhere.execute(PARTS, (UUID(int=7), "t", type_, "k", moment, payload), binary=True).fetchone()
    assert row is not None
    event = event_of((*row[:6], None, None))
    assert event is not None
    assert (event.id, event.tenant, event.key) == (b"evt_00000000000000000000000007", "t", "k")
    assert body_of(event) == row[6]
    assert event.size == len(row[6])


def test_no_part_of_an_event_that_may_be_private_is_in_its_repr() -> None:
    event = EventParts(b"evt_x", b"a.b", "", "a person's key", 0, b'"a secret"')
    body_of(event)
    assert "secret" not in repr(event)
    assert "person" not in repr(event)


@pytest.mark.anyio
async def test_a_thousand_deliveries_of_an_event_share_one_body(world: World, far_end: FarEnd) -> None:
    world.rows(
        "insert into outbox.subscriptions (url, types)"
        " select 'http://127.0.0.1/' || n, array['*'] from generate_series(1, 1000) n"
    )
    world.rows(
        "insert into outbox.secrets (subscription_id, secret)"
        " select id, 'whsec_' || repeat('A', 43) || '=' from outbox.subscriptions"
    )
    world.record()
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    assert len(far_end.requests) == 1000
    assert len({id(body) for _, _, body in far_end.requests}) == 1


@pytest.mark.anyio
async def test_the_rows_of_a_claim_share_the_events_that_they_are_of(world: World, store: Store) -> None:
    subscriptions = [world.subscribe(path=f"/{n}") for n in range(5)]
    first, second = world.record(count=2)
    await fan_out(store)
    rows = await store.claim([(one, 2) for one in subscriptions], 10, 10**9, new_lease())
    assert len(rows) == 10
    for seq in (first, second):
        events = [row.event for row in rows if row.event_seq == seq and row.event]
        assert len(events) == 5
        assert len({id(event) for event in events}) == len({id(body_of(event)) for event in events}) == 1


@pytest.mark.anyio
async def test_a_claimed_row_whose_event_is_gone_carries_none(world: World, store: Store) -> None:
    subscription = world.subscribe()
    gone, kept = world.record(count=2)
    await fan_out(store)
    world.rows("delete from outbox.events where seq = %s", gone)
    rows = await store.claim([(subscription, 2)], 2, 10**9, new_lease())
    assert {row.event_seq: row.event is None for row in rows} == {gone: True, kept: False}
