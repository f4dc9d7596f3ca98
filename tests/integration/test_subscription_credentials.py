"""Headers, authentication and TLS of a subscription in the database and on the command line: set, shown, taken away."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine

import outbox
from outbox import subscriptions
from outbox.errors import NotFoundError, SubscriptionError
from outbox.ids import parse_id
from relay.cli import cli
from tests.support.waiting import wait_until

URL = "https://hooks.example.com/in"
CANARY = "canary-4711"
BASIC = outbox.BasicAuth("user", CANARY)
OAUTH2 = outbox.OAuth2ClientCredentials("https://auth.example.com/token", "client", CANARY)


@pytest.fixture
def connection(engine):
    with engine.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificate(authority) -> dict[str, str]:
    leaf = authority.issue_cert("client.example.com", common_name="client 7")
    return {
        "client_certificate": leaf.cert_chain_pems[0].bytes().decode(),
        "client_key": leaf.private_key_pem.bytes().decode(),
        "ca": authority.cert_pem.bytes().decode(),
    }


def add(connection, **given):
    return subscriptions.add(connection, URL, ["*"], **given)


def stored(connection, made) -> dict[str, str]:
    rows = connection.execute(
        text("select kind, secret from outbox.secrets where subscription_id = :id and kind <> 'signing'"),
        {"id": parse_id("sub", made.id)},
    )
    return {row.kind: row.secret for row in rows}


def version(connection, made) -> int:
    statement = text("select version from outbox.subscriptions where id = :id")
    return connection.execute(statement, {"id": parse_id("sub", made.id)}).scalar_one()


class TestSet:
    def test_what_is_set_is_shown_without_its_values(self, connection, certificate):
        given = {"headers": {"X-Api-Key": CANARY, "Cookie": CANARY}, "authentication": OAUTH2}
        made = add(connection, **given, tls=outbox.TLS(**certificate))
        assert made.headers == ("X-Api-Key", "Cookie")
        assert made.authentication == "oauth2 https://auth.example.com"
        assert made.tls == "client certificate CN=client 7, until 3000-01-01; own CA"
        for seen in (made, subscriptions.get(connection, made.id), *subscriptions.list(connection)):
            assert (seen.headers, seen.authentication, seen.tls) == (made.headers, made.authentication, made.tls)
            assert CANARY not in repr(seen)
            assert "PRIVATE" not in repr(seen)
        assert set(stored(connection, made)) == {"headers", "authentication", "tls"}

    def test_without_them_nothing_is_stored(self, connection):
        made = add(connection, headers={}, authentication=None)
        assert (made.headers, made.authentication, made.tls, stored(connection, made)) == ((), "", "", {})

    def test_for_every_tenant_too(self, connection):
        made = subscriptions.add_for_every_tenant(connection, URL, ["*"], headers={"X-Key": CANARY})
        assert made.headers == ("X-Key",)

    def test_a_mapping_does_for_a_value(self, connection, certificate):
        made = add(connection, authentication={"type": "bearer", "token": CANARY}, tls={"ca": certificate["ca"]})
        assert (made.authentication, made.tls) == ("bearer", "own CA")

    @pytest.mark.case("B20", "B37")
    @pytest.mark.parametrize(
        "given",
        [{"headers": {"X\r\nY": CANARY}}, {"authentication": {"type": "none"}}, {"tls": {"verify": False}},
         {"headers": {"Authorization": CANARY}, "authentication": BASIC}],
    )  # fmt: skip
    def test_what_is_refused_is_refused_before_any_sql(self, given):
        with pytest.raises(SubscriptionError) as caught:
            add(None, **given)
        assert CANARY not in str(caught.value)


class TestTheApplicationsLog:
    """SQLAlchemy shows the parameters of a statement, in its log (echo=True) and in an error."""

    @pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
    def test_it_shows_no_secret(self, database_url, driver, caplog):
        url = make_url(database_url).set(drivername=f"postgresql+{driver}")
        made = []

        def change(connection):
            made.append(add(connection, headers={"X-Key": CANARY}, authentication=BASIC))
            made.append(subscriptions.rotate_secret(connection, made[0].id))
            assert stored(connection, made[0])["headers"] == f'{{"X-Key": "{CANARY}"}}'

        async def change_asynchronously():
            engine = create_async_engine(url, echo=True)
            async with engine.begin() as connection:
                await connection.run_sync(change)
            await engine.dispose()

        if driver == "asyncpg":
            asyncio.run(change_asynchronously())
        else:
            with create_engine(url, echo=True, poolclass=NullPool).begin() as connection:
                change(connection)
        shown = [record.getMessage() for record in caplog.records]
        assert sum("INSERT INTO outbox.secrets" in line for line in shown) == 4
        assert [line for line in shown for secret in (CANARY, *(new.secret for new in made)) if secret in line] == []

    def test_an_error_shows_none_either(self, connection):
        connection.execute(text("alter table outbox.secrets rename column hint to hints"))
        with pytest.raises(ProgrammingError) as caught:
            add(connection, secret="whsec_" + "canary" * 8)
        assert "INSERT INTO outbox.secrets" in str(caught.value)
        assert "canarycanary" not in str(caught.value)


class TestUpdate:
    def test_each_replaces_its_kind_and_none_takes_it_away(self, connection, certificate):
        made = add(connection, headers={"X-A": "1"}, authentication=BASIC, tls=outbox.TLS(**certificate))
        before = version(connection, made)
        changed = subscriptions.update(connection, made.id, headers={"X-B": "2"}, description="d")
        assert (changed.headers, changed.authentication, changed.description) == (("X-B",), "basic", "d")
        assert version(connection, made) > before
        changed = subscriptions.update(connection, made.id, authentication=None, tls=None)
        assert (changed.headers, changed.authentication, changed.tls) == (("X-B",), "", "")
        assert stored(connection, made) == {"headers": json.dumps({"X-B": "2"})}
        assert subscriptions.update(connection, made.id, headers=None).headers == ()
        assert stored(connection, made) == {}

    def test_a_signing_secret_is_not_touched(self, connection):
        made = add(connection, headers={"X-A": "1"})
        subscriptions.rotate_secret(connection, made.id)
        subscriptions.update(connection, made.id, headers=None)
        kinds = connection.execute(text("select kind from outbox.secrets")).scalars().all()
        assert kinds == ["signing", "signing"]

    def test_parts_that_exclude_each_other_are_refused_whatever_came_first(self, connection, certificate):
        made = add(connection, headers={"authorization": CANARY})
        with pytest.raises(SubscriptionError, match="give one of the two"):
            subscriptions.update(connection, made.id, authentication=BASIC)
        assert subscriptions.update(connection, made.id, headers=None, authentication=BASIC).authentication == "basic"
        with pytest.raises(SubscriptionError, match="give one of the two"):
            subscriptions.update(connection, made.id, headers={"Authorization": CANARY})
        subscriptions.update(connection, made.id, tls={"ca": certificate["ca"]})
        with pytest.raises(SubscriptionError, match="http://"):
            subscriptions.update(connection, made.id, url="http://hooks.example.com/")
        assert set(stored(connection, made)) == {"authentication", "tls"}

    def test_two_at_once_cannot_slip_past_each_other(self, engine):
        with engine.begin() as connection:
            made = add(connection)
        refused: list[SubscriptionError] = []

        def authenticate() -> None:
            with engine.begin() as other:
                try:
                    subscriptions.update(other, made.id, authentication=BASIC)
                except SubscriptionError as error:
                    refused.append(error)

        with engine.begin() as connection:
            subscriptions.update(connection, made.id, headers={"Authorization": CANARY})
            thread = threading.Thread(target=authenticate)
            thread.start()
            blocked = text("select count(*) from pg_locks where not granted")
            wait_until(lambda: connection.execute(blocked).scalar_one())
        thread.join(20)
        assert len(refused) == 1

    @pytest.mark.case("B35")
    def test_another_tenants_is_not_found(self, connection):
        made = add(connection, tenant="acme", headers={"X-A": "1"})
        with pytest.raises(NotFoundError):
            subscriptions.update(connection, made.id, tenant="other", headers=None)
        assert subscriptions.get(connection, made.id, tenant="acme").headers == ("X-A",)


@pytest.fixture
def run(database_url):
    """Run one command; it must end with `code`; return what it printed, on both outputs."""

    def run(*arguments: str, code: int = 0, answer: str | None = None) -> str:
        environ = {"RELAY_DATABASE_URL": database_url}
        ended = CliRunner().invoke(cli, arguments, env=environ, input=answer, standalone_mode=False)
        if ended.exception is not None and code == 0:
            raise ended.exception
        assert (ended.exception is None) == (code == 0)
        return ended.output + str(ended.exception or "")

    return run


class TestCommandLine:
    def test_secrets_come_from_files_and_are_never_printed(self, run, tmp_path, certificate):
        files = {name: tmp_path / f"{name}.pem" for name in certificate}
        for name, file in files.items():
            file.write_text(certificate[name])
        oauth2 = {"type": "oauth2", "token_url": OAUTH2.token_url, "client_id": "c", "client_secret": CANARY}
        (tmp_path / "authentication.json").write_text(json.dumps(oauth2), encoding="utf-8-sig")
        (tmp_path / "headers").write_text(f"X-Api-Key: {CANARY}\r\n\r\nCookie:  a={CANARY} \r\n")
        printed = run(
            "subscriptions", "add", URL, "*", "--header", "X-Team=a=b", "--headers-file", str(tmp_path / "headers"),
            "--authentication-file", str(tmp_path / "authentication.json"),
            *(word for name, file in files.items() for word in (f"--{name.replace('_', '-')}", str(file))), "--json",
        )  # fmt: skip
        made = json.loads(printed)
        assert (made["headers"], made["authentication"]) == (
            ["X-Team", "X-Api-Key", "Cookie"],
            "oauth2 https://auth.example.com",
        )
        shown = run("subscriptions", "show", made["id"])
        assert "X-Team,X-Api-Key,Cookie" in shown
        assert "client certificate CN=client 7" in shown
        for output in (
            printed,
            shown,
            run("subscriptions", "list", "--json"),
            run("subscriptions", "show", made["id"], "--json"),
        ):
            assert CANARY not in output
            assert "PRIVATE KEY" not in output

    def test_update_replaces_and_removes(self, run, tmp_path):
        made = json.loads(run("subscriptions", "add", URL, "*", "--header", "X-A=1", "--header", "X-B=2", "--json"))
        (tmp_path / "h.json").write_text('{"X-C": "3"}')
        changed = json.loads(
            run("subscriptions", "update", made["id"], "--headers-file", str(tmp_path / "h.json"),
                "--authentication-file", "-", "--json", answer='{"type": "basic", "username": "u", "password": "p"}')
        )  # fmt: skip
        assert (changed["headers"], changed["authentication"]) == (["X-C"], "basic")
        changed = json.loads(
            run("subscriptions", "update", made["id"], "--no-headers", "--no-authentication", "--json")
        )
        assert (changed["headers"], changed["authentication"], changed["tls"]) == ([], "", "")

    @pytest.mark.case("B37")
    @pytest.mark.parametrize(
        ("flag", "content", "message"),
        [
            ("--headers-file", f"X-Api-Key {CANARY}", "line 1 is not 'Name: value'"),
            ("--headers-file", "", "the file is empty"),
            ("--headers-file", f'{{"X-A": "{CANARY}", "x-a": "2"}}', "x-a is given twice"),
            ("--headers-file", f'{{"X-A": "{CANARY}"', "no JSON that can be read"),
            ("--headers-file", '{"X-A": 7}', "the value of X-A is a int"),
            ("--headers-file", f"Host: {CANARY}", "Host is set by the relay"),
            ("--headers-file", b"X-A: \xff" + CANARY.encode(), "not text in UTF-8"),
            ("--headers-file", f'{{"Authorization: Bearer {CANARY}": ""}}', "'Authorization…' is not a header name"),
            ("--secret-file", b"\xff\xfe" + CANARY.encode("utf-16-le"), "--secret-file: the file is not text in UTF-8"),
            ("--authentication-file", CANARY, "no JSON that can be read"),
            ("--authentication-file", f'["{CANARY}"]', "must hold one JSON object"),
            ("--authentication-file", "[" * 100_000, "no JSON that can be read"),
            ("--authentication-file", f'{{"type": "digest", "password": "{CANARY}"}}', "type is basic"),
            ("--authentication-file", f'{{"type": "bearer", "token": "{CANARY}", "token": "{CANARY}"}}', "twice"),
            ("--authentication-file", f'{{"type": "basic", "type": "bearer", "token": "{CANARY}"}}', "'type' stands"),
            ("--client-key", CANARY, "tls.client_key"),
            ("--ca", CANARY, "tls.ca"),
        ],
    )  # fmt: skip
    @pytest.mark.field("F118")
    def test_files_that_cannot_be_used(self, run, tmp_path: Path, flag, content, message):
        file = tmp_path / "file"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        printed = run("subscriptions", "add", URL, "*", flag, str(file), code=2)
        assert message in printed
        assert CANARY not in printed

    @pytest.mark.case("B37")
    def test_a_missing_file_is_named(self, run, tmp_path):
        assert "missing.pem" in run("subscriptions", "add", URL, "*", "--ca", str(tmp_path / "missing.pem"), code=2)

    def test_a_header_as_curl_takes_it_is_not_quoted(self, run):
        printed = run("subscriptions", "add", URL, "*", "--header", f"Authorization: Bearer {CANARY}==", code=2)
        assert "'Authorization…' is not a header name" in printed
        assert CANARY not in printed

    def test_a_header_without_a_value_is_not_quoted(self, run):
        printed = run("subscriptions", "add", URL, "*", "--header", f"X-Key: {CANARY}", code=2)
        assert "not NAME=VALUE" in printed
        assert CANARY not in printed

    def test_giving_and_removing_exclude_each_other(self, run):
        made = json.loads(run("subscriptions", "add", URL, "*", "--json"))
        printed = run("subscriptions", "update", made["id"], "--header", "X-A=1", "--no-headers", code=2)
        assert "--no-headers excludes" in printed
