"""The form of a subscription: add one, change one. Its fields are those that outbox.subscriptions declares."""

from typing import Annotated

from fastapi import APIRouter, Response

from outbox import subscriptions as verbs
from outbox.errors import SubscriptionError
from outbox.formats import FORMATS
from outbox.ids import new_uuid7, text_id
from outbox.signing import schemes
from outbox.subscriptions import Subscription
from outbox.subscriptions.fields import FIELDS
from relay.web.pages.field_texts import FieldTexts, changes_in, settings_in, texts_of
from relay.web.pages.rendering import PageRoute, go, visit_page
from relay.web.pages.visits import Form, Posted, Refused, Visit, visiting

__all__ = ["router"]

router = APIRouter(route_class=PageRoute)
Writing = Annotated[Visit, visiting("read", "write")]
MEANINGS = {field.name: field.meaning.replace("`", "") for field in FIELDS}


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
    return visit_page(visit, "secret.html", item=made, made=made, is_new=True)


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
        _change(visit, item, form)
    except SubscriptionError as error:
        return _page(visit, dict(form), item, error)
    return go(visit.request, "subscriptions", item.id, done="changed")


def _change(visit: Visit, item: Subscription, form: Form) -> None:
    if form.get("version") != item.updated_at.isoformat():
        raise Refused(409, "version: somebody changed it since you opened the form; open it again")
    changes = changes_in(form, item)
    if changes:
        with visit.transaction() as connection:
            verbs.update(connection, item.id, tenant=visit.visitor.whose, **changes)


def _page(visit: Visit, texts: FieldTexts, item: Subscription | None, error: Exception | None = None) -> Response:
    wrong, _, why = str(error or "").partition(":")
    wrong = wrong.partition(".")[0].partition("[")[0]
    return visit_page(
        visit, "subscription_form.html", status=422 if error else 200, item=item, texts=texts_of(item) | texts,
        meanings=MEANINGS, formats=[(one.name, f"{one.name}: {one.summary}") for one in FORMATS.values()],
        schemes=[(name, name) for name in (*schemes.SCHEMES, schemes.UNSIGNED)], problem=str(error) if error else None,
        wrong={wrong: why.strip()} if error and why else {},
    )  # fmt: skip
