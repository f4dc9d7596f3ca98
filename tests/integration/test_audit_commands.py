"""What commands leave in the audit: who, what was asked for, which rows; and how `relay audit` shows it."""

from __future__ import annotations

import json
import os

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from outbox import subscriptions
from outbox.control import audit, dead_letters
from outbox.control.filters import Filters
from outbox.control.replay.replay import candidates_by_id, replay
from relay.cli import cli
from relay.cli.options import login_name
from relay.operations import prune as prune_operation
from relay.secrets.keyring import new_private_key
from relay.store.retention import RETENTION, RetentionStep
from tests.support import seeding

URL = "https://example.com/h"
# What changes nothing that the audit is about: it looks, delivers, or tells of the program itself.
NOT_ACTING = {
    *("demo", "dev", "listen", "migrate", "run", "status", "reconcile", "audit", "config", "completion", "url-check"),
    *("subscriptions list", "subscriptions show", "subscriptions test", "subscriptions check"),
    *(
        "subscriptions export",
        "subscriptions formats",
        "subscriptions filter-test",
        "subscriptions preview",
        "tenants limits",
    ),
    *("events list", "events show", "explain", "deliveries list", "deliveries show", "deliveries attempts"),
    *("capture install", "capture list", "capture remove"),  # the application's tables, by whoever owns them
    *("bulk list", "bulk show", "erase list", "erase receipt", "tenants retention"),
    *("tokens list", "portal list", "statistics", "serve", "inbox list", "inbox show"),
    *("catalogue check", "catalogue list", "catalogue show", "catalogue export"),
    *("dead-letters list", "dead-letters show", "secrets keygen", "schemes list", "schemes show"),
}


def with_attempts_pruned_by(statement: str) -> tuple[RetentionStep, ...]:
    """Retention with another statement where it deletes attempts."""
    return tuple(step._replace(statement=statement) if step.name == "old attempts" else step for step in RETENTION)


@pytest.fixture
def run(database_url, monkeypatch):
    """Run one command against the database and return what it printed."""
    for name in [name for name in os.environ if name.startswith("RELAY_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str, **environ: str) -> str:
        given = {"RELAY_DATABASE_URL": database_url, **environ}
        ended = CliRunner().invoke(cli, arguments, env=given, standalone_mode=False)
        if ended.exception is not None:
            raise ended.exception
        assert "warning" not in ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def connection(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@pytest.fixture
def dead(connection) -> list[str]:
    """Three dead letters of one subscription of acme's."""
    subscription_id = seeding.subscribe(connection, tenant="acme")
    names = []
    for _ in range(3):
        names += seeding.resolve(connection, seeding.record(connection, tenant="acme"), subscription_id)
        seeding.attempt(connection, names[-1], "dead")
    return names


def entries(connection, action: str | None = None) -> list[audit.AuditEntry]:
    """The audit, oldest first."""
    return list(reversed(audit.list_audit(connection, None, Filters(limit=1000), action=action).items))


def every_command(group: click.Command, path: str = "") -> list[tuple[str, click.Command]]:
    if not isinstance(group, click.Group):
        return [(path, group)]
    context = click.Context(group)
    inner = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [found for name, each in inner for found in every_command(each, f"{path} {name}".strip())]


def test_every_command_that_changes_something_asks_who():
    asking = {
        path
        for path, command in every_command(cli)
        for option in command.params
        if option.name == "actor" and option.envvar == "RELAY_ACTOR"
    }
    assert {path for path, _ in every_command(cli)} - asking - NOT_ACTING == set()
    assert asking & NOT_ACTING == set()


class TestWho:
    def test_every_verb_by_flag(self, run, connection):
        name = json.loads(run("subscriptions", "add", URL, "*", "--json", "--actor", "alice"))["id"]
        run("subscriptions", "update", name, "--url", f"{URL}/2", "--actor", "alice")
        run("subscriptions", "pause", name, "--actor", "alice")
        run("subscriptions", "resume", name, "--actor", "alice")
        run("subscriptions", "rotate-secret", name, "--actor", "alice")
        run("subscriptions", "remove", name, "--yes", "--actor", "alice")
        found = entries(connection)
        assert [row.action for row in found] == [
            *("added", "secret added", "updated", "paused", "resumed", "secret expires", "secret added", "removed"),
        ]
        assert {(row.actor, row.subject) for row in found} == {("alice", name)}
        assert (found[2].before, found[2].after) == ({"url": URL}, {"url": f"{URL}/2"})

    def test_by_the_environment_without_a_warning_and_the_flag_goes_first(self, run, connection):
        run("subscriptions", "add", URL, "*", RELAY_ACTOR="ci job 7")
        run("subscriptions", "add", URL, "*", "--actor", "alice", RELAY_ACTOR="ci job 7")
        assert [row.actor for row in entries(connection, "added")] == ["ci job 7", "alice"]
        assert "RELAY_ACTOR" not in run("status", RELAY_ACTOR="ci job 7")

    def test_by_default_it_is_the_login_on_this_machine(self, run, connection):
        run("subscriptions", "add", URL, "*", RELAY_ACTOR="")
        (added, _) = entries(connection)
        assert added.actor == login_name()
        assert added.role == connection.execute(text("select session_user::text")).scalar_one()

    def test_a_name_that_is_none_is_refused_before_anything_is_done(self, run, connection):
        for name in ("a\nb", " ", "x" * 257):
            with pytest.raises(Exception, match=r"^actor: "):
                run("subscriptions", "add", URL, "*", "--actor", name)
        assert entries(connection) == []


class TestOperations:
    def test_a_replay_by_id(self, run, connection, dead):
        made = json.loads(run("replay", dead[0], "--actor", "alice", "--json"))["deliveries"]
        (row,) = entries(connection, "replayed")
        (event_id,) = [name for name in row.details["ids"] if name.startswith("evt_")]
        assert (row.actor, row.subject, row.tenant) == ("alice", dead[0], "acme")
        assert row.details == {"count": 1, "ids": [dead[0], event_id], "deliveries": made}
        for name in (dead[0], event_id, made[0]):
            assert [found.id for found in audit.list_audit(connection, None, Filters(), subject=name)] == [row.id]

    def test_a_replay_by_filter(self, run, connection, dead):
        name = subscriptions.list(connection, tenant="acme")[0].id
        run("replay", "--subscription", name, "--since", "1h", "--limit", "2", "--yes")
        (row,) = entries(connection, "replayed")
        assert (row.subject, row.details["count"], row.details["state"]) == (name, 2, "dead")
        assert row.details["filter"] == {"since": "3600s ago", "subscription": name, "limit": 2}
        assert row.details["ids"][:2] == dead[:2]

    def test_a_replay_to_another_subscription(self, run, connection, dead):
        other = seeding.subscribe(connection, tenant="acme")
        run("replay", dead[0], "--to", other)
        (row,) = entries(connection, "replayed")
        assert (row.subject, row.details["to"]) == (dead[0], other)

    def test_a_replay_of_what_could_not_be_resolved(self, run, connection):
        event_id = seeding.record(connection, tenant="acme")
        name = seeding.bury_unresolved(connection, event_id)
        run("replay", name)
        (row,) = entries(connection, "replayed")
        assert (row.subject, row.tenant, row.details) == (name, "acme", {"count": 1, "ids": [name, event_id]})

    def test_of_two_tenants_none_is_named(self, run, connection, dead):
        other = seeding.subscribe(connection, tenant="globex")
        dead += seeding.resolve(connection, seeding.record(connection, tenant="globex"), other)
        seeding.attempt(connection, dead[-1], "dead")
        run("dead-letters", "purge", dead[0], dead[3], "--yes")
        run("replay", "--since", "1h", "--yes")
        purged, replayed = entries(connection, "purged")[0], entries(connection, "replayed")[0]
        assert (purged.tenant, replayed.tenant) == ("", "acme")

    def test_a_purge_by_id_and_by_filter(self, run, connection, dead):
        run("dead-letters", "purge", dead[1], "--yes", "--actor", "alice")
        run("dead-letters", "purge", "--tenant", "acme", "--yes", "--actor", "alice")
        by_id, by_filter = entries(connection, "purged")
        assert (by_id.actor, by_id.subject, by_id.tenant) == ("alice", dead[1], "acme")
        assert by_id.details == {"count": 1, "ids": [dead[1]]}
        assert sorted(by_filter.details.pop("ids")) == sorted([dead[0], dead[2]])
        assert by_filter.details == {"count": 2, "filter": {"tenant": "acme", "limit": 50}}

    def test_a_dry_run_and_what_finds_nothing_are_not_noted(self, run, connection, dead):
        before = len(entries(connection))
        run("replay", "--since", "1h", "--dry-run")
        run("dead-letters", "purge", dead[0], "--dry-run")
        run("dead-letters", "purge", "--tenant", "nobody", "--yes")
        run("prune")
        run("prune", "--dry-run")
        assert len(entries(connection)) == before

    def test_what_is_rolled_back_is_not_noted(self, engine, connection, dead):
        before = len(entries(connection))
        with engine.connect() as own:
            replay(own, None, candidates_by_id(own, None, dead[0]))
            dead_letters.purge(own, None, dead_letters.find_by_id(own, None, dead[1:]))
            assert len(entries(own)) == before + 2
        assert len(entries(connection)) == before

    def test_of_many_rows_the_first_thousand_are_named(self, connection):
        names = [f"dlv_{number}" for number in range(audit.LISTED_IDS + 1)]
        audit.note(connection, "purged", count=len(names), ids=names)
        (row,) = entries(connection)
        assert row.details == {"count": 1_001, "ids": names[:1_000]}

    def test_a_prune_with_the_retention_it_went_by(self, run, connection):
        seeding.resolve(connection, seeding.record(connection))
        connection.execute(text("update outbox.events set recorded_at = recorded_at - interval '40 days'"))
        connection.execute(text("update outbox.resolutions set at = at - interval '200 days'"))
        run("prune", "--actor", "cron")
        (row,) = entries(connection, "pruned")
        assert (row.actor, row.subject) == ("cron", "")
        assert row.details == {
            "count": 2, "events": 1, "attempts": 0, "resolutions": 1,
            "events_days": 30, "attempts_days": 90, "resolutions_days": 90,
            "dead_letters": 0, "audit": 0, "dead_letters_days": 0, "audit_days": 0,
        }  # fmt: skip

    def test_a_prune_that_fails_on_the_way_is_noted_with_what_went(self, engine, connection, monkeypatch):
        seeding.resolve(connection, seeding.record(connection))
        connection.execute(text("update outbox.events set recorded_at = recorded_at - interval '40 days'"))
        monkeypatch.setattr(prune_operation, "RETENTION", with_attempts_pruned_by("select null, 1/0"))
        with engine.connect() as own, pytest.raises(Exception, match="division by zero"):
            prune_operation.prune(own, None, events_days=30, attempts_days=90, resolutions_days=90, actor="cron")
        (row,) = entries(connection, "pruned")
        assert (row.actor, row.details["count"], row.details["events"]) == ("cron", 1, 1)

    def test_a_prune_that_loses_the_database_tells_of_that(self, engine, monkeypatch):
        ended = "select null, pg_terminate_backend(pg_backend_pid())"
        monkeypatch.setattr(prune_operation, "RETENTION", with_attempts_pruned_by(ended))
        with engine.connect() as own, pytest.raises(OperationalError, match=r"terminat|closed"):
            prune_operation.prune(own, None, events_days=30, attempts_days=90, resolutions_days=90)

    def test_rekey_names_who_exchanged_the_key(self, run, connection):
        seeding.subscribe(connection)
        seeding.subscribe(connection)
        private, public = new_private_key()
        run("secrets", "rekey", "--actor", "alice", RELAY_SECRET_KEY=private.reveal())
        added, resealed = entries(connection)[-2:]
        assert (added.actor, added.action, added.subject) == ("alice", "sealing key added", public.id)
        assert (resealed.actor, resealed.action) == ("alice", "secret resealed")
        assert resealed.details["count"] == 2

    def test_a_key_that_rekey_adds_says_who_did_it_why_and_that_nothing_is_to_do(self, run, connection):
        private, _ = new_private_key()
        run("secrets", "rekey", "--actor", "alice", RELAY_SECRET_KEY=private.reveal())
        told = run("audit", "--action", "sealing key added")
        assert "that is what relay secrets rekey does, at the first time" in told
        assert "If alice ran it there is nothing to do; if nobody of yours did" in told
        assert "sealed to this" not in run("audit", "--action", "updated")


class TestList:
    def test_a_table_and_json_lines(self, run, connection):
        name = json.loads(run("subscriptions", "add", URL, "*", "--tenant", "acme", "--json", "--actor", "alice"))["id"]
        run("subscriptions", "update", name, "--url", f"{URL}/2", "--actor", "alice")
        heading, newest, *_ = run("audit").splitlines()
        assert heading == "at\tactor\taction\tsubject\tchange"
        assert newest.split("\t")[1:] == ["alice", "updated", name, f"url: {URL} → {URL}/2"]
        document = json.loads(run("audit", "--json", "--limit", "1"))
        assert (document["before"], document["after"]) == ({"url": URL}, {"url": f"{URL}/2"})
        assert document["at"].endswith("Z")
        assert document["id"].startswith("aud_")

    def test_filters(self, run, connection):
        name = json.loads(run("subscriptions", "add", URL, "*", "--tenant", "acme", "--json", "--actor", "alice"))["id"]
        run("subscriptions", "pause", name, "--actor", "bob")
        run("subscriptions", "add", URL, "*", "--actor", "alice")

        def found(*arguments: str) -> list[str]:
            return [json.loads(line)["action"] for line in run("audit", "--json", *arguments).splitlines()]

        assert found("--subject", name) == ["paused", "secret added", "added"]
        assert found("--actor", "bob") == ["paused"]
        assert found("--action", "added") == ["added", "added"]
        assert found("--tenant", "acme", "--since", "1h", "--limit", "2") == ["paused", "secret added"]
        assert found("--until", "1h") == []
        assert found("--actor", "bob", "--action", "added") == []

    def test_the_environments_actor_is_no_filter(self, run, connection):
        seeding.subscribe(connection)
        assert len(run("audit", "--json", RELAY_ACTOR="alice").splitlines()) == 2

    def test_without_an_actor_the_login_role_is_shown(self, run, connection):
        seeding.subscribe(connection)
        role = connection.execute(text("select session_user::text")).scalar_one()
        assert run("audit").splitlines()[1].split("\t")[1] == f"db:{role}"

    @pytest.mark.case("C28")
    def test_hostile_text_reaches_the_terminal_escaped(self, run, connection):
        with connection.begin():
            connection.execute(text("select set_config('outbox.actor', E'\\x1b]0;x\\x07', false)"))
            subscriptions.add(connection, URL, ["*"], description="\x1b[31m\u202e", metadata={"\x07": "\x9b"})
        printed = run("audit")
        assert printed.replace("\n", "").replace("\t", "").isprintable()
        assert "\\x1b]0;x\\x07" in printed
        assert "description: \\x1b[31m\\u202e" in printed
