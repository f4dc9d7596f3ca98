"""The audit: who changed what, when, and what it was before."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from outbox.control.audit import ACTIONS, AuditEntry, list_audit, meaning_of
from outbox.control.filters import Filters
from outbox.control.pages import Page
from outbox.errors import OutboxError
from relay.web.pages.filters import PAGE_ROWS, Asked, times_in, wrong_of
from relay.web.pages.rendering import visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
_MAX_CHARACTERS = 300


@router.get("/audit")
def audit(visit: Visiting, request: Request) -> Response:
    """List changes, the newest first."""
    asked = Asked.of(request, "subject", "actor", "action")
    problem, wrong = None, {}
    try:
        filters = Filters(**times_in(asked.values), tenant=asked.tenant or None, limit=PAGE_ROWS)
        with visit.transaction() as connection:
            found = list_audit(
                connection, visit.tenant, filters, subject=asked.subject or None, actor=asked.actor or None,
                action=asked.action or None, after=asked.cursor,
            )  # fmt: skip
    except OutboxError as error:
        found, problem, wrong = Page(()), str(error), wrong_of(error)
    rows = [(entry, meaning_of(entry), _changes(entry)) for entry in found]
    return visit_page(
        visit, "audit.html", rows=rows, next=found.next, asked=asked, actions=ACTIONS, problem=problem, wrong=wrong
    )


def _changes(entry: AuditEntry) -> list[tuple[str, str, str]]:
    """Return name, value before and value after of each field that changed, and of what was asked."""
    before, after = dict(entry.before or {}), dict(entry.after or {})
    changed = [name for name in (before | after) if before.get(name) != after.get(name)]
    details = [(name, "", _brief(value)) for name, value in (entry.details or {}).items()]
    return [(name, _brief(before.get(name)), _brief(after.get(name))) for name in changed] + details


def _brief(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
