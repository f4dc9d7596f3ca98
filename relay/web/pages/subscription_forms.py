"""The form of a subscription: add one, change one. Its fields are those that outbox.subscriptions declares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from outbox import subscriptions as verbs
from outbox.errors import SubscriptionError
from outbox.formats import FORMATS
from outbox.ids import new_uuid7, text_id
from outbox.signing import schemes
from outbox.subscriptions import Subscription
from outbox.subscriptions.declaration import Field
from outbox.subscriptions.fields import FIELDS
from relay.operations.subscription_versions import lock_version
from relay.web.pages.csrf import Form, Posted
from relay.web.pages.field_texts import FieldTexts, Kind, changes_in, kind_of, settings_in, texts_of
from relay.web.pages.rendering import go, visit_page
from relay.web.pages.routes import PageRoute
from relay.web.pages.visits import Refused, Visit, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Writing = Annotated[Visit, visiting("read", "write")]
PLACES: Mapping[str, tuple[str, ...]] = {
    "target": ("url", "types"),
    "names": ("name", "description"),
    "tries": ("timeout_seconds", "schedule_seconds", "rate_limit", "max_in_flight"),
    "filter": ("filter",),
    "format": ("format", "format_settings", "format_secret"),
    "body": ("transformation",),
    "credentials": ("headers", "authentication", "tls"),
    "order": ("ordered", "order_policy"),
    "numbers": ("rate_burst", "batch_events", "batch_milliseconds", "recovery_seconds", "final_statuses"),
}
"""Where fields stand in the form. What is not named here stands at its end."""
_LABELS: Mapping[str, str] = {
    "url": "URL", "types": "Event types", "timeout_seconds": "Timeout in seconds",
    "schedule_seconds": "Tried again after (seconds)", "max_in_flight": "Requests under way at most",
    "format_secret": "Format's secret", "transformation": "Transformation (JMESPath)",
    "headers": "Own headers (Name: value a line)", "ordered": "Events of one key go one at a time, in order",
    "order_policy": "When the schedule ends in an ordered lane", "rate_burst": "At once after a pause",
    "batch_events": "Events in one request at most", "batch_milliseconds": "A batch waits (ms)",
    "recovery_seconds": "Recovery in seconds", "final_statuses": "Final answers",
}  # fmt: skip
_HINTS: Mapping[str, str] = {"pairs": " (NAME=VALUE a line)", "json": " (JSON)"}
_ROWS: Mapping[str, int] = {"words": 3, "pairs": 2, "json": 5}
_ROWS_OF_TEXTS: Mapping[str, int] = {"description": 2, "transformation": 3}  # a field of one line loses line ends
_CHOICES: Mapping[str, list[tuple[str, str]]] = {
    "format": [(one.name, f"{one.name}: {one.summary}") for one in FORMATS.values()],
    "order_policy": [
        ("block", "block: try again for ever, what follows waits"),
        ("skip", "skip: a dead letter, and the next one goes"),
    ],
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """How the form asks for a field; `rows` is 0 where one line is enough, `kind` "secret" where nothing is shown."""

    label: str
    help: str
    kind: Kind | Literal["secret"]
    rows: int
    choices: list[tuple[str, str]] | None


def asked_of(fields: Sequence[Field]) -> dict[str, _Asked]:
    """Return how the form asks for these fields, by name: as they are declared, in the words of this page."""
    return {field.name: _asked(field) for field in fields}


def _asked(field: Field) -> _Asked:
    kind: Kind | Literal["secret"] = "secret" if field.is_secret else kind_of(field)
    label = _LABELS.get(field.name) or field.name.replace("_", " ").capitalize() + _HINTS.get(kind, "")
    rows = _ROWS_OF_TEXTS.get(field.name) or _ROWS.get(kind, 0)
    return _Asked(label, field.meaning.replace("`", ""), kind, rows, _CHOICES.get(field.name))


def places_of(fields: Sequence[Field]) -> dict[str, tuple[str, ...]]:
    """Return which fields stand where; `rest` has those that PLACES does not name."""
    named = {name for names in PLACES.values() for name in names}
    return {**PLACES, "rest": tuple(field.name for field in fields if field.name not in named)}


@router.get("/subscriptions/new")
def new(visit: Writing) -> Response:
    """Show an empty form. It has the id of what it makes: sent twice, it makes one subscription."""
    texts = texts_of(None) | {"id": text_id("sub", new_uuid7()), "tenant": visit.tenant or ""}
    return _page(visit, texts, None)


@router.post("/subscriptions/new")
def add(form: Posted, visit: Writing) -> Response:
    """Make a subscription and show it with its secret, this once."""
    try:
        settings = settings_in(form)
        with visit.transaction() as connection:
            made = verbs.add(
                connection, settings.pop("url"), settings.pop("types"),
                tenant=form.get("tenant") if visit.tenant is None else visit.tenant,
                id=form.get("id") or None, scheme=form.get("scheme") or "standard",
                secret=form.get("secret").strip() or None, **settings,
            )  # fmt: skip
    except SubscriptionError as error:
        return _page(visit, dict(form), None, error)
    return visit_page(visit, "secret.html", item=made, made=made, is_new=True, secrets=())


@router.get("/subscriptions/{subscription_id}/edit")
def edit(subscription_id: str, visit: Writing) -> Response:
    """Show the form with what it is now; of secrets nothing."""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
    return _page(visit, texts_of(item) | {"version": item.updated_at.isoformat()}, item)


@router.post("/subscriptions/{subscription_id}/edit")
def change(subscription_id: str, form: Posted, visit: Writing) -> Response:
    """Change the fields that differ from what was shown, unless somebody else did meanwhile."""
    with visit.transaction() as connection:
        item = verbs.get(connection, subscription_id, tenant=visit.visitor.whose)
    try:
        with visit.transaction() as connection:
            lock_version(connection, visit.tenant, item.id)  # who changes it just now is awaited
            item = verbs.get(connection, item.id, tenant=visit.visitor.whose)
            _change(connection, visit, item, form)
    except SubscriptionError as error:
        return _page(visit, dict(form), item, error)
    return go(visit.request, "subscriptions", item.id, done="changed")


def _change(connection: Connection, visit: Visit, item: Subscription, form: Form) -> None:
    if form.get("version") != item.updated_at.isoformat():
        raise Refused(409, "version: somebody changed it since you opened the form; open it again")
    changes = changes_in(form, item)
    if changes:
        verbs.update(connection, item.id, tenant=visit.visitor.whose, **changes)


def _page(visit: Visit, texts: FieldTexts, item: Subscription | None, error: Exception | None = None) -> Response:
    wrong, _, why = str(error or "").partition(":")
    wrong = wrong.partition(".")[0].partition("[")[0]
    return visit_page(
        visit, "subscription_form.html", status=422 if error else 200, item=item, texts=texts_of(item) | texts,
        fields=asked_of(FIELDS), places=places_of(FIELDS),
        schemes=[(name, name) for name in (*schemes.SCHEMES, schemes.UNSIGNED)], problem=str(error) if error else None,
        wrong={wrong: why.strip()} if error and why else {},
    )  # fmt: skip
