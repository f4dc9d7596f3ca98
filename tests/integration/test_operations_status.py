"""Status: bounded counts, words for what needs a person, readable by the least of roles."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from sqlalchemy import text

from outbox import Catalogue, EventType, catalogue, subscriptions
from outbox.control.findings import Action, Finding
from outbox.control.times import utc
from relay.cli.findings import in_words
from relay.cli.output import fields_of
from relay.operations.secrets import SecretsAtRest
from relay.operations.status import delivery_counts
from relay.operations.status.attention import findings_of
from relay.operations.status.documents import Attempts, Count, DeadLetters, Pending, Settings
from relay.operations.status.late_subscriptions import subscription_health
from relay.operations.status.status import status
from tests.support import seeding

HOOKS = "(https://example.com/hooks)"


@pytest.fixture
def connection(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture(autouse=True)
def living(request, connection) -> None:
    """Let a relay live, but where a test is about none."""
    if "no_relay" not in request.fixturenames:
        seeding.sign_in(connection)


@pytest.fixture
def no_relay() -> None:
    """Let no relay be signed in."""


def make_late(connection) -> None:
    connection.execute(text("update outbox.deliveries set due_at = due_at - interval '2 hours'"))
    connection.execute(text("update outbox.events set recorded_at = recorded_at - interval '2 hours'"))


def of_interest(connection) -> list[str]:
    """What needs a person, without what the test server's settings say and that secrets lie in clear."""
    usual = ("fsync", "synchronous_commit", "secrets lie in clear")
    return [
        line for line in map(in_words, status(connection, None).findings) if not any(words in line for words in usual)
    ]


def test_an_idle_outbox_needs_nobody(connection):
    found = status(connection, None)
    assert found.pending == Pending(count=Count(0, exact=True), oldest_seconds=None)
    assert found.attempts == Attempts(last_at=None, last_delivered_at=None)
    assert of_interest(connection) == []


def test_everything_is_counted_where_it_is(connection):
    busy, paused = seeding.subscribe(connection), seeding.subscribe(connection)
    seeding.record(connection)
    event_id = seeding.record(connection)
    due, waiting, done, lost = seeding.resolve(connection, event_id, busy, busy, busy, busy)
    seeding.resolve(connection, seeding.record(connection), paused)
    for name, verdict in ((waiting, "retry"), (done, "delivered"), (lost, "dead")):
        seeding.attempt(connection, name, verdict)
    subscriptions.pause(connection, paused)
    found = status(connection, None)
    counts = {name: str(count) for name, count in fields_of(found.deliveries).items() if isinstance(count, Count)}
    assert counts == {
        "due": "2", "open": "1", "closed": "1", "waiting": "1", "leased": "0", "left": "0", "ended": "0", "parked": "0",
    }  # fmt: skip
    assert str(found.pending.count) == "1"
    assert found.dead_letters.reasons == {"http_5xx": 1}
    assert found.attempts.last_at >= found.attempts.last_delivered_at
    assert fields_of(found.subscriptions) == {
        "active": 1, "paused": 1, "dropping": 0, "disabled": 0, "removed": 0, "every_tenant": 0, "unsigned": 0,
    }  # fmt: skip
    assert due


def test_the_last_attempt_is_found_on_a_day_without_a_leaf(connection):
    """As on the day when a relay wakes that was away for longer than leaves are made ahead."""
    for leaf in connection.scalars(text("select leaf::text from outbox.leaves_of('outbox.attempts')")).all():
        connection.execute(text(f"drop table {leaf}"))
    connection.execute(
        text(
            "insert into outbox.attempts"
            " (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)"
            " values (gen_random_uuid(), 1, gen_random_uuid(), 1, 'delivered', 'delivered', 5)"
        )
    )
    found = status(connection, None).attempts
    assert found.last_at is not None
    assert found.last_at == found.last_delivered_at


@pytest.mark.field("F28")
@pytest.mark.usefixtures("no_relay")
def test_an_old_pending_event_where_no_relay_runs_is_one_line(connection):
    seeding.record(connection)
    make_late(connection)
    assert of_interest(connection) == [
        "no relay runs, and 1 event waits to be resolved, the oldest for 2h 0m: start `relay run`"
    ]


@pytest.mark.field("F97")
def test_an_old_pending_event_though_a_relay_runs_names_its_log(connection):
    seeding.record(connection)
    make_late(connection)
    assert of_interest(connection) == [
        "events wait 2h 0m to be resolved, though a relay runs: look at the log of relay-1 pid 4711"
    ]


def test_a_subscription_that_is_behind_is_named_with_its_last_error(connection):
    quiet, behind = seeding.subscribe(connection), seeding.subscribe(connection)
    (delivery_id, _) = seeding.resolve(connection, seeding.record(connection), behind, behind)
    seeding.attempt(connection, delivery_id, "retry", error="the server answered 500")
    make_late(connection)
    (stuck,) = status(connection, None).stuck
    assert (str(stuck.subscription_id), stuck.health.due, stuck.health.outstanding) == (behind, 2, 2)
    assert of_interest(connection) == [f"{behind} {HOOKS} is behind by 2h 0m: it answers 500: the server answered 500"]
    assert quiet != behind


@pytest.mark.parametrize(
    ("tenant", "name", "called"),
    [("acme", "warehouse", "warehouse of acme, "), ("acme", None, "of acme, "), ("", "mine", "mine, ")],
)
def test_a_finding_says_whose_subscription_it_is_about_and_how_it_is_called(connection, tenant, name, called):
    made = subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant=tenant, name=name).id
    subscriptions.disable(connection, made, reason="410 Gone", tenant=tenant)
    (told,) = of_interest(connection)
    assert told.startswith(f"{made} ({called}https://example.com/hooks) is disabled since ")
    assert status(connection, None).disabled.named[0].name == name


def test_one_that_fails_now_and_then_says_how_many_retries_wait_what_failed_and_that_others_arrive(connection):
    name = seeding.subscribe(connection)
    deliveries = seeding.resolve(connection, seeding.record(connection), *[name] * 3)
    seeding.attempt(connection, deliveries[0], "retry", error="boom")
    seeding.attempt(connection, deliveries[1], "retry", error="boom")
    seeding.attempt(connection, deliveries[2], "delivered")
    (told,) = of_interest(connection)
    assert re.fullmatch(
        rf"{name} \(\S+\) is failing: 2 retries wait, such as {deliveries[0]}, which failed \ds ago"
        r" \(it answers 500: boom\); others arrive, its last attempt, \ds ago, was delivered",
        told,
    )
    seeding.attempt(connection, deliveries[1], "delivered")
    assert f"1 retry waits, that of {deliveries[0]}, which failed" in of_interest(connection)[0]


def test_a_paused_subscription_is_not_stuck(connection):
    subscription_id = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), subscription_id)
    make_late(connection)
    subscriptions.pause(connection, subscription_id)
    found = status(connection, None)
    assert found.stuck == ()
    assert found.deliveries.oldest_due_seconds is None
    assert str(found.deliveries.closed) == "1"


@pytest.fixture
def not_sent_to(connection) -> str:
    """A subscription with one delivery that is late and one that waits for its retry."""
    subscription_id = seeding.subscribe(connection)
    (delivery_id, _) = seeding.resolve(connection, seeding.record(connection), subscription_id, subscription_id)
    seeding.attempt(connection, delivery_id, "retry")
    make_late(connection)
    return subscription_id


def test_a_disabled_subscription_is_named_with_its_reason_and_the_mend(connection, not_sent_to):
    made = subscriptions.disable(connection, not_sent_to, reason="the endpoint answered 410 Gone")
    found = status(connection, None)
    assert (found.stuck, found.deliveries.oldest_due_seconds) == ((), None)
    assert (found.subscriptions.active, found.subscriptions.disabled) == (0, 1)
    assert made.disabled_at
    since = utc(made.disabled_at)
    why = "the endpoint answered 410 Gone; 2 deliveries wait"
    assert of_interest(connection) == [
        f"{not_sent_to} {HOOKS} is disabled since {since}: {why}: relay subscriptions resume {not_sent_to}"
    ]


def test_of_many_disabled_five_are_named_and_the_others_counted(connection):
    for _ in range(7):
        subscriptions.disable(connection, seeding.subscribe(connection), reason="too many")
    lines = of_interest(connection)
    assert (len(lines), lines[-1]) == (6, "7 subscriptions are disabled: relay subscriptions list --state disabled")


def test_a_held_subscription_is_named_with_its_end_and_not_as_stuck(connection, not_sent_to):
    connection.execute(text("update outbox.subscriptions set held_until = now() + interval '90 s'"))
    found = status(connection, None)
    assert (found.stuck, found.deliveries.oldest_due_seconds) == ((), None)
    assert str(found.deliveries.closed) == "2"
    until = subscriptions.get(connection, not_sent_to).held_until
    whose = "by the receiver's Retry-After; 2 deliveries wait"
    mend = f"relay subscriptions resume {not_sent_to} ends the hold"
    assert of_interest(connection) == [f"{not_sent_to} {HOOKS} is held until {utc(until)} {whose}: {mend}"]
    assert 80 < subscription_health(connection, None, not_sent_to).held_seconds <= 90
    connection.execute(text("update outbox.subscriptions set held_until = now() - interval '1 s'"))
    assert subscription_health(connection, None, not_sent_to).held_seconds is None
    assert len(status(connection, None).stuck) == 1


def test_one_whose_receiver_takes_less_than_comes_is_one_finding_with_the_cause(connection, not_sent_to):
    connection.execute(text("update outbox.attempts set outcome = 'slowed', status = 429, error = 'too many'"))
    connection.execute(text("insert into outbox.limits (id, slowed_to) select id, 0.2 from outbox.subscriptions"))
    late = status(connection, None)
    connection.execute(text("update outbox.subscriptions set held_until = now() + interval '50 s'"))
    both = replace(status(connection, None), stuck=late.stuck)  # the hold began between the two readings
    (behind,) = [one for one in findings_of(both) if one.code.startswith("subscription.")]
    until = utc(subscriptions.get(connection, not_sent_to).held_until)
    takes = f"its receiver takes 0.2 requests a second, and asks to wait until {until}"
    assert behind.seen == f"{not_sent_to} is behind by 2h 0m: it answers 429: too many; {takes}; 2 deliveries wait"
    assert (behind.code, behind.action) == ("subscription.behind", Action("subscription", not_sent_to))
    (held,) = [one for one in status(connection, None).findings if one.code == "subscription.held"]
    assert (held.severity, held.action) == ("note", Action("subscription", not_sent_to))
    assert "Retry-After (it answers 429: too many; its receiver takes 0.2 requests a second); 2 deliv" in held.seen


ANSWERED_429 = text("""
with held as (update outbox.subscriptions set held_until = now() + make_interval(secs => :asked - :ago))
update outbox.attempts set outcome = 'http_4xx', status = 429, at = now() - make_interval(secs => :ago)
""")


@pytest.mark.parametrize(
    ("asked", "moments", "code"),
    [(1, (0, 0.5, 0.9, 1.1, 3), "subscription.behind"), (60, (0, 15, 35, 55, 61, 75), "subscription.held")],
)
def test_an_endpoint_that_asks_to_wait_again_and_again_is_one_finding_and_not_two_in_turn(
    connection, not_sent_to, asked, moments, code
):
    """Each moment is so many seconds after an answer 429; it is held or not, as that goes."""
    for ago in moments:
        connection.execute(ANSWERED_429, {"asked": asked, "ago": ago})
        found = [one for one in status(connection, None).findings if one.code.startswith("subscription.")]
        assert [one.code for one in found] == [code], f"{ago} s after the answer"
        assert ("was held" in found[0].seen) is (ago > asked and code == "subscription.held")


def test_a_hold_that_ended_is_over_with_the_next_attempt(connection, not_sent_to):
    connection.execute(ANSWERED_429, {"asked": 60, "ago": 70})
    connection.execute(text("update outbox.attempts set at = now() - interval '5 s', outcome = 'http_5xx'"))
    codes = [one.code for one in status(connection, None).findings]
    assert ("subscription.behind" in codes, "subscription.held" in codes) == (True, False)


@pytest.mark.field("F95")
def test_a_hold_by_hand_is_not_blamed_on_the_receiver(connection, not_sent_to):
    connection.execute(text("update outbox.subscriptions set held_until = '2999-01-01Z'"))
    whose = "by hand (relay audit); 2 deliveries wait"
    mend = f"relay subscriptions resume {not_sent_to} ends the hold"
    assert of_interest(connection) == [f"{not_sent_to} {HOOKS} is held until 2999-01-01 00:00:00Z {whose}: {mend}"]


def test_events_without_subscriber_are_counted_and_their_types_named(connection):
    seeding.resolve(connection, seeding.record(connection, type="nobody.cares", tenant="lonely"))
    seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    found = status(connection, None).unmatched
    assert (found.of_last, found.count, found.types) == (2, 1, ("nobody.cares",))
    (one,) = found.unsubscribed
    assert (one.type, one.tenant, one.count, one.like) == ("nobody.cares", "lonely", 1, None)


def unsubscribed(connection) -> list[Finding]:
    return [
        one for one in status(connection, None).findings if one.code.startswith(("events.misspelt", "events.unsub"))
    ]


def test_a_type_that_looks_misspelt_is_a_finding_with_its_tenant_and_what_it_may_have_meant(connection):
    subscriptions.add(connection, "https://example.com/hooks", ["invoice.paid", "stock.*"], tenant="umbrella")
    subscriptions.add(connection, "https://example.com/hooks", ["other.thing"], tenant="acme")
    for type_, tenant in [("invoice.payed", "umbrella"), ("invoice.payed", "umbrella"), ("other.thing", "umbrella")]:
        seeding.resolve(connection, seeding.record(connection, type=type_, tenant=tenant))
    misspelt, rest = unsubscribed(connection)
    assert (misspelt.code, misspelt.subject, misspelt.severity) == ("events.misspelt", "invoice.payed", "problem")
    assert misspelt.seen.startswith("2 events of type invoice.payed of umbrella, the last ")
    assert misspelt.seen.endswith(" ago, had no subscriber; did you mean invoice.paid, which is subscribed to?")
    shown = {"type": "invoice.payed", "tenant": "umbrella", "state": "unmatched"}
    assert misspelt.action == Action("events", parameters=shown)
    assert rest.seen == "nobody subscribes to other.thing of umbrella (1), of the last 3 events"


def test_another_version_and_a_type_that_is_declared_are_not_misspelt(connection, engine):
    subscriptions.add(connection, "https://example.com/hooks", ["user.created.v2", "invoice.paid"], tenant="acme")
    declared = Catalogue("shop")
    EventType("invoice.pair", catalogue=declared)
    with engine.begin() as other:
        catalogue.push(other, declared)
    for type_ in ("user.created.v1", "invoice.pair", "invoice.pait"):
        seeding.resolve(connection, seeding.record(connection, type=type_, tenant="acme"))
    misspelt, rest = unsubscribed(connection)
    assert (misspelt.subject, rest.severity) == ("invoice.pait", "note")
    assert "user.created.v1 of acme (1)" in rest.seen
    assert "invoice.pair of acme (1)" in rest.seen


def test_what_a_filter_refused_or_is_subscribed_to_by_now_is_no_finding(connection):
    subscriptions.add_for_every_tenant(connection, "https://example.com/hooks", ["order.*"])
    seeding.resolve(connection, seeding.record(connection, tenant="acme"))
    assert (status(connection, None).unmatched.count, unsubscribed(connection)) == (1, [])


def test_a_rare_type_without_subscriber_stays_in_sight_while_many_others_are_resolved(connection):
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection, type="nobody.cares", tenant="lonely"))
    seeding.resolve(connection, seeding.record(connection), name)
    connection.execute(text(_BATCHES))
    assert [one.code for one in unsubscribed(connection)] == ["events.unsubscribed"]
    connection.execute(text("update outbox.resolutions set at = at - interval '25 hours'"))
    assert unsubscribed(connection) == []


_BATCHES = """
insert into outbox.resolutions (first_seq, seqs, matches)
select n, array[n], array[1] from generate_series(1000, 4000) n
"""


def test_large_batches_behind_small_ones_are_not_all_looked_at(connection):
    connection.execute(
        text("""
        insert into outbox.resolutions (first_seq, seqs, matches)
        select n * 1000, array(select n * 1000 + g from generate_series(0, 499) g), array_fill(1, array[500])
        from generate_series(1, 2000) n
        union all select 10000000 + n, array[10000000 + n], array[1] from generate_series(1, 200) n""")
    )
    looked_at = status(connection, None).unmatched.of_last
    assert 40_000 < looked_at < 250_000, "of a million"


@pytest.mark.case("C11")
def test_dead_letters_and_weak_settings_are_pointed_out(connection):
    weak = replace(
        status(connection, None),
        settings=Settings(fsync="off", synchronous_commit="off"),
        pending=Pending(count=Count(0, exact=True), oldest_seconds=None),
        dead_letters=DeadLetters(count=Count(3, exact=True), newest_at=None, reasons={}),
        secrets=SecretsAtRest(count=3, in_clear=2, sealed_to_older_keys=1, sealing_key="0123456789abcdef"),
        default_leaves={"events": Count(0, exact=True), "attempts": Count(9, exact=False)},
    )
    words = list(map(in_words, findings_of(weak)))
    assert [line.split(" ")[0] for line in words] == ["fsync", "synchronous_commit", "3", "2", "1", "~9"]


@pytest.mark.field("F93")
def test_a_large_count_says_where_counting_stopped(connection, monkeypatch):
    monkeypatch.setattr(delivery_counts, "EXACT_UP_TO", 10)
    subscription_id = seeding.subscribe(connection)
    event_id = seeding.record(connection)
    seeding.resolve(connection, event_id, *[subscription_id] * 11)
    deliveries = status(connection, None).deliveries
    assert str(deliveries.due) == "10 or more"
    assert str(deliveries.waiting) == "0"
    assert str(Count(1234567, exact=False)) == "~1,234,567"


def test_rows_that_found_no_leaf_are_pointed_out(connection):
    connection.execute(text("insert into outbox.events (seq, type, payload) values (9000000000000, 'a', '1')"))
    connection.execute(text("delete from outbox.pending"))
    assert [line for line in of_interest(connection) if "default leaf" in line] == [
        "~1 rows of events are in the default leaf: partitions were not made in time; they stay usable"
    ]


@pytest.mark.parametrize("role", ["outbox_reader", "outbox_operator"])
def test_it_needs_no_more_than_its_role(connection, role):
    seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    connection.execute(text(f"set role {role}"))
    assert str(status(connection, None).deliveries.due) == "1"


def test_no_large_table_is_read_from_end_to_end(connection, engine):
    subscription_id = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), subscription_id)
    connection.execute(text(_MANY_DUE))
    connection.execute(text(_MANY_ATTEMPTS))
    connection.execute(text("analyze outbox.deliveries, outbox.attempts"))
    with engine.begin() as reading:
        found = status(reading, None)
        rows_read = reading.execute(text(_ROWS_READ)).scalar_one()
    assert (found.deliveries.due.exact, found.stuck[0].health.due) == (False, 1_001)
    assert found.attempts.last_delivered_at is not None
    assert 0 < rows_read < 20_000


_MANY_DUE = """
insert into outbox.deliveries (id, event_seq, subscription_id, due_at)
select outbox.uuid7(), 1, (select id from outbox.subscriptions), now() - interval '1 hour'
from generate_series(1, 20000)
"""
_MANY_ATTEMPTS = """
insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
select outbox.uuid7(), 1, (select id from outbox.subscriptions), 1, 'delivered', 'delivered', 1
from generate_series(1, 20000)
"""
_ROWS_READ = """
select sum(pg_stat_get_xact_tuples_returned(oid)) from pg_class
where relnamespace = to_regnamespace('outbox') and relname like 'attempts%' and relkind = 'r'
"""


def test_limits_are_counted_and_who_is_slowed_is_named(connection):
    slowed, limited = seeding.subscribe(connection), seeding.subscribe(connection)
    subscriptions.update(connection, limited, rate_limit="5/s", max_in_flight=2)
    subscriptions.limit_tenant(connection, "acme", rate_limit="5/s")
    connection.execute(
        text("insert into outbox.limits (id, slowed_to) values (outbox.uuid_of(:id), 12.3456)"), {"id": slowed}
    )
    found = status(connection, None).limits
    assert (found.rates, found.caps, found.tenants, found.slowed.count) == (1, 1, 1, 1)
    assert [(str(one.subscription_id), one.slowed_to) for one in found.slowed.named] == [(slowed, 12.346)]
    connection.execute(text("update outbox.limits set measured_from = measured_from - interval '11 minutes'"))
    assert status(connection, None).limits.slowed.count == 0
