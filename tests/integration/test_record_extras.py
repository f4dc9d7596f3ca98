"""Priority and trace of an event: written on every kind of connection, kept to their rules, shown, and sent on."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import asyncpg
import psycopg
import pytest
from click.testing import CliRunner
from opentelemetry import trace
from sqlalchemy.orm import Session

import outbox
from outbox import Outbox, RecordError, arecord, record
from relay.cli import cli
from relay.operations.status.repeated_ids import find_repeated_ids
from relay.store.rows import event_of
from tests.integration.engine.world import DELIVERED, FarEnd, running
from tests.support.databases import engine_on
from tests.support.recording import Statements, emptied, engine_of, shop_database
from tests.support.waiting import await_until

PARENT = f"00-{'a' * 32}-{'b' * 16}-01"
TRACE = {"traceparent": PARENT, "tracestate": "v=1", "baggage": "user=7"}
STORED = f"{PARENT}\nv=1\nuser=7"


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


def written(database_url):
    with psycopg.connect(database_url) as connection:
        return connection.execute("select payload, priority, trace from outbox.events order by seq").fetchall()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_on_sessions_and_connections_in_the_order_of_record(database_url, driver):
    engine = engine_of(database_url, driver)
    with Session(engine) as session:
        for number, more in enumerate([{}, {"priority": 3}, {"trace": TRACE}, {}, {"priority": 1, "trace": TRACE}]):
            record(session, "a", number, **more)
        session.commit()
    with engine.begin() as connection:
        record(connection, "a", 5, priority=2)
        record(connection, "a", 6)
    engine.dispose()
    assert written(database_url) == [
        ("0", 0, None), ("1", 3, None), ("2", 0, STORED), ("3", 0, None), ("4", 1, STORED), ("5", 2, None),
        ("6", 0, None),
    ]  # fmt: skip


def test_on_raw_connections_and_in_sql(database_url):
    async def program():
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await arecord(connection, "a", 1, priority=1, trace=TRACE)
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await arecord(connection, "a", 2, priority=2, trace=TRACE)
        await connection.close()

    asyncio.run(program())
    with psycopg.connect(database_url) as connection:
        record(connection, "a", 3, priority=3, trace=TRACE)
        connection.execute(
            "select outbox.record('a', '4', priority => 1, traceparent => %s, tracestate => 'v=1',"
            " baggage => 'user=7')",
            (PARENT,),
        )
        connection.execute("select outbox.record('a', '5', traceparent => %s)", (PARENT,))
        connection.execute("select outbox.record('a', '6')")
    assert written(database_url) == [
        ("1", 1, STORED), ("2", 2, STORED), ("3", 3, STORED), ("4", 1, STORED), ("5", 0, PARENT), ("6", 0, None),
    ]  # fmt: skip


@pytest.mark.parametrize("priority", [-1, 4, True, False, None, "1", 1.0, 2**70])
def test_another_priority_is_refused_before_any_sql(database_url, priority):
    engine = engine_of(database_url)
    with engine.begin() as connection:
        statements = Statements(engine)
        with pytest.raises(RecordError, match=r"^priority: must be 0, 1, 2 or 3 \(the most urgent\), not "):
            record(connection, "a", 1, priority=priority)
        assert statements == []
    engine.dispose()


@pytest.mark.case("A37")
@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("priority", 4, "priority_is_0_to_3"),
        ("priority", -1, "priority_is_0_to_3"),
        ("trace", "", "trace_is_w3c"),
        ("trace", "nonsense", "trace_is_w3c"),
        ("trace", PARENT.upper(), "trace_is_w3c"),
        ("trace", f"00-{'0' * 32}-{'b' * 16}-01", "trace_is_w3c"),
        ("trace", f"00-{'a' * 32}-{'0' * 16}-01", "trace_is_w3c"),
        ("trace", PARENT + "\r\nx: y", "trace_is_w3c"),
        ("trace", PARENT + "\nü", "trace_is_w3c"),
        ("trace", PARENT + "\n\n\n", "trace_is_w3c"),
        ("trace", PARENT + "\n" + "x" * 8800, "trace_is_w3c"),
    ],
)
def test_a_plain_insert_keeps_to_the_rules(database_url, column, value, rule):
    insert = f"insert into outbox.events (type, payload, {column}) values ('a', '{{}}', %s)"
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation) as refusal:
        connection.execute(insert, (value,))
    assert refusal.value.diag.constraint_name == rule


def test_the_longest_trace_that_record_takes_can_be_stored(database_url):
    longest = {
        "traceparent": PARENT,
        "tracestate": "k=" + "v" * 250 + ",l=" + "v" * 256 + "",
        "baggage": "k=" + "v" * 8190,
    }
    longest["tracestate"] = "k=" + "v" * 250 + ",l=" + "v" * 255 + " "
    with psycopg.connect(database_url) as connection:
        record(connection, "a", 1, trace=longest)
    ((_, _, stored),) = written(database_url)
    assert len(stored) == 55 + 1 + 510 + 1 + 8192


def test_the_active_trace_is_captured_and_an_explicit_one_goes_before(database_url):
    context = trace.SpanContext(int("a" * 32, 16), int("b" * 16, 16), False, trace.TraceFlags(1))
    other = {"traceparent": f"00-{'c' * 32}-{'d' * 16}-00"}
    engine = engine_of(database_url)
    with trace.use_span(trace.NonRecordingSpan(context)), Session(engine) as session:
        record(session, "a", 1)
        record(session, "a", 2, trace=other)
        record(session, "a", 3, trace={})
        Outbox(baggage=True).record(session, "a", 4)
        session.commit()
    engine.dispose()
    assert [kept for _, _, kept in written(database_url)] == [PARENT, other["traceparent"], None, PARENT]


class Listening(FarEnd):
    """Keeps the header lines too."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[dict[str, str]] = []

    async def send(self, endpoint, headers, body, timeout_seconds):
        self.headers.append(dict(line.split(": ", 1) for line in headers.decode().splitlines()))
        return await super().send(endpoint, headers, body, timeout_seconds)


def test_the_receiver_gets_the_trace_of_its_event_and_of_no_other(database_url):
    engine = engine_of(database_url)
    with Session(engine) as session:
        outbox.subscribe(session, "http://127.0.0.1/", ["*"])
        for traced in (TRACE, None):
            record(session, "a", 1, trace=traced or {})
        session.commit()
    engine.dispose()
    far_end = Listening()

    async def program():
        async with running(database_url, far_end):
            await await_until(lambda: len(far_end.headers) == 2)

    asyncio.run(program())
    assert far_end.script.get("/", DELIVERED) is DELIVERED
    (traced,) = [headers for headers in far_end.headers if "traceparent" in headers]
    assert {name: traced[name] for name in TRACE} == TRACE
    (plain,) = [headers for headers in far_end.headers if "traceparent" not in headers]
    assert not set(plain) & set(TRACE)


def shown(database_url, *arguments):
    ended = CliRunner().invoke(cli, ["events", *arguments], env={"RELAY_DATABASE_URL": database_url})
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_events_show_and_list_have_them(database_url):
    with psycopg.connect(database_url) as connection:
        event_id = record(connection, "a", 1, priority=2, trace=TRACE).id
        plain_id = record(connection, "a", 2).id
    document = json.loads(shown(database_url, "show", event_id, "--json"))
    assert (document["priority"], document["trace"]) == (2, TRACE)
    assert json.loads(shown(database_url, "show", plain_id, "--json"))["trace"] is None
    listed = [json.loads(line) for line in shown(database_url, "list", "--json").splitlines()]
    assert [row["priority"] for row in listed] == [0, 2]
    text = shown(database_url, "show", event_id)
    assert next(line for line in text.splitlines() if PARENT in line).startswith("traceparent ")
    assert "traceparent" not in shown(database_url, "show", plain_id)


def test_an_events_trace_comes_as_the_bytes_that_are_sent():
    parts = event_of((UUID(int=7).bytes, "", "a", None, bytes(8), b"1", STORED.encode(), None))
    assert parts.trace == STORED.encode()
    assert "user" not in repr(parts)


@pytest.mark.field("F119")
def test_the_status_names_an_id_that_several_events_have(database_url):
    with psycopg.connect(database_url) as connection, engine_on(database_url) as engine:
        for payload in ("1", "2"):
            connection.execute("insert into outbox.events (type, payload) values ('a', %s)", (payload,))
            connection.execute("select outbox.record('a', '1', idempotency_key => 'k')")
        connection.commit()
        with engine.connect() as reading:
            assert find_repeated_ids(reading, None) == ()
        insert = "insert into outbox.events (id, type, payload) select %s, 'a', '1' from generate_series(1, %s)"
        for number, count in ((1, 3), (2, 2)):
            connection.execute(insert, (UUID(int=number), count))
        connection.commit()
        with engine.connect() as reading:
            (finding,) = find_repeated_ids(reading, None)
    assert finding.code == "events.repeated_id"
    assert "2 ids" in finding.seen
    assert "evt_00000000000000000000000001, which 3 have" in finding.seen
    assert "idempotency_key" in finding.mend
