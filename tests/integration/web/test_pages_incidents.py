"""What an operator is told and offered on the pages when something is wrong."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text

import outbox
from outbox import subscriptions
from outbox.ids import parse_id
from relay.cli import cli
from relay.operations.sending import pause_all, read_sending
from tests.support import seeding

pytestmark = pytest.mark.anyio
OPEN = text("""
insert into outbox.health (subscription_id, failures, opened_at, probe_at)
values (:id, 9, clock_timestamp(), clock_timestamp() + interval '1 hour')
""")
HOLD = text("update outbox.subscriptions set held_until = clock_timestamp() + cast(:left as interval) where id = :id")


@pytest.fixture
async def operator(client: httpx.AsyncClient, token) -> httpx.AsyncClient:
    """The operator, who is signed in with every right."""
    return await signed_in(client, token(tenant=None))


async def signed_in(client: httpx.AsyncClient, given: str) -> httpx.AsyncClient:
    found = re.search(r'name="csrf" value="(\w+)"', (await client.get("/sign-in")).text)
    assert found
    assert (await client.post("/sign-in", data={"csrf": found[1], "token": given})).status_code == 303
    return client


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


async def resume(client: httpx.AsyncClient, page: str, name: str) -> None:
    """Press the button of a page."""
    found = re.search(rf'action="(/subscriptions/{name}/resume)"[^>]*><input[^>]*name="csrf" value="(\w+)"', page)
    assert found
    assert (await client.post(found[1], data={"csrf": found[2]})).status_code == 303


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("2 minutes", "by the receiver's Retry-After, for 1m 59s more"),
        ("400 days", "by hand (relay audit), for 399d 23h more"),
    ],
)
async def test_a_subscription_that_is_held_back_says_so_and_is_resumed_there(
    connection: Connection, operator, left: str, said: str
) -> None:
    name = seeding.subscribe(connection)
    connection.execute(HOLD, {"id": parse_id("sub", name), "left": left})
    page = (await operator.get(f"/subscriptions/{name}")).text
    assert f"It is held back {said}" in words_of(page)
    await resume(operator, page, name)
    assert "It is held back" not in words_of((await operator.get(f"/subscriptions/{name}")).text)


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("error", "said"),
    [("certificate has expired", "it answers 500: certificate has expired"), (None, "it answers 500")],
)
async def test_the_overview_says_why_an_endpoint_fails(
    connection: Connection, operator, error: str | None, said: str, *, is_open: bool
) -> None:
    name = seeding.subscribe(connection)
    (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
    seeding.attempt(connection, delivery, "retry", error=error)
    if is_open:
        connection.execute(OPEN, {"id": parse_id("sub", name)})
    more = "; breaker open since" if is_open else " 0 0"
    assert f"failing {said}{more}" in words_of((await operator.get("/")).text)


async def test_a_relay_that_is_gone_ran_until_its_last_sign(connection: Connection, operator) -> None:
    seeding.sign_in(connection, started=10_000, seen=2_785)
    assert "gone 1.0 2h 46m" in words_of((await operator.get("/")).text)


@pytest.mark.parametrize("path", ["/", "/findings"])
async def test_a_finding_is_mended_where_it_stands(connection: Connection, operator, path: str) -> None:
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), name)
    subscriptions.disable(connection, name, reason="410 Gone")
    page = (await operator.get(path)).text
    assert "is disabled since" in page
    await resume(operator, page, name)
    assert "is disabled since" not in (await operator.get(path)).text


async def test_a_finding_offers_no_button_to_whoever_may_only_look(connection: Connection, client, token) -> None:
    subscriptions.disable(connection, seeding.subscribe(connection), reason="410 Gone")
    page = (await (await signed_in(client, token("read", tenant=None))).get("/findings")).text
    assert "is disabled since" in page
    assert "/resume" not in page
    assert ">Open the subscription</a>" in page


async def test_a_finding_of_dead_letters_leads_to_them(connection: Connection, operator) -> None:
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    seeding.attempt(connection, delivery, "dead")
    page = (await operator.get("/findings")).text
    assert "1 dead letter waits for a person." in page
    assert '<a href="/dead-letters">Show them</a>' in page
    assert "<summary>By command</summary>relay dead-letters list" in page


async def test_a_delivery_that_fails_has_advice_on_its_page_by_api_and_by_command(
    connection: Connection, operator, client, token, database_url: str
) -> None:
    event = seeding.record(connection)
    (delivery,) = seeding.resolve(connection, event, seeding.subscribe(connection))
    seeding.attempt(connection, delivery, "dead")
    connection.execute(text("update outbox.attempts set outcome = 'http_4xx', status = 401"))
    said = "The endpoint refuses the signature or the credentials"
    page = (await operator.get(f"/deliveries/{delivery}")).text
    assert said in page
    assert '/test">Check the endpoint</a>' in page
    headers = {"Authorization": f"Bearer {token(tenant=None)}"}
    found = (await client.get(f"/api/v1/deliveries/{delivery}", headers=headers)).json()["advice"]
    assert (found["code"], found["seen"], found["action"]["page"]) == ("answer.401", said, "test")
    tracked = (await client.get(f"/api/v1/events/{event}/track", headers=headers)).json()["deliveries"][0]["advice"]
    assert tracked == found
    for command in (["explain", event], ["deliveries", "show", delivery]):
        ended = CliRunner().invoke(cli, command, env={"RELAY_DATABASE_URL": database_url})
        assert f"{said}: mostly the secret was exchanged on one side only" in ended.stdout


async def test_all_sending_is_resumed_where_the_finding_stands(connection: Connection, operator) -> None:
    pause_all(connection, None, "the bank called")
    page = (await operator.get("/findings")).text
    finding = page[page.index("sending.paused") :]
    found = re.search(r'action="(/findings/sending)"[^>]*><input[^>]*name="csrf" value="(\w+)"', finding)
    assert found
    await operator.post(found[1], data={"csrf": found[2], "to": "resumed"})
    assert not read_sending(connection, None).is_paused


async def test_events_of_one_state_are_found_on_the_page_by_command_and_in_python(
    connection: Connection, operator, database_url: str
) -> None:
    seeding.record(connection, type="order.waits")
    lost = seeding.record(connection, type="order.nobody")
    seeding.resolve(connection, lost)
    page = (await operator.get("/events?state=unmatched")).text
    assert "order.nobody" in page
    assert "order.waits" not in page
    assert '<option value="unmatched" selected>unmatched</option>' in page
    run = CliRunner().invoke
    listed = run(cli, ["events", "list", "--state", "pending"], env={"RELAY_DATABASE_URL": database_url}).stdout
    assert "order.waits" in listed
    assert "order.nobody" not in listed
    assert [str(one.id) for one in outbox.events.list(connection, "unmatched")] == [lost]
