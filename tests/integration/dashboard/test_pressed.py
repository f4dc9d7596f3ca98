"""What the dashboard's buttons do, from the button to the database and back to the page that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from outbox import subscriptions
from relay.operations import tokens
from tests.support import seeding
from tests.support.dashboard import ALL_RIGHTS, served
from tests.support.loopback import allow_loopback
from tests.support.visiting import Visitor, words

pytestmark = pytest.mark.xdist_group("dashboard")
OUTSTANDING = """
select outbox.text_id('sub', d.subscription_id) from outbox.deliveries d join outbox.events e on e.seq = d.event_seq
where e.id = outbox.uuid_of(:event) order by 1
"""


@dataclass(kw_only=True)
class Operator(Visitor):
    """An operator at the dashboard, and whoever looks into the database beside it."""

    engine: Engine

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(text(statement), values).scalars())


@pytest.fixture
def operator(database_url: str, engine: Engine) -> Iterator[Operator]:
    allow_loopback()
    with engine.begin() as connection:
        token = tokens.create(connection, None, name="operator", rights=ALL_RIGHTS, whose=None).text
    with served(database_url) as address, httpx.Client(base_url=address, timeout=30, verify=False) as client:
        visitor = Operator(client=client, engine=engine)
        visitor.open("/sign-in")
        visitor.press("Sign in", token=token)
        yield visitor


def test_each_button_does_what_it_says_and_the_page_tells_of_it(operator: Operator) -> None:
    address = str(operator.client.base_url).rstrip("/")
    with operator.engine.begin() as connection:
        first, second = (seeding.subscribe(connection, url=f"{address}/{name}") for name in ("first", "second"))
        events = [seeding.record(connection) for _ in range(3)]
        for event in events:
            (delivery,) = seeding.resolve(connection, event, first)
            seeding.attempt(connection, delivery, "delivered")
    replays_an_event(operator, events, first, second)
    tries_an_endpoint(operator, first, address)
    pauses_and_drops(operator, second)
    revokes_a_token(operator)
    puts_back_what_passes_a_filter(operator, first)


def replays_an_event(operator: Operator, events: list[str], first: str, second: str) -> None:
    """As it went before, to one that never had it, to all that match now."""
    for event, button, fields, wanted in (
        (events[0], "Replay", {}, [first]),
        (events[1], "Replay to it", {"to": second}, [second]),
        (events[2], "Replay to all that match now", {}, sorted([first, second])),
    ):
        operator.open(f"/events/{event}")
        page = words(operator.press(button, **fields))
        assert f"{len(wanted)} put back" in page
        assert f"1 delivered, {len(wanted)} outstanding" in page
        assert operator.rows(OUTSTANDING, event=event) == wanted


def tries_an_endpoint(operator: Operator, name: str, address: str) -> None:
    """Looks at the way there, and at a request; neither sends anything."""
    before = operator.rows("select count(*) from outbox.attempts")
    operator.open(f"/subscriptions/{name}/test")
    page = words(operator.press("Check"))
    assert "The way to the endpoint" in page
    assert re.search(r"TCP ok", page, re.IGNORECASE), page
    page = words(operator.press("Preview", type="order.shipped", data='{"number": 4711}'))
    assert f"POST {address}/first" in page
    assert "order.shipped" in page
    assert "webhook-signature" in page
    assert "4711" in page
    assert operator.rows("select count(*) from outbox.attempts") == before


def pauses_and_drops(operator: Operator, name: str) -> None:
    operator.open(f"/subscriptions/{name}")
    page = words(operator.press("Pause and drop", drop="1"))
    assert "Paused" in page
    with operator.engine.begin() as connection:
        found = subscriptions.get(connection, name)
    assert (found.state, found.drops_while_paused) == ("paused", True)


def revokes_a_token(operator: Operator) -> None:
    with operator.engine.begin() as connection:
        made = tokens.create(connection, None, name="former colleague", rights=("read",), whose=None)
    asked = {"Authorization": f"Bearer {made.text}"}
    assert operator.client.get("/api/v1/token", headers=asked).status_code == 200
    operator.open("/tokens")
    page = words(operator.press(f"Revoke {made.token.name} {made.token.id}"))
    assert "The token is revoked." in page
    assert "former colleague" not in page
    assert operator.client.get("/api/v1/token", headers=asked).status_code == 401


def puts_back_what_passes_a_filter(operator: Operator, name: str) -> None:
    """After a question, whose answer takes the same filter along; what does not pass it stays dead."""
    with operator.engine.begin() as connection:
        for kind in ("order.lost", "order.lost", "order.kept"):
            (delivery,) = seeding.resolve(connection, seeding.record(connection, type=kind), name)
            seeding.attempt(connection, delivery, "dead")
    operator.open("/dead-letters?type=order.lost")
    page = words(operator.press("Put back what is ticked", all="1", act="replay"))
    assert "Put back 2 dead letters?" in page
    page = words(operator.press("Put back 2 dead letters"))
    assert "2 put back" in page
    assert operator.rows("select type from outbox.dead_letters") == ["order.kept"]
    assert operator.rows("select type from outbox.deliveries d join outbox.events e on e.seq = d.event_seq"
                         " where type = 'order.lost'") == ["order.lost"] * 2  # fmt: skip
