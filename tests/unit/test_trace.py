"""The trace of an event: what is taken as one, what is captured, and what is sent on with which span around it."""

from __future__ import annotations

import asyncio
import builtins
import sys
from types import SimpleNamespace

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox import ArgumentError, Outbox, RecordError, SubscriptionError
from outbox.ids import EventId
from outbox.recording.trace import captured_trace, checked_trace
from outbox.signing.schemes import SchemeDeclaration, declare
from outbox.subscriptions.headers import check_headers
from relay.http.sender import Endpoint
from relay.message import trace as sending
from relay.message.trace import Traced
from relay.model.event import EventParts
from relay.model.outcome import Outcome, OutcomeKind

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
EVENT = EventId(int=7)
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def kept(**given: str) -> str | None:
    return checked_trace({"traceparent": PARENT} | given)


class TestGiven:
    @pytest.mark.parametrize(
        ("value", "stored"),
        [
            ({"traceparent": PARENT}, PARENT),
            ({"traceparent": f" {PARENT}\t"}, PARENT),
            ({"traceparent": PARENT, "tracestate": None}, PARENT),
            ({"traceparent": PARENT, "tracestate": " a=1 , ,b@c=2 "}, f"{PARENT}\na=1,b@c=2"),
            ({"traceparent": PARENT, "baggage": "k=v;p;q=1, l = %20"}, f"{PARENT}\n\nk=v;p;q=1,l = %20"),
            ({"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-03"}, f"00-{TRACE_ID}-{SPAN_ID}-03"),
            ({"traceparent": f"cc-{TRACE_ID}-{SPAN_ID}-09-what-the-future-will-be"}, PARENT),
            ({}, None),
            ({"tracestate": None}, None),
        ],
    )
    def test_what_w3c_allows_is_kept(self, value, stored):
        assert checked_trace(value) == stored

    @pytest.mark.parametrize(
        "parent",
        [
            "",
            "nonsense",
            PARENT.upper(),
            f"ff-{TRACE_ID}-{SPAN_ID}-01",
            f"00-{'0' * 32}-{SPAN_ID}-01",
            f"00-{TRACE_ID}-{'0' * 16}-01",
            f"{PARENT}-more",
            f"{PARENT}\r\nx-evil: 1",
            f"01-{TRACE_ID}-{SPAN_ID}-01-é",
        ],
    )
    def test_another_traceparent_is_refused(self, parent):
        with pytest.raises(RecordError, match=r"^trace\.traceparent: .* is not like 00-"):
            checked_trace({"traceparent": parent})

    @pytest.mark.parametrize(
        "state",
        ["a", "A=1", "a=1,a=2", "a=é", "a=1\n", "@b=1", "a@=1", "a=b=c", ",".join(f"k{n}=1" for n in range(33))],
    )
    def test_another_tracestate_is_refused(self, state):
        with pytest.raises(RecordError, match=r"^trace\.tracestate: is not a list"):
            kept(tracestate=state)

    @pytest.mark.parametrize("value", ["a", "a=ü", "a=b\r\nc: d", 'a="b"', "a b=c"])
    def test_other_baggage_is_refused(self, value):
        with pytest.raises(RecordError, match=r"^trace\.baggage: is not a list"):
            kept(baggage=value)

    def test_its_size_is_bounded(self):
        assert kept(tracestate="k=" + "v" * 250 + ",l=" + "v" * 250)
        with pytest.raises(RecordError, match=r"^trace\.tracestate: is 515 bytes, at most 512"):
            kept(tracestate="k=" + "v" * 255 + ",l=" + "v" * 255)
        assert kept(baggage="k=" + "v" * 8190)
        with pytest.raises(RecordError, match=r"^trace\.baggage: is 8193 bytes, at most 8192"):
            kept(baggage="k=" + "v" * 8191)

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (PARENT, "trace: must be a mapping"),
            ({"traceparent": PARENT, "b3": "1"}, "trace: has no 'b3'"),
            ({"tracestate": "a=1"}, "trace.traceparent: is missing"),
            ({"traceparent": 7}, "trace.traceparent: must be a str, not int"),
        ],
    )
    def test_what_is_none_is_refused(self, value, said):
        with pytest.raises(RecordError, match=f"^{said}"):
            checked_trace(value)


def active(span: str = SPAN_ID, state: dict[str, str] | None = None) -> trace.Span:
    flags, kept_state = trace.TraceFlags(1), trace.TraceState(list((state or {}).items()))
    return trace.NonRecordingSpan(trace.SpanContext(int(TRACE_ID, 16), int(span, 16), False, flags, kept_state))


class TestCaptured:
    def test_nothing_without_an_active_trace(self):
        assert captured_trace(baggage=True) is None

    def test_the_active_trace_with_its_state(self):
        with trace.use_span(active(state={"a": "1", "b@c": "2"})):
            assert captured_trace(baggage=False) == f"{PARENT}\na=1,b@c=2"

    def test_a_recording_is_a_span_of_the_active_trace(self, monkeypatch):
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
        with trace.use_span(active()):
            stored = captured_trace(baggage=False, recorded=("order.placed", EVENT))
        (span,) = exporter.get_finished_spans()
        assert stored == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
        assert (span.name, span.kind, span.parent.span_id) == (
            *("record order.placed", trace.SpanKind.PRODUCER),
            int(SPAN_ID, 16),
        )
        assert span.attributes["messaging.message.id"] == str(EVENT)

    def test_without_an_sdk_the_active_trace_is_kept_as_it_is(self):
        with trace.use_span(active()):
            assert captured_trace(baggage=False, recorded=("order.placed", EVENT)) == PARENT

    def test_baggage_only_where_it_is_asked_for(self):
        token = context.attach(baggage.set_baggage("user", "7 é"))
        try:
            with trace.use_span(active()):
                assert captured_trace(baggage=False) == PARENT
                assert captured_trace(baggage=True) == f"{PARENT}\n\nuser=7+%C3%A9"
        finally:
            context.detach(token)

    def test_what_is_too_large_is_left_out_and_the_rest_stays(self):
        token = context.attach(baggage.set_baggage("user", "x" * 4096))
        try:
            context.attach(baggage.set_baggage("more", "x" * 4095))
            with trace.use_span(active(state={"a": "v" * 255, "b": "v" * 255, "c": "1"})):
                assert captured_trace(baggage=True) == PARENT
        finally:
            context.detach(token)

    def test_opentelemetry_is_never_imported_for_it(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
            monkeypatch.delitem(sys.modules, name)
        imported, plain_import = [], builtins.__import__

        def noting(name, *rest, **more):
            imported.append(name)
            return plain_import(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", noting)
        assert captured_trace(baggage=True) is None
        assert imported == []

    def test_the_setting_is_true_or_false(self):
        with pytest.raises(ArgumentError, match="baggage: must be True or False"):
            Outbox(baggage="yes")


class FarEnd:
    """A sender that keeps what it was given."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.sent: list[dict[str, str]] = []

    async def send(self, endpoint, headers, body, timeout_seconds):
        self.sent.append(dict(line.split(": ", 1) for line in headers.decode().splitlines()))
        return self.outcome

    async def close(self): ...


ENDPOINT = Endpoint.of("https://example.com:8443/secret?token=1", owner=bytes(16))
HEADERS = b"content-type: application/json\r\n"


def sent(
    kept: bytes, *, headers: bytes = HEADERS, to: Endpoint = ENDPOINT, attempt: int = 1, status: int = 200
) -> dict[str, str]:
    kind = OutcomeKind.DELIVERED if status < 300 else OutcomeKind.HTTP_5XX
    far_end = FarEnd(Outcome(kind, status, 1))
    event = EventParts(b"evt_x", b"order.placed", "", None, 0, b"{}", kept)
    asyncio.run(Traced(far_end, event, ENDPOINT, attempt).send(to, headers, b"{}", 1.0))
    return far_end.sent[0]


STORED = f"{PARENT}\na=1\nk=v".encode()
AS_STORED = {"content-type": "application/json", "traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}


class TestSent:
    @pytest.fixture(autouse=True)
    def without_opentelemetry(self, monkeypatch):
        monkeypatch.setattr(sending, "opentelemetry", lambda: None)

    def test_as_it_was_recorded(self):
        assert sent(STORED) == AS_STORED
        assert sent(PARENT.encode()) == {"content-type": "application/json", "traceparent": PARENT}
        assert "tracestate" not in sent(f"{PARENT}\n\nk=v".encode())

    def test_what_was_written_by_hand_and_is_no_trace_is_not_sent(self):
        for value in (
            *(b"x", b"", PARENT.encode() + b"\r\nx: y", PARENT.encode() + b"\n\n\n"),
            *(PARENT.encode() + b"\n" + b"v" * 9000, PARENT.encode() + "\né".encode()),
        ):
            assert sent(value) == {"content-type": "application/json"}

    def test_a_header_of_the_subscriptions_own_is_left_alone(self):
        own = sent(STORED, headers=HEADERS + b"Baggage: mine=1\r\nx-note: traceparent: no\r\n")
        ours = {name: value for name, value in AS_STORED.items() if name != "baggage"}
        assert own == ours | {"Baggage": "mine=1", "x-note": "traceparent: no"}

    def test_another_host_learns_nothing_of_it(self):
        assert sent(STORED, to=Endpoint.of("https://tokens.example.com/")) == {"content-type": "application/json"}


class TestSpan:
    @pytest.fixture
    def spans(self, monkeypatch):
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        api = SimpleNamespace(
            tracer=provider.get_tracer("test"), propagator=TraceContextTextMapPropagator(), SpanKind=trace.SpanKind,
            Status=trace.Status, StatusCode=trace.StatusCode,
        )  # fmt: skip
        monkeypatch.setattr(sending, "opentelemetry", lambda: api)
        return exporter.get_finished_spans

    def test_its_id_goes_to_the_receiver_and_its_parent_is_what_was_recorded(self, spans):
        headers = sent(STORED)
        (span,) = spans()
        assert f"{span.parent.trace_id:032x}-{span.parent.span_id:016x}" == f"{TRACE_ID}-{SPAN_ID}"
        assert headers["traceparent"] == f"00-{TRACE_ID}-{span.context.span_id:016x}-01"
        assert headers["tracestate"] == "a=1"
        assert headers["baggage"] == "k=v"
        assert span.kind is trace.SpanKind.CLIENT
        assert span.name == "deliver order.placed"

    def test_fan_out_is_a_span_beside_it_for_each_event_with_a_trace(self, spans):
        stored = [STORED, None, b"nonsense", b"x" * 9000]
        events = [EventParts(b"evt_%d" % n, b"a.b", "", None, 0, b"{}", kept) for n, kept in enumerate(stored)]
        sending.note_fan_out(events, 1_000)
        (span,) = spans()
        assert (span.name, span.parent.span_id, span.start_time) == ("fan_out a.b", int(SPAN_ID, 16), 1_000)
        assert span.attributes["messaging.message.id"] == "evt_0"

    def test_it_tells_what_was_done_and_nothing_secret(self, spans):
        sent(STORED, attempt=3, status=503)
        (span,) = spans()
        assert dict(span.attributes) == {
            "http.request.method": "POST",
            "server.address": "example.com",
            "server.port": 8443,
            "url.scheme": "https",
            "http.request.resend_count": 2,
            "http.response.status_code": 503,
            "error.type": "http_5xx",
            "messaging.system": "outbox-relay",
            "messaging.operation.type": "send",
            "messaging.message.id": "evt_x",
            "outbox.event.type": "order.placed",
            "outbox.subscription.id": "sub_00000000000000000000000000",
        }
        assert span.status.status_code is trace.StatusCode.ERROR

    def test_the_api_alone_sends_it_on_as_it_was(self):
        sending.opentelemetry.cache_clear()
        assert sending.opentelemetry() is not None
        assert sent(STORED) == AS_STORED

    def test_where_it_is_not_installed_nothing_fails(self, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        sending.opentelemetry.cache_clear()
        assert sending.opentelemetry() is None
        sending.opentelemetry.cache_clear()


@pytest.mark.parametrize("name", ["traceparent", "Tracestate", "BAGGAGE"])
def test_its_headers_are_reserved_but_stay_where_they_are_stored(name):
    with pytest.raises(SubscriptionError, match=f"headers: {name} is set by the relay"):
        check_headers({name: "x"})
    assert check_headers({name: "x"}, stored=True) == {name: "x"}
    with pytest.raises(SubscriptionError):
        declare(SchemeDeclaration(name="own", signed="{body}", signature_header=name, value="{signature}"))
