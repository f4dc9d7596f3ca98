"""What makes a relay reach each step of the engine, for tests that kill or stop it there."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psycopg

from outbox import subscriptions
from relay.secrets.keyring import new_private_key
from tests.support.application import Application
from tests.support.bulk import history, start
from tests.support.processes import RelayProcess
from tests.support.waiting import wait_until

__all__ = ["BACKLOG_SEQ", "BROKEN", "crash", "litter", "prepare", "record_some", "start_backfill", "start_towards",
           "subscribe_to_everything"]  # fmt: skip

BROKEN = "broken.event"
BACKLOG_SEQ = 0  # of the deliveries that put an operation off


def subscribe_to_everything(app: Application) -> None:
    """Subscribe in every way that a step of the engine is for."""
    app.subscribe("/good")
    app.subscribe("/flaky", schedule_seconds=[0] * 5)
    app.subscribe("/ordered", schedule_seconds=[0] * 5, ordered=True)
    app.subscribe("/batches", batch_events=4, batch_milliseconds=0)
    app.receiver.plan("/flaky", "500", "200")
    app.receiver.plan("/batches", "500", "200")
    app.switch_breakers_off()


def _leave_suspects(app: Application) -> None:
    """Let a relay die while it sends, so that the next one finds leases that ended without a word."""
    crash(app, "HttpSender.send:after:3")


def _refuse_broken_events(app: Application) -> None:
    """Make the database refuse deliveries of one type, and record one such event."""
    app.rows(
        "create function refuse() returns trigger language plpgsql as $$ begin"
        f" if (select type from outbox.events where seq = new.event_seq) = '{BROKEN}' then raise 'refused'; end if;"
        " return new; end $$"
    )
    app.rows("create trigger refuse before insert on outbox.deliveries for each row execute function refuse()")
    app.record(1, BROKEN)


def _fail_the_first_fan_out_of_each_connection(app: Application) -> None:
    """Make the database too busy for the first deliveries of each connection: what a session drew it keeps."""
    app.rows("create sequence seen")
    app.rows("grant usage on sequence seen to public")
    app.rows(
        "create function be_busy() returns trigger language plpgsql as $$ begin perform currval('seen'); return null;"
        " exception when object_not_in_prerequisite_state then perform nextval('seen');"
        " raise 'busy' using errcode = 'serialization_failure'; end $$"
    )
    app.rows("create trigger be_busy before insert on outbox.deliveries execute function be_busy()")


def _stop_while_busy(app: Application, relay: RelayProcess) -> None:
    """SIGTERM with one request on the wire and others waiting behind it."""
    came = len(app.receiver.received("/good"))
    app.receiver.wait_for(came + 1, "/good")
    relay.signal(signal.SIGTERM)


def _limit(app: Application) -> None:
    """Give a subscription limits that are wider than what is sent."""
    app.rows("update outbox.subscriptions set rate_limit = '500/s', max_in_flight = 20 where url like '%good'")


def _leave_parked(app: Application) -> None:
    """Let a relay die with a head and what is parked behind it, then switch order off."""
    crash(app, "HttpSender.send:after:1")
    app.rows("update outbox.subscriptions set ordered = false")
    assert app.one("select count(*) from outbox.deliveries where due_at = 'infinity'")


def _switch_order_on(app: Application) -> None:
    """Switch order on for a subscription with a backlog."""
    crash(app, "HttpSender.send:after:1")
    app.rows("update outbox.subscriptions set ordered = false")
    app.rows("update outbox.subscriptions set ordered = true where batch_events is null")


def _break_an_endpoint(app: Application) -> None:
    """Leave the breaker of /good open, with a probe due."""
    app.rows(
        "insert into outbox.health (subscription_id, failing_since, opened_at, probe_at, pause_seconds)"
        " select id, clock_timestamp(), clock_timestamp(), clock_timestamp(), 1 from outbox.subscriptions"
        " where url like '%/good'"
    )


def _filter(app: Application) -> None:
    """Give a subscription a filter that every event matches, and record more than one batch."""
    app.rows(
        """update outbox.subscriptions set filter = '{"payload": {"$not": {"nothing": 1}}}' where url like '%/good'"""
    )
    app.record(200)


def _spread(app: Application) -> None:
    """Do that, and let later events have numbers in leaves far above."""
    _filter(app)
    app.rows("select setval('outbox.events_seq', (select last_value from outbox.events_seq) + 3000000)")


_BEFORE: dict[str, Callable[[Application], None]] = {
    **dict.fromkeys(("Store.make_cells", "Store.take_slots", "Store.take_in_flight", "Store.find_held_cells"), _limit),
    "Store.claim_suspect": _leave_suspects,
    "Store.claim_probes": _break_an_endpoint,
    "Store.read_subscriptions": _leave_suspects,
    "Store.find_first_pending": _refuse_broken_events,
    "Store.bury_unresolvable": _refuse_broken_events,
    "Store.release_parked": _leave_parked,
    **dict.fromkeys(("Store.await_fan_out", "Store.sort_batch", "Store.end_sorting"), _switch_order_on),
    **dict.fromkeys(("Store.find_ahead", "Store.read_filters", "Store.read_bodies"), _filter),
    **dict.fromkeys(("Store.choose", "Store.read_ahead"), _spread),
    **dict.fromkeys(("Store.find_filters", "TakenBatch.resolve_wide"), _filter),
    "Store.recover": _fail_the_first_fan_out_of_each_connection,
}
_WITHOUT_NEW_EVENTS = "Store.read_subscriptions"  # fan_out would read the subscriptions first


def prepare(app: Application, step: str) -> None:
    """Bring about what a step needs that events alone do not."""
    _BEFORE.get(step, lambda _: None)(app)


def record_some(app: Application) -> None:
    """Record events of one key."""
    app.record(6, key="k")


def start_towards(
    app: Application,
    step: str,
    trap: str,
    until: Callable[[RelayProcess], object],
    record: Callable[[Application], object] = record_some,
) -> RelayProcess:
    """Start a relay with a trap at this step, and what leads it there; `until` waits for its end, or for its stop."""
    if step != _WITHOUT_NEW_EVENTS:
        record(app)
        app.record_and_roll_back(2)
    if step == "Store.release":
        app.receiver.plan("/good", "0.3:200")
        relay = app.stage.relay("--max-in-flight", "1", trap=trap)
        _stop_while_busy(app, relay)
    elif step == "Store.find_changed":  # asked about what waits here when a second has passed
        app.receiver.plan("/good", "0.3:200")
        relay = app.stage.relay("--until-drained", "--max-in-flight", "1", trap=trap)
    elif step == "Store.find_locked":  # asked where somebody holds what is to be settled
        app.receiver.plan("/good", "0.5:200")
        relay = app.stage.relay("--until-drained", trap=trap)
        _hold_what_is_leased(app, relay, until)
    elif step == "Store.find_held_cells":  # asked where somebody holds the cell of a limit
        app.rows("insert into outbox.limits (id) select id from outbox.subscriptions on conflict do nothing")
        with psycopg.connect(app.stage.database_url) as application:
            application.execute("select from outbox.limits for update")
            relay = app.stage.relay("--until-drained", trap=trap)
            until(relay)
    else:
        relay = app.stage.relay("--until-drained", trap=trap)
    until(relay)
    return relay


def _hold_what_is_leased(app: Application, relay: RelayProcess, until: Callable[[RelayProcess], object]) -> None:
    """Lock deliveries that are on the wire, as an application does that cancels them, until the relay has ended."""
    leased = "select id from outbox.deliveries where lease is not null and due_at > clock_timestamp()"
    with psycopg.connect(app.stage.database_url) as application:
        wait_until(lambda: application.execute(f"{leased} for update skip locked").fetchall())
        until(relay)


def crash(app: Application, point: str, record: Callable[[Application], object] = record_some) -> None:
    """Record, run a relay until it kills itself at the point, then let its leases run out."""
    relay = start_towards(app, point.split(":")[0], point, RelayProcess.wait, record)
    assert relay.wait() == -signal.SIGKILL, f"{point} was never reached:\n{relay.text}"
    app.expire_leases()


def start_backfill(app: Application, step: str) -> tuple[str, str]:
    """Start a bulk operation that reaches this step: twenty events of the past, by a filter.

    Returns:
        Its id, and that of the subscription.
    """
    app.subscribe("/old")
    history(app, 20)
    new = app.subscribe("/new")
    app.rows(
        """update outbox.subscriptions set filter = '{"payload": {"$not": {"nothing": 1}}}' where url like '%new'"""
    )
    if step == "Store.put_off_bulk":
        app.rows(
            "insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts)"
            " select gen_random_uuid(), :seq, outbox.uuid_of(:new), 'infinity', 1 from generate_series(1, 10000)",
            new=new,
            seq=BACKLOG_SEQ,
        )
    return start(app, "backfill", new, rate=10), new


_LITTER = """
insert into outbox.events (type, payload, recorded_at) values ('a', '1', clock_timestamp() - interval '99 days');
delete from outbox.pending;
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, at, verdict, outcome, milliseconds)
select gen_random_uuid(), 1, gen_random_uuid(), 1, clock_timestamp() - interval '99 days', 'test', 'x', 1;
insert into outbox.resolutions (at, first_seq, seqs, matches)
values (clock_timestamp() - interval '99 days', 1, '{1}', '{1}');
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select gen_random_uuid(), 1, id, clock_timestamp() + interval '1 day'
from (select id from outbox.subscriptions where removed_at is not null union all select gen_random_uuid()) s;
insert into outbox.secrets (subscription_id, secret, expires_at)
select id, 'x', clock_timestamp() from outbox.subscriptions where removed_at is null;
insert into outbox.health (subscription_id, changed_at)
select id, clock_timestamp() - interval '99 days' from outbox.subscriptions;
update outbox.subscriptions set removed_at = removed_at - interval '2 hours'
"""
_KEY = "insert into outbox.sealing_keys (id, key) values (%s, %s)"


def litter(app: Application) -> None:
    """Leave something to do for rounds of housekeeping, by relays that start from now on."""
    with app.engine.begin() as connection:
        removed = subscriptions.add(connection, "https://example.com/hook", ["order.*"])
        subscriptions.remove(connection, removed.id)
        private, public = new_private_key()
        connection.exec_driver_sql(_KEY, (public.id, public.text))
        for statement in _LITTER.split(";"):
            connection.exec_driver_sql(statement)
    app.stage.environment["RELAY_SECRET_KEY"] = private.reveal()
