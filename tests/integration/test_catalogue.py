"""The catalogue with a database: recording by it, pushing it, who may, closed ones, and the commands."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import click
import psycopg
import pydantic
import pytest
import sqlalchemy
from click.testing import CliRunner
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

import outbox
from outbox import Catalogue, CatalogueError, EventType, PayloadInvalid, SubscriptionError, subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from outbox.control.known_types import known_types, show_type
from relay.cli import cli


class Placed(pydantic.BaseModel):
    cents: int
    note: str | None = None


class Later(pydantic.BaseModel):
    cents: str


@pytest.fixture
def events() -> Catalogue:
    found = Catalogue("shop")
    EventType("order.placed", Placed, description="An order.", example={"cents": 1}, catalogue=found)
    EventType("order.paid", catalogue=found)
    return found


def rows(engine: Engine, statement: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


RECORDED = "select type, payload, key, tenant from outbox.events order by seq"


def test_a_type_records_through_every_kind_of_target(engine: Engine, events: Catalogue, database_url: str) -> None:
    placed = events.get("order.placed")
    assert placed is not None
    with Session(engine) as session:
        event = placed.record(session, Placed(cents=1), key="k", tenant="acme")
        session.commit()
    assert (event.type, event.key, event.tenant) == ("order.placed", "k", "acme")
    with engine.begin() as connection:
        placed.record(connection, {"cents": 2})
    with psycopg.connect(database_url) as raw:
        placed.record(raw, Placed(cents=3))

    async def asynchronously() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as raw:
            await placed.arecord(raw, Placed(cents=4))
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await placed.arecord(connection, Placed(cents=5), idempotency_key="once")
        await connection.close()

    asyncio.run(asynchronously())
    found = rows(engine, RECORDED)
    assert found[0] == ("order.placed", '{"cents":1,"note":null}', "k", "acme")
    assert [json.loads(payload)["cents"] for _, payload, *_ in found] == [1, 2, 3, 4, 5]


def test_what_is_refused_leaves_the_transaction_as_it_was(engine: Engine, events: Catalogue) -> None:
    placed = events.get("order.placed")
    assert placed is not None
    with engine.begin() as connection:
        for wrong in ({"cents": "1"}, Placed.model_construct(cents="1")):
            with pytest.raises(outbox.PayloadError, match=r"^data"):
                placed.record(connection, wrong)
        placed.record(connection, {"cents": 1})
    assert len(rows(engine, RECORDED)) == 1


def test_plain_record_of_a_declared_type_is_checked_by_it(engine: Engine, default: Catalogue) -> None:
    EventType("order.placed", Placed, deprecated="record order.made")
    with engine.begin() as connection:
        with pytest.warns(DeprecationWarning, match=r"record order.made") as told:
            outbox.record(connection, "order.placed", {"cents": 1})
        assert told[0].filename == __file__
        with pytest.raises(PayloadInvalid, match=r"^data\.cents: must be a valid integer \(order\.placed\)$"):
            outbox.record(connection, "order.placed", {"cents": "1"})
        outbox.record(connection, "order.other", {"cents": "1"})
        default.configure(closed=True)
        with pytest.raises(outbox.RecordError, match=r"did you mean order.placed?"):
            outbox.record(connection, "order.place", {})
        outbox.Outbox(catalogue=Catalogue("b")).record(connection, "order.place", {})
    assert [type_ for type_, *_ in rows(engine, RECORDED)] == ["order.placed", "order.other", "order.place"]


def push(engine: Engine, catalogue: Catalogue, **more: Any) -> Any:
    with engine.begin() as connection:
        return outbox.catalogue.push(connection, catalogue, **more)


def changed(change: Any) -> dict[str, str]:
    return {one.type: one.change for one in change.changes}


def test_a_push_stores_what_is_declared_and_a_second_one_writes_nothing(engine: Engine, events: Catalogue) -> None:
    assert changed(push(engine, events)) == {"order.paid": "added", "order.placed": "added"}
    with engine.connect() as connection:
        stored = outbox.catalogue.stored(connection)
    assert [(one.type, one.catalogue, one.version, one.retired_at) for one in stored] == [
        ("order.paid", "shop", 1, None),
        ("order.placed", "shop", 1, None),
    ]
    declared = events.get("order.placed")
    assert declared is not None
    assert (stored.items[1].schema, stored.items[1].example) == (declared.declaration.schema, '{"cents":1}')
    whole = ("select ctid, * from outbox.event_types", "select * from outbox.catalogues")
    before = [rows(engine, one) for one in whole]
    again = push(engine, events)
    assert again.is_empty
    assert again.unchanged == 2
    assert [rows(engine, one) for one in whole] == before


def test_the_audit_notes_each_type_as_it_was_and_as_it_is(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    more = Catalogue("shop", closed=True)
    EventType("order.placed", Placed, description="Another.", example={"cents": 1}, catalogue=more)
    push(engine, more, allow_breaking=True)
    push(engine, more, prune=True)
    push(engine, events)
    audited = rows(engine, "select action, subject, before, after, details from outbox.audit order by at, id")
    assert [(action, subject) for action, subject, *_ in audited] == [
        ("catalogue added", ""), ("event type added", "order.paid"), ("event type added", "order.placed"),
        ("catalogue changed", ""), ("event type changed", "order.placed"), ("event type retired", "order.paid"),
        ("event type removed", "order.paid"),
        ("catalogue changed", ""), ("event type added", "order.paid"), ("event type changed", "order.placed"),
    ]  # fmt: skip
    assert {details["catalogue"] for *_, details in audited} == {"shop"}
    assert audited[4][2:4] == ({"description": "An order."}, {"description": "Another."})
    assert audited[3][2:4] == ({"closed": False}, {"closed": True})
    with engine.connect() as connection:
        assert list_audit(connection, "", Filters()).items == ()
        assert len(list_audit(connection, None, Filters(), subject="order.paid").items) == 4


def test_a_compatible_change_is_pushed_and_a_breaking_one_refused(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    more = Catalogue("shop")
    EventType("order.placed", pydantic.create_model("Placed", __base__=Placed, ref=(str, ...)), catalogue=more)
    EventType("order.paid", catalogue=more, deprecated="order.settled")
    told = {one.type: [str(each) for each in one.differences] for one in push(engine, more).changes}
    assert told == {
        "order.paid": ["deprecated: use order.settled"],
        "order.placed": ["data.ref: is new", "description: is another one", "example: is another one"],
    }
    other = Catalogue("shop")
    EventType("order.placed", Later, catalogue=other)
    stored = rows(engine, "select type, schema, version from outbox.event_types order by type")
    with pytest.raises(CatalogueError) as refused:
        push(engine, other)
    assert str(refused.value) == (
        "catalogue shop: this breaks receivers: order.paid is retired, "
        "order.placed data.cents: was integer, is string, order.placed data.note: is not there any more, "
        "order.placed data.ref: is not there any more; "
        "allow it, or change it back"
    )
    with pytest.raises(CatalogueError, match=r"^version: a change that breaks .* raise order.placed to 2$"):
        push(engine, other, allow_breaking=True)
    assert rows(engine, "select type, schema, version from outbox.event_types order by type") == stored
    raised = Catalogue("shop")
    EventType("order.placed", Later, version=2, catalogue=raised)
    assert changed(push(engine, raised, allow_breaking=True)) == {"order.paid": "retired", "order.placed": "changed"}
    lower = Catalogue("shop")
    EventType("order.placed", Later, catalogue=lower)
    with engine.connect() as connection:
        (change,) = outbox.catalogue.compare(connection, lower).breaking
    assert [str(one) for one in change.differences] == ["version: was 2, is 1"]


def test_what_is_gone_is_kept_until_it_is_pruned_and_may_come_back(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    fewer = Catalogue("shop")
    EventType("order.placed", Placed, description="An order.", example={"cents": 1}, catalogue=fewer)
    assert changed(push(engine, fewer, allow_breaking=True)) == {"order.paid": "retired"}
    assert push(engine, fewer).is_empty
    assert changed(push(engine, events)) == {"order.paid": "restored"}
    push(engine, fewer, allow_breaking=True)
    assert changed(push(engine, fewer, prune=True)) == {"order.paid": "removed"}
    assert rows(engine, "select type from outbox.event_types") == [("order.placed",)]
    with pytest.raises(CatalogueError, match=r"order.placed is removed"):
        push(engine, Catalogue("shop"), prune=True)


def test_two_applications_have_a_catalogue_each(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    billing = Catalogue("billing")
    EventType("invoice.sent", catalogue=billing)
    assert changed(push(engine, billing)) == {"invoice.sent": "added"}
    assert push(engine, events).is_empty
    EventType("order.paid", catalogue=billing)
    with pytest.raises(CatalogueError, match=r"^catalogue billing: others declare order.paid \(of shop\)"):
        push(engine, billing)


def test_a_catalogue_that_is_no_catalogue_is_refused(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(outbox.ArgumentError, match=r"^catalogue: must be an"):
        outbox.catalogue.push(connection, 3)  # type: ignore[arg-type]
    with pytest.raises(outbox.ArgumentError, match=r"^connection: pass a SQLAlchemy Session"):
        outbox.catalogue.stored(engine)  # type: ignore[arg-type]


def login(engine: Engine, group: str) -> tuple[str, Engine]:
    name = f"outbox_test_{secrets.token_hex(6)}"
    with engine.begin() as connection:
        connection.execute(text(f"create role {name} login password '{name}'"))
        connection.execute(text(f"grant {group} to {name}"))
    return name, sqlalchemy.create_engine(engine.url.set(username=name, password=name), poolclass=sqlalchemy.NullPool)


def test_an_operator_pushes_a_reader_reads_and_an_application_does_neither(engine: Engine, events: Catalogue) -> None:
    made = []
    try:
        for group in ("outbox_operator", "outbox_reader", "outbox_app"):
            name, theirs = login(engine, group)
            made.append(name)
            if group == "outbox_operator":
                assert len(push(theirs, events).changes) == 2
                push(theirs, Catalogue("shop"), allow_breaking=True, prune=True)
                push(theirs, events)
                continue
            with pytest.raises(ProgrammingError, match="permission denied"):
                push(theirs, events)
            with theirs.connect() as connection:
                if group == "outbox_reader":
                    assert len(outbox.catalogue.stored(connection)) == 2
                    continue
                with pytest.raises(ProgrammingError, match="permission denied"):
                    outbox.catalogue.stored(connection)
            with theirs.begin() as connection:
                events.get("order.placed").record(connection, Placed(cents=1))  # type: ignore[union-attr]
    finally:
        with engine.begin() as connection:
            for name in made:
                connection.execute(text(f"drop owned by {name} cascade"))
                connection.execute(text(f"drop role {name}"))


def subscribe(engine: Engine, *types: str) -> subscriptions.Subscription:
    with engine.begin() as connection:
        return outbox.subscribe(connection, "https://example.com/", types)


def test_patterns_that_match_no_type_are_refused_where_every_stored_catalogue_is_closed(
    engine: Engine, events: Catalogue
) -> None:
    push(engine, events)
    subscribe(engine, "nobody.knows")
    events.configure(closed=True)
    assert push(engine, events).closed is True
    made = subscribe(engine, "order.*", "order.placed", "*", "relay.*")
    for pattern in ("order.plced", "orders.*", "order.placed.*"):
        with pytest.raises(SubscriptionError, match=rf"^types: {pattern.replace('*', '.')} matches no type of the cat"):
            subscribe(engine, "order.placed", pattern)
    with engine.begin() as connection:
        subscriptions.update(connection, made.id, types=["order.*", "order.paid"])
        with pytest.raises(SubscriptionError, match=r"mean order.paid?"):
            subscriptions.update(connection, made.id, types=["order.*", "order.pay"])
    open_one = Catalogue("billing")
    EventType("invoice.sent", catalogue=open_one)
    push(engine, open_one)
    subscribe(engine, "nobody.knows")


def test_the_closed_catalogue_of_the_process_counts_before_it_is_pushed(engine: Engine, default: Catalogue) -> None:
    EventType("order.placed")
    default.configure(closed=True)
    subscribe(engine, "order.*")
    with pytest.raises(SubscriptionError, match=r"^types: nobody.knows matches no type"):
        subscribe(engine, "nobody.knows")
    others = Catalogue("billing")
    EventType("invoice.sent", catalogue=others)
    push(engine, others)
    subscribe(engine, "invoice.sent")


def test_what_is_stored_is_read_page_by_page(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    with engine.connect() as connection:
        first = outbox.catalogue.stored(connection, limit=1)
        rest = outbox.catalogue.stored(connection, limit=1, after=first.next)
        assert [[one.type for one in page] for page in (first, rest)] == [["order.paid"], ["order.placed"]]
        assert rest.next is None
        with pytest.raises(outbox.FilterError, match=r"^after: is no cursor of this list"):
            outbox.catalogue.stored(connection, after="order.paid")


def test_every_type_is_on_one_page_however_the_database_sorts_and_whoever_knows_it(engine: Engine) -> None:
    """Declared and seen types alternate, with capitals, which a database's own order may put elsewhere."""
    declared, names = Catalogue("shop"), ["a.one", "A.two", "b.three", "B.four", "c", "C", "d_e", "d.f"]
    for name in names[::2]:
        EventType(name, catalogue=declared)
    push(engine, declared)
    with engine.begin() as connection:
        for name in names[1::2]:
            outbox.record(connection, name, {}, tenant="acme")
        for shown in (None, lambda one: one.type != "C"):
            found, after = [], None
            while not found or after is not None:
                page = known_types(connection, "acme", after=after, limit=2, shown=shown)
                assert len(page) <= 2
                found += [one.type for one in page]
                after = page.next
            assert found == sorted(set(names) - ({"C"} if shown else set()))


def test_what_is_declared_and_what_was_seen_stand_in_one_list(engine: Engine, events: Catalogue) -> None:
    push(engine, events)
    with engine.begin() as connection:
        outbox.record(connection, "user.seen", {"id": 1}, tenant="acme")
        outbox.record(connection, "order.placed", {"cents": 7}, tenant="acme")
        found = known_types(connection, "acme", limit=2)
        rest = known_types(connection, "acme", limit=2, after=found.next)
        assert [(one.type, one.version, one.last_at is None) for one in (*found, *rest)] == [
            ("order.paid", 1, True), ("order.placed", 1, False), ("user.seen", None, False),
        ]  # fmt: skip
        assert rest.next is None
        assert [one.type for one in known_types(connection, "globex")] == ["order.paid", "order.placed"]
        details = show_type(connection, "acme", "order.placed")
        assert [part.place for part in details.parts] == ["cents", "note"]
        assert (details.description, details.example) == ("An order.", '{"cents":1}')
        assert details.seen is not None
        assert details.seen.payload == '{"cents":7}'
        assert show_type(connection, "globex", "order.placed").seen is None
        with pytest.raises(outbox.NotFoundError, match=r"^type: no catalogue declares it"):
            show_type(connection, "globex", "user.seen")
        with pytest.raises(outbox.FilterError, match=r"^after: is no cursor"):
            known_types(connection, "acme", after="x")


@pytest.mark.parametrize(
    "broken",
    [
        "insert into outbox.event_types (type, catalogue) values ('a b', 'shop')",
        "insert into outbox.event_types (type, catalogue) values ('relay.a', 'shop')",
        "insert into outbox.event_types (type, catalogue, version) values ('a', 'shop', 0)",
        "insert into outbox.event_types (type, catalogue, schema) values ('a', 'shop', '[]')",
        "insert into outbox.event_types (type, catalogue, schema) values ('a', 'shop', '{')",
        "insert into outbox.event_types (type, catalogue, example) values ('a', 'shop', 'x')",
        "insert into outbox.event_types (type, catalogue) values ('a', 'nobody')",
        "insert into outbox.catalogues (name) values ('a b')",
    ],
)
def test_the_table_holds_nothing_that_cannot_be_declared(engine: Engine, broken: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("insert into outbox.catalogues (name) values ('shop')"))
    with pytest.raises(sqlalchemy.exc.DBAPIError), engine.begin() as connection:
        connection.execute(text(broken))


MODULE = """
from outbox import Catalogue, EventType
shop = Catalogue("shop")
EventType("order.placed", {schema}, description="An order.", example={{"cents": 1}}, version={version}, catalogue=shop)
"""
SCHEMA = {"type": "object", "properties": {"cents": {"type": "integer"}}, "required": ["cents"]}


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str, **environ: str) -> tuple[int, str]:
        given = {"RELAY_DATABASE_URL": database_url, "RELAY_ACTOR": "alice", **environ}
        ended = CliRunner().invoke(cli, ["catalogue", *arguments], env=given, standalone_mode=False)
        if ended.exception is not None:
            raise ended.exception
        return ended.return_value or 0, ended.stdout

    return run


def write_module(folder: Path, name: str, source: str) -> str:
    """Write a module that no test imported before."""
    name = f"{name}_{secrets.token_hex(4)}"
    (folder / f"{name}.py").write_text(source)
    return name


def test_the_commands_from_the_first_push_to_a_change_that_breaks(run, tmp_path: Path, engine: Engine) -> None:
    first = write_module(tmp_path, "first", MODULE.format(schema=SCHEMA, version=1))
    assert run("push", "-m", first, "--dry-run") == (4, "+ order.placed: added\n1 would be added, 0 unchanged\n")
    assert run("push", "-m", first) == (0, "+ order.placed: added\n1 added, 0 unchanged\n")
    assert run("push", "-m", first, "--dry-run") == (0, "nothing to do, 1 unchanged\n")
    assert run("check", "-m", f"{first}:shop") == (0, "nothing to do, 1 unchanged\n")
    noted = rows(engine, "select actor, action from outbox.audit order by at, id")
    assert noted == [("alice", "catalogue added"), ("alice", "event type added")]
    wider = write_module(tmp_path, "wider", MODULE.format(schema={**SCHEMA, "required": []}, version=2))
    code, told = run("check", "-m", wider)
    assert (code, told.splitlines()) == (1, [
        "~ order.placed: changed (breaking)",
        "    breaking  data.cents: was always there, and may be missing now",
        "    compatible  version: was 1, is 2",
        "1 would be changed, 1 of them breaking, 0 unchanged",
    ])  # fmt: skip
    with pytest.raises(CatalogueError, match="may be missing now; allow it"):
        run("push", "-m", wider)
    code, told = run("push", "-m", wider, "--allow-breaking", "--json")
    document = json.loads(told)
    assert (code, document["applied"], document["breaking"]) == (0, True, ["order.placed"])
    assert document["changes"][0]["differences"][0]["place"] == "data.cents"
    code, told = run("list", "--json")
    assert [json.loads(line)["version"] for line in told.splitlines()] == [2]
    assert "An order." in run("list")[1]
    shown = run("show", "order.placed")[1]
    assert "cents\tinteger" in shown
    assert '{"cents":1}' in shown
    assert json.loads(run("show", "order.placed", "--json")[1])["json_schema"]["type"] == "object"
    assert json.loads(run("export")[1])["$defs"]["order.placed"]["properties"] == SCHEMA["properties"]


def test_a_process_of_its_own_finds_a_module_where_it_stands(run, tmp_path: Path, database_url: str) -> None:
    import subprocess
    import sys

    source = "import outbox\noutbox.EventType('order.placed')\n"
    name = write_module(tmp_path, "events", source)
    command = [sys.executable, "-m", "relay", "catalogue", "check", "-m", name, "--database-url", database_url]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "+ order.placed: added\n1 would be added, 0 unchanged\n"), done.stderr


@pytest.mark.parametrize(
    ("source", "suffix", "told"),
    [
        ("raise ValueError('no settings')", "", "cannot import .*: ValueError: no settings"),
        ("from outbox import Catalogue\na, b = Catalogue('a'), Catalogue('b')", "", "has several: a, b; add :NAME"),
        ("from outbox import Catalogue\na = Catalogue('a')", "", "declares no event type"),
        ("", "", "declares no event type"),
        ("a = 1", ":a", "has no Catalogue of the name a"),
    ],
)
def test_a_module_without_a_catalogue_is_refused_by_its_reason(run, tmp_path: Path, source, suffix, told) -> None:
    name = write_module(tmp_path, "wrong", source)
    with pytest.raises(click.UsageError, match=f"^--module: .*{told}"):
        run("check", "-m", name + suffix)
    with pytest.raises(click.UsageError, match="cannot import none_of_this_name: ModuleNotFoundError"):
        run("check", "-m", "none_of_this_name")
    with pytest.raises(click.UsageError, match=r"^give -m MODULE"):
        run("push")
