"""Subscriptions from a file: planned, applied as a whole, applied again without a write, and exported."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, Engine, text

from outbox import subscriptions
from outbox.errors import SubscriptionError
from outbox.signing.verify import new_secret
from outbox.subscriptions.checks import EVERY_TENANT
from relay.__main__ import run_command
from relay.operations.subscription_file.apply import ChangedMeanwhileError, apply_plan, plan_document
from relay.operations.subscription_file.document import read_document
from relay.operations.subscription_file.references import Place
from relay.secrets.keyring import new_private_key
from tests.support.waiting import wait_until

SECRET = new_secret()
TOKEN = "t0ken-that-nobody-may-see"
SLACK = "https://hooks.slack.com/services/T0/B0/tokentokentokentoken"
FILE = """
manager = "shop"

[[subscription]]
name = "billing"
url = "https://billing.example/hooks"
types = ["order.*", "invoice.paid"]
timeout_seconds = 30
metadata = { owner = "7" }
filter = { payload = { total = { "$gte" = 0.1 } } }
secret = { env = "BILLING_SECRET" }
headers = { X-Team = "billing", X-Api-Key = { file = "key.txt" } }
authentication = { type = "bearer", token = { env = "BILLING_TOKEN" } }

[[subscription]]
name = "billing"
tenant = "acme"
url = "https://acme.example/hooks"
types = ["*"]
scheme = "none"

[[subscription]]
name = "alerts"
every_tenant = true
url = { env = "SLACK" }
types = ["alert.*"]
format = "slack"
"""


@dataclass
class Shell:
    """Runs `relay subscriptions …` in a directory with the file, and holds everything it ever printed."""

    database_url: str
    directory: Path
    printed: str = ""

    @property
    def file(self) -> Path:
        return self.directory / "subs.toml"

    def run(self, command: str, *arguments: str, code: int = 0, **environment: str) -> str:
        environ = {
            "RELAY_DATABASE_URL": self.database_url, "BILLING_SECRET": SECRET, "BILLING_TOKEN": TOKEN, "SLACK": SLACK,
            **environment,
        }  # fmt: skip
        runner = CliRunner()
        with runner.isolation(env=environ) as (out, err, *_):
            ended = run_command(["subscriptions", command, *arguments])
            printed = (out.getvalue() + err.getvalue()).decode()
        self.printed += printed
        assert ended == code, printed
        return printed

    def apply(self, *arguments: str, code: int = 0, **environment: str) -> str:
        return self.run("apply", "-f", str(self.file), *arguments, code=code, **environment)


@pytest.fixture
def shell(database_url: str, tmp_path: Path) -> Shell:
    made = Shell(database_url, tmp_path)
    made.file.write_text(FILE)
    (tmp_path / "key.txt").write_text("k3y-of-billing\n")
    return made


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def stored(connection: Connection) -> dict[tuple[str, str | None], subscriptions.Subscription]:
    found = subscriptions.list(connection, tenant=EVERY_TENANT)
    return {(one.tenant, one.name): one for one in found}


def everything(connection: Connection) -> list[Any]:
    tables = ("subscriptions", "secrets", "audit", "subscription_types")
    return [connection.execute(text(f"select t::text from outbox.{table} t order by 1")).all() for table in tables]


def test_it_is_made_as_it_says_and_a_second_apply_writes_nothing(shell: Shell, connection: Connection) -> None:
    before = everything(connection)
    plan = shell.apply("--dry-run", code=4)
    assert everything(connection) == before, "a dry run writes nothing"
    assert "+ create billing\n    url: https://billing.example/hooks\n" in plan
    assert "    headers: X-Team, X-Api-Key, from file key.txt\n" in plan
    assert plan.endswith("3 would be created, 0 unchanged\n")
    assert shell.apply().endswith("3 created, 0 unchanged\n")
    made = stored(connection)
    assert set(made) == {("", "billing"), ("acme", "billing"), ("*", "alerts")}
    billing = made["", "billing"]
    assert (billing.types, billing.timeout_seconds) == (("order.*", "invoice.paid"), 30)
    assert billing.metadata == {"owner": "7"}
    assert (billing.filter, billing.headers) == ({"payload": {"total": {"$gte": 0.1}}}, ("X-Team", "X-Api-Key"))
    assert (billing.authentication, billing.managed_by) == ("bearer", "shop")
    kept = connection.execute(text("select secret from outbox.secrets where kind = 'signing'")).scalars().all()
    assert SECRET in kept
    before = everything(connection)
    assert shell.apply() == "nothing to do, 3 unchanged\n"
    assert shell.apply("--dry-run") == "nothing to do, 3 unchanged\n"
    assert everything(connection) == before, "nothing to do, so nothing is written"
    for secret in (SECRET, TOKEN, "k3y-of-billing", SLACK):
        assert secret not in shell.printed


def test_a_change_is_shown_field_by_field_and_written(shell: Shell, connection: Connection) -> None:
    shell.apply()
    shell.file.write_text(
        FILE.replace("timeout_seconds = 30", "schedule_seconds = [1, 2]").replace("invoice.", "bill.")
    )
    plan = shell.apply("--dry-run", BILLING_TOKEN="another-token", code=4)
    (line, *changes), name = plan.splitlines()[:-1], stored(connection)["", "billing"].id
    assert line == f"~ change billing ({name})"
    assert changes == [
        "    types: order.*, invoice.paid → order.*, bill.paid",
        "    timeout_seconds: 30 → 15",
        "    schedule_seconds: 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400 → 1, 2",
        "    authentication: bearer → bearer, from env BILLING_TOKEN",
    ]
    shell.apply(BILLING_TOKEN="another-token")
    changed = stored(connection)["", "billing"]
    assert (changed.id, changed.timeout_seconds, changed.schedule_seconds) == (name, 15, (1, 2))
    assert shell.apply(BILLING_TOKEN="another-token") == "nothing to do, 3 unchanged\n"


def test_a_sealed_secret_is_compared_too_and_a_new_one_rotates(shell: Shell, connection: Connection) -> None:
    _, key = new_private_key()
    connection.execute(
        text("insert into outbox.sealing_keys (id, key) values (:id, :key)"), {"id": key.id, "key": key.text}
    )
    shell.apply()
    assert connection.execute(text("select every(sealed_to is not null) from outbox.secrets")).scalar_one()
    assert shell.apply() == "nothing to do, 3 unchanged\n"
    fresh = new_secret()
    plan = shell.apply("--dry-run", BILLING_SECRET=fresh, code=4)
    assert "    secret: one → from env BILLING_SECRET\n" in plan
    shell.apply(BILLING_SECRET=fresh)
    live = "select count(*) from outbox.secrets s join outbox.subscriptions on s.subscription_id = subscriptions.id"
    count = connection.execute(text(f"{live} where kind = 'signing' and name = 'billing'")).scalar_one()
    assert count == 2, "the old one signs along for a while"
    assert shell.apply(BILLING_SECRET=fresh) == "nothing to do, 3 unchanged\n"
    assert shell.apply(BILLING_SECRET=fresh.removeprefix("whsec_")) == "nothing to do, 3 unchanged\n"
    subscriptions.rotate_secret(connection, "billing", overlap_seconds=0)
    assert "secret: " in shell.apply("--dry-run", BILLING_SECRET=fresh, code=4), "rotated by hand meanwhile"


def test_prune_removes_what_the_same_manager_made_and_nothing_else(shell: Shell, connection: Connection) -> None:
    by_hand = subscriptions.add(connection, "https://hand.example/", ["*"], name="by-hand").id
    shell.apply()
    shell.file.write_text(
        'manager = "other"\n[[subscription]]\nname = "theirs"\nurl = "https://theirs.example/"\ntypes = ["*"]\n'
    )
    shell.apply("--prune")
    shell.file.write_text('manager = "shop"\n')
    left = shell.apply()
    assert left.count(": not in the file; --prune removes it\n") == 3
    assert left.endswith("nothing to do, 0 unchanged\n")
    assert shell.apply("--prune", "--dry-run", code=4).endswith("3 would be removed, 0 unchanged\n")
    assert "Add --yes to do it" in shell.apply("--prune", code=2)
    assert shell.apply("--prune", "--yes").endswith("3 removed, 0 unchanged\n")
    assert set(stored(connection)) == {("", "by-hand"), ("", "theirs")}
    assert subscriptions.get(connection, by_hand).managed_by is None


def test_one_that_was_made_by_hand_is_taken_over_by_its_name_and_stays_hand_made(
    shell: Shell, connection: Connection
) -> None:
    made = subscriptions.add(
        connection, "https://acme.example/hooks", ["*"], tenant="acme", name="billing", scheme="none"
    )
    plan = shell.apply()
    assert "2 created, 1 unchanged" in plan
    shell.file.write_text('manager = "shop"\n')
    shell.apply("--prune", "--yes")
    assert subscriptions.get(connection, made.id, tenant="acme").managed_by is None
    assert set(stored(connection)) == {("acme", "billing")}


def test_what_another_file_manages_is_refused(shell: Shell, connection: Connection) -> None:
    shell.apply()
    before = everything(connection)
    shell.file.write_text(FILE.replace('"shop"', '"other"'))
    told = shell.apply(code=2)
    problem = "name: it is managed by shop; take it out of that file first, or choose another name"
    assert f"{shell.file}: subscription billing: {problem}\n" in told
    assert f"{shell.file}: subscription billing of acme: {problem}\n" in told
    assert everything(connection) == before


def test_an_export_is_a_file_that_changes_nothing(shell: Shell, connection: Connection) -> None:
    shell.apply()
    subscriptions.add(
        connection, "https://odd.example/", ["a.b"], name="odd", description='quo"te\nnew \x7f \\ ü',
        schedule_seconds=[], final_statuses=[404, 422], format="cloudevents",
        format_settings={"source": "/shop", "extensions.region": "eu"}, transformation="{a: data.b}",
    )  # fmt: skip
    subscriptions.add(connection, "https://unnamed.example/", ["*"])
    exported = shell.run("export")
    assert "warning: 1 subscriptions have no name and are left out" in exported
    content = exported.partition("warning: ")[0]
    assert "url = { keep = true }" in content
    shell.file.write_text(content)
    before = everything(connection)
    assert shell.apply("--prune") == "nothing to do, 4 unchanged\n"
    assert everything(connection) == before
    for secret in (SECRET, TOKEN, "k3y-of-billing", SLACK):
        assert secret not in content
    shell.file.write_text(content.replace('"odd"', '"copy"').replace('"billing"', '"copies"'))
    told = shell.apply(code=2)
    assert told.count("there is none to keep; give { env") == 2, "headers and authentication of one"


def test_a_stored_filter_that_is_refused_today_stops_neither_file_nor_export(
    shell: Shell, connection: Connection
) -> None:
    """A former version let filters ask for an event's metadata."""
    shell.apply()
    connection.execute(
        text('update outbox.subscriptions set filter = \'{"metadata":{"a":"b"}}\' where name = \'billing\'')
    )
    assert "metadata" in shell.run("export")
    assert "filter" in shell.apply("--dry-run", code=4)


def test_a_change_by_somebody_else_meanwhile_is_refused(shell: Shell, engine: Engine, connection: Connection) -> None:
    shell.apply()
    changed = FILE.replace("timeout_seconds = 30", "timeout_seconds = 31")
    environment = {"BILLING_SECRET": SECRET, "BILLING_TOKEN": TOKEN, "SLACK": SLACK}
    document = read_document(changed, "subs.toml", Place(environment, shell.directory))
    plan = plan_document(connection, None, document, "subs.toml", prune=False)
    subscriptions.update(connection, "billing", description="by somebody else")
    before = everything(connection)
    with engine.begin() as other, pytest.raises(ChangedMeanwhileError, match=r"^billing: it was changed since"):
        apply_plan(other, None, document, plan, "subs.toml")
    assert everything(connection) == before
    with_new = changed.replace('"alerts"', '"new"').replace("every_tenant = true\n", "")
    new = read_document(with_new, "subs.toml", Place(environment, shell.directory))
    plan = plan_document(connection, None, new, "subs.toml", prune=False)
    subscriptions.add(connection, "https://new.example/", ["*"], name="new")
    with engine.begin() as other, pytest.raises(ChangedMeanwhileError, match=r"^subscriptions: they were changed"):
        apply_plan(other, None, new, plan, "subs.toml")
    assert stored(connection)["", "billing"].timeout_seconds == 30


def test_of_two_that_apply_the_same_file_at_once_the_later_one_is_told_to_apply_again(
    shell: Shell, engine: Engine, connection: Connection
) -> None:
    """It was told that the name is taken and another one to be chosen, as if its file were wrong."""
    environment = {"BILLING_SECRET": SECRET, "BILLING_TOKEN": TOKEN, "SLACK": SLACK}
    document = read_document(FILE, "subs.toml", Place(environment, shell.directory))
    plan = plan_document(connection, None, document, "subs.toml", prune=False)
    later: list[Exception] = []

    def apply_later() -> None:
        try:
            with engine.begin() as other:
                apply_plan(other, None, document, plan, "subs.toml")
        except Exception as error:
            later.append(error)

    with engine.begin() as first:
        apply_plan(first, None, document, plan, "subs.toml")
        waiting = threading.Thread(target=apply_later)
        waiting.start()
        wait_until(lambda: connection.execute(_WAITING).scalar_one())
    waiting.join(30)
    assert [type(error) for error in later] == [ChangedMeanwhileError]
    assert len(stored(connection)) == 3


_WAITING = text("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()")


def test_nothing_is_written_when_one_table_fails_at_the_end(
    shell: Shell, engine: Engine, connection: Connection
) -> None:
    environment = {"BILLING_SECRET": SECRET, "BILLING_TOKEN": TOKEN, "SLACK": SLACK}
    document = read_document(FILE, "subs.toml", Place(environment, shell.directory))
    plan = plan_document(connection, None, document, "subs.toml", prune=False)
    before = everything(connection)
    connection.execute(text("alter table outbox.subscriptions add constraint no_slack check (format <> 'slack')"))
    with pytest.raises(Exception, match="no_slack"), engine.begin() as other:
        apply_plan(other, None, document, plan, "subs.toml")
    connection.execute(text("alter table outbox.subscriptions drop constraint no_slack"))
    assert everything(connection) == before


def test_of_two_that_take_one_name_at_once_the_later_one_is_told_so(engine: Engine, connection: Connection) -> None:
    """It was told so by the driver, in its words."""
    one, two = (subscriptions.add(connection, "https://a.example/", ["*"]).id for _ in range(2))
    later: list[Exception] = []

    def take_later() -> None:
        try:
            with engine.begin() as other:
                subscriptions.update(other, two, name="crm")
        except Exception as error:
            later.append(error)

    with engine.begin() as first:
        subscriptions.update(first, one, name="crm")
        waiting = threading.Thread(target=take_later)
        waiting.start()
        wait_until(lambda: connection.execute(_WAITING).scalar_one())
    waiting.join(30)
    assert [str(error) for error in later] == ["name: crm was taken a moment ago; choose another one"]


def test_a_name_stands_for_the_id_within_its_tenant(shell: Shell, connection: Connection) -> None:
    made = {
        tenant: subscriptions.add(connection, "https://a.example/", ["*"], tenant=tenant, name="crm").id
        for tenant in ("", "acme")
    }
    assert subscriptions.get(connection, "crm").id == made[""]
    assert subscriptions.pause(connection, "crm", tenant="acme").id == made["acme"]
    assert json.loads(shell.run("show", "crm", "--tenant", "acme", "--json"))["state"] == "paused"
    assert "more than one tenant's, is named 'crm'; give its id" in shell.run("show", "crm", code=1)
    with pytest.raises(SubscriptionError, match=f"^name: crm is taken by {made['']}"):
        subscriptions.add(connection, "https://b.example/", ["*"], name="crm")
    other = subscriptions.add(connection, "https://b.example/", ["*"]).id
    with pytest.raises(SubscriptionError, match=r"^name: crm is taken by"):
        subscriptions.update(connection, other, name="crm")
    subscriptions.remove(connection, "crm")
    assert subscriptions.update(connection, other, name="crm").id == other
