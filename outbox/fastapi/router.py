"""The routes. Each asks the application whose session and user it is, and hands over to one verb."""

# Annotations are values here, since FastAPI reads them where the functions are made.
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from fastapi.concurrency import run_in_threadpool

import outbox
from outbox.fastapi import history
from outbox.fastapi.models import SHOWN_CHARACTERS, EventType, Models, Retried, Statistics, Tested
from outbox.fastapi.offered_types import OfferedTypes
from outbox.fastapi.owner import Owner, owner_of
from outbox.fastapi.problems import route_class
from outbox.fastapi.shape import Shape
from outbox.fastapi.webhooks import Webhooks, check_settings
from outbox.recording.targets import unscoped

__all__ = ["webhooks_router"]

_STATES: Mapping[bool | None, Any] = {None: None, True: "active", False: ("paused", "disabled")}
_OFFSET = Annotated[int, Query(ge=0, le=9_000)]
_LIMIT = Annotated[int, Query(ge=1, le=100)]
_AFTER = Annotated[str | None, Query(description="The `next` of the page before, in place of an offset")]


def webhooks_router(
    *,
    session: Callable[..., Any],
    owner: Callable[..., Any] | str,
    event_types: object,
    shape: Shape | None = None,
    settings: Mapping[str, Any] | None = None,
) -> APIRouter:
    """Return the API of your customers' webhooks, to be included under a prefix: `prefix="/api/webhooks"`.

    List, make, read, change, remove, rotate the secret, test, history, retry, statistics, and the event types. Each
    owner sees their own and nothing else; another's is 404. Changes are committed before the answer is sent.

    Args:
        session: your dependency that gives a Session or an AsyncSession.
        owner: your dependency that says who asks, or refuses: the user's id, a user with an `id`, or (tenant, owner).
            The id is the tenant, as for `record(…, tenant=str(user.id))`; with (tenant, owner), events of the tenant
            go to the webhooks of all its owners, and each manages their own. Text in place of a dependency is the one
            tenant of all who come ("" where there are no tenants): then guard the router otherwise.
        event_types: what they can choose: a mapping from a type to its description, or from a group to such a mapping;
            or a list or a catalogue of objects with `name` and `description`.
        shape: names, paths and bounds.
        settings: what every new webhook is told besides, as `outbox.subscribe` takes it: scheme, format, ….

    Raises:
        ArgumentError: an argument is of another kind.
        RecordError: an event type's name was refused.
    """
    shape = shape or Shape()
    verbs = Webhooks(shape, types := OfferedTypes(event_types), check_settings(settings or {}))
    names = {"types": shape.events, "type": shape.event, "data": "payload", "schedule_seconds": "retry_count"}
    router, models = APIRouter(route_class=route_class(names)), Models(shape)
    parts = _Parts(router, models, shape, verbs, Depends(session), Depends(_identify(owner)))
    _add_event_types(parts, types)
    _add_reading(parts)
    _add_writing(parts)
    _add_secret_and_test(parts)
    _add_history(parts)
    return router


class _Parts:
    """What the routes are made of; `session` and `owner` are dependencies."""

    def __init__(self, router: APIRouter, models: Models, shape: Shape, verbs: Webhooks, session: Any, owner: Any):
        self.router, self.models, self.shape, self.verbs = router, models, shape, verbs
        self.session, self.owner = session, owner


def _identify(owner: Callable[..., Any] | str) -> Callable[..., Owner]:
    if isinstance(owner, str):
        everybody = owner_of(owner) if owner else Owner("")
        return lambda: everybody
    if not callable(owner):
        raise outbox.ArgumentError("owner: give a dependency that returns who asks, or the name of the one tenant")

    def identify(given: Any = Depends(owner)) -> Owner:  # noqa: B008 - FastAPI's way
        return owner_of(given)

    return identify


async def _run(session: Any, work: Callable[..., Any], *arguments: Any) -> Any:
    """Run plain work on a session of either kind, and never on the event loop."""
    found = unscoped(session)
    if hasattr(found, "run_sync"):
        return await found.run_sync(work, *arguments)
    return await run_in_threadpool(work, found, *arguments)


def _add_event_types(parts: _Parts, types: OfferedTypes) -> None:
    @parts.router.get(parts.shape.event_types_path)
    async def list_event_types(_: Owner = parts.owner) -> list[EventType]:
        """List the event types that a webhook can get."""
        return [EventType(name=one.name, description=one.description, group=one.group) for one in types]


def _add_reading(parts: _Parts) -> None:
    models, verbs = parts.models, parts.verbs

    @parts.router.get("", response_model=models.page)
    async def list_webhooks(
        *,
        limit: _LIMIT = 20,
        offset: _OFFSET = 0,
        is_active: bool | None = None,
        after: _AFTER = None,
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Any:
        """List your webhooks with their counters, the oldest first."""
        return await _run(session, verbs.list, owner, _STATES[is_active], limit, offset, after)

    @parts.router.get("/{webhook_id}", response_model=models.webhook)
    async def get_webhook(webhook_id: str, session: Any = parts.session, owner: Owner = parts.owner) -> Any:
        """Return one webhook with its counters."""
        return await _run(session, verbs.get, owner, webhook_id)


def _add_writing(parts: _Parts) -> None:
    models, verbs = parts.models, parts.verbs

    @parts.router.post("", status_code=201, response_model=models.told)
    async def create_webhook(
        given: models.new,  # type: ignore[name-defined]
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Any:
        """Make a webhook. Its secret is in this answer and in no other."""
        return await _run(session, verbs.create, owner, given.model_dump())

    @parts.router.put("/{webhook_id}", response_model=models.webhook, name="replace_webhook")
    @parts.router.patch("/{webhook_id}", response_model=models.webhook)
    async def update_webhook(
        webhook_id: str,
        changes: models.changes,  # type: ignore[name-defined]
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Any:
        """Change what is given and leave the rest; while it is not active, events pass it by."""
        return await _run(session, verbs.update, owner, webhook_id, changes.model_dump(exclude_unset=True))

    @parts.router.delete("/{webhook_id}", status_code=204)
    async def delete_webhook(webhook_id: str, session: Any = parts.session, owner: Owner = parts.owner) -> None:
        """Remove a webhook for good, with what it had still to get."""
        await _run(session, verbs.remove, owner, webhook_id)


def _add_secret_and_test(parts: _Parts) -> None:
    models, verbs = parts.models, parts.verbs

    @parts.router.post("/{webhook_id}/rotate-secret", response_model=models.told)
    async def rotate_secret(
        webhook_id: str,
        given: Annotated[models.rotation | None, Body()] = None,  # type: ignore[name-defined]
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Any:
        """Give a webhook a new secret, shown in this answer only; where it can, the old one signs along for a day."""
        return await _run(session, verbs.rotate, owner, webhook_id, given and given.secret)

    @parts.router.post("/{webhook_id}/test", responses={504: {"description": "No relay answered in time"}})
    async def test_webhook(
        webhook_id: str,
        given: Annotated[models.test | None, Body()] = None,  # type: ignore[name-defined]
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Tested:
        """Send a test, a real request with the webhook's configuration, whether it is active or not."""
        wanted = (given or models.test()).model_dump()
        requested = await _run(session, verbs.ask_for_test, owner, webhook_id, wanted)
        return _tested(await outbox.await_test(session, requested, seconds=parts.shape.test_seconds))


def _tested(answer: outbox.AnsweredTest) -> Tested:
    return Tested(
        success=answer.ok,
        status_code=answer.status,
        response_time_ms=answer.milliseconds,
        response_body=None if answer.response is None else answer.response.excerpt[:SHOWN_CHARACTERS],
        error=None if answer.ok else answer.error or answer.outcome,
    )


def _add_history(parts: _Parts) -> None:
    shape, models, as_list = parts.shape, parts.models, parts.shape.history_is_list

    @parts.router.get(
        f"/{{webhook_id}}{shape.history_path}",
        response_model=models.entries if as_list else models.history,
    )
    async def list_deliveries(
        webhook_id: str,
        status: history.Status | None = None,
        limit: _LIMIT = 50,
        offset: _OFFSET = 0,
        after: _AFTER = None,
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Any:
        """List the attempts to deliver, the newest first; with status=pending, what waits."""
        page = await _run(session, history.list_history, owner, webhook_id, status, limit, offset, after)
        items = [{**entry, shape.event: entry["type"]} for entry in page["items"]]
        return items if as_list else {**page, "items": items}

    @parts.router.post(f"/{{webhook_id}}{shape.history_path}/{{delivery_id}}/retry", status_code=202)
    async def retry_delivery(
        webhook_id: str, delivery_id: str, session: Any = parts.session, owner: Owner = parts.owner
    ) -> Retried:
        """Try a delivery now that waits, or deliver one again that was given up or had arrived."""
        return Retried(**await _run(session, history.retry, owner, webhook_id, delivery_id))

    @parts.router.get("/{webhook_id}/stats")
    async def read_statistics(
        webhook_id: str,
        over: Annotated[str, Query(pattern="^[1-9][0-9]{0,3}(m|h|d)$", description="90m, 24h, 30d")] = "30d",
        session: Any = parts.session,
        owner: Owner = parts.owner,
    ) -> Statistics:
        """Count what became of a webhook's deliveries lately, and how long they took."""
        return Statistics(**await _run(session, history.read_statistics, owner, webhook_id, over))
