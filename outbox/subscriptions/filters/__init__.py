"""Filters: which events of its types a subscription gets, by what is in them.

`parsing` checks a filter whole and builds its `conditions` and `operators`, `filters` asks them about an event,
`filter_set` asks many at once. There is one evaluator, for subscribing, testing, explaining and relaying;
docs/flow/filters.md has the language.
"""

from outbox.subscriptions.filters.event import FilteredEvent
from outbox.subscriptions.filters.filter_set import FilterSet
from outbox.subscriptions.filters.filters import Answer, Explanation, Filter, RefusedFilter
from outbox.subscriptions.filters.parsing import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_NODES,
    MAX_TEXT_BYTES,
    parse,
    stored_filter,
)
from outbox.subscriptions.filters.values import read_filter

__all__ = [
    "MAX_DEPTH",
    "MAX_ENTRIES",
    "MAX_NODES",
    "MAX_TEXT_BYTES",
    "Answer",
    "Explanation",
    "Filter",
    "FilterSet",
    "FilteredEvent",
    "RefusedFilter",
    "parse",
    "read_filter",
    "stored_filter",
]
