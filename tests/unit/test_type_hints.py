"""What the public names are annotated with can be read at run time, as FastAPI and pydantic do."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from importlib import import_module
from typing import Any, get_type_hints

import httpx
import pydantic
import pytest
from fastapi import FastAPI

import outbox
from outbox.subscriptions import NewSubscription, Subscription
from tests.support import django_site

pytestmark = pytest.mark.field("F43")
django_site.begin()
MODULES = ["outbox", *(module.name for module in pkgutil.walk_packages(outbox.__path__, "outbox."))]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
AT = datetime(2026, 1, 31, 14, 0, tzinfo=timezone(timedelta(hours=2)))


def annotated() -> Iterator[tuple[str, Any]]:
    """Every public function, class, method and property, with its name."""
    for module in map(import_module, MODULES):
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            where = f"{module.__name__}.{name}"
            if inspect.isclass(value):
                yield where, value
                for member, method in vars(value).items():
                    function = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
                    if inspect.isfunction(function) and member != "__new__":  # a NamedTuple's is made without globals
                        yield f"{where}.{member}", function
            elif callable(value) and inspect.isroutine(inspect.unwrap(value)):
                yield where, inspect.unwrap(value)


def fault_of(value: Any) -> str:
    """Return why an annotation does not resolve; "" where each does."""
    try:
        get_type_hints(value, include_extras=True)
    except Exception as error:
        return repr(error)
    return ""


def test_every_annotation_resolves() -> None:
    """One test: as a test each, these 2,600 took longer to hand out than to run."""
    found = {where: fault_of(value) for where, value in annotated()}
    assert len(found) > 2_000
    assert {where: fault for where, fault in found.items() if fault} == {}


def subscription(**more: Any) -> dict[str, Any]:
    return {
        "id": "sub_01jd3v0000e008000000000000", "tenant": "acme", "url": "https://example.com/", "types": ("order.*",),
        "name": "crm", "managed_by": None, "description": "", "metadata": {"a": "b"},
        "timeout_seconds": 15, "schedule_seconds": (5, 300),
        "scheme": "standard", "public_keys": (), "headers": ("X-A",), "authentication": "bearer", "tls": "",
        "format": "cloudevents", "format_settings": {"source": "/a"}, "format_secret": "",
        "final_statuses": (), "filter": None, "transformation": None, "rate_limit": None, "rate_burst": None,
        "max_in_flight": None, "ordered": False, "order_policy": "block", "recovery_seconds": 0, "paused_at": AT,
        "drops_while_paused": False, "batch_events": None, "batch_milliseconds": 1000,
        "disabled_at": None, "disabled_reason": None, "held_until": None,
        "removed_at": None, "created_at": AT, "updated_at": AT, **more,
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "more"), [(Subscription, {}), (NewSubscription, {"secret": SECRET})])
def test_pydantic_reads_and_writes_it(kind: Any, more: dict[str, str]) -> None:
    adapter = pydantic.TypeAdapter(kind)
    value = kind(**subscription(**more))
    assert adapter.validate_json(adapter.dump_json(value)) == value
    assert adapter.json_schema()["properties"]["types"]["type"] == "array"


@pytest.mark.parametrize("kind", [Subscription, NewSubscription, outbox.Event, outbox.Webhook, outbox.RawJSON])
def test_a_value_type_is_a_field_of_a_model(kind: Any) -> None:
    assert pydantic.create_model("Model", value=(kind, ...)).model_fields["value"].annotation is kind


def test_fastapi_answers_with_what_the_handler_declares_and_nothing_more() -> None:
    made = NewSubscription(**subscription(secret=SECRET))
    app = FastAPI()

    @app.get("/new")
    def new() -> NewSubscription:
        return made

    @app.get("/seen")
    def seen() -> Subscription:
        return made

    @app.get("/list")
    def every() -> list[Subscription]:
        return [made]

    answers = asyncio.run(ask(app, "/new", "/seen", "/list", "/openapi.json"))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[0].json()["secret"] == SECRET
    for answer in answers[1:]:
        assert SECRET not in answer.text
    assert all(made.id in answer.text for answer in answers[:3])


async def ask(app: FastAPI, *paths: str) -> list[httpx.Response]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://testserver") as client:
        return [await client.get(path) for path in paths]


def test_it_becomes_json_without_any_library() -> None:
    document = json.loads(json.dumps(Subscription(**subscription()).to_dict()))
    assert list(document)[:2] == ["id", "state"]
    assert document["state"] == "paused"
    assert document["types"] == ["order.*"]
    assert document["created_at"] == "2026-01-31T12:00:00.000000Z"
    assert datetime.fromisoformat(document["created_at"]) == AT.astimezone(UTC)
    assert "secret" not in document
    assert NewSubscription(**subscription(secret=SECRET)).to_dict()["secret"] == SECRET


@pytest.mark.field("F102")
def test_a_subscription_with_its_secret_hides_it_and_is_not_pickled() -> None:
    made = NewSubscription(**subscription(secret=SECRET))
    assert SECRET not in repr(made)
    with pytest.raises(TypeError, match=r"^NewSubscription: holds a secret"):
        pickle.dumps(made)
    assert pickle.loads(pickle.dumps(Subscription(**subscription()))) == Subscription(**subscription())
