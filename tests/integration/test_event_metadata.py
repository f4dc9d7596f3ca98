"""Metadata of an event: written on every kind of connection, bounded, shown, kept with dead letters, not sent."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from outbox import RecordError, arecord, record, subscriptions
from outbox.control.events import show_event
from outbox.control.explain import Draft, explain_draft, explain_event
from outbox.control.store.replay import find_matching, restore_events
from outbox.testing import recorded
from relay.__main__ import run_command
from tests.integration.engine.world import ERROR_500, FarEnd, running
from tests.support.databases import migrate, migrate_to
from tests.support.recording import Statements, emptied, engine_of, shop_database
from tests.support.waiting import await_until

WHO = {"user": "u-17", "source": "web"}


@pytest.fixture(scope="module")
def shared_url(server_url: str, migrated_template: str) -> Iterator[str]:
    with shop_database(server_url, migrated_template) as url:
        yield url


@pytest.fixture
def database_url(shared_url: str) -> str:
    return emptied(shared_url)


def written(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return [found for (found,) in connection.execute("select metadata from outbox.events order by seq").fetchall()]


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_on_sessions_and_connections(database_url: str, driver: str) -> None:
    engine = engine_of(database_url, driver)
    with Session(engine) as session:
        for more in ({}, {"metadata": WHO}, {"metadata": {}}, {"metadata": WHO, "idempotency_key": driver}):
            record(session, "a", 1, **more)  # type: ignore[arg-type]  # options of several types
        assert [one.metadata for one in recorded(session)] == [None, WHO, None, WHO]
        session.commit()
        assert [one.metadata for one in recorded(session)] == [None, WHO, None, WHO]
    with engine.begin() as connection:
        record(connection, "a", 5, metadata={"ü": "\n\"'\\ 😀"})
        again = record(connection, "a", 1, idempotency_key=driver, metadata={"user": "another"})
    engine.dispose()
    assert again.recorded
    assert written(database_url) == [None, WHO, None, WHO, {"ü": "\n\"'\\ 😀"}], "the first one's, where a key repeats"


def test_on_raw_connections_and_in_sql(database_url: str) -> None:
    async def program() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await arecord(connection, "a", 1, metadata=WHO)
        raw = await asyncpg.connect(database_url)
        await raw.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        async with raw.transaction():
            await arecord(raw, "a", 2, metadata=WHO, idempotency_key="k")
            await arecord(raw, "a", 3, metadata=WHO)
        await raw.close()

    asyncio.run(program())
    with psycopg.connect(database_url) as connection:
        record(connection, "a", 4, metadata=WHO, priority=2)
        statement = "select outbox.record('a', '5', metadata => %s"
        connection.execute(f"{statement})", (json.dumps(WHO),))
        connection.execute(f"{statement}, idempotency_key => 'sql')", (json.dumps(WHO),))
        connection.execute("select outbox.record('a', '6', 'key', 'tenant')")  # as it was called before
    assert written(database_url) == [WHO] * 6 + [None]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([("user", "u")], "metadata: must be a mapping of text to text, not list"),
        ("text", "metadata: must be a mapping of text to text, not str"),
        ({"user": 7}, "metadata['user']: must be a str, not int; convert it with str()"),
        ({"user": None}, "metadata['user']: must be a str, not NoneType; convert it with str()"),
        ({"user": "a\0"}, "metadata['user']: has a NUL character, which PostgreSQL cannot hold; remove it"),
        ({"user": "\ud800"}, "metadata['user']: has a lone surrogate, which is not Unicode text; remove it"),
        ({7: "a"}, "metadata: a name: must be a str, not int; convert it with str()"),
        ({"a": "x" * 8200}, "metadata['a']: is 8200 bytes, at most 8192 are allowed"),
        ({"a": "x" * 5000, "b": "x" * 5000}, "metadata: is 10018 bytes as JSON, at most 8192 are allowed"),
    ],
)
def test_what_is_none_is_refused_before_any_sql(database_url: str, given: Any, told: str) -> None:
    engine = engine_of(database_url)
    with engine.begin() as connection:
        statements = Statements(engine)
        with pytest.raises(RecordError) as refusal:
            record(connection, "a", 1, metadata=given)
        assert str(refusal.value) == told
        assert statements == []
    engine.dispose()


@pytest.mark.parametrize(
    "given",
    ['"text"', "[]", "null", '{"a": 1}', '{"a": null}', '{"a": ["b"]}', '{"a": {}}', '{"b": "c", "a": true}',
     json.dumps({"a": "x" * 8192})],
)  # fmt: skip
def test_a_plain_insert_keeps_to_the_rule(database_url: str, given: str) -> None:
    insert = "insert into outbox.events (type, payload, metadata) values ('a', '{}', %s)"
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.CheckViolation) as refusal:
        connection.execute(insert, (given,))
    assert refusal.value.diag.constraint_name == "metadata_is_text_by_name"


def test_the_longest_that_record_takes_can_be_stored(database_url: str) -> None:
    longest = {"ü" * 10: "\x01" * 1000, "b": ""}
    longest["b"] = "x" * (8192 - len(json.dumps(longest, ensure_ascii=False).encode()))
    with psycopg.connect(database_url) as connection:
        record(connection, "a", 1, metadata=longest)
    assert written(database_url) == [longest]


def test_an_error_of_the_server_does_not_tell_it(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("alter table outbox.events add constraint none_of_a check (type <> 'a') not valid")
        with pytest.raises(psycopg.errors.CheckViolation) as refusal:
            record(connection, "a", 1, metadata={"user": "canary-7f3a"})
        connection.rollback()
    assert "none_of_a" in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_filters_and_transformations_see_it_and_receivers_do_not(database_url: str) -> None:
    """A dead letter keeps it: when its event is pruned, filters are asked with it, and a replay writes it again."""
    engine = engine_of(database_url)
    with engine.begin() as connection:
        for path, more in {
            "/web": {"filter": {"metadata": {"source": "web"}}, "schedule_seconds": ()},
            "/api": {"filter": {"metadata": {"source": "api"}}},
            "/none": {"filter": {"metadata": {"$exists": False}}},
            "/who": {"transformation": "{by: metadata.user, number: data}"},
        }.items():
            subscriptions.add(connection, f"http://127.0.0.1{path}", ["*"], tenant="sent", **more)  # type: ignore[arg-type]
        event = record(connection, "a", 1, tenant="sent", metadata=WHO).id
        record(connection, "a", 2, tenant="sent")
        seq = connection.execute(sa.text("select min(seq) from outbox.events")).scalar_one()
    far_end = FarEnd()
    far_end.script["/web"] = ERROR_500

    async def program() -> None:
        async with running(database_url, far_end) as relay:
            await await_until(lambda: len(far_end.requests) == 4)
            await relay.settled()

    asyncio.run(program())
    assert sorted((path, json.loads(body)["data"]) for path, _, body in far_end.requests if path != "/who") == [
        ("/none", 2),
        ("/web", 1),
    ]
    assert [json.loads(body)["data"] for path, _, body in far_end.requests if path == "/who"] == [
        {"by": "u-17", "number": 1},
        {"by": None, "number": 2},
    ]
    assert not [body for path, _, body in far_end.requests if path != "/who" and b"u-17" in body]
    with engine.begin() as connection:
        connection.execute(sa.text("delete from outbox.events"))
        shown = show_event(connection, None, event)
        assert (shown.metadata, shown.payload) == (WHO, "1")
        dead = connection.execute(sa.text("select subscription_id from outbox.dead_letters")).scalar_one()
        assert dead in {found for _, found in find_matching(connection, [seq])}
        restore_events(connection, connection.execute(sa.text("select delivery_id from outbox.dead_letters")).scalars())
    engine.dispose()
    assert written(database_url) == [WHO]


def test_it_is_shown_and_explained(database_url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    engine = engine_of(database_url)
    with engine.begin() as connection:
        wanted = {"metadata": {"source": "web"}}
        name = subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant="shown", filter=wanted).id
        event = record(connection, "a", 1, tenant="shown", metadata=WHO).id
        plain = record(connection, "a", 2, tenant="shown").id
    with engine.begin() as connection:
        assert [explain_event(connection, None, one).subscriptions.items[0].matches for one in (event, plain)] == [
            True,
            False,
        ]
        drafted = explain_draft(connection, None, Draft(type="a", data="1", tenant="shown", metadata=WHO))
        assert drafted.subscriptions.items[0].matches
    engine.dispose()
    monkeypatch.setenv("RELAY_DATABASE_URL", database_url)

    def run(*arguments: str) -> str:
        capsys.readouterr()
        run_command(list(arguments))
        return capsys.readouterr().out

    assert json.loads(run("events", "show", event, "--json"))["metadata"] == WHO
    assert json.loads(run("explain", plain, "--json"))["metadata"] is None
    for command in ("events show", "explain"):
        lines = run(*command.split(), event).splitlines()
        assert [line.split() for line in lines if line.startswith("metadata.")] == [
            ["metadata.user", "u-17"],
            ["metadata.source", "web"],
        ]
    (tmp_path / "data.json").write_text("1")
    draft = ("--type", "a", "--data", str(tmp_path / "data.json"))
    assert "yes" in run("explain", *draft, "--tenant", "shown", "--metadata", "source=web")
    assert "yes" not in run("explain", *draft, "--tenant", "shown", "--metadata", "source=api")
    tested = run("subscriptions", "filter-test", name, *draft, "--metadata", "source=web", "--json")
    assert json.loads(tested)["matches"] is True
    tried = run("subscriptions", "preview", name, *draft, "--metadata", "source=web", "--transformation", "metadata")
    assert '"data":{"source":"web"}' in tried


@pytest.fixture
def role(empty_database_url: str) -> Iterator[str]:
    name = f"outbox_test_{secrets.token_hex(6)}"
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"create role {name}")
        yield name
        connection.execute(f"drop owned by {name} cascade")
        connection.execute(f"drop role {name}")


def test_who_had_rights_by_hand_records_as_before_and_with_metadata(empty_database_url: str, role: str) -> None:
    migrate_to(empty_database_url, 41)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(f"grant usage on schema outbox to {role}")
        for name in ("record", "record_once", "keeps_rules", "broken_rule", "uuid7", "max_payload_bytes", "text_id"):
            connection.execute(f"grant execute on function outbox.{name} to {role} with grant option")
        columns = "id, tenant, type, key, payload, recorded_at, available_at, priority, trace"
        connection.execute(f"grant insert ({columns}), select (seq, id) on outbox.events to {role}")
        connection.execute(f"grant usage on sequence outbox.events_seq to {role}")
        connection.execute(
            "create function public.place() returns text begin atomic select outbox.record('placed', '1'); end"
        )
    migrate(empty_database_url)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute(f"set role {role}")
        for call in (
            "public.place()", "outbox.record('a', '1')", "outbox.record('a', '1', null, 'acme')",
            "outbox.record('a', '1', idempotency_key => 'before')", "outbox.record('a', '1', 'key')",
            """outbox.record('a', '1', metadata => '{"by": "u"}')""",
            """outbox.record('a', '1', metadata => '{"by": "u"}', idempotency_key => 'now')""",
        ):  # fmt: skip
            assert connection.execute(f"select {call}").fetchone()
        record(connection, "a", 1, priority=1)
        record(connection, "a", 1, metadata=WHO)
        grantable = "bool_and(has_function_privilege(oid, 'execute with grant option'))"
        asked = f"select {grantable} from pg_proc where proname in ('record', 'record_once')"
        assert connection.execute(asked).fetchone() == (True,)
        connection.commit()
    assert written(empty_database_url) == [None] * 5 + [{"by": "u"}] * 2 + [None, WHO]
