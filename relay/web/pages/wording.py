"""The words of pages that are not in a template: states and their colours, what was done, what a subject leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.web.pages.charts import CHART_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outbox.control.findings import Action

__all__ = [
    "NOTICES",
    "NOTICES_OF_ONE",
    "PART_WORDS",
    "choices",
    "is_command",
    "kind_of",
    "link_of_action",
    "path_parts_of",
    "sentence",
]

_KINDS = {
    "good": ("active", "delivered", "closed", "alive", "ok", "done", "matched", "partly_delivered"),
    "bad": ("dead", "disabled", "failed", "failing", "open", "gone", "refused", "removed"),
    "warn": ("paused", "waiting", "held", "retry", "half_open", "under_way", "unmatched", "warning", "due", "cancelled",
             "slowed", "behind", "planned", "revoked", "expired", "replayed_or_purged"),
}  # fmt: skip
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}

NOTICES = {
    "added": "The subscription is there. Send a test to see whether its endpoint answers.",
    "changed": "The changes are saved, for what is under way too.",
    "paused": "Paused: deliveries gather and wait.",
    "dropping": "Paused: what comes meanwhile is not kept for it.",
    "resumed": "Resumed: it is sent to again, beginning with what gathered.",
    "disabled": "Disabled: deliveries gather and wait.",
    "removed": "Removed: no event matches it any more, and what it had still to get is cancelled.",
    "retried": "{n} due now; a relay takes them in their turn.",
    "cancelled": "{n} cancelled. A request that is on its way may still arrive.",
    "replayed": "{n} put back: each is a new delivery, due now.",
    "purged": "{n} deleted for good.",
    "sending-paused": "All sending is paused, of every relay.",
    "sending-resumed": "Relays send again.",
    "planned": "Planned. Nothing is put back yet: look at it, and start it.",
    "started": "Started: relays put back what it names, at its rate.",
    "rate": "The rate is changed.",
    "stopped": "Paused: it goes on from there when you resume it.",
    "going-on": "Resumed.",
    "ended": "Cancelled: what was put back by then stays so.",
    "revoked": "The token is revoked.",
    "preferences": "Saved in this browser.",
    "signed-out": "You are signed out.",
}
"""What a page says was done, by the name in its address."""
NOTICES_OF_ONE = NOTICES | {
    "retried": "1 due now; a relay takes it in its turn.",
    "replayed": "1 put back: it is a new delivery, due now.",
}
"""The same where it was done to one."""

PART_WORDS = CHART_WORDS | {
    "delivered": "delivered",
    "failed": "failed",
    "as_table": "The same as a table",
    "table": "Attempts and time to answer",
    "from_utc": "From (UTC)",
    "from_": "From",
    "no_attempt": "No attempt in this time.",
    "time": "Time",
    "first_page": "Back to the first page",
    "next_page": "Next page",
    "cut": "The first {shown} of {all} characters.",
}
"""The words of parts that the portal's pages have too, in their own language."""

_PAGES_OF_ACTIONS = {
    "subscription": ("Open the subscription", "subscriptions/{id}"),
    "test": ("Check the endpoint", "subscriptions/{id}/test"),
    "delivery": ("Open the delivery", "deliveries/{id}"),
    "subscriptions": ("Show them", "subscriptions"),
    "events": ("Show them", "events"),
    "dead_letters": ("Show them", "dead-letters"),
    "findings": ("Open the findings", "findings"),
}

_PATHS = {"bulk": "bulk", "sub": "subscriptions", "evt": "events", "dlv": "deliveries"}


def kind_of(word: object) -> str:
    """Return the colour of a state: good, bad, warn or none."""
    return _KIND_OF.get(str(word), "")


def path_parts_of(subject: str) -> tuple[str, ...]:
    """Return the path of the page about an id (`sub_…`, `evt_…`, `dlv_…`), () for anything else."""
    prefix, separator, rest = subject.partition("_")
    return (_PATHS[prefix], subject) if separator and prefix in _PATHS and rest.isalnum() else ()


def sentence(text: object) -> str:
    """Return the text with a capital letter, unless it begins with a name or a command, and a full stop."""
    said = str(text).strip()
    first = said.split(" ", 1)[0]
    if first.isalpha() and first != "relay":
        said = said[:1].upper() + said[1:]
    return said if said.endswith((".", "?", "!", ":")) else f"{said}."


def is_command(mend: str) -> bool:
    """Tell whether a mend begins with a command; else it is advice, which is said in the open."""
    return mend.startswith("relay ")


def link_of_action(action: Action) -> tuple[str, str]:
    """Return the words of the link to the page where a finding is mended, and its path."""
    words, path = _PAGES_OF_ACTIONS[action.page]
    return words, path.format(id=action.id)


def choices(every: str, words: Iterable[str]) -> list[tuple[str, str]]:
    """Return what a filter's list offers: everything, which is '', and each word."""
    return [("", every), *((word, word.replace("_", " ")) for word in words)]
