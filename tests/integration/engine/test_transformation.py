"""A subscription's transformation, from its row to the wire: what goes out, and what becomes of a failure."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine

from outbox import subscriptions
from outbox.control.replay.replay import replay
from outbox.control.replay.replayable import candidates_by_id
from relay.engine.window import Window
from relay.model.outcome import NOT_ASKED, OutcomeKind
from tests.integration.engine.world import DELIVERED, ERROR_500, FarEnd, World, stepping

pytestmark = pytest.mark.anyio

DEAD = "select reason, error, payload, attempts from outbox.dead_letters order by event_seq"


@pytest.fixture
def engine(world: World) -> Any:
    made: Engine = create_engine(world.url.replace("postgresql://", "postgresql+psycopg://"))
    yield made
    made.dispose()


def transform(world: World, subscription: bytes, expression: str | None) -> None:
    world.rows(
        "update outbox.subscriptions set transformation = %s where id = %s", expression, UUID(bytes=subscription)
    )


def data_of(body: bytes) -> bytes:
    return body.partition(b'"data":')[2][:-1]


async def test_the_result_goes_out_as_data_and_to_others_what_was_recorded(world: World, far_end: FarEnd) -> None:
    changed, plain = world.subscribe(path="/changed"), world.subscribe(path="/plain")
    transform(world, changed, "{order: data.id, total: data.total}")
    world.record(payload='{"id": 7, "total": 19.90, "more": [1]}')
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    bodies = {path: data_of(body) for path, _, body in far_end.requests}
    assert bodies == {"/changed": b'{"order":7,"total":19.90}', "/plain": b'{"id": 7, "total": 19.90, "more": [1]}'}
    assert plain != changed
    assert world.count("attempts", "verdict = 'delivered'") == 2


async def test_the_same_bytes_go_out_at_every_attempt(world: World, far_end: FarEnd) -> None:
    one = world.subscribe(path="/", schedule=(1, 1))
    transform(world, one, "data.items[?p > `1.5`] | sort_by(@, &p)")
    world.record(payload='{"items":[{"p":3.0},{"p":1e0},{"p":2.50}]}')
    far_end.script["/"] = ERROR_500
    for answer in (ERROR_500, DELIVERED):
        far_end.script["/"] = answer
        async with stepping(world.url, far_end) as relay:  # another process, which has nothing in memory
            await relay.look()
            await relay.settled()
        world.rows("update outbox.deliveries set due_at = now()")
    ((_, first_id, first), (_, second_id, second)) = far_end.requests
    assert data_of(first) == b'[{"p":2.50},{"p":3.0}]'
    assert (first_id, first) == (second_id, second)


async def test_one_that_fails_is_a_dead_letter_at_once_and_harms_nothing_else(world: World, far_end: FarEnd) -> None:
    strict, other = world.subscribe(path="/strict"), world.subscribe(path="/other")
    transform(world, strict, "{n: length(data.items)}")
    world.record(payload='{"items":"not a list"}')
    world.record(payload='{"items":null}')
    world.record(payload='{"items":[1,2]}')
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        window = relay.endpoints.get(strict).window
        assert window.size == 18, "16 at the start, and one more for each of the two answers there were"
    assert sorted(path for path, _, _ in far_end.requests) == ["/other"] * 3 + ["/strict"] * 2
    ((reason, error, payload, attempts),) = world.rows(DEAD)
    assert (reason, payload, attempts) == ("transformation_failed", '{"items":null}', 1)
    assert error == (
        "transformation: length() at character 5: argument 1 is null; it takes a string or an array or an object"
    )
    assert world.count("attempts", "outcome = 'transformation_failed' and status is null") == 1
    assert world.count("deliveries") == 0
    assert other != strict


async def test_what_failed_is_mended_and_replayed(world: World, far_end: FarEnd, engine: Engine) -> None:
    one = world.subscribe(path="/")
    transform(world, one, "join('-', data.parts)")
    world.record(payload='{"parts":["a",1]}')
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        assert far_end.requests == []
        (delivery,) = world.rows("select delivery_id from outbox.dead_letters")
        with engine.begin() as connection:
            better = "join('-', data.parts[*].to_string(@))"
            subscriptions.update(connection, str(UUID(bytes=one)), transformation=better)
            assert len(replay(connection, None, candidates_by_id(connection, None, delivery[0]))) == 1
        await relay.look()
        await relay.settled()
    assert [data_of(body) for _, _, body in far_end.requests] == [b'"a-1"']
    assert (world.count("dead_letters"), world.count("deliveries")) == (0, 0)


async def test_a_budget_that_is_used_up_is_such_a_failure(world: World, far_end: FarEnd) -> None:
    transform(world, world.subscribe(), "data[*][*][*]")
    world.record(payload="[" + ",".join(["[[1],[2]]"] * 20_000) + "]")
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
    ((reason, error, _, _),) = world.rows(DEAD)
    assert reason == "transformation_failed"
    assert error.startswith("transformation: it needs more than 20,000 steps for this event")
    assert far_end.requests == []


async def test_an_expression_that_was_written_by_hand_and_is_none_waits_to_be_mended(
    world: World, far_end: FarEnd
) -> None:
    """It is the subscription that is wrong, whatever the event, as with a URL: its deliveries keep their schedule."""
    one = world.subscribe(path="/")
    transform(world, one, "data.[")
    world.record()
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        ((outcome, error),) = world.rows("select outcome, error from outbox.attempts")
        assert outcome == "unsendable"
        assert error.startswith("transformation: at character 7: the end of the expression stands where a name")
        transform(world, one, None)
        world.rows("update outbox.deliveries set due_at = now()")
        await relay.look()
        await relay.settled()
    assert [data_of(body) for _, _, body in far_end.requests] == [b"{}"]


def test_the_row_takes_no_empty_and_no_long_expression(world: World) -> None:
    one = world.subscribe()
    for wrong in ("", "a" * 4097):
        with pytest.raises(Exception, match="transformation_is_text"):
            transform(world, one, wrong)


async def test_a_dozen_that_fail_leave_the_breaker_closed_and_note_nothing(world: World, far_end: FarEnd) -> None:
    one = world.subscribe()
    transform(world, one, "{n: length(data.items)}")
    world.record(payload='{"items":null}', count=12)
    async with stepping(world.url, far_end) as relay:
        await relay.look()
        await relay.settled()
        assert relay.endpoints.get(one).ailing is None
    assert world.count("attempts", "outcome = 'transformation_failed'") == 12
    assert world.count("health") == 0


@pytest.mark.parametrize("kind", sorted(NOT_ASKED))
def test_an_outcome_without_a_request_says_nothing_of_the_endpoint(kind: OutcomeKind) -> None:
    window = Window(64)
    before = (window.size, window.answers, window.latency)
    window.learn(kind, None, 4.0)
    assert (window.size, window.answers, window.latency) == before
