"""Every operation takes the tenant who asks first: what is another tenant's is not found, like what never was."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import pytest
from sqlalchemy import Connection, text

import outbox
import outbox.control
import relay.operations
from outbox.control import (
    attempts,
    audit,
    by_hand,
    catalogue,
    dead_letters,
    deliveries,
    event_types,
    events,
    explain,
    history,
    inbox,
    known_types,
    payloads,
    portal_links,
    sent_again,
    test_messages,
    track,
    waits,
)
from outbox.control.filters import Filters
from outbox.control.outstanding import walk_outstanding
from outbox.control.replay import replay, replayable
from outbox.errors import NotFoundError
from outbox.ids import (
    BulkOperationId,
    DeliveryId,
    ErasureId,
    EventId,
    Id,
    InboxId,
    PortalLinkId,
    SubscriptionId,
    TokenId,
    new_uuid7,
)
from outbox.inbox import Request, receive
from outbox.signing.verify import new_secret
from relay.config.options import Config
from relay.operations import (
    adoption,
    gauges,
    live_secrets,
    prune,
    reconciliation,
    schema_findings,
    secrets,
    sending_switch,
    subscription_versions,
    table_captures,
    tenant_retention,
    tokens,
)
from relay.operations.bulk import operations as bulk
from relay.operations.bulk import plan as bulk_plan
from relay.operations.bulk import request as bulk_request
from relay.operations.bulk.request import BulkRequest
from relay.operations.connection import Database
from relay.operations.endpoint_tests import tested_subscription
from relay.operations.endpoint_tests.preview import Draft, preview
from relay.operations.endpoint_tests.test_and_check import check_endpoint, send_test
from relay.operations.erase import erasure
from relay.operations.erase import request as erase_request
from relay.operations.erase.request import EraseRequest
from relay.operations.resend import resend
from relay.operations.status import (
    breakers,
    delivery_counts,
    disabled_and_held,
    disk,
    lanes,
    late_subscriptions,
    limits,
    locks,
    names,
    outstanding,
    repeated_ids,
    running,
    status,
    unmatched_events,
    unresolved_events,
)
from relay.operations.subscription_file.apply import apply_plan, plan_document
from relay.operations.subscription_file.document import FileError, read_document
from relay.operations.subscription_file.export import export_subscriptions
from relay.operations.subscription_file.references import Place
from relay.operations.table_captures import TableCapture
from relay.secrets.keyring import Keyring
from tests.support import seeding

ALL = Filters()
SECRET = outbox.Secret(new_secret())
SINCE = Filters(since=timedelta(hours=1))
KEY = EraseRequest(kind="key", value="k")
ANYBODY = EraseRequest(kind="subject", path="n", value="1")
REDRIVE = BulkRequest(kind="redrive", since=timedelta(hours=1))
DECLARED = catalogue.Declaration(name="shop", closed=False, types=())
DAYS = {"events_days": 30, "attempts_days": 90, "resolutions_days": 90}


def RECOVER(name: Id | str) -> BulkRequest:  # noqa: N802 - as the constants above
    return BulkRequest(kind="recover", subscription=name, since=timedelta(hours=1))


# What takes a connection and is no operation: each is called inside one, after the tenant was asked for.
PARTS = {
    "catalogue.list_stored": "reads what the application declares, whichever tenant its events are of",
    "catalogue.stored_types": "reads what the application declares, whichever tenant its events are of",
    "api_requests.claim": "is about a token that was recognised",
    "api_requests.keep": "is about a token that was recognised",
    "tokens.authenticate": "tells who asks",
    "sessions.begin_session": "tells who asks",
    "sessions.make_link": "makes a token of the tenant who asks",
    "sessions.session_of": "tells who asks",
    "sessions.maker_of": "is about a token that was recognised",
    "sessions.end_session": "is about a token that was recognised",
    "sessions.end_link": "is about a token that was just made",
    "portal_links.make_portal_link": "makes a link of the tenant that is named, for whoever runs the application",
    "portal_links.begin_portal_session": "begins a session of the tenant that is named, whom the application knows",
    "portal_links.revoke_portal_links": "ends the links of the tenant that is named, for whoever runs the application",
    "portal_links.open_portal_link": "tells who asks",
    "portal_links.portal_link_of_session": "tells who asks",
    "portal_links.end_portal_session": "is about a session that was recognised",
    "audit.note": "writes down an operation on many rows, in its transaction",
    "bulk.plan.plan_of": "counts what was resolved for a tenant",
    "bulk.became.became_of": "reads for the row of an operation that was found for a tenant",
    "connection.begin": "begins a transaction",
    "denied_rights.name_denied_rights": "puts an error into words",
    "waits.count_behind": "is about a delivery that was found",
    "known_types.unsubscribed_types": "is about types that were found",
    "waits.waits_of_pending": "is about an event that was found",
    "planned.along_indexes": "sets how statements are planned",
    "fates.fates": "counts what became of events that were found",
    "secrets.require_keys": "checks the keys when a relay starts",
    "track.track_shown": "is about an event that was read",
    "status.outstanding.oldest_pending_seconds": "is a time, and whose event it is nobody is told",
    "status.late_subscriptions.read_health": "reads a subscription that was found",
    "status.lanes.blocked_of": "reads a subscription that was found",
    "status.breakers.breaker_of": "reads a subscription that was found",
    "status.breakers.breakers_of": "reads subscriptions that were found",
    "endpoint_tests.tested_subscription.require_patience": "is about a target that was found",
    "endpoint_tests.tested_subscription.require_log": "writes nothing",
    "endpoint_tests.preview.read_recorded": "is about a target that was found",
    "endpoint_tests.test_and_check.send_prepared": "sends what was prepared, for which the tenant was asked for",
    "endpoint_tests.tested_subscription.make_event": "makes what is nobody's",
    "endpoint_tests.tested_subscription.log_test": "is about a target that was found",
}


@dataclass(frozen=True)
class World:
    """What acme has: three events, and of the last two a delivery that died and one that was delivered."""

    subscription: SubscriptionId
    event: EventId
    waiting: DeliveryId
    dead: DeliveryId
    delivered: DeliveryId
    token: TokenId
    planned: BulkOperationId
    paused: BulkOperationId
    blocked: ErasureId
    running: ErasureId
    link: PortalLinkId
    received: InboxId


BY_ID: dict[str, tuple[str, Callable[[Connection, str | None, Id], Any]]] = {
    "events.show_event": ("event", events.show_event),
    "track.track_event": ("event", track.track_event),
    "inbox.show_received": ("received", inbox.show_received),
    "inbox.read_stored": ("received", inbox.read_stored),
    "inbox.forget_received": ("received", inbox.forget_received),
    "explain.explain_event": ("event", explain.explain_event),
    "explain.try_filter": ("event", lambda c, tenant, name: explain.try_filter(c, tenant, {"type": "a"}, name)),
    "explain.try_stored_filter": (
        "subscription",
        lambda c, tenant, name: explain.try_stored_filter(c, tenant, name, explain.Draft(type="a.b", data="1")),
    ),
    "portal_links.revoke_portal_link": ("link", portal_links.revoke_portal_link),
    "deliveries.show_delivery": ("waiting", deliveries.show_delivery),
    "deliveries.show_delivery of a dead one": ("dead", deliveries.show_delivery),
    "deliveries.show_delivery of a delivered one": ("delivered", deliveries.show_delivery),
    "dead_letters.show_dead_letter": ("dead", dead_letters.show_dead_letter),
    "dead_letters.find_by_id": ("dead", lambda c, tenant, name: dead_letters.find_by_id(c, tenant, [name])),
    "dead_letters.purge": ("dead", lambda c, tenant, name: dead_letters.purge(c, tenant, [name])),
    "by_hand.waiting_by_id": ("waiting", lambda c, tenant, name: by_hand.waiting_by_id(c, tenant, [name])),
    "by_hand.outstanding_by_id": ("waiting", lambda c, tenant, name: by_hand.outstanding_by_id(c, tenant, [name])),
    "by_hand.retry_now": ("waiting", lambda c, tenant, name: by_hand.retry_now(c, tenant, [name])),
    "by_hand.cancel": ("waiting", lambda c, tenant, name: by_hand.cancel(c, tenant, [name])),
    "replay.replayable.candidates_by_id": ("dead", replayable.candidates_by_id),
    "replay.replayable.candidates_by_id of a delivered one": ("delivered", replayable.candidates_by_id),
    "subscription_versions.read_version": ("subscription", subscription_versions.read_version),
    "subscription_versions.lock_version": ("subscription", subscription_versions.lock_version),
    "tokens.revoke": ("token", tokens.revoke),
    "status.late_subscriptions.subscription_health": ("subscription", late_subscriptions.subscription_health),
    "bulk.plan.plan_bulk": ("subscription", lambda c, tenant, name: bulk_plan.plan_bulk(c, tenant, RECOVER(name))),
    "bulk.request.resolve": ("subscription", lambda c, tenant, name: bulk_request.resolve(c, tenant, RECOVER(name))),
    "bulk.operations.add_bulk": ("subscription", lambda c, tenant, name: bulk.add_bulk(c, tenant, RECOVER(name))),
    "bulk.operations.show_bulk": ("planned", bulk.show_bulk),
    "bulk.operations.start_bulk": ("planned", bulk.start_bulk),
    "bulk.operations.resume_bulk": ("paused", bulk.resume_bulk),
    "bulk.operations.cancel_bulk": ("paused", bulk.cancel_bulk),
    "bulk.operations.pause_bulk": (
        "planned",
        lambda c, tenant, name: bulk.pause_bulk(c, tenant, bulk.start_bulk(c, tenant, name).id),
    ),
    "bulk.operations.set_bulk_rate": ("paused", lambda c, tenant, name: bulk.set_bulk_rate(c, tenant, name, 7)),
    "erase.erasure.show_erasure": ("running", erasure.show_erasure),
    "erase.erasure.cancel_erasure": ("running", erasure.cancel_erasure),
    "erase.erasure.resume_erasure": ("blocked", erasure.resume_erasure),
    "test_messages.ask": ("subscription", test_messages.ask),
    "endpoint_tests.tested_subscription.read_subscription": ("subscription", tested_subscription.read_subscription),
}
LISTS: dict[str, Callable[[Connection, str | None, World], Any]] = {
    "event_walk.list_events": lambda c, tenant, _: events.list_events(c, tenant, ALL),
    "event_walk.list_events dead": lambda c, tenant, _: events.list_events(c, tenant, ALL, "dead"),
    "event_walk.list_events cancelled": lambda c, tenant, _: events.list_events(c, tenant, ALL, "cancelled"),
    "explain.explain_draft": lambda c, tenant, _: (
        explain.explain_draft(c, tenant, explain.Draft(type="a.b", data="1", tenant="acme")).subscriptions
    ),
    "dead_letters.dead_of_event": lambda c, tenant, w: dead_letters.dead_of_event(c, tenant, w.event),
    "outstanding.walk_outstanding": lambda c, tenant, _: walk_outstanding(
        c, tenant, ALL, None, after=None, make=lambda row: row
    ),
    "deliveries.list_deliveries": lambda c, tenant, _: deliveries.list_deliveries(c, tenant, ALL),
    "deliveries.list_deliveries delivered": lambda c, tenant, _: deliveries.list_deliveries(
        c, tenant, ALL, "delivered"
    ),
    "deliveries.outstanding_of_event": lambda c, tenant, w: deliveries.outstanding_of_event(c, tenant, w.event),
    "waits.read_waits": lambda c, tenant, w: waits.read_waits(c, tenant, [w.waiting]),
    "payloads.payloads_of": lambda c, tenant, w: payloads.payloads_of(c, tenant, [w.event]),
    "portal_links.list_portal_links": lambda c, tenant, _: portal_links.list_portal_links(c, tenant, ALL),
    "known_types.known_types": lambda c, tenant, _: known_types.known_types(c, tenant),
    "known_types.show_type": lambda c, tenant, _: (
        known_types.show_type(c, tenant, "order.created").type if known_types.known_types(c, tenant) else ()
    ),
    "event_types.seen_types": lambda c, tenant, _: event_types.seen_types(c, tenant),
    "event_types.example_of_type": lambda c, tenant, _: (
        event_types.shape_of(found.payload)
        if (found := event_types.example_of_type(c, tenant, "order.created"))
        else ()
    ),
    "history.list_attempts": lambda c, tenant, _: history.list_attempts(c, tenant, ALL),
    "history.list_attempts with what an index does not know": lambda c, tenant, _: history.list_attempts(
        c, tenant, Filters(type="*")
    ),
    "history.walk_attempts": lambda c, tenant, _: history.walk_attempts(
        c, tenant, ALL, after=None, make=lambda row: row
    ),
    "attempts.attempts_of_delivery": lambda c, tenant, w: attempts.attempts_of_delivery(c, tenant, w.delivered),
    "attempts.attempts_of_event": lambda c, tenant, w: attempts.attempts_of_event(c, tenant, w.event),
    "dead_letters.list_dead_letters": lambda c, tenant, _: dead_letters.list_dead_letters(c, tenant, ALL),
    "dead_letters.find": lambda c, tenant, _: dead_letters.find(c, tenant, ALL),
    "deliveries.list_deliveries cancelled": lambda c, tenant, _: deliveries.list_deliveries(
        c, tenant, ALL, "cancelled"
    ),
    "by_hand.waiting_by_filter": lambda c, tenant, _: by_hand.waiting_by_filter(c, tenant, SINCE),
    "by_hand.outstanding_by_filter": lambda c, tenant, _: by_hand.outstanding_by_filter(c, tenant, SINCE),
    "replay.replayable.candidates_by_filter": lambda c, tenant, _: replayable.candidates_by_filter(c, tenant, SINCE),
    "replay.replayable.candidates_by_filter delivered": lambda c, tenant, _: replayable.candidates_by_filter(
        c, tenant, SINCE, state="delivered"
    ),
    "tokens.list_tokens": lambda c, tenant, _: tokens.list_tokens(c, tenant, ALL),
    "replay.replayable.count_by_filter": lambda c, tenant, _: range(replayable.count_by_filter(c, tenant, SINCE).count),
    "dead_letters.count": lambda c, tenant, _: range(dead_letters.count(c, tenant, ALL, up_to=10)),
    "erase.erasure.list_erasures": lambda c, tenant, _: erasure.list_erasures(c, tenant),
    "erase.request.plan_erasure": lambda c, tenant, _: range(erase_request.plan_erasure(c, tenant, ANYBODY).events),
    "bulk.operations.list_bulk": lambda c, tenant, _: bulk.list_bulk(c, tenant),
    "bulk.plan.plan_bulk of dead letters": lambda c, tenant, _: range(bulk_plan.plan_bulk(c, tenant, REDRIVE).count),
    "audit.list_audit": lambda c, tenant, _: audit.list_audit(c, tenant, ALL),
    "inbox.list_received": lambda c, tenant, _: inbox.list_received(c, tenant, ALL),
    "live_secrets.live_secrets": lambda c, tenant, w: live_secrets.live_secrets(c, tenant, w.subscription),
    "status.names.names_of": lambda c, tenant, w: names.names_of(c, tenant, [w.subscription]),
    "sent_again.still_dead": lambda c, tenant, w: sent_again.still_dead(c, tenant, [w.dead]),
}
OPERATORS: dict[str, Callable[[Connection, str | None], Any]] = {
    "catalogue.compare_catalogue": lambda c, tenant: catalogue.compare_catalogue(c, tenant, DECLARED),
    "catalogue.push_catalogue": lambda c, tenant: catalogue.push_catalogue(c, tenant, DECLARED),
    "gauges.read_gauges": gauges.read_gauges,
    "status.status.status": status.status,
    "status.unmatched_events.read_unmatched": unmatched_events.read_unmatched,
    "status.names.name_subscriptions": lambda c, tenant: names.name_subscriptions(c, tenant, ()),
    "status.disabled_and_held.read_disabled": disabled_and_held.read_disabled,
    "status.disabled_and_held.read_held": disabled_and_held.read_held,
    "status.disabled_and_held.read_paused": disabled_and_held.read_paused,
    "status.delivery_counts.read_deliveries": lambda c, tenant: delivery_counts.read_deliveries(c, tenant, None),
    "status.outstanding.read_pending": outstanding.read_pending,
    "status.outstanding.read_outstanding": outstanding.read_outstanding,
    "status.running.any_alive": running.any_alive,
    "status.running.read_running": running.read_running,
    "status.locks.read_locks": locks.read_locks,
    "status.disk.full_disk": disk.full_disk,
    "status.late_subscriptions.find_stuck": late_subscriptions.find_stuck,
    "status.unresolved_events.find_unresolved": unresolved_events.find_unresolved,
    "status.unresolved_events.find_unresolved_since": lambda c, tenant: unresolved_events.find_unresolved_since(
        c, tenant, datetime.now(UTC) - timedelta(hours=1), 1
    ),
    "reconciliation.reconcile": lambda c, tenant: reconciliation.reconcile(c, tenant, timedelta(hours=1)),
    "status.repeated_ids.find_repeated_ids": repeated_ids.find_repeated_ids,
    "status.limits.read_limits": limits.read_limits,
    "status.lanes.find_blocked": lanes.find_blocked,
    "status.lanes.find_sorting": lanes.find_sorting,
    "status.breakers.read_breakers": breakers.read_breakers,
    "secrets.secrets_at_rest": secrets.secrets_at_rest,
    "adoption.read_home": adoption.read_home,
    "adoption.adopt": adoption.adopt,
    "sending_switch.read_sending": sending_switch.read_sending,
    "sending_switch.pause_all": sending_switch.pause_all,
    "sending_switch.resume_all": sending_switch.resume_all,
    "sending_switch.resume_sending": sending_switch.resume_sending,
    "schema_findings.find_in_schema": schema_findings.find_in_schema,
    "secrets.rekey": lambda c, tenant: secrets.rekey(c, tenant, Keyring(())),
    "erase.erasure.request_erasure": lambda c, tenant: erasure.request_erasure(
        c, tenant, EraseRequest(kind="tenant", value="acme")
    ),
    "tenant_retention.list_tenant_retention": tenant_retention.list_tenant_retention,
    "tenant_retention.set_tenant_retention": lambda c, tenant: tenant_retention.set_tenant_retention(
        c, tenant, tenant_retention.TenantRetention(name="acme", events_days=7)
    ),
    "table_captures.capture_sql": lambda c, tenant: table_captures.capture_sql(c, tenant, TableCapture(table="t")),
    "table_captures.install_capture": lambda c, tenant: table_captures.install_capture(
        c, tenant, TableCapture(table="t")
    ),
    "table_captures.list_captures": table_captures.list_captures,
    "table_captures.remove_capture": lambda c, tenant: table_captures.remove_capture(c, tenant, "t"),
    "prune.prune": lambda c, tenant: prune.prune(c, tenant, **DAYS),
    "prune.count_prunable": lambda c, tenant: prune.count_prunable(c, tenant, **DAYS),
}
TESTED_BELOW = {
    "sent_again.sent_again_as",
    "status.late_subscriptions.retries_of",
    *("replay.replay.replay", "replay.replayable.refuse_other_tenants", "erase.erasure.run_erasure"),
    *(
        "endpoint_tests.test_and_check.send_test",
        "endpoint_tests.test_and_check.prepare",
        "endpoint_tests.test_and_check.check_endpoint",
        "endpoint_tests.preview.preview",
    ),
    *(
        "endpoint_tests.requested_tests.answer_one",
        "test_messages.read",
        "test_messages.why_unanswered",
        "tokens.create",
    ),
    *("resend.resend", "endpoint_tests.repeat.repeat_request", "subscription_file.export.export_subscriptions"),
    *("subscription_file.apply.plan_document", "subscription_file.apply.apply_plan"),
}


def public_values() -> Iterator[Any]:
    """Every public function and class of both control planes, each where it is defined."""
    rooms = (*pkgutil.walk_packages(relay.operations.__path__, "relay.operations."),
             *pkgutil.walk_packages(outbox.control.__path__, "outbox.control."))  # fmt: skip
    for module in (room for room in rooms if not room.name.startswith("outbox.control.store")):
        found = importlib.import_module(module.name)
        values = [getattr(found, name) for name in getattr(found, "__all__", ())]
        yield from (value for value in values if getattr(value, "__module__", None) == module.name)


# What takes a connection or a database first, by module and name.
OPERATIONS = {
    f"{value.__module__.removeprefix('relay.operations.').removeprefix('outbox.control.')}.{value.__name__}": value
    for value in public_values()
    if inspect.isfunction(value) and next(iter(inspect.signature(value).parameters), None) in ("connection", "database")
}


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def world(connection) -> World:
    name = seeding.subscribe(connection, tenant="acme")
    event_id = seeding.record(connection, tenant="acme")
    made = seeding.resolve(connection, event_id, name, name, name)
    for delivery_id, verdict in zip(made, ("retry", "dead", "delivered"), strict=True):
        seeding.attempt(connection, delivery_id, verdict)
    again = seeding.resolve(connection, seeding.record(connection, tenant="acme"), name, name)
    seeding.attempt(connection, again[0], "dead")
    seeding.attempt(connection, again[1], "delivered")
    seeding.resolve(connection, event_id, seeding.subscribe(connection, tenant="*"))
    waiting, _, _ = map(DeliveryId.of, made)
    gone = seeding.resolve(connection, seeding.record(connection, tenant="acme"), name)
    by_hand.cancel(connection, None, by_hand.outstanding_by_id(connection, None, gone))
    token = tokens.create(connection, "acme", name="of acme", rights=["read"], whose="acme").token.id
    planned, paused = (bulk.add_bulk(connection, "acme", RECOVER(name)).id for _ in range(2))
    bulk.pause_bulk(connection, "acme", bulk.start_bulk(connection, "acme", paused).id)
    erasures = [erasure.request_erasure(connection, "acme", KEY).id for _ in range(2)]
    connection.execute(text("update outbox.erasures set state = 'blocked' where id = :id"), {"id": erasures[0]})
    died, delivered = map(DeliveryId.of, again)
    link = portal_links.make_portal_link(connection, "acme", "https://hooks.example.com/portal").link.id
    body = b"{}"
    message = Request("POST", "/", outbox.signed_headers(SECRET, "evt_1", body), body)
    received = receive(connection, message, SECRET, source="n8n", tenant="acme").record_id
    return World(
        SubscriptionId.of(name), EventId.of(event_id), waiting, died, delivered, token, planned, paused, *erasures,
        link, received,
    )  # fmt: skip


def test_the_tenant_comes_right_after_the_connection() -> None:
    second = {
        name: [(each.name, each.annotation) for each in list(inspect.signature(function).parameters.values())[1:2]]
        for name, function in OPERATIONS.items()
        if name not in PARTS
    }
    assert {name for name, found in second.items() if found != [("tenant", "str | None")]} == set()


def test_every_operation_is_tried_as_another_tenant() -> None:
    tried = {name.split(" ")[0] for name in (*BY_ID, *LISTS, *OPERATORS)} | TESTED_BELOW | set(PARTS)
    assert set(OPERATIONS) - tried == set()
    assert tried - set(OPERATIONS) == set()


def test_what_operations_return_is_typed_and_frozen() -> None:
    returned = {name: str(inspect.signature(function).return_annotation) for name, function in OPERATIONS.items()}
    assert {name: found for name, found in returned.items() if "dict" in found or "Any" in found} == {}
    documents = [value for value in public_values() if is_dataclass(value)]
    assert len(documents) > 30
    assert [each for each in documents if not each.__dataclass_params__.frozen] == []


@pytest.mark.parametrize("case", BY_ID)
def test_an_id_of_another_tenant_is_refused_like_one_that_never_was(case, connection, world) -> None:
    kind, call = BY_ID[case]
    theirs: Id = getattr(world, kind)
    refused = [refusal_of(call, connection, "globex", name) for name in (theirs, type(theirs).of(new_uuid7()))]
    assert refused[0] == refused[1]
    assert call(connection, "acme", theirs)


def refusal_of(call: Callable[..., Any], connection: Connection, tenant: str, name: Id) -> str:
    with pytest.raises(NotFoundError) as refused:
        call(connection, tenant, name)
    assert str(name) in str(refused.value)
    return str(refused.value).replace(str(name), "…")


@pytest.mark.parametrize("case", LISTS)
def test_a_list_holds_nothing_of_another_tenant(case, connection, world) -> None:
    found = {tenant: len(LISTS[case](connection, tenant, world)) for tenant in ("globex", "", "acme", None)}
    assert found["globex"] == found[""] == 0
    assert 0 < found["acme"] <= found[None]


@pytest.mark.parametrize("case", OPERATORS)
def test_what_is_the_operators_is_not_found_by_a_tenant(case, connection, world) -> None:
    for tenant in ("acme", ""):
        with pytest.raises(NotFoundError, match="for the operator only"):
            OPERATORS[case](connection, tenant)


def test_a_tenant_carries_out_its_own_erasure_only(connection, world) -> None:
    connection.commit()
    with pytest.raises(NotFoundError, match=f"no {world.running}"):
        erasure.run_erasure(connection, "globex", world.running)
    assert erasure.run_erasure(connection, "acme", world.running).state == "done"


def test_only_its_tenant_learns_as_what_a_delivery_was_sent_again(connection, world) -> None:
    dead = deliveries.show_delivery(connection, None, world.dead)
    (made,) = replay.replay(connection, "acme", replayable.candidates_by_id(connection, "acme", world.dead))
    found = [sent_again.sent_again_as(connection, tenant, dead) for tenant in ("acme", None, "globex", "")]
    assert found == [made, made, None, None]


def test_only_its_tenant_learns_how_many_retries_wait(connection, world) -> None:
    later = "update outbox.deliveries set attempts = 1, due_at = now() + interval '1 h' where id = :id"
    connection.execute(text(later), {"id": world.waiting})
    found = [
        late_subscriptions.retries_of(connection, tenant, world.subscription) for tenant in ("acme", None, "globex", "")
    ]
    assert [one and one.count for one in found] == [1, 1, None, None]


def test_a_tenant_replays_its_own_and_nothing_else(connection, world) -> None:
    found = replayable.candidates_by_id(connection, None, world.dead)
    for refuse in (replay.replay, replayable.refuse_other_tenants):
        with pytest.raises(replayable.ReplayError, match=f"no {world.subscription}; never made, or removed"):
            refuse(connection, "globex", found)
    (made,) = replay.replay(connection, "acme", replayable.candidates_by_id(connection, "acme", world.dead))
    assert deliveries.show_delivery(connection, "acme", made).subscription_id == world.subscription


def test_a_tenant_replays_to_no_subscription_but_its_own(connection, world) -> None:
    strangers = [seeding.subscribe(connection, tenant="globex"), seeding.subscribe(connection, tenant="*")]
    for name in (*strangers, "sub_00000000000000000000000000"):
        found = replayable.candidates_by_id(connection, "acme", world.dead, to=name)
        with pytest.raises(replayable.ReplayError, match=f"no {name}; never made, or removed"):
            replay.replay(connection, "acme", found)


async def preview_a_draft(database: Database, tenant: str | None, name: Id) -> Any:
    return await preview(database, tenant, name, Draft(type="a.b", data="1"))


async def resend_there(database: Database, tenant: str | None, name: Id) -> Any:
    return await resend(database, tenant, InboxId.of(UUID(int=name.int)), "https://example.com/", SECRET)


@pytest.mark.parametrize("call", [send_test, check_endpoint, preview_a_draft, resend_there])
def test_a_probe_asks_no_endpoint_of_another_tenant(call, engine, connection, world) -> None:
    connection.commit()
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    database = Database(Config(database_url=url))

    def probe(_: Connection, tenant: str | None, name: Id) -> Any:
        return anyio.run(call, database, tenant, name)

    theirs: Id = world.received if call is resend_there else world.subscription
    refused = [refusal_of(probe, connection, "globex", name) for name in (theirs, type(theirs)(int=1))]
    assert refused[0] == refused[1]


def test_an_event_that_is_still_on_its_way_is_not_found_by_another_tenant(connection, world) -> None:
    """It would be refused in other words than what never was."""
    for name in (world.waiting, world.event):
        with pytest.raises(NotFoundError, match=str(name)):
            replayable.candidates_by_id(connection, "globex", name)


def test_what_goes_to_an_operators_subscription_is_nothing_of_the_tenant(connection) -> None:
    """The tenant sees its event, and not to which address of the operator's it went."""
    operators = seeding.subscribe(connection, tenant="*", url="https://internal.example.com/")
    event_id = seeding.record(connection, tenant="acme")
    waiting, lost, done = seeding.resolve(connection, event_id, operators, operators, operators)
    for name, verdict in ((waiting, "retry"), (lost, "dead"), (done, "delivered")):
        seeding.attempt(connection, name, verdict)
    for name in (waiting, lost, done):
        with pytest.raises(NotFoundError):
            deliveries.show_delivery(connection, "acme", name)
        assert deliveries.show_delivery(connection, None, name).url == "https://internal.example.com/"
    seen, whole = (events.show_event(connection, tenant, event_id) for tenant in ("acme", None))
    assert [len(part) for part in (seen.deliveries, seen.attempts, seen.dead_letters)] == [0, 0, 0]
    assert [len(part) for part in (whole.deliveries, whole.attempts, whole.dead_letters)] == [1, 3, 1]
    assert (seen.state, seen.payload) == (whole.state, whole.payload)


def test_dead_letters_of_a_subscription_that_is_gone_stay_the_tenants(connection, world) -> None:
    connection.execute(text("delete from outbox.secrets"))
    connection.execute(text("delete from outbox.deliveries"))
    connection.execute(text("delete from outbox.subscriptions where tenant = 'acme'"))
    assert dead_letters.show_dead_letter(connection, "acme", world.dead).url is None


def test_the_audit_shows_a_tenant_no_operation_on_rows_of_several(connection, world) -> None:
    audit.note(connection, "purged", count=2, ids=[world.dead, world.waiting], tenants=["acme", ""])
    assert "purged" not in {entry.action for entry in audit.list_audit(connection, "", ALL)}
    assert "purged" in {entry.action for entry in audit.list_audit(connection, None, ALL)}


def test_a_tenant_makes_tokens_of_its_own_only(connection) -> None:
    for whose in ("globex", None):
        with pytest.raises(tokens.TokenError, match="own tenant"):
            tokens.create(connection, "acme", name="x", rights=["read"], whose=whose)
    assert tokens.list_tokens(connection, None, ALL).items == ()


def test_a_tenants_file_declares_and_exports_its_own_only(connection) -> None:
    """What another tenant has is neither planned nor removed, and what is declared for it is refused."""
    place = Place({}, Path())
    table = '[[subscription]]\nname = "crm"\ntenant = "acme"\nurl = "https://acme.example/"\ntypes = ["*"]\n'
    document = read_document(f'manager = "shop"\n{table}', "f", place)
    plan = plan_document(connection, None, document, "f", prune=False)
    assert [step.action for step in apply_plan(connection, None, document, plan, "f")] == ["create"]
    for call in (
        lambda: plan_document(connection, "other", document, "f", prune=False),
        lambda: apply_plan(connection, "other", document, plan, "f"),
    ):
        with pytest.raises(FileError, match=r"^f: subscription crm of acme: tenant: it is not the one who asks"):
            call()
    nothing = read_document('manager = "shop"', "f", place)
    assert plan_document(connection, "other", nothing, "f", prune=True).steps == ()
    assert [step.action for step in plan_document(connection, "acme", nothing, "f", prune=True).steps] == ["remove"]
    assert "crm" in export_subscriptions(connection, "acme", manager=None)[0]
    assert "crm" not in export_subscriptions(connection, "other", manager=None)[0]
