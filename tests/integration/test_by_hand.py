"""Retry now, cancel, pause-all and a pause that drops, as operations and commands: what is chosen, told and noted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

from outbox import act_as, subscriptions
from outbox.control import by_hand
from outbox.control.audit import AuditEntry, list_audit
from outbox.control.by_hand import ByHandError, cancel, retry_now
from outbox.control.deliveries import list_deliveries, show_delivery
from outbox.control.events import event_state, list_events, show_event
from outbox.control.filters import Filters
from outbox.control.replay.replay import candidates_by_filter, candidates_by_id, replay
from outbox.errors import NotFoundError, SubscriptionError
from outbox.ids import DeliveryId, parse_id
from relay.cli import cli
from relay.operations import sending_switch
from relay.operations.status.late_subscriptions import subscription_health
from relay.operations.status.status import status
from tests.support import seeding

ALL = Filters()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def run(database_url: str) -> Callable[..., str]:
    """Run one command against the database; it must end as `code` says; return what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        environ = {"RELAY_DATABASE_URL": database_url, "RELAY_ACTOR": "ann"}
        ended = CliRunner().invoke(cli, arguments, env=environ, standalone_mode=False)
        if ended.exception is not None and code == 0:
            raise ended.exception
        assert (ended.exception is not None or bool(ended.return_value)) == bool(code)
        return ended.stdout if ended.exception is None else str(ended.exception)

    return run


def run_url(connection: Connection) -> str:
    return connection.engine.url.render_as_string(hide_password=False)


def noted(connection: Connection, *actions: str) -> list[AuditEntry]:
    """What was noted of these actions, oldest first."""
    return [entry for entry in list_audit(connection, None, ALL) if entry.action in actions][::-1]


def one(connection: Connection, subscription_id: str | None = None, verdict: str = "", **event: Any) -> str:
    """A delivery of an event of its own, and how its one attempt went."""
    event_id = seeding.record(connection, **event)
    name = seeding.subscribe(connection) if subscription_id is None else subscription_id
    (delivery_id,) = seeding.resolve(connection, event_id, name)
    if verdict:
        seeding.attempt(connection, delivery_id, verdict)
    return delivery_id


def change(connection: Connection, delivery_id: str, what: str) -> None:
    statement = text(f"update outbox.deliveries set {what} where id = :id")
    connection.execute(statement, {"id": parse_id("dlv", delivery_id)})


class TestRetry:
    @pytest.mark.field("F07")
    def test_what_waits_is_due_with_the_attempts_that_it_has_and_it_is_noted(self, connection: Connection) -> None:
        name = one(connection, verdict="retry")
        act_as(connection, "ann")
        done = retry_now(connection, None, by_hand.waiting_by_id(connection, None, [name, name]))
        assert (list(map(str, done.deliveries)), done.not_sendable) == ([name], ())
        found = show_delivery(connection, None, name)
        assert (found.state, found.attempts) == ("due", 1)
        (entry,) = noted(connection, "retried")
        assert (entry.actor, entry.subject, entry.details) == ("ann", name, {"count": 1, "ids": [name]})

    @pytest.mark.parametrize(
        ("how", "why"),
        [
            ("due_at = now()", "is due already"),
            ("lease = 7, attempts = 1, due_at = now() + interval '1 h'", "is being sent now"),
            ("lease = 7, attempts = 1, due_at = now()", "leased by a relay that did not report"),
            ("due_at = 'infinity'", "waits for the delivery before it"),
        ],
    )
    def test_what_does_not_wait_is_refused_and_nothing_is_changed(
        self, connection: Connection, how: str, why: str
    ) -> None:
        waiting, name = one(connection, verdict="retry"), one(connection)
        change(connection, name, how)
        with pytest.raises(ByHandError, match=f"{name} {why}|{name} was {why}"):
            by_hand.waiting_by_id(connection, None, [waiting, name])

    @pytest.mark.parametrize(
        ("verdict", "why"), [("delivered", "is delivered; relay replay"), ("dead", "is a dead letter: relay replay")]
    )
    def test_what_is_done_is_refused_with_what_can_be_done(
        self, connection: Connection, verdict: str, why: str
    ) -> None:
        name = one(connection, verdict=verdict)
        for choose in (by_hand.waiting_by_id, by_hand.outstanding_by_id):
            with pytest.raises(ByHandError, match=f"{name} {why}"):
                choose(connection, None, [name])
            with pytest.raises(NotFoundError, match="dlv_00000000000000000000000000"):
                choose(connection, None, ["dlv_00000000000000000000000000"])

    @pytest.mark.field("F07")
    def test_each_filter_narrows_and_none_is_refused(self, connection: Connection) -> None:
        acme = seeding.subscribe(connection, tenant="acme")
        first = one(connection, acme, "retry", tenant="acme", type="order.created", key="k")
        one(connection, acme, "retry", tenant="acme", type="order.paid")
        one(connection, verdict="retry", type="user.created")

        def found(**given: Any) -> list[str]:
            return list(map(str, by_hand.waiting_by_filter(connection, None, Filters(**given))))

        assert found(key="k") == found(subscription=acme, limit=1) == [first]
        assert [len(found(**given)) for given in ({"tenant": "acme"}, {"type": "order.*"}, {"type": "*"})] == [2, 2, 3]
        assert (len(found(since=timedelta(hours=1))), found(until=timedelta(hours=1))) == (3, [])
        with pytest.raises(ByHandError, match="filter: none given"):
            by_hand.waiting_by_filter(connection, None, ALL)

    def test_a_filter_leaves_what_was_never_tried_its_own_time(self, connection: Connection) -> None:
        """An event that is to go out tomorrow is no failure; who names its delivery means it."""
        name = one(connection)
        change(connection, name, "due_at = now() + interval '1 day'")
        assert by_hand.waiting_by_filter(connection, None, Filters(type="*")) == []
        assert list(map(str, by_hand.waiting_by_id(connection, None, [name]))) == [name]

    @pytest.mark.parametrize(
        "how", ["due_at = now()", "due_at = 'infinity'", "lease = 7, due_at = now() + interval '1 h'"]
    )
    def test_a_filter_chooses_only_what_waits(self, connection: Connection, how: str) -> None:
        """So that a dry run tells what would be done."""
        waiting, name = one(connection, verdict="retry"), one(connection, verdict="retry")
        change(connection, name, how)
        found = by_hand.waiting_by_filter(connection, None, Filters(type="*"))
        assert list(map(str, found)) == [waiting]

    def test_a_subscription_that_nothing_is_sent_to_is_named(self, connection: Connection) -> None:
        paused = seeding.subscribe(connection)
        name = one(connection, paused, "retry")
        subscriptions.pause(connection, paused)
        done = retry_now(connection, None, by_hand.waiting_by_id(connection, None, [name]))
        assert list(map(str, done.not_sendable)) == [paused]

    @pytest.mark.field("F07")
    def test_the_command_asks_before_it_hastens_many(self, connection: Connection, run: Callable[..., str]) -> None:
        name = seeding.subscribe(connection)
        made = [one(connection, name, "retry") for _ in range(3)]
        connection.commit()
        asked = ("deliveries", "retry", "--subscription", name)
        assert run(*asked, "--dry-run").startswith("3 deliveries would be due now\n")
        assert "Add --yes" in run(*asked, code=2)
        assert noted(connection, "retried") == []
        assert json.loads(run(*asked, "--yes", "--json"))["deliveries"] == made
        (entry,) = noted(connection, "retried")
        assert (entry.actor, entry.subject) == ("ann", name)
        assert entry.details == {"count": 3, "ids": made, "filter": {"subscription": name, "limit": 50}}
        assert run("deliveries", "retry", "--subscription", name, "--yes") == "0 deliveries due now\n"
        assert "give ids, or at least one filter" in run("deliveries", "retry", code=2)

    @pytest.mark.field("F07")
    def test_resume_now_hastens_all_that_waits_for_a_retry(
        self, connection: Connection, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relay.cli.by_hand.BATCH", 2)
        name, other = seeding.subscribe(connection), seeding.subscribe(connection)
        for _ in range(5):
            one(connection, name, "retry")
        one(connection, other, "retry")
        subscriptions.pause(connection, name)
        connection.commit()
        run("subscriptions", "resume", name, "--now")
        states = [item.state for item in list_deliveries(connection, None, ALL)]
        assert sorted(states) == ["due"] * 5 + ["waiting"]
        assert [entry.details and entry.details["count"] for entry in noted(connection, "retried")] == [2, 2, 1]


class TestCancel:
    def test_it_is_final_counted_and_noted(self, connection: Connection) -> None:
        event_id = seeding.record(connection)
        names = [seeding.subscribe(connection) for _ in range(3)]
        delivered, waiting, due = seeding.resolve(connection, event_id, *names)
        seeding.attempt(connection, delivered, "delivered")
        seeding.attempt(connection, waiting, "retry")
        done = cancel(connection, None, by_hand.outstanding_by_id(connection, None, [waiting, due]))
        assert sorted(map(str, done.deliveries)) == sorted([waiting, due])
        assert (sorted(map(str, done.subscriptions)), done.leased) == (sorted(names[1:]), ())
        counts = show_event(connection, None, event_id).counts
        assert (counts.matched, counts.delivered, counts.outstanding, counts.cancelled) == (3, 1, 0, 2)
        assert [item.state for item in list_events(connection, None, ALL)] == ["partly_delivered"]
        assert {str(item.id) for item in list_deliveries(connection, None, ALL, "cancelled")} == {waiting, due}
        shown = show_delivery(connection, None, waiting)
        assert (shown.state, [item.verdict for item in shown.attempts_made]) == ("cancelled", ["retry", "cancelled"])
        for choose in (by_hand.waiting_by_id, by_hand.outstanding_by_id):
            with pytest.raises(ByHandError, match=f"{due} is cancelled; relay replay sends it"):
                choose(connection, None, [due])
        (entry,) = noted(connection, "cancelled", "delivery deleted")
        assert (entry.action, entry.subject) == ("cancelled", "")
        assert entry.details
        assert (entry.details["count"], sorted(entry.details["ids"])) == (2, sorted([waiting, due]))
        assert [found.id for found in list_audit(connection, None, ALL, subject=due)] == [entry.id]

    def test_all_of_an_event_cancelled_is_a_state_of_its_own(self, connection: Connection) -> None:
        name = one(connection)
        cancel(connection, None, by_hand.outstanding_by_id(connection, None, [name]))
        (found,) = list_events(connection, None, ALL)
        assert (found.state, found.cancelled, found.purged) == ("cancelled", 1, 0)

    @pytest.mark.parametrize("late", ["delivered", "dead"])
    def test_one_with_a_late_result_is_in_one_state_only(self, connection: Connection, late: str) -> None:
        name = one(connection)
        cancel(connection, None, by_hand.outstanding_by_id(connection, None, [name]))
        connection.execute(
            text("""insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome,
                                                 milliseconds)
                    select delivery_id, event_seq, subscription_id, 1, :late, 'x', 1 from outbox.attempts"""),
            {"late": late},
        )
        (found,) = list_events(connection, None, ALL)
        expected = ("delivered", 1, 0, 0) if late == "delivered" else ("cancelled", 0, 1, 0)
        assert (found.state, found.delivered, found.cancelled, found.purged) == expected
        assert len(list_deliveries(connection, None, ALL, "cancelled")) == expected[2]
        assert show_delivery(connection, None, name).state == expected[0]

    def test_no_statistic_counts_it_as_an_attempt(self, connection: Connection) -> None:
        name = seeding.subscribe(connection)
        delivery_id = one(connection, name)
        cancel(connection, None, by_hand.outstanding_by_id(connection, None, [delivery_id]))
        assert subscription_health(connection, None, name).last_attempt_at is None
        found = status(connection, None)
        assert (found.attempts.last_at, found.cancelled) == (None, 1)

    def test_each_cancelled_one_is_replayed_by_id_event_or_filter(self, connection: Connection) -> None:
        name = seeding.subscribe(connection)
        delivery_id = one(connection, name)
        cancel(connection, None, by_hand.outstanding_by_id(connection, None, [delivery_id]))
        event_id = show_delivery(connection, None, delivery_id).event_id
        by_filter = candidates_by_filter(connection, None, Filters(subscription=name), state="cancelled")
        by_id = candidates_by_id(connection, None, delivery_id)
        assert event_id is not None
        assert len(by_filter) == len(by_id) == len(candidates_by_id(connection, None, event_id)) == 1
        (made,) = replay(connection, None, by_filter)
        (found,) = list_events(connection, None, ALL)
        assert (found.state, found.outstanding, found.cancelled) == ("under_way", 1, 0)
        seeding.attempt(connection, made, "delivered")
        (found,) = list_events(connection, None, ALL)
        assert (found.state, found.delivered, found.cancelled) == ("delivered", 1, 0)

    def test_the_command_by_filter_takes_every_state(self, connection: Connection, run: Callable[..., str]) -> None:
        name = seeding.subscribe(connection)
        made = [one(connection, name, "retry"), one(connection, name), one(connection, name)]
        change(connection, made[2], "lease = 7, attempts = 1, due_at = now() + interval '1 h'")
        other = one(connection)
        connection.commit()
        asked = ("deliveries", "cancel", "--subscription", name)
        assert run(*asked, "--dry-run").startswith("3 deliveries would be cancelled\n")
        assert "Add --yes" in run(*asked, code=2)
        done = json.loads(run(*asked, "--yes", "--json"))
        assert (done["count"], done["leased"]) == (3, [made[2]])
        assert [str(item.id) for item in list_deliveries(connection, None, ALL)] == [other]
        assert run("deliveries", "cancel", other, "--yes").startswith("1 deliveries cancelled\n")
        listed = run("deliveries", "list", "--state", "cancelled", "--json").splitlines()
        assert {json.loads(line)["id"] for line in listed} == {*made, other}

    def test_what_is_gone_meanwhile_is_left_out(self, connection: Connection) -> None:
        name = one(connection)
        found = by_hand.outstanding_by_id(connection, None, [name])
        seeding.attempt(connection, name, "delivered")
        assert cancel(connection, None, found).deliveries == retry_now(connection, None, found).deliveries == ()
        assert noted(connection, "cancelled", "retried") == []

    def test_a_tenant_cancels_its_own_and_nothing_else(self, connection: Connection) -> None:
        acme = one(connection, seeding.subscribe(connection, tenant="acme"), "retry", tenant="acme")
        strangers = one(connection, seeding.subscribe(connection, tenant="globex"), "retry", tenant="globex")
        for act in (cancel, retry_now):
            with pytest.raises(NotFoundError, match=strangers):
                act(connection, "acme", [DeliveryId.of(acme), DeliveryId.of(strangers)])
        assert len(list_deliveries(connection, None, ALL)) == 2
        assert len(retry_now(connection, "acme", [DeliveryId.of(acme)]).deliveries) == 1
        assert len(cancel(connection, "acme", [DeliveryId.of(acme)]).deliveries) == 1
        assert {entry.tenant for entry in noted(connection, "retried", "cancelled")} == {"acme"}

    def test_cancelled_is_a_word_for_events_too(self) -> None:
        assert event_state(pending=False, matched=2, delivered=0, dead=0, outstanding=0, cancelled=2) == "cancelled"


class TestSwitch:
    @pytest.mark.field("F103")
    def test_status_says_it_first_and_check_fails(self, connection: Connection, run: Callable[..., str]) -> None:
        one(connection)
        seeding.sign_in(connection)
        connection.commit()
        said = run("pause-all", "--reason", "wrong prices")
        assert said.startswith("all sending is paused since ")
        assert said.endswith(": wrong prices; relay resume-all ends it\n")
        first = status(connection, None).findings[0]
        assert (first.code, first.severity, first.mend) == ("sending.paused", "problem", "relay resume-all")
        assert " by ann: wrong prices" in first.seen
        checked = CliRunner().invoke(cli, ["status", "--check"], env={"RELAY_DATABASE_URL": run_url(connection)})
        assert checked.exit_code == 1
        assert checked.stdout.splitlines()[0].startswith("all sending is paused since ")
        assert run("status").splitlines()[0].startswith("! all sending is paused since ")
        assert json.loads(run("status", "--json"))["sending"]["reason"] == "wrong prices"
        assert run("resume-all").startswith("sending goes on after ")
        assert status(connection, None).sending == sending_switch.Sending(paused_at=None, reason=None, actor=None)
        assert "sending.paused" not in [finding.code for finding in status(connection, None).findings]
        assert run("resume-all") == "sending was not paused\n"

    @pytest.mark.field("F103")
    def test_what_is_late_because_of_it_is_not_told_again(self, connection: Connection) -> None:
        name = one(connection)
        change(connection, name, "due_at = now() - interval '1 hour'")
        seeding.sign_in(connection)

        def codes() -> list[str]:
            return [finding.code for finding in status(connection, None).findings]

        assert "subscription.behind" in codes()
        sending_switch.pause_all(connection, None)
        assert "subscription.behind" not in codes()

    @pytest.mark.field("F103")
    def test_each_turn_of_it_is_noted_whoever_makes_it(self, connection: Connection) -> None:
        act_as(connection, "ann")
        first = sending_switch.pause_all(connection, None, "one")
        act_as(connection, "ben")
        again = sending_switch.pause_all(connection, None)
        assert again == first, "pausing twice keeps the first time, reason and actor"
        assert (again.reason, again.actor, again.is_paused) == ("one", "ann", True)
        connection.execute(text("update outbox.sending set paused_at = null"))
        connection.execute(text("update outbox.sending set paused_at = now(), actor = 'nobody'"))
        assert sending_switch.read_sending(connection, None).actor == "ben"
        sending_switch.resume_all(connection, None)
        found = noted(connection, "sending paused", "sending resumed")
        assert [(entry.action, entry.actor) for entry in found] == [
            *(("sending paused", "ann"), ("sending resumed", "ben")),
            *(("sending paused", "ben"), ("sending resumed", "ben")),
        ]
        assert found[0].after
        assert found[0].after["reason"] == "one"

    @pytest.mark.parametrize("reason", ["", "x" * 501, 7, "nul\0"])
    def test_a_reason_that_is_none_is_refused(self, connection: Connection, reason: Any) -> None:
        with pytest.raises(SubscriptionError, match="reason: "):
            sending_switch.pause_all(connection, None, reason)
        assert not sending_switch.read_sending(connection, None).is_paused

    def test_where_its_row_is_gone_pausing_says_so_and_sending_goes_on(self, connection: Connection) -> None:
        connection.execute(text("delete from outbox.sending"))
        with pytest.raises(sending_switch.SendingError, match="sending: the row"):
            sending_switch.pause_all(connection, None)
        assert not sending_switch.read_sending(connection, None).is_paused


class TestDroppingPause:
    @pytest.mark.field("F53")
    def test_the_last_pause_says_whether_it_drops_and_resume_ends_it(self, connection: Connection) -> None:
        name = seeding.subscribe(connection)
        first = subscriptions.pause(connection, name, drop=True)
        assert (first.state, first.drops_while_paused) == ("paused", True)
        again = subscriptions.pause(connection, name)
        assert (again.paused_at, again.drops_while_paused) == (first.paused_at, False)
        subscriptions.pause(connection, name, drop=True)
        resumed = subscriptions.resume(connection, name)
        assert (resumed.state, resumed.drops_while_paused) == ("active", False)
        entries = noted(connection, "paused", "updated", "resumed")
        assert [entry.after and entry.after.get("drops_while_paused") for entry in entries] == [
            True, False, True, False,
        ]  # fmt: skip

    @pytest.mark.parametrize("drop", [None, 1, "yes"])
    def test_what_is_no_truth_value_is_refused(self, connection: Connection, drop: Any) -> None:
        name = seeding.subscribe(connection)
        with pytest.raises(SubscriptionError, match=r"drop: .* is not True or False"):
            subscriptions.pause(connection, name, drop=drop)
        assert subscriptions.get(connection, name).state == "active"

    @pytest.mark.field("F53")
    def test_it_is_visible(self, connection: Connection, run: Callable[..., str]) -> None:
        name = seeding.subscribe(connection)
        connection.commit()
        assert "paused, drops" in run("subscriptions", "pause", name, "--drop")
        assert "paused, drops" in run("subscriptions", "list")
        assert "paused, drops" in run("subscriptions", "show", name)
        assert json.loads(run("subscriptions", "show", name, "--json"))["drops_while_paused"] is True
        found = status(connection, None)
        assert (found.subscriptions.paused, found.subscriptions.dropping) == (1, 1)
        (finding,) = [finding for finding in found.findings if finding.code == "subscription.paused"]
        assert (finding.severity, "is paused and drops what comes" in finding.seen) == ("note", True)
        run("subscriptions", "resume", name)
        assert "drops" not in run("subscriptions", "list")
