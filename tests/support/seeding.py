"""Rows as the relay would leave them, for tests of the control plane that need no relay."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from outbox import subscriptions
from outbox.ids import BulkOperationId, DeliveryId, parse_id, text_id
from relay.store.bulk import mark_of


def subscribe(connection: Connection, *, tenant: str = "", url: str = "https://example.com/hooks") -> str:
    """Subscribe to everything and return the id, sub_…."""
    if tenant == "*":
        return subscriptions.add_for_every_tenant(connection, url, ["*"]).id
    return subscriptions.add(connection, url, ["*"], tenant=tenant).id


def record(
    connection: Connection,
    data: str = '{"n":1}',
    *,
    type: str = "order.created",  # noqa: A002
    key: str | None = None,
    tenant: str = "",
) -> str:
    """Record one event and return its id, evt_…; it is pending."""
    statement = text("select outbox.record(:type, cast(:data as json), :key, :tenant)")
    found: str = connection.execute(statement, {"type": type, "data": data, "key": key, "tenant": tenant}).scalar_one()
    return found


def seq_of(connection: Connection, event_id: str) -> int:
    """Return the number of an event."""
    statement = text("select seq from outbox.events where id = :id")
    found: int = connection.execute(statement, {"id": parse_id("evt", event_id)}).scalar_one()
    return found


def resolve(connection: Connection, event_id: str, *subscription_ids: str) -> list[str]:
    """Fan one event out to these subscriptions; return the deliveries, dlv_…, due now."""
    seq = seq_of(connection, event_id)
    connection.execute(text("delete from outbox.pending where event_seq = :seq"), {"seq": seq})
    connection.execute(
        text("insert into outbox.resolutions (first_seq, seqs, matches) values (:seq, array[:seq], array[:n])"),
        {"seq": seq, "n": len(subscription_ids)},
    )
    return [_deliver(connection, seq, parse_id("sub", name)) for name in subscription_ids]


def sign_in(connection: Connection, **facts: object) -> None:
    """Sign in one living relay process; facts are columns of outbox.relays, by default of the only process of a run."""
    run = uuid4()
    row = {"id": uuid4(), "run_id": run, "processes": 1, "host": "relay-1", "pid": 4711, "version": "1.0",
           "key_ids": [], "leased": 0, "cannot_send": 0, "cannot_send_to": None,
           "started": 3600, "seen": 0} | facts  # fmt: skip
    connection.execute(text(_SIGN_IN), row)


_SIGN_IN = """
insert into outbox.relays (id, run_id, processes, host, pid, version, key_ids, leased, cannot_send, cannot_send_to,
                           started_at, seen_at)
values (:id, :run_id, :processes, :host, :pid, :version, :key_ids, :leased, :cannot_send, :cannot_send_to,
        clock_timestamp() - make_interval(secs => :started), clock_timestamp() - make_interval(secs => :seen))
"""


def _deliver(connection: Connection, seq: int, subscription_id: UUID) -> str:
    uuid = connection.execute(
        text("""insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
                values (outbox.uuid7(), :seq, :sub, clock_timestamp()) returning id"""),
        {"seq": seq, "sub": subscription_id},
    ).scalar_one()
    return text_id("dlv", uuid)


def attempt(
    connection: Connection,
    delivery_id: DeliveryId | str,
    verdict: str,
    *,
    error: str | None = None,
    outcome: str = "http_5xx",
    status: int | None = 500,
) -> None:
    """Attempt a delivery once, with this verdict: delivered, retry (in an hour) or dead; a failure by this outcome."""
    came = ("delivered", 204) if verdict == "delivered" else (outcome, status)
    parameters = {"id": DeliveryId.of(delivery_id), "verdict": verdict, "error": error,
                  "outcome": came[0], "status": came[1]}  # fmt: skip
    connection.execute(text(_ATTEMPT), parameters)
    connection.execute(text(_AFTERWARDS[verdict]), parameters)


_ATTEMPT = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, status, milliseconds,
                             error)
select id, event_seq, subscription_id, attempts + 1, :verdict, :outcome, :status, 12, :error
from outbox.deliveries where id = :id
"""

_AFTERWARDS = {
    "delivered": "delete from outbox.deliveries where id = :id",
    "retry": """update outbox.deliveries set attempts = attempts + 1, lease = null,
                due_at = clock_timestamp() + interval '1 hour' where id = :id""",
    "dead": """
with gone as (delete from outbox.deliveries where id = :id returning *)
insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, key, payload,
                                 recorded_at, attempts, reason, error)
select g.id, e.seq, e.id, g.subscription_id, e.tenant, e.type, e.key, e.payload, e.recorded_at, g.attempts + 1,
       :outcome, :error
from gone g join outbox.events e on e.seq = g.event_seq""",
}


def bury_unresolved(connection: Connection, event_id: str) -> str:
    """Make the dead letter of an event that could not be resolved; return its id, dlv_…."""
    uuid = connection.execute(
        text("""
with gone as (
    delete from outbox.pending where event_seq = (select seq from outbox.events where id = :id) returning event_seq)
insert into outbox.dead_letters (delivery_id, event_seq, event_id, tenant, type, key, payload, recorded_at, attempts,
                                 reason, error)
select outbox.uuid7(), seq, id, tenant, type, key, payload, recorded_at, 0, 'unresolvable', 'no sense in it'
from gone join outbox.events on seq = event_seq returning delivery_id"""),
        {"id": parse_id("evt", event_id)},
    ).scalar_one()
    return text_id("dlv", uuid)


def prune_event(connection: Connection, event_id: str) -> None:
    """Take an event away as retention would."""
    connection.execute(text("delete from outbox.events where id = :id"), {"id": parse_id("evt", event_id)})


def put_back(connection: Connection, subscription_id: str, count: int) -> str:
    """An operation of 5 that made so many deliveries, which wait; return its id."""
    named = {"subscription": parse_id("sub", subscription_id)}
    for _ in range(count):
        record(connection)
    identity = connection.execute(_OPERATION, named).scalar_one()
    connection.execute(text("update outbox.bulk_operations set state = 'running', done = 5"))
    connection.execute(_MAKE, named | {"mark": mark_of(identity), "count": count})
    return str(BulkOperationId.of(identity))


_OPERATION = text("""
insert into outbox.bulk_operations (kind, subscription_id, phase)
values ('replay', :subscription, 'events') returning id
""")
_MAKE = text("""
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select cast(overlay(cast(outbox.uuid7() as text) placing :mark from 29) as uuid), seq, :subscription, clock_timestamp()
from outbox.events limit :count
""")
