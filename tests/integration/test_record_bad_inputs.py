"""Bad arguments of record(): one typed error in the caller, nothing sent, the caller's transaction as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.orm import Session

from outbox import Outbox, PayloadError, PayloadTooLarge, RawJSON, RecordError, record
from tests.support.recording import Order, Statements, emptied, engine_of, recorded, shop_database

CYCLE: list = []
CYCLE.append(CYCLE)
DEEP: list = []
for _ in range(1_000):
    DEEP = [DEEP]

BAD_DATA = {
    "A1 too large": ("x" * 262_143, PayloadTooLarge, "262145 bytes .* 262144"),
    "A4 surrogate in a value": ({"a": "\ud800"}, PayloadError, r"data\.a: .*surrogate"),
    "A4 surrogate in a key": ({"\ud800": 1}, PayloadError, "data: .*surrogate"),
    "A4 surrogate in raw JSON": (RawJSON('["\\ud800"]'), PayloadError, r"data\[0\]: .*surrogate"),
    "A5 NUL in a value": ({"a": ["\0"]}, PayloadError, r"data\.a\[0\]: .*NUL"),
    "A5 NUL in a key": ({"\0": 1}, PayloadError, "data: .*NUL"),
    "A5 NUL in raw JSON": (RawJSON('{"a":"\\u0000"}'), PayloadError, r"data\.a: .*NUL"),
    "A8 bytes": (b"{}", PayloadError, "data: bytes"),
    "A10 naive datetime": ({"at": datetime(2026, 1, 1)}, PayloadError, r"data\.at: .*time zone"),  # noqa: DTZ001
    "A14 NaN": ({"a": [1, float("nan")]}, PayloadError, r"data\.a\[1\]: NaN"),
    "A16 depth": (DEEP, PayloadError, "deeper than 100"),
    "A17 cycle": ({"list": CYCLE}, PayloadError, "cycle"),
    "A18 key that is no text": ({"items": [{1: "a", "1": "b"}]}, PayloadError, r"data\.items\[0\]: .*int"),
    "A21 one enormous string": ("x" * 50_000_000, PayloadTooLarge, "50000002 bytes"),
}
BAD_TYPES = (
    *("", " ", "a b", "a..b", ".a", "a.", "a/b", "a*", "é", "😀", "a" * 129, "a\n", "a.b\n", "'; DROP TABLE x"),
    *("*", "a-b", "١", None, 7, b"a", ["a"]),
)
BAD_KEYWORDS = {
    "key of another type": ({"key": 7}, "key: .*str"),
    "key too long": ({"key": "é" * 513}, "key: is 1026 bytes"),
    "key with NUL": ({"key": "a\0"}, "key: .*NUL"),
    "key with surrogate": ({"key": "\udcff"}, "key: .*surrogate"),
    "tenant star": ({"tenant": "*"}, "tenant: "),
    "tenant of another type": ({"tenant": None}, "tenant: .*str"),
    "tenant too long": ({"tenant": "t" * 257}, "tenant: is 257 bytes"),
    "tenant with NUL": ({"tenant": "\0"}, "tenant: .*NUL"),
    "A10 naive time": ({"available_at": datetime(2031, 1, 1)}, "available_at: .*time zone"),  # noqa: DTZ001
    "time as text": ({"available_at": "2031-01-01T00:00:00Z"}, "available_at: .*not str"),
    "time as number": ({"available_at": float("inf")}, "available_at: .*not float"),
    "negative delay": ({"available_at": timedelta(-1)}, "available_at: "),
    "endless delay": ({"available_at": timedelta.max}, "available_at: "),
    "time past the calendar": (
        {"available_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-1)))},
        "available_at: .*years",
    ),
}


@pytest.fixture(scope="module")
def shared_url(server_url, migrated_template):
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url):
    return emptied(shared_url)


@pytest.fixture
def shop(database_url):
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def refusal(shop, database_url):
    """Check that record() with these arguments raises, without SQL, and that earlier work can still be committed."""

    def check(arguments, keywords, error, message):
        with Session(shop) as session:
            session.add(Order())
            session.flush()
            statements = Statements(shop)
            with pytest.raises(error, match=message) as caught:
                record(session, *arguments, **keywords)
            assert not statements
            session.commit()
        assert len(str(caught.value)) < 400
        assert recorded(database_url) == []

    return check


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(refusal, name):
    data, error, message = BAD_DATA[name]
    refusal(("a", data), {}, error, message)


@pytest.mark.case("A22")
@pytest.mark.parametrize("event_type", BAD_TYPES, ids=ascii)
def test_bad_type(refusal, event_type):
    refusal((event_type, 1), {}, RecordError, "type: ")


@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_bad_keyword(refusal, name):
    keywords, message = BAD_KEYWORDS[name]
    refusal(("a", 1), keywords, RecordError, message)


@pytest.mark.case("A23")
def test_an_event_id_cannot_be_given(refusal):
    """The id is signed and a header, so it is always our own."""
    refusal(("a", 1), {"id": "a.b"}, TypeError, "id")


@pytest.mark.case("A22")
@pytest.mark.parametrize("event_type", ["A", "a" * 128, "__proto__", "a.b_c.D1", "0"])
def test_good_types(database_url, engine, event_type):
    with Session(engine) as session:
        record(session, event_type, 1)
        session.commit()
    assert recorded(database_url)[0].type == event_type


@pytest.mark.case("A14", "A15", "A20")
@pytest.mark.parametrize(
    "text",
    [
        "12345678901234567890.10",
        '{"zeta":1,"a":1e400,"b":1E-200000}',
        "1e200000",
        " [ 1 , 2 ]\n",
        '"\\u00e9\\/\\ud83d\\ude00"',
    ],
)
def test_raw_json_is_stored_as_written(database_url, engine, text):
    with Session(engine) as session:
        record(session, "a", RawJSON(text))
        session.commit()
    assert recorded(database_url)[0].payload == text


def test_the_extremes_that_are_allowed_are_stored(database_url, engine):
    small = Outbox(max_payload_bytes=4)
    with Session(engine) as session:
        record(session, "a", "x" * 262_142, key="k" * 1024, tenant="é" * 128, available_at=timedelta(days=36_525))
        record(session, "b", {}, key="", available_at=datetime.max.replace(tzinfo=UTC))
        record(session, "c", {}, available_at=datetime.min.replace(tzinfo=UTC))
        small.record(session, "d", "é")
        with pytest.raises(PayloadTooLarge):
            small.record(session, "e", "éx")
        session.commit()
    assert [row.type for row in recorded(database_url)] == ["a", "b", "c", "d"]


@pytest.mark.case("A35")
def test_every_kind_of_character_survives(database_url, engine):
    text = "".join(chr(code) for code in (*range(1, 0x300), 0x2028, 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF))
    with Session(engine) as session:
        record(session, "a", {text: [text]}, key=text[:300])
        session.commit()
        stored = (
            session.connection()
            .exec_driver_sql("select key, payload::json -> %(t)s ->> 0 from outbox.events", {"t": text})
            .one()
        )
    assert tuple(stored) == (text[:300], text)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "1"])
def test_max_payload_bytes_is_checked(limit):
    with pytest.raises(ValueError, match="max_payload_bytes"):
        Outbox(max_payload_bytes=limit)
