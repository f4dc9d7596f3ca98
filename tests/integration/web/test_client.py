"""The client: a call for every route, and results that are the documents of operations themselves."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from dataclasses import fields

import httpx
import pytest
from fastapi import FastAPI

from outbox import statistics, subscriptions
from outbox.control import audit, dead_letters, deliveries, events, explain
from outbox.control.filters import Filters
from outbox.control.history import list_attempts
from outbox.control.pages import Page
from outbox.control.track import track_event
from relay.client import ApiError, ApiUnreachableError, AsyncClient, Client, calls
from relay.operations import sending_switch, tokens
from relay.operations.erase.erasure import receipt_of, run_erasure, show_erasure
from relay.operations.status.status import status
from tests.support import seeding

pytestmark = pytest.mark.anyio


@pytest.fixture
async def relay(app: FastAPI, token) -> AsyncIterator[AsyncClient]:
    """A client of the operator."""
    async with AsyncClient("http://relay", token(tenant=None), transport=httpx.ASGITransport(app)) as client:
        yield client


@pytest.fixture
def world(connection) -> dict[str, str]:
    sub = seeding.subscribe(connection, tenant="acme")
    evt = seeding.record(connection, tenant="acme", data='{"total": 42.10}')
    made = seeding.resolve(connection, evt, sub, sub, sub, sub)
    for one, verdict in zip(made, ("retry", "dead", "delivered"), strict=False):
        seeding.attempt(connection, one, verdict, error="no")
    return dict(zip(("sub", "evt", "waiting", "dead", "delivered", "due"), (sub, evt, *made), strict=True))


def test_there_is_a_call_for_every_route_with_its_name(app: FastAPI) -> None:
    described = {one["operationId"] for methods in app.openapi()["paths"].values() for one in methods.values()}
    found = {name for name, value in vars(calls).items() if inspect.isfunction(value) and name[0] != "_"}
    assert found == described == set(calls.__all__)


async def test_what_is_read_by_http_is_what_the_operation_returns(relay, connection, world) -> None:
    of_sub = Filters(subscription=world["sub"])
    for call, operation in (
        (calls.get_event(world["evt"]), lambda: events.show_event(connection, None, world["evt"])),
        (calls.get_events(limit=5), lambda: events.list_events(connection, None, Filters(limit=5))),
        (calls.get_events(state="dead"), lambda: events.list_events(connection, None, Filters(), "dead")),
        (calls.explain_recorded(world["evt"]), lambda: explain.explain_event(connection, None, world["evt"])),
        (calls.get_event_track(world["evt"]), lambda: track_event(connection, None, world["evt"])),
        (calls.get_event_track(world["evt"], tenant="acme"), lambda: track_event(connection, "acme", world["evt"])),
        (
            calls.get_deliveries(tenant="acme"),
            lambda: deliveries.list_deliveries(connection, None, Filters(tenant="acme")),
        ),
        (calls.get_delivery(world["waiting"]), lambda: deliveries.show_delivery(connection, None, world["waiting"])),
        (calls.get_delivery(world["dead"]), lambda: deliveries.show_delivery(connection, None, world["dead"])),
        (calls.get_dead_letter(world["dead"]), lambda: dead_letters.show_dead_letter(connection, None, world["dead"])),
        (calls.get_dead_letters(), lambda: dead_letters.list_dead_letters(connection, None, Filters())),
        (calls.get_audit(), lambda: audit.list_audit(connection, None, Filters())),
        (calls.list_tokens(), lambda: tokens.list_tokens(connection, None, Filters())),
        (calls.get_attempts(subscription=world["sub"]), lambda: list_attempts(connection, None, of_sub)),
        (calls.get_sending(), lambda: sending_switch.read_sending(connection, None)),
    ):
        read = await relay(call)
        assert read == operation(), call


async def test_a_subscription_is_read_whole(relay, connection, world) -> None:
    settings = {"filter": {"payload": {"total": {"$gte": 1.5}}}, "metadata": {"a": "b"}, "schedule_seconds": [1, 2],
                "headers": {"X-A": "b"}, "authentication": {"type": "bearer", "token": "t"}, "ordered": True,
                "tenant": "acme", "once": "k"}  # fmt: skip
    made = await relay(calls.add_subscription("https://example.com/", ["order.*"], **settings))
    assert made.secret.startswith("whsec_")
    found = await relay(calls.get_subscription(made.id))
    assert found.subscription == subscriptions.get(connection, made.id, tenant="acme")
    changed = await relay(calls.change_subscription(made.id, found.etag, description="new", metadata=None))
    assert (changed.description, changed.metadata) == ("new", {})
    with pytest.raises(ApiError) as refused:
        await relay(calls.change_subscription(made.id, found.etag, description="newer"))
    assert (refused.value.status, refused.value.code) == (412, "precondition-failed")
    listed = [one.subscription.id async for one in relay.pages(calls.list_subscriptions(limit=1))]
    assert listed == [world["sub"], made.id]


async def test_status_is_read_whole(relay, connection, world) -> None:
    found, own = await relay(calls.get_status()), status(connection, None)
    now_and_then = {"at", "deliveries", "pending", "running", "findings"}  # they hold lengths of time
    assert [(one.code, one.subject) for one in found.findings] == [(one.code, one.subject) for one in own.findings]
    assert found.deliveries.due == own.deliveries.due
    assert found.running.relays == own.running.relays
    for name in {field.name for field in fields(found)} - now_and_then:
        assert getattr(found, name) == getattr(own, name), name
    assert {one.code for one in await relay(calls.get_findings())} == {one.code for one in own.findings}


async def test_statistics_are_read_whole(relay, connection, world) -> None:
    found, own = await relay(calls.get_statistics(tenant="acme")), statistics.read(connection, "acme")
    for name in {field.name for field in fields(own)} - {"since", "attempts_per_second"}:  # they move with the time
        assert getattr(found, name) == getattr(own, name), name
    assert (own.delivered, own.failed) == (1, 2)
    (ranked,) = await relay(calls.rank_statistics("subscription"))
    assert (str(ranked.subscription_id), ranked.delivered) == (world["sub"], 1)
    points = await relay(calls.get_series(over="2h", subscription=world["sub"]))
    assert (len(points) > 100, sum(point.delivered for point in points)) == (True, 1)


async def test_many_are_put_back_and_a_key_is_erased(relay, connection, world) -> None:
    plan = await relay(calls.plan_bulk_operation("redrive", subscription=world["sub"]))
    assert (plan.count, plan.exact) == (1, True)
    made = await relay(calls.add_bulk_operation("redrive", subscription=world["sub"], rate=7, start=True, once="b"))
    assert (made.state, made.rate, made.planned) == ("running", 7, 1)
    assert (await relay(calls.pause_bulk_operation(made.id))).state == "paused"
    assert [one.id async for one in relay.pages(calls.list_bulk_operations(state="paused"))] == [made.id]
    assert (await relay(calls.set_bulk_operation_rate(made.id, 9))).rate == 9
    with pytest.raises(ApiError) as refused:
        await relay(calls.add_bulk_operation("recover", subscription=world["sub"]))
    assert (refused.value.status, refused.value.field) == (422, "since")
    erasure = await relay(calls.request_an_erasure("key", "nobody's", within="acme"))
    assert run_erasure_to_its_end(connection, erasure.id).state == "done"
    receipt = await relay(calls.get_receipt(erasure.id))
    assert receipt == receipt_of(show_erasure(connection, None, erasure.id))
    await relay(calls.keep_for("acme", events_days=3))
    assert [one.events_days async for one in relay.pages(calls.get_tenant_retention())] == [3]


def run_erasure_to_its_end(connection, erasure_id):
    with connection.engine.connect() as own:
        return run_erasure(own, None, erasure_id)


async def test_things_are_done(relay, world) -> None:
    assert (await relay(calls.retry_deliveries([world["waiting"]], dry_run=True))).count == 1
    assert (await relay(calls.cancel_deliveries(filters={"subscription": world["sub"]}))).count == 2
    looked = await relay(calls.replay_deliveries(filters={"subscription": world["sub"], "limit": 1}, dry_run=True))
    assert (looked.count, looked.matching.count, looked.matching.exact) == (1, 1, True)
    redriven = await relay(calls.redrive_dead_letters([world["dead"]], once="k"))
    assert (await relay(calls.redrive_dead_letters([world["dead"]], once="k"))) == redriven
    assert (await relay(calls.replay_deliveries([world["evt"]], to=world["sub"]))).count == 1
    limit = await relay(calls.set_tenant_limit("acme", "5/s"))
    assert [one.tenant async for one in relay.pages(calls.get_tenant_limits())] == [limit.tenant]
    recorded = await relay(calls.record_event("order.created", {"id": 7}, once="e", tenant="acme"))
    assert (await relay(calls.get_event(recorded.id))).payload == '{"id": 7}'
    made = await relay(calls.make_token("ci", ["read"], tenant="acme"))
    assert made.text.startswith("rtk_")
    assert made.text not in repr(made)
    with pytest.raises(ApiError, match="give either expires_at or expires_days"):
        await relay(calls.make_token("ci", ["read"], expires_days=1, expires_at="2099-01-01T00:00:00Z"))
    link = await relay(calls.make_portal_link(tenant="acme", url="https://hooks.example/portal", once="l"))
    assert link.url.startswith("https://hooks.example/portal/open?link=")
    assert [one.id for one in (await relay(calls.list_portal_links())).items] == [link.link.id]
    assert (await relay(calls.revoke_portal_link(link.link.id))).revoked_at is not None
    assert (await relay(calls.revoke_portal_links("acme"))).revoked == 0
    assert (await relay(calls.pause_sending("test"))).is_paused
    resumed = await relay(calls.resume_sending())
    assert (resumed.is_paused, resumed.paused_seconds is None) == (False, False)
    assert (await relay(calls.resume_sending())).paused_seconds is None
    assert (await relay(calls.revoke_token(made.token.id))).revoked_at is not None
    assert (await relay(calls.get_own_token())).tenant is None
    assert {"standard", "github"} <= {one["name"] for one in await relay(calls.get_schemes())}


async def test_errors_have_their_field_and_mend(relay) -> None:
    with pytest.raises(ApiError) as refused:
        await relay(calls.add_subscription("ftp://x", ["*"]))
    assert (refused.value.status, refused.value.field) == (422, "url")
    assert refused.value.request_id


def test_what_is_no_api_is_told_apart_from_a_refusal() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, text="<html>nginx</html>")

    transport = httpx.MockTransport(answer)
    refused = pytest.raises(ApiUnreachableError, match="something else answered")
    with Client("http://relay", "rtk_x", transport=transport) as relay, refused:
        relay(calls.get_status())


def test_pages_follow_the_links_to_the_end() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        after = request.url.params.get("after", "0")
        link = None if after == "2" else f"/api/v1/tenant-limits?limit=1&after={int(after) + 1}"
        item = {"tenant": after, "rate_limit": "1/s", "rate_burst": None}
        return httpx.Response(200, json={"items": [item], "next": link})

    with Client("http://relay/api/v1/", "rtk_x", transport=httpx.MockTransport(answer)) as relay:
        assert [one.tenant for one in relay.pages(calls.get_tenant_limits(limit=1))] == ["0", "1", "2"]
        assert isinstance(relay(calls.get_tenant_limits()), Page)
