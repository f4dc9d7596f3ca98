"""What the inbox writes of a request, and the calls that write it (0030_inbox.sql).

No secret and no signature is kept: of the headers those that are known to be harmless, of the path what may be shown.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from outbox.formats import shown_url
from outbox.inbox.binding import Binding
from outbox.inbox.request import Request

__all__ = ["add", "answer", "described", "note"]

_HARMLESS = {
    *("content-type", "content-length", "user-agent", "date", "traceparent", "x-request-id", "idempotency-key"),
    *("webhook-id", "webhook-timestamp", "svix-id", "svix-timestamp", "x-webhook-id", "x-webhook-timestamp"),
    *("x-webhook-event", "x-event-type", "x-github-event", "x-github-delivery", "x-github-hook-id"),
}
_MOST_CHARACTERS = 200  # of a header's value
_MOST_HEADERS = 40

_RECEIVE = "select outcome, at from outbox.inbox_receive(cast({message} as jsonb), cast({body} as bytea))"
_ANSWER = (
    "select outbox.inbox_answer(cast({id} as uuid), cast({at} as timestamptz), cast({status} as integer),"
    " cast({milliseconds} as integer), cast({entity} as text))"
)
_NOTE = "select outbox.inbox_note(cast({message} as jsonb), cast({body} as bytea), cast({outcome} as text))"


def described(request: Request, kept: str | None = None) -> dict[str, Any]:
    """Return the columns that say what came; `kept` names one more header to keep."""
    harmless = _HARMLESS | {(kept or "").lower()}
    headers = [(name.lower(), _clean(value, _MOST_CHARACTERS)) for name, value in request.headers
               if name.lower() in harmless][:_MOST_HEADERS]  # fmt: skip
    path = shown_url(f"http://inbox{_clean(request.path, 500).partition('?')[0]}").removeprefix("http://inbox")
    return {
        "method": _clean(request.method, 16),
        "path": path,
        "headers": json.dumps(headers, ensure_ascii=False),
        "size": request.size,
    }


def add(binding: Binding, columns: dict[str, Any], body: bytes | None) -> tuple[str, datetime | None]:
    """Take a message in the receiver's transaction; return accepted, duplicate or busy, and the time of its row."""
    outcome, at = binding.run(_RECEIVE, {"message": _document(columns), "body": body})
    return outcome, at


def answer(binding: Binding, row: UUID, at: datetime, status: int, milliseconds: int, entity: str | None) -> None:
    """Note in the receiver's transaction what is answered."""
    values = {"id": str(UUID(int=row.int)), "at": at, "status": status, "milliseconds": milliseconds, "entity": entity}
    binding.run(_ANSWER, values)


def note(binding: Binding, columns: dict[str, Any], body: bytes | None, outcome: str) -> None:
    """Write the row of a refused or failed request, in a transaction of its own."""
    binding.run_apart(_NOTE, {"message": _document(columns), "body": body, "outcome": outcome})


def _document(columns: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in columns.items() if value is not None}, ensure_ascii=False)


def _clean(text: str, most: int) -> str:
    """Return text that PostgreSQL can hold, cut."""
    return text[:most].replace("\0", "").encode("utf-8", "replace").decode("utf-8")
