"""What a plain INSERT may say, and what the database refuses before it could harm a relay (A37)."""

from __future__ import annotations

import psycopg
import pytest

INTO = "insert into outbox.events "
REFUSED = {
    "type_is_dotted_words": INTO + "(type, payload) values ('a b', '{}')",
    "payload_is_not_too_large": INTO + "(type, payload) values ('a', repeat('1', 262145))",
    "key_is_text": INTO + "(type, payload, key) values ('a', '{}', repeat('k', 1025))",
    "tenant_is_text": INTO + "(type, payload, tenant) values ('a', '{}', '*')",
    "seq_is_drawn": INTO + "(seq, type, payload) values (-5, 'a', '{}')",
    "seq_is_drawn at the far end": INTO + "(seq, type, payload) values (9223372036854775807, 'a', '{}')",
    "recorded_at_is_a_date": INTO + "(type, payload, recorded_at) values ('a', '{}', 'infinity')",
    "recorded_at_is_a_date before ours": (INTO + "(type, payload, recorded_at) values ('a', '{}', '0044-03-15 BC')"),
    "available_at_is_a_date": INTO + "(type, payload, available_at) values ('a', '{}', '12026-03-15')",
    "available_at_is_a_date for ever": (INTO + "(type, payload, available_at) values ('a', '{}', 'infinity')"),
}


@pytest.mark.case("A37")
@pytest.mark.parametrize("case", REFUSED)
def test_the_constraint_that_refuses_a_plain_insert_names_the_field(database_url: str, case: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation) as refusal:
        connection.execute(REFUSED[case])
    assert refusal.value.diag.constraint_name == case.split()[0]


@pytest.mark.case("A37")
def test_text_that_is_not_json_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.InvalidTextRepresentation):
        connection.execute(INTO + "(type, payload) values ('a', '{not json')")


@pytest.mark.parametrize(
    "statement",
    [
        INTO + "(type, payload) values ('a.b', '{\"n\": 1.10}')",
        INTO + "(type, payload) select 'a.b', '{}' from generate_series(1, 3)",
        "select outbox.record('a.b', '{\"n\": 1.10}')",
        "with new as (insert into outbox.events (type, payload) values ('a', '1') returning seq) select from new",
    ],
)
def test_whatever_inserts_an_event_makes_it_pending(database_url: str, statement: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(statement)
        events, pending = connection.execute(
            "select (select count(*) from outbox.events), (select count(*) from outbox.pending)"
        ).fetchone()
    assert events == pending > 0


def test_copy_makes_events_pending(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        with connection.cursor().copy("copy outbox.events (type, payload) from stdin") as copy:
            copy.write_row(("a.b", "{}"))
            copy.write_row(("a.c", "[]"))
        assert connection.execute("select count(*) from outbox.pending").fetchone() == (2,)


def test_the_exact_text_is_kept(database_url: str) -> None:
    text = '{"z": 1.10, "a": 12345678901234567890.10, "é": "\\u0041"}'
    with psycopg.connect(database_url) as connection:
        connection.execute("select outbox.record('a', %s)", (text,))
        assert connection.execute("select payload from outbox.events").fetchone() == (text,)


def test_the_rules_of_an_event_are_short(database_url: str) -> None:
    """PostgreSQL reads them anew, from text of its own, for each statement that inserts: 3,600 bytes took an eighth."""
    rules = "select sum(length(conbin)) from pg_constraint where conrelid = 'outbox.events'::regclass and contype = 'c'"
    with psycopg.connect(database_url) as connection:
        (length,) = connection.execute(rules).fetchone()
    assert 0 < length < 2500
