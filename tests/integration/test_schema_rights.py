"""Least right: every right of every group role as a table; what is too wide is taken back; what is deleted is noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.errors import ForeignKeyViolation, InsufficientPrivilege, InvalidParameterValue
from sqlalchemy.engine import make_url

from outbox.ids import DeliveryId
from relay.cli import cli
from relay.config.database_url import RELAY_NAME
from relay.operations.prune import RetentionError
from tests.support.databases import migrate

ROLES = ("outbox_app", "outbox_operator", "outbox_relay", "outbox_reader")
# s select, i insert, u update, d delete; with columns, only those. Nobody has truncate, references or trigger.
TABLES = """
                    outbox_app         outbox_operator      outbox_relay      outbox_reader
api_requests        -                  s i u(answer) d      -                 -
attempts            -                  s i                  s i               s(TRIED)
audit               -                  s                    s                 s
catalogues          -                  s i u d              s                 s
dead_letters        -                  s d                  s i d             s
deliveries          -                  s i u(LOOK) d        s i u d           s
event_types         -                  s i u d              s                 s
events              s(id,seq) i(NEW)   s i u(available_at)  s                 s
inbox               -                  s                    s                 s
inbox_ids           -                  s d                  s                 s
in_flight           -                  s                    s i u d           s
limits              -                  s                    s i u d           s
erasures            -                  s i(ERASED) u(cancel_undelivered,state)  -  s(RECEIPT)
health              -                  s                    s i u d           s
tenant_retention    -                  s i u(DAYS) d        s                 s
tenant_retention_passes  -             s                    s                 s
bulk_operations     -                  s i(PLANNED) u(rate,state)  s u(MOVED)  s
home                -                  s                    s                 s
portal_links        -                  s i(LINK) u(OPENED) d  -               s(SEEN)
pending             -                  s i d                s u d             s
idempotency_keys    -                  s                    s                 s
idempotency_requests  -                s                    s                 s
poller              -                  s                    s u               s
relays              -                  s                    s i u d           s
resolutions         -                  s                    s i               s
rights              -                  s                    s                 s
rounds              -                  s                    s i u             s
rollup_state        -                  s                    s                 s
rollups             -                  s                    s                 s
schema_migrations   s                  s                    s                 s
sealing_keys        -                  s i u(created_at)    s                 s
secrets             -                  s i u d              s u(secret) d     s(HINTS)
sending             -                  s u(STOP)            s                 s
settings            -                  s u(value)           s                 s
shown_attempts      -                  s                    -                 s
subscription_types  -                  s                    s                 s
subscriptions       -                  s i u                s u(ANSWERED) d   s(SHOWN)
tenant_limits       -                  s i u d              s                 s
tokens              -                  s i u(USED)          -                 s(KNOWN)
test_requests       -                  s i(ASKED)           s u(TOLD) d       s
turns               -                  s                    s u(taken)        s
uncounted           -                  s                    s                 s
uncounted_leaves    -                  s                    s                 s
v_backlog           -                  s                    -                 s
v_dead_letters      -                  s                    -                 s
v_deliveries_by_state  -               s                    -                 s
v_messages          -                  s                    -                 s
v_recent_failures   -                  s                    -                 s
v_statistics_1h     -                  s                    -                 s
v_statistics_24h    -                  s                    -                 s
v_statistics_30d    -                  s                    -                 s
v_statistics_7d     -                  s                    -                 s
v_statistics_types_24h  -              s                    -                 s
v_subscriptions_health  -              s                    -                 s
"""
COLUMNS = {
    "NEW": "available_at,id,key,metadata,payload,priority,recorded_at,tenant,trace,type",
    "HINTS": "created_at,expires_at,hint,id,kind,sealed_to,subscription_id",
    "ANSWERED": "disabled_at,disabled_reason,held_until,sorting_since",
    "STOP": "paused_at,reason",
    "SHOWN": (  # all but url
        "batch_events,batch_milliseconds,created_at,description,disabled_at,disabled_reason,"
        "drops_while_paused,filter,filter_hash,final_statuses,format,format_settings,held_until,id,"
        "managed_by,max_in_flight,metadata,name,order_policy,ordered,paused_at,rate_burst,rate_limit,"
        "recovery_seconds,removed_at,schedule_seconds,scheme,shown_url,sorting_since,tenant,"
        "timeout_seconds,transformation,types,updated_at,version"
    ),
    "TRIED": (  # all but url; and ctid, which is no column: the status reads the newest rows of a leaf by it
        "address,at,delivery_id,error,event_seq,excerpt,headers,milliseconds,number,outcome,status,subscription_id,verdict"
    ),
    "USED": "last_used_at,revoked_at",
    "KNOWN": "created_at,created_by,expires_at,id,last_used_at,name,revoked_at,rights,tenant",
    "LOOK": "due_at,not_before",
    "ERASED": "asked_by,cancel_undelivered,kind,path,tenant,value",
    "RECEIPT": (
        "cancel_undelivered,counts,created_at,digest,finished_at,id,kind,last_error,path,phase,requested_by,role,salt,state"
    ),
    "DAYS": "attempts_days,dead_letters_days,events_days",
    "PLANNED": "kind,parameters,phase,plan,rate,subscription_id,tenant",
    "MOVED": (
        "after_at,after_id,after_seq,allowed_at,done,failures,holder,last_error,leased_until,passed_over,phase,state,xid"
    ),
    "LINK": "expires_at,hash,person,rights,tenant",
    "OPENED": "opened_at,revoked_at,session_expires_at,session_hash",
    "SEEN": "created_at,created_by,expires_at,id,opened_at,person,revoked_at,rights,session_expires_at,tenant",
    "ASKED": "id,payload,subscription_id,type",
    "TOLD": "answer,answered_at,taken_at",
}
TEXTS = {"body", "filter_hash", "id_of_key", "patterns_of", "text_id", "uuid_of"}
URLS = {"shown_url", "shown_beginning", "shown_path", "shown_query", "shown_pair", "looks_secret"}
RULES = {"broken_rule", "keeps_rules", "max_payload_bytes", "metadata_is_text_by_name", "refuses_type", "uuid7"}
FINDINGS = {"findings", "collation_findings", "grant_findings", "here", "is_copied"}
UPKEEP = {
    "make_event_leaf", "make_attempt_leaf", "retire_event_leaf", "retire_attempt_leaf", "prune_events",
    "prune_attempts", "prune_resolutions", "drop_empty_leaf", "cancel_orphans", "retire_next_event_leaf",
    "retire_next_attempt_leaf", "make_key_leaf", "forget_keys", "roll_up", "note_old_attempts", "prune_rollups",
    "prune_dead_letters", "prune_audit", "prune_tenant_events", "prune_tenant", "erase_next",
    "make_inbox_leaf", "prune_inbox",
}  # fmt: skip
READING = {
    "statistics", "statistics_series", "statistics_since", "rollup_parts", "uncounted_attempts", "latency_bounds",
    "latency_of", "state_of", "host_of", "reconciliation",
}  # fmt: skip
RECEIVING = {"inbox_receive", "inbox_answer", "inbox_note"}
BY_PEOPLE = {
    "actor",
    "adopt",
    "audit_operation",
    "retention_bound",
    "restore_events",
    "is_erased",
    "hold_tenant",
    "payload_holds",
    "json_holds",
    "received_of",
}
FUNCTIONS = {
    "outbox_app": TEXTS
    | RULES
    | RECEIVING
    | {"capture_row", "content_recorded", "record", "record_once", "row_data_query", "row_images_query"},
    "outbox_operator": TEXTS | RULES | FINDINGS | UPKEEP | READING | BY_PEOPLE | URLS,
    "outbox_relay": TEXTS | FINDINGS | UPKEEP | URLS | {"hold_events", "restore_events", "note_home", "uuid7"},
    "outbox_reader": TEXTS | FINDINGS | READING | URLS,
}
SEQUENCES = {
    "outbox_app": {"usage"},
    "outbox_operator": {"select"},
    "outbox_relay": {"select"},
    "outbox_reader": {"select"},
}
VERBS = {"s": "select", "i": "insert", "u": "update", "d": "delete"}


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def check(url: str) -> list[str]:
    ended = CliRunner().invoke(cli, ["migrate", "--check"], env={"RELAY_DATABASE_URL": url}, standalone_mode=False)
    assert ended.exception is None, ended.exception
    lines = ended.stdout.splitlines()
    assert bool(ended.return_value) is (lines != ["the schema is as it should be"])
    return lines if ended.return_value else []


def run(url: str, *statements: str, session: str = "psql") -> Any:
    with psycopg.connect(url, autocommit=True, application_name=session) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else cursor.rowcount


def audit(database: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return database.execute("select action, subject, role from outbox.audit order by at, id").fetchall()


def names(database: psycopg.Connection[Any], statement: str) -> set[str]:
    return {name for (name,) in database.execute(statement).fetchall()}


RELATIONS = "select relname from pg_class where relnamespace = 'outbox'::regnamespace and relkind"


def rights_on(database: psycopg.Connection[Any], role: str, table: str) -> str:
    """Return what the role may do with the table, as the table above has it."""
    found = []
    for letter, verb in VERBS.items():
        has = "select has_table_privilege(%s, %s, %s)"
        if database.execute(has, (role, f"outbox.{table}", verb)).fetchone() == (True,):
            found.append(letter)
            continue
        if verb == "delete":
            continue
        columns = names(
            database,
            f"select attname from pg_attribute where attrelid = 'outbox.{table}'::regclass and attnum > 0"
            f" and not attisdropped and has_column_privilege('{role}', attrelid, attnum, '{verb}')",
        )
        found += [f"{letter}({','.join(sorted(columns))})"] if columns else []
    return " ".join(found) or "-"


@pytest.mark.field("F100")
@pytest.mark.parametrize("role", ROLES)
def test_every_right_of_a_role_on_every_table(database: psycopg.Connection[Any], role: str) -> None:
    table_of_rights = re.sub(r"[A-Z]+", lambda word: COLUMNS[word[0]], TABLES.strip())
    header, *lines = [re.split(r"  +", line.strip()) for line in table_of_rights.splitlines()]
    expected = {line[0]: line[1 + header.index(role)] for line in lines}
    tables = names(database, f"{RELATIONS} in ('r', 'p', 'v', 'm') and not relispartition")
    assert {table: rights_on(database, role, table) for table in tables} == expected
    leaves = names(database, f"{RELATIONS} in ('r', 'p') and relispartition")
    assert len(leaves) > 10
    assert {leaf for leaf in leaves if rights_on(database, role, leaf) != "-"} == set()
    more = "has_table_privilege(%s, c.oid, 'truncate') or has_any_column_privilege(%s, c.oid, 'references')"
    statement = "select relname from pg_class c where relnamespace = 'outbox'::regnamespace and relkind in ('r', 'p')"
    wide = f"{statement} and ({more} or has_table_privilege(%s, c.oid, 'trigger'))"
    assert database.execute(wide, (role,) * 3).fetchall() == []


@pytest.mark.field("F100")
@pytest.mark.parametrize("role", ROLES)
def test_every_right_of_a_role_on_every_function_and_sequence(database: psycopg.Connection[Any], role: str) -> None:
    ours = "select proname from pg_proc where pronamespace = 'outbox'::regnamespace"
    assert names(database, f"{ours} and has_function_privilege('{role}', oid, 'execute')") == FUNCTIONS[role]
    assert names(database, f"{RELATIONS} = 'S'") == {"events_seq"}
    for verb in ("usage", "select", "update"):
        has = database.execute("select has_sequence_privilege(%s, 'outbox.events_seq', %s)", (role, verb)).fetchone()
        assert has == (verb in SEQUENCES[role],), verb
    on_schema = "select has_schema_privilege(%s, 'outbox', 'usage'), has_schema_privilege(%s, 'outbox', 'create')"
    assert database.execute(on_schema, (role, role)).fetchone() == (True, False)


TOO_WIDE = {
    "a table": ("grant select on outbox.secrets to outbox_reader", "outbox_reader may select on table outbox.secrets"),
    "a column": ("grant select (secret) on outbox.secrets to outbox_reader",
                 "outbox_reader may select on column outbox.secrets.secret"),
    "a verb": ("grant truncate on outbox.attempts to outbox_relay",
               "outbox_relay may truncate on table outbox.attempts"),
    "a function": ("grant execute on function outbox.audit_operation to outbox_relay",
                   "outbox_relay may execute on function outbox.audit_operation(text, text, text, jsonb)"),
    "a sequence": ("grant update on sequence outbox.events_seq to outbox_app",
                   "outbox_app may update on sequence outbox.events_seq"),
    "the schema": ("grant create on schema outbox to outbox_operator",
                   "outbox_operator may create on schema outbox"),
    "a leaf": ("grant insert on outbox.events_default to outbox_app",
               "outbox_app may insert on table outbox.events_default"),
    "with grant option": ("grant select on outbox.events to outbox_reader with grant option",
                          "outbox_reader may select with grant option on table outbox.events"),
}  # fmt: skip


@pytest.mark.field("F101")
@pytest.mark.parametrize(("grant", "seen"), TOO_WIDE.values(), ids=TOO_WIDE)
def test_a_right_too_many_of_a_group_role_is_named_and_migrate_takes_it_back(
    database_url: str, database: psycopg.Connection[Any], grant: str, seen: str
) -> None:
    assert check(database_url) == []
    database.execute(grant)
    assert check(database_url) == [f"{seen}; mend: relay migrate"]
    migrate(database_url)
    assert check(database_url) == []


@pytest.mark.field("F101")
@pytest.mark.parametrize(
    "grant",
    [
        "select on table outbox.secrets",
        "update on table outbox.attempts",
        "insert on table outbox.events_default",
        "execute on function outbox.note_resealed(uuid[])",
        "update on sequence outbox.events_seq",
        "create on schema outbox",
    ],
)
def test_a_right_too_many_of_anybody_else_is_named_with_its_revoke(
    database_url: str, database: psycopg.Connection[Any], login: Callable[..., str], grant: str
) -> None:
    name = make_url(login()).username
    database.execute(f"grant {grant} to {name}")
    (line,) = check(database_url)
    assert line == f"{name} may {grant}; mend: revoke {grant} from {name}"
    migrate(database_url)
    assert check(database_url) == [line]  # a role of somebody else's is left as it is
    database.execute(line.partition("mend: ")[2])
    assert check(database_url) == []


@pytest.mark.field("F101")
def test_a_column_of_anybody_else_is_named_and_what_our_roles_may_do_is_not(
    database_url: str, database: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    name = make_url(login()).username
    database.execute(f"grant insert (type, payload), select (id) on outbox.events to {name}")
    database.execute(f"grant insert on outbox.events to {name}")
    database.execute(f"grant select (hint) on outbox.secrets to {name}")
    assert check(database_url) == []
    database.execute(f"grant select (secret) on outbox.secrets to {name}")
    (line,) = check(database_url)
    assert line.endswith(f"mend: revoke select (secret) on outbox.secrets from {name}")
    database.execute(line.partition("mend: ")[2])
    assert check(database_url) == []


@pytest.mark.field("F101")
@pytest.mark.parametrize("grant", ["usage on schema outbox", "select on table outbox.events",
                                   "execute on function outbox.text_id(text, uuid)"])  # fmt: skip
def test_anything_that_public_has_is_named(database_url: str, database: psycopg.Connection[Any], grant: str) -> None:
    database.execute(f"grant {grant} to public")
    assert check(database_url) == [f"public may {grant}; mend: revoke {grant} from public"]


@pytest.mark.field("F101")
def test_default_privileges_of_the_database_give_nothing_that_stays(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as database:
        for kind in ("tables", "sequences", "functions"):
            database.execute(f"alter default privileges grant all on {kind} to outbox_reader, outbox_app")
        migrate(empty_database_url)
        assert check(empty_database_url) == []


def dead_letter(database: psycopg.Connection[Any]) -> str:
    (identity,) = (
        database.execute(
            "insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload,"
            " recorded_at, attempts, reason) values (gen_random_uuid(), 1, gen_random_uuid(), gen_random_uuid(),"
            " 'acme', 'a', '1', now(), 1, 'timeout') returning delivery_id"
        ).fetchone()
        or ()
    )
    return str(DeliveryId.of(identity))


def delivery(database: psycopg.Connection[Any], *, leased: bool = False) -> str:
    (identity,) = (
        database.execute(
            "with s as (insert into outbox.subscriptions (url, types) values ('https://example.com', '{a}')"
            " returning id)"
            " insert into outbox.deliveries (id, event_seq, subscription_id, due_at, attempts, lease)"
            " select gen_random_uuid(), 1, id, now(), 1, %s from s returning id",
            (7 if leased else None,),
        ).fetchone()
        or ()
    )
    return str(DeliveryId.of(identity))


@pytest.mark.field("F100")
@pytest.mark.parametrize(
    "statement",
    [
        "select outbox.audit_operation('purged', '', '', '{}')",
        "select outbox.note_subscription('{}', '{}')",
        "update outbox.dead_letters set payload = '2'",
        "update outbox.settings set value = 36500",
        "delete from outbox.subscriptions",
        "delete from outbox.secrets",
        "alter table outbox.deliveries disable trigger audit",
        "set session_replication_role = replica",
    ],
)
def test_a_relays_login_may_not(database: psycopg.Connection[Any], login: Callable[..., str], statement: str) -> None:
    dead_letter(database)
    (identity,) = (
        database.execute(
            "insert into outbox.subscriptions (url, types) values ('https://example.com', '{a}') returning id"
        ).fetchone()
        or ()
    )
    database.execute("insert into outbox.secrets (subscription_id, secret) values (%s, 'x')", (identity,))
    with pytest.raises(InsufficientPrivilege):
        run(login("outbox_relay"), statement)


LEAVES_WITHOUT_BOUNDS = {
    "leaves without end": "select outbox.make_event_leaf(1000000)",
    "leaves of one row": "select outbox.make_event_leaf(8, 1)",
    "a leaf that never fills": "select outbox.make_event_leaf(8, 4000000000000)",
    "days without end": "select outbox.make_attempt_leaf(100000)",
    "a day far away": "select outbox.make_attempt_leaf(0, date '2999-01-01')",
    "a day long ago": "select outbox.make_inbox_leaf(0, date '1999-01-01')",
    "the end of time": "select outbox.make_key_leaf(0, date 'infinity')",
    "days ahead dropped": "select outbox.drop_empty_leaf(current_date + 5)",
}


@pytest.mark.field("F100")
@pytest.mark.parametrize("role", ["outbox_relay", "outbox_operator"])
@pytest.mark.parametrize("statement", LEAVES_WITHOUT_BOUNDS.values(), ids=LEAVES_WITHOUT_BOUNDS)
def test_upkeep_by_a_stolen_login_has_bounds(
    database: psycopg.Connection[Any], login: Callable[..., str], role: str, statement: str
) -> None:
    count = "select count(*) from pg_class where relnamespace = 'outbox'::regnamespace"
    before = database.execute(count).fetchone()
    with pytest.raises(InvalidParameterValue, match="leaves: "):
        run(login(role), statement)
    assert database.execute(count).fetchone() == before
    within = "select outbox.make_event_leaf(20, 1000000), outbox.make_attempt_leaf(20), outbox.drop_empty_leaf()"
    assert run(login(role), within)[:2] != (None, None)


@pytest.mark.field("F100")
def test_a_relays_login_clears_what_is_removed_and_what_ran_out(
    database: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    delivery(database)
    database.execute("insert into outbox.secrets (subscription_id, secret, expires_at)"
                     " select id, 'x', now() - interval '1 s' from outbox.subscriptions")  # fmt: skip
    relay = login("outbox_relay")
    assert run(relay, "delete from outbox.secrets") == 1
    database.execute("insert into outbox.secrets (subscription_id, secret) select id, 'x' from outbox.subscriptions")
    database.execute("update outbox.subscriptions set removed_at = now()")
    with pytest.raises(ForeignKeyViolation):
        run(relay, "delete from outbox.subscriptions")
    assert run(relay, "delete from outbox.deliveries") == 1
    assert run(relay, "delete from outbox.subscriptions") == 1  # its secrets go with it
    assert "delivery deleted" not in [action for action, *_ in audit(database)]


@pytest.mark.field("F100")
@pytest.mark.parametrize("session", ["psql", "", RELAY_NAME])
@pytest.mark.parametrize("leased", [False, True])
def test_a_delivery_that_is_deleted_by_hand_is_noted(
    database: psycopg.Connection[Any], login: Callable[..., str], session: str, leased: bool
) -> None:
    relay = login("outbox_relay")
    ids = {delivery(database, leased=leased) for _ in range(3)}
    assert run(relay, "delete from outbox.deliveries", session=session) == 3
    noted = [row for row in audit(database) if row[0] == "delivery deleted"]
    # A leased row that a session named like a relay deletes is what a settlement looks like: see docs/security.md.
    assert {subject for _, subject, _ in noted} == (set() if leased and session == RELAY_NAME else ids)
    assert {role for *_, role in noted} <= {make_url(relay).username}


@pytest.mark.field("F100")
def test_what_is_delivered_or_buried_is_not_noted_as_deleted(
    database: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    relay = login("outbox_relay")
    delivery(database)
    settle = """with gone as (delete from outbox.deliveries returning id, event_seq, subscription_id)
        insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select id, event_seq, subscription_id, 1, 'delivered', 'success', 1 from gone"""
    bury = """with gone as (delete from outbox.deliveries returning id, event_seq, subscription_id)
        insert into outbox.dead_letters (delivery_id, event_seq, event_id, subscription_id, tenant, type, payload,
                                         recorded_at, attempts, reason)
        select id, event_seq, id, subscription_id, '', 'a', '1', now(), 1, 'timeout' from gone"""
    run(relay, settle)
    delivery(database)
    run(relay, bury)
    late = """with gone as (delete from outbox.dead_letters returning delivery_id, event_seq, subscription_id)
        insert into outbox.attempts (delivery_id, event_seq, subscription_id, number, verdict, outcome, milliseconds)
        select delivery_id, event_seq, subscription_id, 1, 'delivered', 'success', 1 from gone"""
    assert run(relay, late) == 1
    assert {action for action, *_ in audit(database)} == {"added"}


@pytest.mark.field("F100")
@pytest.mark.parametrize("role", ["outbox_relay", "outbox_operator"])
@pytest.mark.parametrize("session", ["psql", RELAY_NAME])
def test_a_dead_letter_that_is_deleted_by_hand_is_noted(
    database: psycopg.Connection[Any], login: Callable[..., str], role: str, session: str
) -> None:
    url = login(role)
    ids = {dead_letter(database) for _ in range(2)}
    run(url, "delete from outbox.dead_letters", session=session)
    assert {row[:2] for row in audit(database)} == {("dead letter deleted", subject) for subject in ids}
    assert {row[2] for row in audit(database)} == {make_url(url).username}


@pytest.mark.field("F100")
def test_a_purge_by_command_is_noted_once(database: psycopg.Connection[Any], login: Callable[..., str]) -> None:
    name, url = dead_letter(database), login("outbox_operator")
    ended = CliRunner().invoke(
        cli, ["dead-letters", "purge", name, "--yes"], env={"RELAY_DATABASE_URL": url}, standalone_mode=False
    )
    assert ended.exception is None, ended.exception
    assert [row[:2] for row in audit(database)] == [("purged", name)]


@pytest.mark.field("F100")
@pytest.mark.parametrize(
    "arguments",
    ["'added', '', '', '{}'", "'', '', '', '{}'", "null, '', '', '{}'", "'purged', 'anything', '', '{}'",
     "'purged', '', '', '[]'", "'purged', '', repeat('x', 300), '{}'", "'purged', null, '', '{}'",
     "'purged', '', '', jsonb_build_object('x', repeat('x', 2000000))"],
)  # fmt: skip
def test_an_operation_is_noted_only_with_arguments_that_make_sense(
    database: psycopg.Connection[Any], login: Callable[..., str], arguments: str
) -> None:
    with pytest.raises(InvalidParameterValue):
        run(login("outbox_operator"), f"select outbox.audit_operation({arguments})")
    assert audit(database) == []


HISTORY = """
insert into outbox.events (seq, type, payload, recorded_at) values
    (1, 'a', '1', now() - interval '10 days'), (2, 'a', '1', now() - interval '1 hour');
insert into outbox.attempts (delivery_id, subscription_id, number, verdict, outcome, milliseconds, at) values
    (gen_random_uuid(), gen_random_uuid(), 1, 'retry', 'timeout', 1, now() - interval '10 days'),
    (gen_random_uuid(), gen_random_uuid(), 1, 'retry', 'timeout', 1, now() - interval '1 hour');
insert into outbox.resolutions (at, first_seq, seqs, matches) values
    (now() - interval '10 days', 5, '{5}', '{0}'), (now() - interval '1 hour', 6, '{6}', '{0}');
delete from outbox.pending;
select setval('outbox.events_seq', 1500000);
"""
PRUNE = (
    "select outbox.retire_event_leaf({0})", "select outbox.prune_events({0}, 0, 100)",
    "select outbox.retire_attempt_leaf({0})", "select outbox.prune_attempts({0}, 100)",
    "select outbox.prune_resolutions({0}, 100)",
)  # fmt: skip
COUNTS = """select (select count(*) from outbox.events), (select count(*) from outbox.attempts),
                   (select count(*) from outbox.resolutions)"""


@pytest.mark.field("F100")
@pytest.mark.parametrize("role", ["outbox_relay", "outbox_operator"])
@pytest.mark.parametrize("older_than", ["now() + interval '100 years'", "'infinity'", "now()"])
@pytest.mark.parametrize(("days", "left"), [(1, 1), (9, 1), (30, 2)])
def test_nobody_deletes_history_within_the_least_retention(
    database: psycopg.Connection[Any], login: Callable[..., str], role: str, older_than: str, days: int, left: int
) -> None:
    database.execute(HISTORY)
    database.execute("update outbox.settings set value = %s where name = 'least_retention_days'", (days,))
    run(login(role), *(statement.format(older_than) for statement in PRUNE))
    assert database.execute(COUNTS).fetchone() == (left, left, left)


@pytest.mark.field("F100")
def test_a_null_age_deletes_nothing(database: psycopg.Connection[Any], login: Callable[..., str]) -> None:
    database.execute(HISTORY)
    run(login("outbox_relay"), *(statement.format("null::timestamptz") for statement in PRUNE))
    left = database.execute(COUNTS).fetchone()
    assert left == (2, 2, 2)


@pytest.mark.field("F100")
def test_what_the_owner_prunes_is_not_bounded(database: psycopg.Connection[Any], database_url: str) -> None:
    database.execute(HISTORY)
    run(database_url, *(statement.format("now()") for statement in PRUNE))
    assert database.execute(COUNTS).fetchone() == (0, 0, 0)


@pytest.mark.field("F100")
def test_prune_says_that_the_database_keeps_more_before_it_deletes_anything(
    database: psycopg.Connection[Any], login: Callable[..., str]
) -> None:
    database.execute(HISTORY)
    database.execute("update outbox.settings set value = 9 where name = 'least_retention_days'")
    url = login("outbox_operator")
    for more in ((), ("--dry-run",)):
        ended = CliRunner().invoke(
            cli,
            ["prune", "--events-retention-days", "8", *more],
            env={"RELAY_DATABASE_URL": url},
            standalone_mode=False,
        )
        assert isinstance(ended.exception, RetentionError)
        assert re.match(r"events_retention_days: 8 is less than the 9 days .* outbox\.settings$", str(ended.exception))
    assert database.execute(COUNTS).fetchone() == (2, 2, 2)


@pytest.mark.field("F101")
def test_group_roles_that_are_members_of_each_other_or_superusers_are_named(database: psycopg.Connection[Any]) -> None:
    """In a transaction that is rolled back: roles are the whole server's."""
    with database.transaction(force_rollback=True):
        database.execute("grant outbox_relay to outbox_reader")
        database.execute("alter role outbox_app superuser")
        found = database.execute("select subject, seen, mend from outbox.grant_findings() order by 1").fetchall()
    assert found == [
        ("outbox_app", "outbox_app passes over every right: it is a superuser", "alter role outbox_app nosuperuser"),
        ("outbox_reader", "outbox_reader is a member of outbox_relay", "revoke outbox_relay from outbox_reader"),
    ]
