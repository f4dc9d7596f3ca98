"""The spans of an event whose application and relay have an SDK of OpenTelemetry: recorded, fanned out, delivered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import outbox
from outbox.ids import text_id
from relay.http.sender import Endpoint
from relay.message import trace as sending
from relay.model.outcome import Outcome
from tests.integration.engine.world import DELIVERED, ERROR_500, FarEnd, World, running, uuid_of
from tests.support.waiting import await_until

pytestmark = pytest.mark.anyio


class TwoTries(FarEnd):
    """Refuses the first attempt; keeps the trace that each came with."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: list[str] = []

    async def send(self, endpoint: Endpoint, headers: bytes, body: bytes, timeout_seconds: float) -> Outcome:
        fields = dict(line.split(": ", 1) for line in headers.decode().splitlines())
        self.parents.append(fields.get("traceparent", ""))
        self.script["/"] = ERROR_500 if len(self.parents) == 1 else DELIVERED
        return await super().send(endpoint, headers, body, timeout_seconds)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], tuple[ReadableSpan, ...]]]:
    """Have an SDK in this process, for application and relay alike; return what tells the spans that ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)  # the process's own can be set only once
    sending.opentelemetry.cache_clear()
    yield exporter.get_finished_spans
    sending.opentelemetry.cache_clear()


def told(span: ReadableSpan) -> tuple[str, trace.SpanKind, dict[str, Any]]:
    return span.name, span.kind, dict(span.attributes or {})


def ids(context: trace.SpanContext | None) -> tuple[int, int] | None:
    return context and (context.trace_id, context.span_id)


def traceparent_of(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


async def test_an_event_is_recorded_fanned_out_and_attempted_in_one_trace(
    world: World, ended: Callable[[], tuple[ReadableSpan, ...]]
) -> None:
    subscription = world.subscribe(schedule=(0, 0))
    far_end = TwoTries()
    with trace.get_tracer("shop").start_as_current_span("checkout") as checkout, world.open() as connection:
        event = outbox.record(connection, "order.placed", {"n": 1})
    async with running(world.url, far_end):
        await await_until(lambda: world.count("attempts") == 2)
    recorded, _, *rest = ended()
    fanned_out, first, second = sorted(rest, key=lambda span: span.start_time or 0)

    of_event = {
        "messaging.system": "outbox-relay",
        "messaging.message.id": event.id,
        "outbox.event.type": "order.placed",
    }
    of_attempt = of_event | {
        "messaging.operation.type": "send",
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": 80,
        "url.scheme": "http",
        "outbox.subscription.id": text_id("sub", uuid_of(subscription)),
    }
    assert told(recorded) == (
        "record order.placed", trace.SpanKind.PRODUCER, of_event | {"messaging.operation.type": "create"},
    )  # fmt: skip
    assert told(fanned_out) == ("fan_out order.placed", trace.SpanKind.INTERNAL, of_event)
    failed = {"http.response.status_code": 500, "error.type": "http_5xx"}
    assert not first.status.is_ok
    again = {"http.request.resend_count": 1, "http.response.status_code": 200}
    assert told(first) == ("deliver order.placed", trace.SpanKind.CLIENT, of_attempt | failed)
    assert told(second) == ("deliver order.placed", trace.SpanKind.CLIENT, of_attempt | again)

    assert ids(recorded.parent) == ids(checkout.get_span_context())
    assert [ids(span.parent) for span in rest] == [ids(recorded.get_span_context())] * 3
    assert far_end.parents == [traceparent_of(first), traceparent_of(second)]
