"""The audit: every change, whoever makes it, with what was before and after; nothing secret; never changed again."""

from __future__ import annotations

import asyncio
import inspect
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import outbox
from outbox import subscriptions
from outbox.control.audit import ACTIONS, list_audit
from outbox.control.filters import Filters
from outbox.control.times import rfc3339
from outbox.errors import ActorError
from outbox.ids import parse_id
from relay.cli.output import fields_of
from relay.config.database_url import RELAY_NAME

URL = "https://example.com/hooks"
SECRET = "whsec_" + "Q0FOQVJZ" * 4
IN_CLEAR = {"kind": "signing", "hint": "", "sealed_to": None, "expires_at": None}
ALICE = "alice@example.com"
KEPT_BY_PERSONS = ("outbox.sealing_keys", "outbox.secrets", "outbox.subscriptions")


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


def noted(connection, after: int = 0) -> list[Any]:
    """The rows of the audit beyond the first so many, oldest first."""
    statement = "select actor, role, action, subject, tenant, before, after, details from outbox.audit order by at, id"
    return list(connection.execute(text(f"{statement} offset {after}")))


def changes(connection, after: int = 0) -> list[tuple[str, Any, Any]]:
    """Action, before and after of each row."""
    return [(row.action, row.before, row.after) for row in noted(connection, after)]


def add(connection, **fields):
    return subscriptions.add(connection, URL, ["order.*"], **fields)


def hold_as_a_relay(connection, until: str) -> None:
    connection.execute(text(f"set application_name = '{RELAY_NAME}'"))
    connection.execute(text(f"update outbox.subscriptions set held_until = {until}"))
    connection.execute(text("reset application_name"))


class TestPython:
    def test_a_subscription_that_is_added_is_noted_with_all_its_fields_and_its_secret_with_none(self, connection):
        made = add(connection, tenant="acme", description="theirs", metadata={"owner": "7"}, secret=SECRET)
        added, secret = noted(connection)
        login = connection.execute(text("select session_user::text")).scalar_one()
        assert (added.actor, added.role, added.action, added.subject) == ("", login, "added", made.id)
        assert (added.tenant, added.before, added.details) == ("acme", None, None)
        assert added.after == {
            "url": URL, "types": ["order.*"], "tenant": "acme", "description": "theirs", "metadata": {"owner": "7"},
            "timeout_seconds": 15, "schedule_seconds": list(made.schedule_seconds), "scheme": "standard",
            "final_statuses": [], "format": "standard", "format_settings": {}, "drops_while_paused": False,
            "recovery_seconds": 0, "ordered": False, "order_policy": "block",
            "batch_milliseconds": 1000,
        }  # fmt: skip
        assert (secret.action, secret.subject, secret.tenant, secret.after) == (
            "secret added",
            made.id,
            "acme",
            IN_CLEAR,
        )

    def test_an_update_is_noted_with_what_it_changed_only(self, connection):
        made = add(connection)
        subscriptions.update(connection, made.id, url=f"{URL}/2", timeout_seconds=15, description=None)
        assert changes(connection, after=2) == [("updated", {"url": URL}, {"url": f"{URL}/2"})]

    def test_what_changes_nothing_is_not_noted(self, connection):
        made = add(connection)
        subscriptions.update(connection, made.id, url=URL)
        subscriptions.resume(connection, made.id)
        subscriptions.pause(connection, made.id)
        subscriptions.pause(connection, made.id)
        assert [row.action for row in noted(connection, after=2)] == ["paused"]

    def test_pause_resume_and_remove_are_noted_with_their_times(self, connection):
        made = add(connection)
        paused = subscriptions.pause(connection, made.id)
        subscriptions.resume(connection, made.id)
        removed = subscriptions.remove(connection, made.id)
        at, gone = rfc3339(paused.paused_at), rfc3339(removed.removed_at)
        assert changes(connection, after=2) == [
            ("paused", {"paused_at": None}, {"paused_at": at}),
            ("resumed", {"paused_at": at}, {"paused_at": None}),
            ("removed", {"removed_at": None}, {"removed_at": gone}),
        ]

    def test_disabling_is_noted_with_its_reason_and_resume_with_what_it_lifts(self, connection):
        made = add(connection)
        subscriptions.disable(connection, made.id, reason="asked for")
        (at,) = connection.execute(text("select disabled_at from outbox.subscriptions")).scalars()
        hold_as_a_relay(connection, "'2026-01-31Z'")
        subscriptions.resume(connection, made.id)
        closed = {"disabled_at": rfc3339(at), "disabled_reason": "asked for"}
        open_again = dict.fromkeys(closed)
        held = {"held_until": "2026-01-31T00:00:00.000000Z"}
        assert changes(connection, after=2) == [
            ("disabled", open_again, closed),
            ("resumed", closed | held, open_again | {"held_until": None}),
        ]

    def test_a_hold_that_a_person_lifts_is_noted_though_its_beginning_is_not(self, connection):
        made = add(connection)
        for moment in ("2026-01-31Z", "2026-02-01Z"):
            hold_as_a_relay(connection, f"'{moment}'")
        subscriptions.resume(connection, made.id)
        held = {"held_until": "2026-02-01T00:00:00.000000Z"}
        assert changes(connection, after=2) == [("resumed", held, {"held_until": None})]

    def test_a_rotation_is_noted_as_a_secret_that_expires_and_one_that_is_added(self, connection):
        made = add(connection)
        subscriptions.rotate_secret(connection, made.id)
        expires, added = changes(connection, after=2)
        (ends,) = connection.execute(
            text("select expires_at from outbox.secrets where expires_at is not null")
        ).scalars()
        assert expires == ("secret expires", IN_CLEAR, IN_CLEAR | {"expires_at": rfc3339(ends)})
        assert added == ("secret added", None, IN_CLEAR)

    def test_a_secret_revoked_at_once_is_noted_as_removed(self, connection):
        made = add(connection)
        subscriptions.rotate_secret(connection, made.id, overlap_seconds=0)
        assert [row.action for row in noted(connection, 2)] == ["secret expires", "secret removed", "secret added"]

    def test_headers_are_noted_by_their_kind_and_never_by_their_values(self, connection):
        made = add(connection)
        subscriptions.update(connection, made.id, headers={"X-Key": "CANARY-1"})
        subscriptions.update(connection, made.id, headers={"X-Key": "CANARY-2"})
        subscriptions.update(connection, made.id, headers=None)
        found = noted(connection, after=2)
        assert [row.action for row in found] == ["secret added", "secret removed", "secret added", "secret removed"]
        assert {(row.before or row.after)["kind"] for row in found} == {"headers"}
        assert "CANARY" not in str(found)

    def test_every_tenants_is_noted_as_such(self, connection):
        subscriptions.add_for_every_tenant(connection, URL, ["*"])
        assert {row.tenant for row in noted(connection)} == {"*"}

    def test_every_verb_that_changes_something_is_tried_here(self):
        verbs = {name for name in subscriptions.__all__ if inspect.isfunction(getattr(subscriptions, name))}
        source = inspect.getsource(TestPython)
        changing = verbs - {"count", "get", "list", "add", *OF_TENANTS}
        assert {verb for verb in changing if f"subscriptions.{verb}(" not in source} == set()

    def test_what_is_rolled_back_is_not_noted(self, engine):
        with engine.connect() as connection:
            made = add(connection)
            with connection.begin_nested() as savepoint:
                subscriptions.pause(connection, made.id)
                savepoint.rollback()
            assert [row.action for row in noted(connection)] == ["added", "secret added"]
            connection.rollback()
            assert noted(connection) == []


OF_TENANTS = ("limit_tenant", "list_tenant_limits")  # tried in test_tenant_limits.py


class TestSql:
    def test_one_statement_for_two_tenants_is_noted_row_by_row(self, connection):
        one, other = add(connection, tenant="acme"), add(connection, tenant="globex")
        connection.execute(
            text("update outbox.subscriptions set disabled_at = '2026-01-31Z', disabled_reason = 'said so'")
        )
        found = noted(connection, after=4)
        assert {(row.subject, row.tenant) for row in found} == {(one.id, "acme"), (other.id, "globex")}
        for row in found:
            assert (row.action, row.before) == ("disabled", {"disabled_at": None, "disabled_reason": None})
            assert row.after == {"disabled_at": "2026-01-31T00:00:00.000000Z", "disabled_reason": "said so"}

    @pytest.mark.parametrize(
        ("change", "action"),
        [
            ("url = 'https://example.com/b', paused_at = now()", "paused"),
            ("disabled_at = now(), disabled_reason = 'x', paused_at = now()", "disabled"),
            ("removed_at = now(), paused_at = now()", "removed"),
            ("tenant = 'b'", "updated"),
            ("created_at = '2020-01-01Z'", "updated"),
            ("metadata = '{\"a\": null}'", "updated"),
        ],
    )
    def test_the_gravest_of_several_changes_names_the_action(self, connection, change, action):
        add(connection)
        connection.execute(text(f"update outbox.subscriptions set {change}"))
        assert [row.action for row in noted(connection, after=2)] == [action]

    def test_resume_from_a_pause_and_from_being_disabled_are_alike(self, connection):
        add(connection)
        for column, reason in (("paused_at", "null"), ("disabled_at", "'x'")):
            connection.execute(text(f"update outbox.subscriptions set {column} = now(), disabled_reason = {reason}"))
            connection.execute(text(f"update outbox.subscriptions set {column} = null, disabled_reason = null"))
        assert [row.action for row in noted(connection, 2)] == ["paused", "resumed", "disabled", "resumed"]

    def test_what_a_relay_keeps_for_itself_is_no_change(self, connection):
        add(connection)
        hold_as_a_relay(connection, "now() + interval '1 hour'")
        hold_as_a_relay(connection, "now() + interval '2 hours'")
        connection.execute(text("update outbox.subscriptions set updated_at = now()"))
        connection.execute(text("update outbox.secrets set hint = hint"))
        assert noted(connection, after=2) == []

    def test_a_deleted_row_is_noted_as_it_was_and_its_secrets_go_without_words(self, connection):
        made = add(connection, tenant="acme")
        subscriptions.remove(connection, made.id, tenant="acme")
        connection.execute(text("delete from outbox.subscriptions"))
        added, *_, deleted = noted(connection)
        assert (deleted.action, deleted.subject, deleted.tenant, deleted.after) == ("deleted", made.id, "acme", None)
        assert deleted.before.pop("removed_at")
        assert deleted.before == added.after
        assert len(noted(connection)) == 4

    def test_a_secret_changed_in_place_is_replaced(self, connection):
        made = add(connection)
        connection.execute(text("update outbox.secrets set secret = :secret"), {"secret": SECRET})
        connection.execute(text("update outbox.secrets set hint = 'h'"))
        replaced, updated = noted(connection, after=2)
        assert (replaced.action, replaced.subject, replaced.before) == ("secret replaced", made.id, IN_CLEAR)
        assert (updated.action, updated.after) == ("secret updated", IN_CLEAR | {"hint": "h"})

    def test_sealing_anew_is_one_row_a_statement_that_names_them(self, connection):
        made = sorted(add(connection).id for _ in range(3))
        for key, count in (("0" * 16, 3), ("1" * 16, 3)):
            connection.execute(text("update outbox.secrets set secret = :text"), {"text": f"sealed:1:{key}:QUJD"})
            *_, row = noted(connection)
            assert (row.action, row.subject, row.before, row.after) == ("secret resealed", "", None, None)
            assert row.details == {"count": count, "ids": made}
        assert len(noted(connection)) == 8

    def test_what_is_sealed_and_changed_otherwise_too_is_replaced(self, connection):
        add(connection)
        connection.execute(text("update outbox.secrets set secret = 'sealed:1:0000000000000000:QUJD'"))
        connection.execute(text("update outbox.secrets set secret = 'sealed:1:0000000000000000:QUJE'"))
        connection.execute(text("update outbox.secrets set secret = 'sealed:1:1111111111111111:QUJD', hint = 'new'"))
        connection.execute(text("update outbox.secrets set secret = 'in clear'"))
        assert [row.action for row in noted(connection, 2)] == ["secret resealed", *["secret replaced"] * 3]

    def test_a_secret_moved_to_another_subscription_is_noted_at_both(self, connection):
        one, other = add(connection), add(connection)
        move = "update outbox.secrets set subscription_id = :to where subscription_id = :of"
        connection.execute(text(move), {"of": parse_id("sub", one.id), "to": parse_id("sub", other.id)})
        found = {(row.subject, row.action) for row in noted(connection, after=4)}
        assert found == {(one.id, "secret removed"), (other.id, "secret added")}

    def test_sealing_keys_are_noted(self, connection):
        connection.execute(
            text(
                "insert into outbox.sealing_keys (id, key)"
                " select left(encode(sha256(k), 'hex'), 16), encode(k, 'base64') from (select sha256('a') k) made"
            )
        )
        connection.execute(text("update outbox.sealing_keys set created_at = '2026-01-31Z'"))
        connection.execute(text("delete from outbox.sealing_keys"))
        found = noted(connection)
        assert [row.action for row in found] == [f"sealing key {what}" for what in ("added", "updated", "removed")]
        assert found[1].after["created_at"] == "2026-01-31T00:00:00.000000Z"
        assert {row.subject for row in found} == {found[0].after["id"]}

    def test_truncating_is_noted(self, connection):
        connection.execute(text("truncate outbox.subscriptions cascade"))
        tables = [row.details["table"] for row in noted(connection) if row.action == "truncated"]
        assert sorted(tables) == ["secrets", "subscriptions"]

    def test_times_are_utc_in_every_session_and_of_every_column(self, connection):
        connection.execute(text("set timezone = 'Asia/Tokyo'"))
        statement = "select column_name from information_schema.columns where table_schema = 'outbox'"
        moments = f"{statement} and table_name = 'subscriptions' and data_type like 'timestamp%'"
        left_out = ("held_until", "updated_at", "sorting_since")
        kept = [name for name in connection.execute(text(moments)).scalars() if name not in left_out]
        assert len(kept) > 3
        add(connection)
        values = ", ".join(f"{name} = '2026-01-31 09:00'" for name in kept)
        connection.execute(text(f"update outbox.subscriptions set {values}, disabled_reason = 'x'"))
        (row,) = noted(connection, after=2)
        assert {name: row.after[name] for name in kept} == dict.fromkeys(kept, "2026-01-31T00:00:00.000000Z")

    def test_what_is_derived_is_not_noted_beside_what_was_changed(self, connection):
        made = add(connection)
        subscriptions.update(connection, made.id, ordered=True)
        connection.execute(text("update outbox.subscriptions set sorting_since = null"))  # a relay sorted its backlog
        subscriptions.update(connection, made.id, filter={"type": "order.paid"})
        assert changes(connection, after=2) == [
            ("updated", {"ordered": False}, {"ordered": True}),
            ("updated", {"filter": None}, {"filter": '{"type":"order.paid"}'}),
        ]

    def test_a_callers_search_path_and_operators_are_not_heeded(self, connection):
        """Whoever may make a schema puts functions and operators of its own in front: they are never run."""
        caught = "language plpgsql as $$ begin raise 'caught'; end $$"
        for statement in (
            "create schema evil",
            f"create function evil.to_jsonb(outbox.subscriptions) returns jsonb {caught}",
            f"create function evil.jsonb_build_object(variadic text[]) returns jsonb {caught}",
            f"create function evil.same(uuid, uuid) returns boolean {caught}",
            f"create function evil.same(text, text) returns boolean {caught}",
            "create operator evil.= (leftarg = uuid, rightarg = uuid, function = evil.same)",
            "create operator evil.<> (leftarg = text, rightarg = text, function = evil.same)",
        ):
            connection.execute(text(statement))
        made = add(connection)
        connection.execute(text("set search_path = evil, pg_catalog"))
        connection.execute(text("update outbox.subscriptions set url = 'https://example.com/b'"))
        connection.execute(text("update outbox.secrets set secret = 'other'"))
        connection.execute(text("select outbox.audit_operation('purged', :id, '', '{}')"), {"id": made.id})
        connection.execute(text("truncate outbox.sealing_keys"))
        connection.execute(text("set search_path = public"))
        assert [row.action for row in noted(connection, 2)] == ["updated", "secret replaced", "purged", "truncated"]


class TestActor:
    def test_the_name_ends_with_the_transaction(self, engine):
        with engine.connect() as connection:
            with connection.begin():
                outbox.act_as(connection, ALICE)
                made = add(connection)
            with connection.begin():
                subscriptions.pause(connection, made.id)
            assert [row.actor for row in noted(connection)] == [ALICE, ALICE, ""]

    def test_sessions_of_every_kind_carry_it(self, engine, database_url):
        with Session(engine) as session, session.begin():
            outbox.act_as(session, "one")
            add(session)
        scoped = scoped_session(sessionmaker(engine))
        outbox.act_as(scoped, "two")
        add(scoped)
        scoped.commit()
        scoped.remove()

        async def asynchronous() -> None:
            async_engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
            async with AsyncSession(async_engine) as session, session.begin():
                await session.run_sync(outbox.act_as, "three")
                await session.run_sync(add)
            await async_engine.dispose()

        asyncio.run(asynchronous())
        with engine.connect() as connection:
            assert [row.actor for row in noted(connection)] == ["one", "one", "two", "two", "three", "three"]

    def test_in_autocommit_it_is_refused(self, engine):
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection, pytest.raises(ActorError, match="begin a transaction"):
            outbox.act_as(connection, ALICE)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("", "is no name"), ("  ", "is no name"), ("a\nb", "is no name"), ("\x1b[31m", "is no name"),
            ("a\u202eb", "is no name"), ("a\0", "NUL"), ("\ud800", "surrogate"), ("ü" * 129, "258 bytes"),
            (None, "must be a str"), (b"alice", "must be a str"),
        ],
    )  # fmt: skip
    def test_what_is_no_name_is_refused_before_any_sql(self, name, words):
        with pytest.raises(ActorError, match=f"^actor: .*{words}"):
            outbox.act_as(None, name)  # type: ignore[arg-type]

    def test_names_of_any_language_pass(self, connection):
        outbox.act_as(connection, "ü" * 128)
        add(connection)
        assert noted(connection)[0].actor == "ü" * 128

    def test_what_plain_sql_claims_is_bounded_and_does_not_stop_the_change(self, connection):
        connection.execute(text("select set_config('outbox.actor', repeat('x', 100000), true)"))
        add(connection)
        assert noted(connection)[0].actor == "x" * 256

    @pytest.mark.parametrize("name", [RELAY_NAME, f"{RELAY_NAME} housekeeping"])
    def test_a_relays_connection_is_known_by_its_name(self, database_url, engine, name):
        with engine.begin() as connection:
            add(connection)
        with psycopg.connect(database_url, application_name=name) as relay:
            relay.execute("update outbox.subscriptions set disabled_at = now(), disabled_reason = 'gone'")
        with engine.connect() as connection:
            (row,) = noted(connection, after=2)
            assert (row.actor, row.action) == ("relay", "disabled")


class TestAppendOnly:
    @pytest.mark.parametrize(
        "statement",
        [
            "update outbox.audit set actor = 'nobody'",
            "delete from outbox.audit",
            "delete from outbox.audit where false",
            "truncate outbox.audit",
            "insert into outbox.audit (action) values ('x') on conflict (id) do update set actor = 'x'",
            "merge into outbox.audit a using (select 1) o on true when matched then delete",
        ],
    )
    @pytest.mark.parametrize("replica", [False, True])
    def test_not_even_its_owner_changes_it(self, engine, statement, replica):
        with engine.begin() as connection:
            add(connection)
        with engine.connect() as connection:
            before = noted(connection)
            owner = "select pg_get_userbyid(relowner) = current_user from pg_class where oid = 'outbox.audit'::regclass"
            assert connection.execute(text(owner)).scalar_one()
            if replica:
                connection.execute(text("set session_replication_role = replica"))
            with pytest.raises(sa.exc.DBAPIError, match=r"outbox\.audit is append-only"):
                connection.execute(text(statement))
            connection.rollback()
            assert noted(connection) == before

    def test_the_function_of_operations_says_nothing_that_the_triggers_say(self, connection):
        for action in set(ACTIONS) - {"replayed", "retried", "cancelled", "purged", "pruned"}:
            with pytest.raises(sa.exc.DBAPIError, match="is no operation"), connection.begin_nested():
                connection.execute(text("select outbox.audit_operation(:action, '', '', '{}')"), {"action": action})
        assert noted(connection) == []


def test_no_secret_and_no_ciphertext_is_in_any_row(connection):
    """Through every change of a secret there is, in clear and sealed, the table holds neither."""
    made = add(connection, secret=SECRET)
    subscriptions.rotate_secret(connection, made.id, secret="whsec_" + "Q0FOQVJZ" * 5)
    for change in ("sealed:1:0000000000000000:CANARY", "sealed:1:0000000000000000:CANARY2", "CANARY in clear"):
        connection.execute(text("update outbox.secrets set secret = :secret"), {"secret": change})
    connection.execute(text("update outbox.secrets set expires_at = now()"))
    connection.execute(text("delete from outbox.secrets"))
    connection.execute(text("delete from outbox.subscriptions"))
    found = list(connection.execute(text("select to_json(a)::text from outbox.audit a")).scalars())
    assert len(found) > 10
    assert [row for row in found if "CANARY" in row or "Q0FOQVJZ" in row or "sealed:1" in row] == []


def test_each_action_to_filter_by_is_one_that_is_written(engine):
    with engine.connect() as connection:
        sources = connection.execute(
            text(
                "select coalesce(pg_get_function_sqlbody(oid), prosrc) from pg_proc"
                " where pronamespace = 'outbox'::regnamespace"
            )
        ).scalars()
        written = "\n".join(sources)
    assert [action for action in ACTIONS if f"'{action}'" not in written] == []


@pytest.mark.case("D19")
def test_changes_at_once_are_all_noted(engine):
    with engine.begin() as connection:
        made = add(connection)

    def change(number: int) -> None:
        with engine.begin() as connection:
            outbox.act_as(connection, f"person {number}")
            subscriptions.update(connection, made.id, timeout_seconds=100 + number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(change, range(16)))
    with engine.connect() as connection:
        found = noted(connection, after=2)
        assert {(row.actor, row.after["timeout_seconds"]) for row in found} == {
            (f"person {number}", 100 + number) for number in range(16)
        }
        chain = [row.before["timeout_seconds"] for row in found], [row.after["timeout_seconds"] for row in found]
        assert chain[0] == [15, *chain[1][:-1]]


def test_the_data_plane_pays_for_no_more_than_a_condition(connection):
    """Its tables have no audit trigger that runs for what a relay inserts, updates, or deletes of its own leases."""
    triggers = connection.execute(
        text(
            "select tgrelid::regclass::text, pg_get_triggerdef(t.oid)"
            " from pg_trigger t join pg_proc p on p.oid = tgfoid"
            " where p.proname like 'audit%' and p.pronamespace = 'outbox'::regnamespace and (tgtype & 32) = 0"
        )
    )
    hot = {table: definition for table, definition in triggers if table not in KEPT_BY_PERSONS}
    assert sorted(hot) == ["outbox.dead_letters", "outbox.deliveries"]
    assert "AFTER DELETE ON outbox.dead_letters" in hot["outbox.dead_letters"]
    deliveries = hot["outbox.deliveries"]
    assert "AFTER DELETE ON outbox.deliveries" in deliveries
    assert "WHEN (((old.lease IS NULL) OR (NOT starts_with(current_setting('application_name'" in deliveries


class TestList:
    def test_newest_first_and_by_every_filter(self, connection):
        outbox.act_as(connection, ALICE)
        one = add(connection, tenant="acme")
        outbox.act_as(connection, "bob")
        other = add(connection, tenant="globex")
        subscriptions.pause(connection, one.id, tenant="acme")

        def found(limit: int = 50, tenant: str | None = None, **given: str) -> list[tuple[str, str]]:
            rows = list_audit(connection, None, Filters(limit=limit, tenant=tenant), **given)
            return [(row.action, row.subject) for row in rows]

        every = [("paused", one.id), ("secret added", other.id), ("added", other.id), ("secret added", one.id),
                 ("added", one.id)]  # fmt: skip
        assert found() == every
        assert found(limit=2) == every[:2]
        assert found(actor="bob") == every[:3]
        assert found(action="paused") == every[:1]
        assert found(tenant="globex") == every[1:3]
        for name in (one.id, str(parse_id("sub", one.id))):
            assert found(subject=name) == [every[0], *every[3:]]
        assert found(subject=one.id, actor=ALICE, action="added") == every[4:]
        assert found(subject="dlv_00000000000000000000000000") == []
        with pytest.raises(outbox.NotFoundError, match="is not an id of the form sub_"):
            found(subject="sub_x")

    def test_a_subscription_is_found_among_many_that_were_sealed_anew(self, connection):
        made = [add(connection).id for _ in range(3)]
        connection.execute(text("update outbox.secrets set secret = 'sealed:1:0000000000000000:QUJD'"))
        for name in made:
            newest = list_audit(connection, None, Filters(), subject=name).items[0]
            assert (newest.action, newest.details["count"]) == ("secret resealed", 3)

    def test_a_row_is_a_document(self, connection):
        add(connection)
        (row, _) = list_audit(connection, None, Filters())
        assert list(fields_of(row)) == [
            *("id", "at", "actor", "role", "action", "subject", "tenant", "before", "after", "details"),
        ]
        assert str(row.id).startswith("aud_")
        assert json.loads(json.dumps(row.after)) == IN_CLEAR


def test_the_audit_adds_no_statement_of_the_applications(database_url):
    """The triggers write it inside what it sends anyway, however many subscriptions it adds."""
    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    sent: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: sent.append(statement))
    with engine.begin() as connection:
        add(connection)
        first = len(sent)
        for _ in range(100):
            add(connection)
        assert len(sent) == first * 101
        assert "audit" not in " ".join(sent)
        assert len(noted(connection)) == 202
    engine.dispose()
