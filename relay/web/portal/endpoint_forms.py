"""The form of an endpoint: add one, change one; as many, of the types and with the filters that the operator allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from outbox import subscriptions as verbs
from outbox.control.known_types import known_types
from outbox.errors import BusyError, SubscriptionError
from outbox.ids import new_uuid7, text_id
from outbox.subscriptions.fields import SECRETS
from outbox.subscriptions.filters.values import read_filter
from outbox.subscriptions.rows import hold_tenant
from outbox.subscriptions.url import parse_url
from relay.operations.subscription_versions import lock_version
from relay.web.pages.csrf import Form
from relay.web.pages.field_texts import texts_of
from relay.web.pages.visits import Visit
from relay.web.portal.customers import Managing, PortalRefused, Posted, branding_for
from relay.web.portal.naming import MAX_CHARACTERS, check_description, described, has_descriptions, on_one_line
from relay.web.portal.rendering import PortalRoute, go, page

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from outbox.subscriptions import Subscription
    from relay.config.options import Config

__all__ = ["allows", "router"]

router = APIRouter(route_class=PortalRoute)
_MOST = 500  # types to tick; those beyond are written into the field below
_EMPTY = {"id": "", "version": "", "url": "", "description": "", "filter": ""}


class _WrongField(Exception):  # noqa: N818 - an answer
    """A field of the form is refused: its name, and why in the portal's language or the validation's words."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field
        self.why = why


def allows(allowed: Collection[str], pattern: str) -> bool:
    """Tell whether whatever a pattern matches is matched by one of the allowed patterns.

    `*` is every type but those of the relay itself, `relay.…`.
    """
    own = pattern.startswith("relay.")
    return any(
        one == pattern
        or (one == "*" and not own)
        or (one.endswith(".*") and pattern.startswith(one[:-1]) and pattern != one[:-1])
        for one in allowed
    )


@router.get("/endpoints/new")
def new(visit: Managing, request: Request) -> Response:
    """Show an empty form. It has the id of what it makes: sent twice, it makes one endpoint."""
    _require_room(visit)
    wanted = request.query_params.get("type", "")
    return _page(visit, {"id": text_id("sub", new_uuid7())}, [wanted] if wanted else [])


@router.post("/endpoints/new")
def add(visit: Managing, form: Posted) -> Response:
    """Make an endpoint and show its secret, this once."""
    config: Config = visit.request.app.state.config
    assert visit.tenant is not None
    try:
        types = _allowed_types(visit, config, _types_in(form), ())
        more = {"filter": _filter_in(visit, form)} if config.portal_filters else {}
        if has_descriptions(visit.request):
            more["description"] = check_description(form.get("description"))
        with visit.transaction() as connection:
            hold_tenant(connection, visit.tenant)
            if len(verbs.list(connection, tenant=visit.tenant, limit=1000)) >= config.portal_max_endpoints:
                raise PortalRefused(409, "most_endpoints", count=config.portal_max_endpoints)
            made = verbs.add(
                connection, form.get("url").strip(), types, tenant=visit.tenant, id=form.get("id") or None, **more
            )
    except BusyError:
        raise PortalRefused(503, "adding_meanwhile", wait_seconds=5) from None
    except (_WrongField, SubscriptionError) as error:
        return _page(visit, dict(form), _types_in(form), error=error)
    return page(visit, "portal_secret.html", item=made, made=made, is_new=True, until="")


@router.get("/endpoints/{endpoint_id}/edit")
def edit(endpoint_id: str, visit: Managing) -> Response:
    """Show the form with what the endpoint is now."""
    item = _read(visit, endpoint_id)
    fields = {"url": item.url, "filter": texts_of(item)["filter"], "version": item.updated_at.isoformat()}
    return _page(visit, fields, item.types, item)


@router.post("/endpoints/{endpoint_id}/edit")
def change(endpoint_id: str, visit: Managing, form: Posted) -> Response:
    """Change what differs from what it is, unless somebody else did meanwhile."""
    item = _read(visit, endpoint_id)
    try:
        with visit.transaction() as connection:
            lock_version(connection, visit.tenant, item.id)  # a credential may be stored just now
            item = verbs.get(connection, item.id, tenant=visit.visitor.whose)
            if form.get("version") != item.updated_at.isoformat():
                raise PortalRefused(409, "changed_meanwhile")
            if changes := _changes_in(visit, form, item):
                verbs.update(connection, item.id, tenant=visit.visitor.whose, **changes)
    except (_WrongField, SubscriptionError) as error:
        return _page(visit, dict(form), _types_in(form), item, error=error)
    return go(visit.request, "endpoints", item.id, done="changed")


def _read(visit: Visit, endpoint_id: str) -> Subscription:
    with visit.transaction() as connection:
        return verbs.get(connection, endpoint_id, tenant=visit.visitor.whose)


def _require_room(visit: Visit) -> None:
    most = visit.request.app.state.config.portal_max_endpoints
    with visit.transaction() as connection:
        if len(verbs.list(connection, tenant=visit.visitor.whose, limit=1000)) >= most:
            raise PortalRefused(409, "most_endpoints", count=most)


def _changes_in(visit: Visit, form: Form, item: Subscription) -> dict[str, Any]:
    config: Config = visit.request.app.state.config
    changes: dict[str, Any] = {}
    url = form.get("url").strip()
    if url != item.url:
        _require_same_host(visit, item, url)
        changes["url"] = url
    types = _types_in(form)
    if set(types) != set(item.types):
        changes["types"] = _allowed_types(visit, config, types, item.types)
    if config.portal_filters and (wanted := _filter_in(visit, form)) != item.filter:
        changes["filter"] = wanted
    return changes | _described_anew(visit, form, item)


def _described_anew(visit: Visit, form: Form, item: Subscription) -> dict[str, str]:
    """Return the description if it is another than was shown; one of several lines that nobody touched stays so."""
    if not has_descriptions(visit.request) or not form.has("description"):  # a form of a former version
        return {}
    given = form.get("description")
    is_as_shown = on_one_line(given) == described(visit.request, item)
    return {} if is_as_shown else {"description": check_description(given)}


def _require_same_host(visit: Visit, item: Subscription, url: str) -> None:
    """Refuse another host where it would be sent credentials that the provider stored."""
    stored = any(getattr(item, field.name, None) for field in SECRETS)
    if stored and _place_of(url) != _place_of(item.url):
        raise _WrongField("url", branding_for(visit.request).texts("url_bound"))


def _place_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port, read as whoever dials reads them. Raises SubscriptionError for what is no URL."""
    read = parse_url(url)
    return read.scheme, read.host, read.port


def _types_in(form: Form) -> list[str]:
    """Return the types that are ticked and those that are written, each once."""
    return list(dict.fromkeys([*filter(None, form.all("type")), *form.get("types").replace(",", " ").split()]))


def _allowed_types(visit: Visit, config: Config, types: Sequence[str], had: Collection[str]) -> Sequence[str]:
    """Return the types if each is among those that customers may choose, or was there before."""
    texts = branding_for(visit.request).texts
    if not types:
        raise _WrongField("types", texts("no_types"))
    for one in types:
        if one not in had and not allows(config.portal_types, one):
            raise _WrongField("types", texts("type_not_offered", type=one[:80], offered=", ".join(config.portal_types)))
    return types


def _filter_in(visit: Visit, form: Form) -> Any:
    text = form.get("filter").strip()
    try:
        return read_filter(text) if text else None
    except ValueError:
        raise _WrongField("filter", branding_for(visit.request).texts("invalid_filter")) from None


def _page(
    visit: Visit,
    fields: dict[str, str],
    chosen: Sequence[str],
    item: Subscription | None = None,
    *,
    error: Exception | None = None,
) -> Response:
    config: Config = visit.request.app.state.config
    assert visit.tenant is not None
    with visit.transaction() as connection:
        found = known_types(
            connection, visit.tenant, limit=_MOST,
            shown=lambda one: one.retired_at is None and allows(config.portal_types, one.type),
        )  # fmt: skip
    known = [one.type for one in found]
    offered = (["*"] if "*" in config.portal_types else []) + known
    field, why = _wrong(error)
    fields = _EMPTY | {"description": described(visit.request, item) if item else ""} | fields
    return page(
        visit, "portal_endpoint_form.html", status=422 if error else 200, item=item, fields=fields,
        offered=offered, chosen=chosen, others="\n".join(one for one in chosen if one not in offered),
        filters=config.portal_filters, descriptions=config.portal_descriptions, most_characters=MAX_CHARACTERS,
        wrong={field: why} if error else {}, problem=why if error else None,
    )  # fmt: skip


def _wrong(error: Exception | None) -> tuple[str, str]:
    """Return the field and what is wrong with it, without the mend, which is the operator's."""
    if isinstance(error, _WrongField):
        return error.field, error.why
    field, _, why = str(error or "").partition(": ")
    return field.partition(".")[0].partition("[")[0], (why or str(error)).partition("; ")[0]
