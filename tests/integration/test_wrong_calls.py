"""Every parameter of every public function, with every kind of wrong value: one error, which names it; no row."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

import outbox
from outbox import catalogue, dead_letters, deliveries, events, replays, statistics, subscriptions

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
URL = "https://example.com/hooks"
ID = UUID("0196a5d0-0000-7000-8000-000000000001")  # of nothing
NEEDED: dict[str, dict[str, Any]] = {
    "record": {"type": "a.b", "data": {}},
    "arecord": {"type": "a.b", "data": {}},
    "add": {"url": URL, "types": ["*"]},
    "add_for_every_tenant": {"url": URL, "types": ["*"]},
    "get": {}, "pause": {}, "resume": {}, "remove": {}, "rotate_secret": {},
    "update": {"description": "x"},
    "disable": {"reason": "too slow"},
    "list": {}, "count": {},
    "read_each": {"tenant": "", "subscriptions": []},
    "read": {"tenant": ""}, "rank": {"tenant": "", "by": "type"}, "series": {"tenant": ""},
    "act_as": {"actor": "alice"},
    "portal_url": {"tenant": "", "base_url": "https://hooks.example.com/portal"},
    "revoke_portal_urls": {"tenant": ""},
    "declare_scheme": {},
    "SchemeDeclaration": {"name": "acme", "signed": "{body}", "signature_header": "X-Acme"},
    "sign": {"secret": SECRET, "message_id": "msg_1", "timestamp": 1, "body": b""},
    "signed_headers": {"secrets": SECRET, "message_id": "msg_1", "body": b""},
    "verify": {"secrets": SECRET, "headers": {}, "body": b""},
    "Secret": {"text": "x"},
    "BasicAuth": {"username": "a", "password": "b"},
    "BearerToken": {"token": "x"},
    "OAuth2ClientCredentials": {"token_url": "https://a.example/", "client_id": "x", "client_secret": "y"},
    "TLS": {},
    "Outbox": {}, "Catalogue": {}, "EventType": {"name": "a.b"},
    "allow_endpoints": {},
    "request_test": {}, "read_test": {"test_id": ID},
}  # fmt: skip
# By the name of their module: several have a `list` and a `get`.
OF_MODULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "events.list": (events.list, {}), "events.get": (events.get, {}),
    "events.explain": (events.explain, {}), "events.payloads": (events.payloads, {"event_ids": ID}),
    "deliveries.list": (deliveries.list, {}), "deliveries.get": (deliveries.get, {"delivery_id": ID}),
    "deliveries.attempts": (deliveries.attempts, {}),
    "deliveries.retry": (deliveries.retry, {"delivery_ids": ID}),
    "deliveries.cancel": (deliveries.cancel, {"delivery_ids": ID}),
    "dead_letters.list": (dead_letters.list, {}), "dead_letters.get": (dead_letters.get, {"delivery_id": ID}),
    "dead_letters.purge": (dead_letters.purge, {"delivery_ids": ID}),
    "catalogue.push": (catalogue.push, {}), "catalogue.compare": (catalogue.compare, {}),
    "catalogue.stored": (catalogue.stored, {}), "catalogue.declaration_of": (catalogue.declaration_of, {}),
    "catalogue.compare_schemas": (catalogue.compare_schemas, {"old": {}, "new": {}}),
    "replays.replay": (replays.replay, {"names": ID}), "replays.replay_matching": (replays.replay_matching, {}),
}  # fmt: skip
NEEDED |= {name: needed for name, (_, needed) in OF_MODULES.items()}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(outbox, name) for name in NEEDED if hasattr(outbox, name)},
    **{name: getattr(subscriptions, name) for name in subscriptions.__all__ if name in NEEDED},
    **{name: getattr(statistics, name) for name in statistics.__all__ if name in NEEDED},
    **{name: function for name, (function, _) in OF_MODULES.items()},
}
WRONG: dict[str, Any] = {
    "None": None, "object": object(), "NUL": "a\0", "long": "x" * 70_000, "surrogate": "\ud800", "empty": "",
    "True": True, "float": 1.5, "NaN": float("nan"), "negative": -1, "zero": 0, "huge": 10**5000, "digits": "5",
    "bytes": b"\xff", "set": {1}, "list": [None], "nested": [["a"]], "dict": {1: 2}, "type": int,
    "newline": "a\r\nb: c", "star": "*", "many": [f"a.n{number}" for number in range(3000)],
}  # fmt: skip
RIGHT = {  # the kinds of these that a parameter may be, so that nothing is wrong, or something else of the call
    "available_at": "None",
    "actor": "digits star",
    "after": "None",
    "allow_breaking": "True",
    "allow_http": "True",
    "allow_networks": "empty",
    "allow_ports": "set dict",
    "allow_weak_secret": "True",
    "audience": "empty digits star",
    "authentication": "None",
    "baggage": "True",
    "batch_events": "None",
    "batch_milliseconds": "None zero",
    "body": "bytes",
    "ca": "empty",
    "catalogue": "None",
    "client_certificate": "empty",
    "client_id": "digits star",
    "client_key": "empty",
    "client_secret": "digits star",
    "closed": "None True",
    "data": " ".join(WRONG),  # what has a JSON form
    "deprecated": "None digits star newline",
    "description": "None digits star newline empty",
    "drop": "True",
    "dry_run": "True",
    "example": " ".join(WRONG),  # the same
    "filter": "None",
    "final_statuses": "None",
    "format": "None",
    "format_secret": "None",
    "format_settings": "None",
    "headers": "None empty dict set list nested many",
    "id": "None",
    "id_header": "empty",
    "idempotency_key": "None digits newline star",
    "key": "None digits newline star empty",
    "key_type": "None",
    "max_in_flight": "None",
    "max_payload_bytes": "huge",
    "message_id": "digits star",
    "metadata": "None",
    "model": "None",
    "name": "None digits",
    "new": "None dict",
    "now": "None zero float",
    "offset": "zero",
    "old": "None dict",
    "order_policy": "None",
    "ordered": "None True",
    "outbox": "None",
    "overlap_seconds": "None zero",
    "password": "digits star empty",
    "person": "None digits star",
    "priority": "zero",
    "prune": "True",
    "rate_burst": "None",
    "rate_limit": "None",
    "reason": "digits star newline",
    "recovery_seconds": "None zero",
    "removed": "True",
    "schedule_seconds": "None",
    "scheme": "None",
    "scope": "empty digits star",
    "secret": "None long",
    "secrets": "long",
    "separator": "empty",
    "several": "True",
    "state": "None",
    "step_seconds": "None",
    "subscription": "None",
    "tenant": "digits newline empty",
    "text": "NUL long surrogate empty digits newline star",
    "timeout_seconds": "None",
    "timestamp": "None zero",
    "timestamp_header": "empty",
    "tls": "None",
    "to": "None",
    "to_all": "True",
    "token": "digits star",
    "tolerance_seconds": "None zero float",
    "trace": "None",
    "transformation": "None empty star",
    "type": "None digits newline star empty",
    "type_header": "empty",
    "username": "digits star empty",
    "validate": "None",
}


def parameters(function: str) -> list[str]:
    declared = inspect.signature(FUNCTIONS[function]).parameters.values()
    return [parameter.name for parameter in declared if parameter.kind is not parameter.VAR_KEYWORD]


def test_every_public_function_is_walked() -> None:
    values = {*dir(outbox.errors), "Event", "Webhook", "RawJSON", "EVERY_TENANT", "events_table", "__version__"}
    values |= {"AnsweredTest", "RequestedTest"}
    waits = {"wait_for_test", "await_test"}  # test_python_interface.py: they take what request_test returned
    waits |= {"capture", "Capture", "Change"}  # test_capture.py: it listens to every session until it is removed
    waits |= {"emit", "use_session", "sessions_from", "current_session", "silenced", "refused_events"}  # test_emit.py
    modules = {name.partition(".")[0] for name in OF_MODULES} | {"statistics"}
    assert set(outbox.__all__) - modules - waits - {*FUNCTIONS, "subscribe", "subscriptions", *values} == set()
    for module in (catalogue, events, deliveries, dead_letters, replays):
        assert {name for name in module.__all__ if inspect.isfunction(getattr(module, name))} == {
            name.partition(".")[2]
            for name, (function, _) in OF_MODULES.items()
            if getattr(module, name.partition(".")[2], None) is function
        }
    assert set(statistics.__all__) - {*FUNCTIONS, "Point", "Statistics"} == set()
    types = {"Changes", "NewSubscription", "Settings", "Subscription", "TenantLimit"}
    elsewhere = {"limit_tenant", "list_tenant_limits"}  # test_tenant_limits.py
    assert set(subscriptions.__all__) - {*FUNCTIONS, *types, *elsewhere} == set()
    names = {name for function in FUNCTIONS for name in parameters(function)}
    assert RIGHT.keys() - names == set()


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


def rows(connection: sa.Connection) -> list[Any]:
    tables = ("events", "subscriptions", "secrets", "audit", "pending")
    return [connection.execute(sa.text(f"select * from outbox.{table} order by 1")).all() for table in tables]


@pytest.mark.field("F118")
@pytest.mark.field("F102")
@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_value_is_refused_by_name_and_writes_nothing(connection: sa.Connection, function: str) -> None:
    made = subscriptions.add(connection, URL, ["order.*"])
    event = outbox.record(connection, "a.b", {})
    connection.commit()
    before = rows(connection)
    wrong = {}
    for parameter in parameters(function):
        for kind, value in WRONG.items():
            outcome = judged(
                function, {**arguments(function, connection, made.id, event.id), parameter: value}, parameter
            )
            if kind not in RIGHT.get(parameter, "").split():
                wrong[parameter, kind] = outcome
            else:
                connection.rollback()
        assert rows(connection) == before, parameter  # says too that the transaction is still usable
    assert {case: outcome for case, outcome in wrong.items() if outcome} == {}


def judged(function: str, given: dict[str, Any], parameter: str) -> str:
    """What is wrong with the outcome of a wrong call; '' where it is refused as it should be."""
    try:
        called(function, given)
    except outbox.OutboxError as refused:
        told = str(refused)
        if len(told) > 600:
            return f"a message of {len(told)} characters"
        return "" if _words_for(parameter) in told else f"not named in {told!r}"
    return "taken"


def _words_for(parameter: str) -> str:
    """What names a parameter in a message: a session is named by what may be done with it."""
    return {"session_or_connection": "record cannot write to a", "secrets": "secret"}.get(parameter, parameter)


def arguments(function: str, connection: sa.Connection, subscription_id: str, event_id: str) -> dict[str, Any]:
    known = {
        "session_or_connection": connection,
        "connection": connection,
        "subscription_id": subscription_id,
        "event_id": event_id,
    }
    names = inspect.signature(FUNCTIONS[function]).parameters
    return {name: value for name, value in known.items() if name in names} | NEEDED[function]


def called(function: str, given: dict[str, Any]) -> None:
    call = FUNCTIONS[function]
    parameters = inspect.signature(call).parameters.values()
    first = [given.pop(each.name) for each in parameters if each.kind is each.POSITIONAL_ONLY]
    result = call(*first, **given)
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.mark.parametrize("seconds", ["5", True, None, float("nan"), float("inf"), -1, object()])
def test_waiting_for_a_test_message_refuses_what_is_no_time(connection: sa.Connection, seconds: Any) -> None:
    made = subscriptions.add(connection, URL, ["order.*"])
    asked = outbox.request_test(connection, made.id)
    connection.commit()
    with pytest.raises(outbox.ArgumentError, match=r"^seconds: .{1,60} is not a number of seconds from 0 to 86400$"):
        outbox.wait_for_test(connection, asked, seconds=seconds)
    with pytest.raises(outbox.ArgumentError, match=r"^seconds: "):
        asyncio.run(outbox.await_test(connection, asked, seconds=seconds))  # type: ignore[arg-type]
    with pytest.raises(outbox.ArgumentError, match=r"^requested: pass what request_test returned, not "):
        outbox.wait_for_test(connection, seconds, seconds=1)
