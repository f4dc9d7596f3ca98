"""The commands in one process: what they print, and what they leave in the database."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner
from sqlalchemy import make_url, text

from relay.cli import cli
from tests.support import seeding


@pytest.fixture
def run(database_url):
    """Run one command against the database; it must exit with `code`; return what it printed."""

    def run(*arguments: str, code: int = 0, answer: str | None = None) -> str:
        environ = {"RELAY_DATABASE_URL": database_url}
        ended = CliRunner().invoke(cli, arguments, env=environ, input=answer, standalone_mode=False)
        if ended.exception is not None and code == 0:
            raise ended.exception
        assert (ended.exception is not None or bool(ended.return_value)) == bool(code)
        return ended.stdout if ended.exception is None else str(ended.exception)

    return run


@pytest.fixture
def connection(engine):
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def documents(printed: str) -> list[dict]:
    return [json.loads(line) for line in printed.splitlines()]


class TestSubscriptions:
    @pytest.mark.field("F42")
    def test_an_endpoint_that_the_relay_would_not_call_is_refused(self, run, monkeypatch):
        for url, why in (
            ("http://127.0.0.1:4004/", "url: plain http is not allowed"),
            ("https://169.254.169.254/", "url: 169.254.169.254 is not a public address"),
        ):
            assert run("subscriptions", "add", url, "*", code=2).startswith(why)
            assert run("subscriptions", "add", url, "*", "--all-tenants", code=2).startswith(why)
        assert run("subscriptions", "list", "--json") == ""
        monkeypatch.setenv("RELAY_ALLOW_NETWORKS", "127.0.0.0/8")
        monkeypatch.setenv("RELAY_ALLOW_HTTP", "true")
        made = json.loads(run("subscriptions", "add", "http://127.0.0.1:4004/", "*", "--json"))
        monkeypatch.delenv("RELAY_ALLOW_HTTP")
        again = run("subscriptions", "update", made["id"], "--url", "http://127.0.0.1:4005/", code=2)
        assert again.startswith("url: plain http is not allowed")

    @pytest.mark.field("F48")
    def test_a_removed_one_is_shown_when_it_is_asked_for(self, run):
        name = json.loads(run("subscriptions", "add", "https://example.com/h", "*", "--json"))["id"]
        run("subscriptions", "remove", name, "--yes")
        assert "or it is removed" in run("subscriptions", "show", name, code=1)
        assert json.loads(run("subscriptions", "show", name, "--removed", "--json"))["state"] == "removed"

    def test_a_life_from_add_to_remove(self, run):
        made = json.loads(run("subscriptions", "add", "https://example.com/h", "order.*", "a.b", "--tenant", "acme",
                              "--description", "d", "--metadata", "owner=7", "--timeout-seconds", "5",
                              "--schedule-seconds", "1,2", "--json"))  # fmt: skip
        name = made["id"]
        assert (made["types"], made["metadata"], made["schedule_seconds"]) == (
            ["order.*", "a.b"],
            {"owner": "7"},
            [1, 2],
        )
        changed = json.loads(
            run("subscriptions", "update", name, "--types", "x.*", "--schedule-seconds", "none", "--json")
        )
        assert (changed["types"], changed["schedule_seconds"], changed["description"]) == (["x.*"], [], "d")
        assert json.loads(run("subscriptions", "pause", name, "--json"))["state"] == "paused"
        (listed,) = documents(run("subscriptions", "list", "--state", "paused", "--tenant", "acme", "--json"))
        assert listed["id"] == name
        assert json.loads(run("subscriptions", "resume", name, "--json"))["state"] == "active"
        rotated = json.loads(run("subscriptions", "rotate-secret", name, "--overlap-seconds", "0", "--json"))
        assert rotated["secret"] != made["secret"]
        assert json.loads(run("subscriptions", "remove", name, "--yes", "--json"))["state"] == "removed"
        assert run("subscriptions", "list", "--json") == ""

    def test_disable_says_why_and_resume_ends_it(self, run):
        name = json.loads(run("subscriptions", "add", "https://example.com/h", "*", "--json"))["id"]
        run("subscriptions", "disable", name, code=2)
        off = json.loads(run("subscriptions", "disable", name, "--reason", "wrong shop", "--json"))
        assert (off["state"], off["disabled_reason"]) == ("disabled", "wrong shop")
        (listed,) = documents(run("subscriptions", "list", "--state", "disabled", "--json"))
        assert listed["id"] == name
        assert "wrong shop" in run("status")
        on = json.loads(run("subscriptions", "resume", name, "--json"))
        assert (on["state"], on["disabled_reason"]) == ("active", None)

    @pytest.mark.parametrize(("given", "kept"), [("422, 400", [400, 422]), ("none", [])])
    def test_final_statuses_are_a_list_or_none(self, run, given, kept):
        made = json.loads(
            run("subscriptions", "add", "https://example.com/h", "*", "--final-statuses", "404", "--json")
        )
        changed = json.loads(run("subscriptions", "update", made["id"], "--final-statuses", given, "--json"))
        assert (made["final_statuses"], changed["final_statuses"]) == ([404], kept)

    @pytest.mark.parametrize("given", ["408", "410", "425", "429", "500", "4xx", "400;413", "-400"])
    def test_what_cannot_be_final_is_refused(self, run, given):
        words = run("subscriptions", "add", "https://example.com/h", "*", "--final-statuses", given, code=2)
        assert "final" in words or "400,413,422" in words

    def test_show_tells_of_a_hold_and_when_it_ends(self, run, connection):
        name = seeding.subscribe(connection)
        connection.execute(text("update outbox.subscriptions set held_until = now() + interval '1 hour'"))
        assert "active, held back for another 59m" in run("subscriptions", "show", name)
        assert json.loads(run("subscriptions", "show", name, "--json"))["held_seconds"] > 3500
        assert "1 held back by their receivers" in run("status")

    def test_a_secret_is_printed_by_add_and_rotate_secret_only(self, run):
        made = json.loads(run("subscriptions", "add", "https://example.com/h", "*", "--json"))
        name = made["id"]
        for command in (["show", name], ["list"], ["pause", name], ["resume", name], ["update", name, "--types", "a"]):
            for form in ([], ["--json"]):
                assert "whsec_" not in run("subscriptions", *command, *form)
        assert "whsec_" in run("subscriptions", "rotate-secret", name)

    def test_show_tells_the_backlog_and_the_last_answer(self, run, connection):
        name = seeding.subscribe(connection)
        waiting, _ = seeding.resolve(connection, seeding.record(connection), name, name)
        seeding.attempt(connection, waiting, "retry", error="answered 500")
        shown = json.loads(run("subscriptions", "show", name, "--json"))
        assert (shown["due"], shown["outstanding"], shown["dead"], shown["last_error"]) == (1, 2, 0, "answered 500")

    def test_every_tenants_is_made_here_and_listed_as_such(self, run):
        run("subscriptions", "add", "https://example.com/h", "*", "--tenant", "*", code=2)
        run("subscriptions", "add", "https://example.com/h", "*", "--tenant", "a", "--all-tenants", code=2)
        run("subscriptions", "add", "https://example.com/h", "*", "--all-tenants")
        assert "\tevery tenant\t" in run("subscriptions", "list")

    @pytest.mark.case("B14", "B16")
    @pytest.mark.parametrize(
        "arguments",
        [["--timeout-seconds", "0"], ["--schedule-seconds", "1,x"], ["--metadata", "x"], ["--schedule-seconds", "-1"]],
    )
    def test_a_bad_field_is_refused_and_nothing_written(self, run, connection, arguments):
        run("subscriptions", "add", "https://example.com/h", "*", *arguments, code=2)
        assert connection.execute(text("select count(*) from outbox.subscriptions")).scalar_one() == 0


class TestLists:
    @pytest.mark.case("C28")
    def test_a_hostile_payload_and_key_reach_the_terminal_escaped(self, run, connection):
        event_id = seeding.record(connection, '"\x7f\u009b31m\u202e"', key="k\x1b]0;x\x07")
        for printed in (run("events", "show", event_id), run("events", "list")):
            assert printed.replace("\n", "").replace("\t", "").isprintable()
        assert "\\x9b31m\\u202e" in run("events", "show", event_id)
        assert json.loads(run("events", "show", event_id, "--json"))["payload"] == '"\x7f\u009b31m\u202e"'

    def test_an_event_is_shown_with_everything(self, run, connection):
        one, other = seeding.subscribe(connection), seeding.subscribe(connection)
        event_id = seeding.record(connection, '{"total": 12.50}')
        waiting, lost = seeding.resolve(connection, event_id, one, other)
        seeding.attempt(connection, waiting, "retry", error="answered 500")
        seeding.attempt(connection, lost, "dead", error="answered 410")
        printed = run("events", "show", event_id)
        for part in (waiting, lost, "2 subscriptions", "retry: answered 500", "answered 410", '{"total": 12.50}'):
            assert part in printed
        assert "dead: answered 410" in run("dead-letters", "show", lost)
        assert "retry: answered 500" in run("deliveries", "show", waiting)

    def test_a_list_that_goes_on_says_how(self, run, connection, database_url):
        recorded = [seeding.record(connection) for _ in range(3)]
        seen, after = [], ()
        for _ in range(3):
            environ = {"RELAY_DATABASE_URL": database_url}
            ended = CliRunner().invoke(cli, ["events", "list", "--json", "--limit", "1", *after], env=environ)
            seen += [found["id"] for found in documents(ended.stdout)]
            after = tuple(ended.stderr.removeprefix("there are more: ").split())
        assert seen == recorded[::-1]
        assert after == ()
        assert "after: is no cursor of this list" in run("deliveries", "list", "--after", "x", code=2)

    def test_lists_are_json_lines_with_text_ids_and_utc_times(self, run, connection):
        subscription_id = seeding.subscribe(connection)
        (delivery_id,) = seeding.resolve(connection, seeding.record(connection), subscription_id)
        (found,) = documents(run("deliveries", "list", "--json"))
        assert (found["id"], found["subscription_id"]) == (delivery_id, subscription_id)
        assert found["at"].endswith("Z")
        assert found["event_id"].startswith("evt_")

    def test_the_last_day_of_year_9999_is_shown_east_of_utc_too(self, run, connection, database_url):
        connection.execute(
            text("insert into outbox.events (type, payload, available_at) values ('a', '1', '9999-12-31 23:59:59Z')")
        )
        connection.execute(text(f"alter database {make_url(database_url).database} set timezone = 'Asia/Tokyo'"))
        (found,) = documents(run("events", "list", "--json"))
        assert found["available_at"].startswith("9999-12-31T23:59:59")

    @pytest.mark.case("C14")
    def test_the_databases_settings_of_time_and_language_change_nothing(self, run, connection, database_url):
        (delivery_id,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
        seeding.attempt(connection, delivery_id, "delivered")
        commands = [
            ["events", "list", "--since", "1h"],
            ["deliveries", "list", "--state", "delivered", "--since", "1h"],
        ]
        before = [run(*command, "--json") for command in commands]
        name = make_url(database_url).database
        for setting in ("timezone = 'Asia/Kolkata'", "datestyle = 'German'", "intervalstyle = 'sql_standard'"):
            connection.execute(text(f"alter database {name} set {setting}"))
        assert [run(*command, "--json") for command in commands] == before
        assert json.loads(run("status", "--json"))["attempts"]["last_at"].endswith("Z")

    def test_status_is_a_document_and_a_screen(self, run, connection):
        seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
        found = json.loads(run("status", "--json"))
        assert found["deliveries"]["due"] == {"value": 1, "exact": True, "at_least": False}
        assert re.search(r"^due             1, the oldest for \ds$", run("status"), re.MULTILINE)


class TestReplayAndPurge:
    @pytest.fixture
    def dead(self, connection) -> list[str]:
        """Three dead letters of one subscription."""
        subscription_id = seeding.subscribe(connection)
        names = []
        for _ in range(3):
            names += seeding.resolve(connection, seeding.record(connection), subscription_id)
            seeding.attempt(connection, names[-1], "dead")
        return names

    def count(self, connection, table: str) -> int:
        return connection.execute(text(f"select count(*) from outbox.{table}")).scalar_one()

    def test_by_id_at_once(self, run, connection, dead):
        printed = run("replay", dead[0], dead[1])
        assert printed.startswith("replayed 2 deliveries to 1 subscriptions\ndlv_")
        assert (self.count(connection, "dead_letters"), self.count(connection, "deliveries")) == (1, 2)

    @pytest.mark.case("C24")
    def test_by_filter_counted_first_and_done_when_agreed(self, run, connection, dead):
        assert run("replay", "--since", "1h", "--dry-run") == "would replay 3 deliveries to 1 subscriptions\n"
        assert "Replay 3 dead letters? Add --yes" in run("replay", "--since", "1h", code=2)
        assert self.count(connection, "deliveries") == 0
        done = json.loads(run("replay", "--since", "1h", "--limit", "2", "--yes", "--json"))
        assert (done["count"], len(done["deliveries"])) == (2, 2)
        assert self.count(connection, "dead_letters") == 1

    @pytest.mark.case("C24")
    @pytest.mark.parametrize(
        "arguments", [[], ["dlv_00000000000000000000000000", "--since", "1h"], ["--since", "1h", "--until", "2h"]]
    )
    def test_nothing_both_and_backwards_are_refused(self, run, arguments):
        run("replay", *arguments, "--yes", code=2)
        run("dead-letters", "purge", *arguments, "--yes", code=2)

    def test_purge_by_id_and_by_filter(self, run, connection, dead):
        assert "Purge 1 dead letters for good? Add --yes" in run("dead-letters", "purge", dead[0], code=2)
        assert run("dead-letters", "purge", dead[0], dead[0], "--yes") == "purged 1\n"
        assert run("dead-letters", "purge", "--since", "1h", "--dry-run") == "2 dead letters would be purged\n"
        assert run("dead-letters", "purge", "--since", "1h", "--yes") == "purged 2\n"
        assert self.count(connection, "dead_letters") == 0

    def test_purge_names_an_id_that_is_no_dead_letter_and_purges_nothing(self, run, connection, dead):
        run("dead-letters", "purge", dead[0], "--yes")
        for flag in ("--dry-run", "--yes"):
            refused = run("dead-letters", "purge", dead[1], dead[0], flag, code=1)
            assert refused == f"dead letter: no {dead[0]}; replayed, purged, or never died"
        assert self.count(connection, "dead_letters") == 2

    def test_an_operators_role_is_enough(self, connection, dead):
        from outbox.control.replay.replay import candidates_by_id, replay

        seeding.prune_event(connection, seeding.record(connection))
        connection.execute(text("delete from outbox.events"))
        connection.execute(text("set role outbox_operator"))
        unresolved = candidates_by_id(connection, None, dead[0])
        assert len(replay(connection, None, unresolved)) == 1


class TestConfig:
    def test_it_names_each_value_and_its_origin_and_masks_secrets(self, database_url):
        environ = {"RELAY_DATABASE_URL": "postgres://u:s3cret@h/d", "RELAY_PROCESSES": "2"}
        ended = CliRunner().invoke(cli, ["config", "--drain-seconds", "5"], env=environ)
        rows = dict(line.split("\t", 1) for line in ended.stdout.splitlines())
        assert rows["database_url"] == "postgresql://u:***@h/d\tenv RELAY_DATABASE_URL"
        assert rows["processes"] == "2\tenv RELAY_PROCESSES"
        assert rows["drain_seconds"] == "5\tflag --drain-seconds"
        assert rows["log_level"] == "info\tdefault"
        assert "s3cret" not in ended.output

    @pytest.mark.parametrize("command", ["run", "serve"])
    def test_every_option_of_run_and_serve_is_a_flag_of_it(self, command):
        from relay.config.options import options, options_of

        printed = CliRunner().invoke(cli, [command, "--help"]).stdout
        for option in options_of(command):
            assert option.flag in printed
        assert [option.name for option in options() if not set(option.commands) & {"run", "serve"}] == []


def test_prune_keeps_what_is_not_done(run, connection):
    seeding.record(connection)
    connection.execute(text("update outbox.events set recorded_at = recorded_at - interval '400 days'"))
    assert json.loads(run("prune", "--dry-run", "--json")) == dict.fromkeys(
        ("events", "attempts", "resolutions", "dead_letters", "audit"), 0
    )
    run("prune", "--events-retention-days", "100", code=2)
    assert run("prune") == "pruned 0 events, 0 attempts, 0 resolutions, 0 dead letters, 0 audit\n"
    assert connection.execute(text("select count(*) from outbox.events")).scalar_one() == 1
