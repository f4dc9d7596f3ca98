"""What of a status a person should look at in single subscriptions. Pure: nothing is asked of the database."""

from __future__ import annotations

from textwrap import shorten
from typing import TYPE_CHECKING

from outbox.control.attempts import failure_of
from outbox.control.findings import Action, Finding
from outbox.control.times import duration, is_by_hand, rough, utc, who_held
from relay.operations.status.breakers import asks_for_less, cause_of
from relay.operations.status.late_subscriptions import LATE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import datetime

    from outbox.ids import SubscriptionId
    from relay.operations.status.documents import (
        BlockedLane,
        DisabledSubscription,
        HeldSubscription,
        Newest,
        PausedSubscription,
        SortingSubscription,
        Status,
        StuckSubscription,
        SubscriptionHealth,
    )

__all__ = ["findings_of_subscriptions"]

_FORGOTTEN_SECONDS = 86_400


def findings_of_subscriptions(status: Status, *, sends: bool) -> Iterator[Finding]:
    """Yield what is found; where nothing sends (`sends`), that is why all are behind, and none is named for it."""
    limiting = _limiting(status)
    stuck = [item for item in status.stuck if sends or item.behind_seconds is None]
    yield from (_of_stuck(item, status.at, limiting.get(item.subscription_id, "")) for item in stuck)
    yield from (_of_blocked(item, status.at) for item in status.blocked_lanes)
    yield from (_of_sorting(item, status.at) for item in status.sorting)
    yield from _of_disabled(status.disabled)
    yield from map(_of_paused, status.paused.named)
    yield from _of_more_paused(status.paused)
    named = {item.subscription_id for item in stuck if item.behind_seconds is not None}
    yield from _of_held(status.held, status.at, named, _taken(status))


def _limiting(status: Status) -> dict[SubscriptionId, str]:
    """Return in words which receivers take less than comes, by subscription: that is why these are behind."""
    said = _taken(status)
    for item in status.held.named:
        seconds_left = (item.held_until - status.at).total_seconds()
        if not is_by_hand(seconds_left):
            asks = f"asks to wait until {utc(item.held_until)}"
            before = said.get(item.subscription_id)
            said[item.subscription_id] = f"{before}, and {asks}" if before else f"its receiver {asks}"
    return said


def _taken(status: Status) -> dict[SubscriptionId, str]:
    return {
        item.subscription_id: f"its receiver takes {rough(item.slowed_to)} requests a second"
        for item in status.limits.slowed.named
    }


def _of_stuck(item: StuckSubscription, at: datetime, limiting: str) -> Finding:
    name = str(item.subscription_id)
    if item.behind_seconds is None:
        seen = f"{item.subscription_id} is failing: {_retries(item, at)}"
        return Finding(
            code="subscription.failing", subject=item.subscription_id, seen=seen, severity="note",
            action=Action("test", name, does="retry"),
        )  # fmt: skip
    why = cause_of(item.health) or limiting or _delivered(item.health, at) or "not attempted yet"
    more = f"; {limiting}" if limiting and why != limiting else ""
    more += f"; {_waiting(item.health)}" if limiting else ""
    return Finding(
        code="subscription.behind",
        subject=item.subscription_id,
        seen=f"{item.subscription_id} is behind by {duration(item.behind_seconds)}: {why}{more}",
        mend="it is sent as much as its receiver takes; ask its owner to take more" if limiting else "",
        action=Action("subscription" if limiting else "test", name),
    )


def _retries(item: StuckSubscription, at: datetime) -> str:
    """Say how many retries wait, how one of them failed, and whether other deliveries arrive meanwhile."""
    said = "1 retry waits" if item.retries == 1 else f"{item.retries:,} retries wait"
    cause = cause_of(item.health)
    if (failed := item.failed) is not None:
        when = duration((at - failed.at).total_seconds())
        which = f"{'that of' if item.retries == 1 else 'such as'} {failed.delivery_id}"
        said += f", {which}, which failed {when} ago"
        cause = failure_of(failed.outcome, failed.status, failed.error)
    said += f" ({cause})" if cause else ""
    arrives = _delivered(item.health, at)
    return f"{said}; others arrive, {arrives}" if arrives else said


def _delivered(health: SubscriptionHealth, at: datetime) -> str:
    if health.last_outcome != "delivered" or health.last_attempt_at is None:
        return ""
    return f"its last attempt, {duration((at - health.last_attempt_at).total_seconds())} ago, was delivered"


def _of_blocked(item: BlockedLane, at: datetime) -> Finding:
    """Return what blocks a key. It ends by itself where the policy is to skip."""
    since = f" for {duration((at - item.since).total_seconds())}" if item.since else ""
    behind = "1,000 or more wait" if item.behind > 1000 else f"{item.behind:,} wait{'s' * (item.behind == 1)}"
    key = "" if item.key is None else f" of key {item.key!r}"
    skips = item.order_policy == "skip"
    return Finding(
        code="lane.blocked",
        subject=item.subscription_id,
        seen=f"{item.subscription_id}: {item.head}{key} fails{since}, {item.attempts} attempts, {behind} behind it:"
        f" {item.last_error or 'no error is kept'}",
        mend=f"relay deliveries show {item.head}; mend its receiver"
        + (
            ""
            if skips
            else f", or relay deliveries cancel {item.head}, or relay subscriptions update"
            f" {item.subscription_id} --order-policy skip"
        ),
        severity="note" if skips else "problem",
        action=Action("delivery", str(item.head)),
    )


def _of_sorting(item: SortingSubscription, at: datetime) -> Finding:
    took = (at - item.since).total_seconds()
    return Finding(
        code="subscription.sorting",
        subject=item.subscription_id,
        seen=f"{item.subscription_id}: its backlog is put in order for {duration(took)}, nothing is sent meanwhile",
        mend="" if took < LATE_SECONDS else "see that a relay runs, and that no delivery of it is leased for ever",
        severity="note",
    )


def _of_paused(item: PausedSubscription) -> Finding:
    """Return a note, since a person meant it; a problem once it was hardly meant to wait for so long."""
    dropping = " and drops what comes," if item.drops else ""
    since = f" since {utc(item.paused_at)}" if item.paused_at else ""
    who = f" by {item.by}" if item.by else ""
    why = f" ({shorten(item.description, 100, placeholder=' …')})" if item.description else ""
    longest = f", the oldest for {duration(item.oldest_seconds)}" if item.oldest_seconds is not None else ""
    return Finding(
        code="subscription.paused",
        subject=item.subscription_id,
        seen=f"{item.subscription_id} is paused{dropping}{since}{who}{why}; {_waiting(item.health)}{longest}",
        mend=f"relay subscriptions resume {item.subscription_id}",
        severity="problem" if _is_forgotten(item) else "note",
        action=Action("subscription", str(item.subscription_id)),
    )


def _is_forgotten(item: PausedSubscription) -> bool:
    return item.oldest_seconds is not None and item.oldest_seconds > _FORGOTTEN_SECONDS


def _of_more_paused(paused: Newest[PausedSubscription]) -> list[Finding]:
    if paused.count <= len(paused.named):
        return []
    seen = f"deliveries wait, or events are dropped, for {paused.count:,} paused subscriptions"
    mend = "relay subscriptions list --state paused"
    action = Action("subscriptions", parameters={"state": "paused"})
    return [
        Finding(
            code="subscriptions.paused", subject="subscriptions", seen=seen, mend=mend, action=action,
            severity="problem" if any(map(_is_forgotten, paused.named)) else "note",
        )
    ]  # fmt: skip


def _of_disabled(disabled: Newest[DisabledSubscription]) -> list[Finding]:
    found = [
        Finding(
            code="subscription.disabled",
            subject=item.subscription_id,
            seen=f"{item.subscription_id} is disabled since {utc(item.disabled_at)}: {item.reason};"
            f" {_waiting(item.health)}",
            mend=f"relay subscriptions resume {item.subscription_id}",
            severity="problem" if item.health.outstanding else "note",
            action=Action("subscription", str(item.subscription_id), does="resume"),
        )
        for item in disabled.named
    ]
    if disabled.count > len(disabled.named):
        seen, mend = f"{disabled.count:,} subscriptions are disabled", "relay subscriptions list --state disabled"
        found.append(
            Finding(
                code="subscriptions.disabled", subject="subscriptions", seen=seen, mend=mend, severity="note",
                action=Action("subscriptions", parameters={"state": "disabled"}),
            )
        )  # fmt: skip
    return found


def _of_held(
    held: Newest[HeldSubscription], at: datetime, named: Collection[SubscriptionId], taken: Mapping[SubscriptionId, str]
) -> Iterator[Finding]:
    """Yield who is held back; of one that is named as behind, the receiver's hold is said there as its cause."""
    for item in held.named:
        seconds_left = (item.held_until - at).total_seconds()
        if item.health.outstanding and (is_by_hand(seconds_left) or item.subscription_id not in named):
            yield _of_hold(item, seconds_left, taken.get(item.subscription_id, ""))


def _of_hold(item: HeldSubscription, seconds_left: float, taken: str) -> Finding:
    """A receiver's hold ends by itself, and to resume against it would only meet its limit again."""
    by_hand = is_by_hand(seconds_left)
    cause = cause_of(item.health) if asks_for_less(item.health) else ""
    causes = [] if by_hand else [one for one in (cause, taken) if one]
    asked = f" ({'; '.join(causes)})" if causes else ""
    whose, is_ = f"{who_held(seconds_left)}{asked}", "is" if seconds_left > 0 else "was"
    return Finding(
        code="subscription.held",
        subject=item.subscription_id,
        seen=f"{item.subscription_id} {is_} held until {utc(item.held_until)} {whose}; {_waiting(item.health)}",
        mend=f"relay subscriptions resume {item.subscription_id} ends the hold",
        severity="problem" if by_hand else "note",
        action=Action("subscription", str(item.subscription_id), does="resume" if by_hand else ""),
    )


def _waiting(health: SubscriptionHealth) -> str:
    outstanding = health.outstanding
    if outstanding == 1:
        return "1 delivery waits"
    return f"{outstanding:,} deliveries wait" if outstanding <= 1000 else "more than 1,000 deliveries wait"
