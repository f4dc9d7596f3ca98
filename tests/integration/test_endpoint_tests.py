"""A test message and a check of one endpoint, as commands: what goes out, what is shown, what is written."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from sqlalchemy import Connection, text

import outbox
from outbox import subscriptions
from outbox.ids import parse_id
from outbox.subscriptions.authentication import BearerToken, OAuth2ClientCredentials
from relay.__main__ import run_command
from relay.cli.findings import in_sentences
from relay.config.options import Config
from relay.http import AddressPolicy, DirectDialler, HttpSender
from relay.http.inspection.inspect import inspect
from relay.operations.connection import Database
from relay.operations.denied_rights import RightsError
from relay.operations.endpoint_tests.test_and_check import Network, check_endpoint, send_test
from tests.support import seeding
from tests.support.scripted_receiver import Behaviour, Exchange, Receiver, receiving, response
from tests.support.tls_server import listening, server_context

CANARY = "canary-7f3a9c51"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.stdout)


@pytest.fixture
def relay(database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run `relay subscriptions …` as the console script does, allowed to call 127.0.0.0/8 over http."""
    monkeypatch.setenv("RELAY_DATABASE_URL", database_url)
    monkeypatch.setenv("RELAY_ALLOW_HTTP", "true")
    monkeypatch.setenv("RELAY_ALLOW_NETWORKS", "127.0.0.0/8")
    monkeypatch.setattr("relay.http.inspection.inspect.PLAIN_PROBE_SECONDS", 0.05)

    def run(*arguments: str) -> Ended:
        code = run_command(["subscriptions", *arguments])
        printed = capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    return run


@pytest.fixture
def connection(engine) -> Iterator[Connection]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


@contextmanager
def scripted(behaviour: Behaviour) -> Iterator[Receiver]:
    """The scripted receiver in a thread of its own: the command has this one."""
    found: list[Receiver] = []
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with receiving(behaviour) as receiver:
            found.append(receiver)
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


def answers(answer: bytes) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.play(answer)

    return behaviour


def attempts(connection: Connection) -> list[Any]:
    return list(connection.execute(text("select * from outbox.attempts")))


def dead_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class TestSending:
    def test_the_receiver_gets_a_signed_message_like_any_other(self, relay, connection) -> None:
        with scripted(answers(response(204))) as receiver:
            made = subscriptions.add(connection, receiver.url, ["order.*"])
            ended = relay("test", made.id, "--json")
        (exchange,) = receiver.requests
        lines = exchange.head.decode().split("\r\n")[1:-2]
        webhook = outbox.verify(made.secret, [line.split(": ", 1) for line in lines], exchange.body)
        body = webhook.json()
        assert (list(body), body["type"], body["data"]) == (
            ["type", "timestamp", "data"],
            "outbox.test",
            {"test": True},
        )
        age = connection.execute(
            text("select extract(epoch from clock_timestamp() - cast(:at as timestamptz))"), {"at": body["timestamp"]}
        ).scalar_one()
        assert 0 <= age < 60, "the body's time is the database's"
        found = ended.document
        assert (ended.code, found["ok"], found["status"], found["address"]) == (0, True, 204, "127.0.0.1")
        assert [f"{name}: {value}" for name, value in found["request"]["headers"]] == lines
        assert found["request"]["body"].encode() == exchange.body
        assert webhook.id.startswith("evt_")

    def test_it_is_logged_as_a_test_attempt_of_no_event(self, relay, connection) -> None:
        with scripted(answers(response(500, b"oops", b"x-why: because\r\n"))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            ended = relay("test", name, "--json")
        (row,) = attempts(connection)
        assert ended.code == 1
        assert (row.verdict, row.event_seq, row.number, row.outcome, row.status) == ("test", None, 1, "http_5xx", 500)
        assert (row.subscription_id, row.url, row.address) == (parse_id("sub", name), receiver.url, "127.0.0.1")
        assert "x-why: because" in row.headers
        assert bytes(row.excerpt) == b"oops"
        assert row.delivery_id == parse_id("dlv", ended.document["delivery_id"])
        assert connection.scalar(text("select count(*) from outbox.events")) == 0

    def test_a_formats_secret_and_url_are_sent_and_not_shown(self, relay, connection) -> None:
        key = "canary0canary0canary0canary04711"
        refusal = response(400, b'{"status":"invalid event","message":"%b"}' % key.encode())
        with scripted(answers(refusal)) as receiver:
            made = subscriptions.add(connection, receiver.url, ["*"], format="pagerduty", format_secret=key)
            ended = relay("test", made.id, "--json")
        (exchange,) = receiver.requests
        assert json.loads(exchange.body)["routing_key"] == key
        assert '"routing_key":"***"' in ended.document["request"]["body"]
        assert key not in ended.stdout + ended.stderr + str(attempts(connection))
        assert "400: PagerDuty refuses the alert" in str(ended.document["diagnosis"])
        with scripted(answers(response(204))) as receiver:
            made = subscriptions.add(connection, receiver.url + "webhook/canary-path", ["*"], format="n8n")
            ended, checked = relay("test", made.id, "--json"), relay("check", made.id)
        assert (ended.code, ended.document["status"]) == (0, 204)
        assert "canary-path" not in ended.stdout + checked.stdout + str(attempts(connection))

    def test_it_goes_out_whatever_holds_deliveries_up(self, relay, connection) -> None:
        hindrances = {
            "subscriptions set held_until = now() + interval '1 hour'": "held back until",
            "subscriptions set paused_at = now()": "paused since",
            "subscriptions set drops_while_paused = true": "what comes meanwhile is dropped",
            "subscriptions set disabled_at = now(), disabled_reason = 'gone'": "(gone)",
            "sending set paused_at = now()": "all sending is paused since",
        }
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            for change, words in hindrances.items():
                connection.execute(text(f"update outbox.{change}"))
                tested, checked = relay("test", name), relay("check", name)
                assert (tested.code, checked.code) == (0, 0)
                assert words in tested.stdout
                assert words in checked.stdout
        assert len(receiver.requests) == len(hindrances)

    def test_a_removed_one_and_another_tenants_is_not_found(self, relay, connection) -> None:
        mine, gone = seeding.subscribe(connection, tenant="acme"), seeding.subscribe(connection)
        subscriptions.remove(connection, gone)
        for arguments in ([gone], [mine, "--tenant", "other"]):
            for command in ("test", "check"):
                ended = relay(command, *arguments)
                assert (ended.code, ended.stderr) == (1, f"relay: subscription: no {arguments[0]}, or it is removed\n")

    def test_type_and_data_of_ones_own(self, relay, connection, monkeypatch) -> None:
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            data = '{"n": 1.0, "name": "Zoë"}'
            assert relay("test", name, "--type", "order.created", "--data", data).code == 0
            monkeypatch.setattr("sys.stdin", _stdin('["from", "stdin"]'))
            assert relay("test", name, "--data", "-").code == 0
        first, second = (exchange.body.decode() for exchange in receiver.requests)
        assert first.startswith('{"type":"order.created","timestamp":"')
        assert first.endswith('"data":{"n": 1.0, "name": "Zoë"}}')
        assert second.endswith('"data":["from", "stdin"]}')

    def test_what_is_refused_names_the_option_and_sends_nothing(self, relay, connection) -> None:
        refused = {
            ("--data", "{nope"): "--data: not JSON",
            ("--data", ""): "--data: not JSON",
            ("--data", "NaN"): "--data: not JSON: NaN",
            ("--data", '{"a":1,"a":2}'): "same key twice",
            ("--data", '"\\u0000"'): "--data: the text has a NUL",
            ("--data", "[" * 200 + "]" * 200): "--data: nested deeper",
            ("--data", f'"{"x" * 270_000}"'): "--data: at least",
            ("--type", "no spaces"): "--type: 'no spaces' is not dotted words",
            ("--type", "x" * 129): "--type: ",
        }
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            ended = {options: relay("test", name, *options) for options in refused}
        assert {one.code for one in ended.values()} == {2}
        assert [one.stderr for options, one in ended.items() if refused[options] not in one.stderr] == []
        assert (receiver.accepted, attempts(connection)) == (0, [])

    @pytest.mark.case("D17")
    def test_enough_test_messages_are_enough(self, relay, connection, monkeypatch) -> None:
        monkeypatch.setattr("relay.operations.endpoint_tests.tested_subscription.MOST_A_MINUTE", 2)
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            assert [relay("test", name).code for _ in range(2)] == [0, 0]
            refused = relay("test", name)
        assert refused.code == 1
        assert "2 test messages went to" in refused.stderr
        assert len(receiver.requests) == 2

    def test_an_answer_that_does_not_come(self, relay, connection) -> None:
        async def never(exchange: Exchange) -> None:
            await asyncio.sleep(60)

        with scripted(never) as receiver:
            name = subscriptions.add(connection, receiver.url, ["*"], timeout_seconds=1).id
            ended = relay("test", name)
        assert ended.code == 1
        assert "did not answer within 1 s" in ended.stdout
        assert [row.outcome for row in attempts(connection)] == ["timeout"]

    def test_nothing_listens(self, relay, connection) -> None:
        name = seeding.subscribe(connection, url=f"http://127.0.0.1:{dead_port()}/")
        ended = relay("test", name)
        assert ended.code == 1
        assert "(not sent)" in ended.stdout
        assert "127.0.0.1 refuses connections: nothing listens on port" in ended.stdout

    def test_an_operator_may_send_it_and_who_may_not_log_it_sends_nothing(self, relay, connection, engine) -> None:
        login = f"outbox_test_{os.urandom(6).hex()}"
        connection.execute(text(f"create role {login} login password 'x' in role outbox_operator"))
        config = _config(engine.url.set(username=login, password="x"))
        try:
            with scripted(answers(response(200))) as receiver:
                name = seeding.subscribe(connection, url=receiver.url)
                assert ask(send_test, config, name).ok
                connection.execute(text("revoke insert on outbox.attempts from outbox_operator"))
                with pytest.raises(RightsError, match=r"grant select, insert on outbox\.attempts to"):
                    ask(send_test, config, name)
            assert len(receiver.requests) == 1
        finally:
            connection.execute(text(f"drop owned by {login}"))
            connection.execute(text(f"drop role {login}"))

    def test_a_database_that_is_away_is_said_to_be(self, relay, monkeypatch) -> None:
        monkeypatch.setenv("RELAY_DATABASE_URL", f"postgresql://u@127.0.0.1:{dead_port()}/d")
        for command in ("test", "check"):
            ended = relay(command, "0192f5a0-0000-7000-8000-000000000000")
            assert (ended.code, ended.stdout) == (3, "")


class _stdin:  # noqa: N801 - stands for the module's attribute
    def __init__(self, content: str) -> None:
        self._content = content

    def read(self) -> str:
        return self._content


def ask(command: Callable, config: Config, name: str, **more: Any) -> Any:
    """Ask as the operator, in an event loop of the test's."""
    return anyio.run(partial(command, Database(config), None, name, **more))


def _config(url: Any) -> Config:
    return Config(
        database_url=url.set(drivername="postgresql").render_as_string(hide_password=False),
        allow_http=True,
        allow_networks=("127.0.0.0/8",),  # type: ignore[arg-type]
    )


class TestShowing:
    @pytest.mark.case("C28")
    @pytest.mark.parametrize(
        ("head", "shown"),
        [
            (b"HTTP/1.1 500 \x9b31mX\r\nx-evil: \x9b2J\xad\r\n", ["HTTP/1.1 500 \\x9b31mX", "x-evil: \\x9b2J\\xad"]),
            (b"HTTP/1.1 500 \x1b[2J\r\nx-evil: \x1b]0;owned\x07\r\n", ["500", "\\x1b[2J"]),
        ],
    )
    def test_what_a_receiver_answers_cannot_speak_to_the_terminal(self, relay, connection, head, shown) -> None:
        evil = b"\x1b]0;owned\x07\x1b[2J\xe2\x80\xaegnp\x9b31m\r\nsecond"
        with scripted(answers(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(evil), evil))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            printed = [relay("test", name), relay("test", name, "--json")]
        for ended in printed:
            assert all(character.isprintable() or character == "\n" for character in ended.stdout + ended.stderr)
        assert [part for part in [*shown, "\\x1b]0;owned\\x07"] if part not in printed[0].stdout] == []

    @pytest.mark.case("E44")
    def test_any_body_can_be_shown_and_logged(self, relay, connection) -> None:
        bodies = [b"\x00\x00", "16 bit".encode("utf-16"), b"\xff\xfe\xc3", b"<script>alert(1)</script>", b"\x1b[2J"]
        waiting = iter(bodies)

        async def behaviour(exchange: Exchange) -> None:
            await exchange.play(response(400, next(waiting)))

        with scripted(behaviour) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            assert [relay("test", name).code for _ in bodies] == [1] * len(bodies)
        assert [bytes(row.excerpt) for row in attempts(connection)] == bodies

    @pytest.mark.case("E44")
    def test_a_long_body_is_cut(self, relay, connection) -> None:
        with scripted(answers(response(400, b"line\n" * 20_000))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            shown, document = relay("test", name).stdout, relay("test", name, "--json").document
        assert shown.count("  line\n") <= 20
        assert "characters in all" in shown
        assert len(document["response"]["excerpt"]) == 16_384

    def test_no_credential_is_shown_or_logged_not_even_when_it_is_echoed(self, relay, connection, database_url) -> None:
        async def echo(exchange: Exchange) -> None:
            headers = exchange.head.partition(b"\r\n")[2].removesuffix(b"\r\n\r\n") + b"\r\n"
            extra = headers.lower().replace(b"content-length", b"x-length").replace(b"host:", b"x-host:")
            await exchange.play(
                response(401, exchange.head, extra + b"set-cookie: sid=%b; Secure\r\n" % CANARY.encode())
            )

        with scripted(echo) as receiver:
            made = subscriptions.add(
                connection, receiver.url, ["*"], headers={"X-Api-Key": f"{CANARY}-key"},
                authentication=BearerToken(f"{CANARY}-token"),
            )  # fmt: skip
            printed = [relay("test", made.id), relay("test", made.id, "--json"), relay("check", made.id)]
        assert b"canary-7f3a9c51-token" in receiver.requests[0].head
        for ended in printed:
            assert CANARY not in ended.stdout + ended.stderr
            assert made.secret not in ended.stdout + ended.stderr
        assert ["X-Api-Key", "***"] in printed[1].document["request"]["headers"]
        assert ["authorization", "***"] in printed[1].document["request"]["headers"]
        assert ["set-cookie", "sid=***"] in printed[1].document["response"]["headers"]
        for row in attempts(connection):
            assert f"{CANARY}-" not in f"{row.headers}{bytes(row.excerpt)!r}{row.error}"

    def test_a_token_that_cannot_be_had(self, relay, connection) -> None:
        with scripted(answers(response(200))) as receiver:
            own = OAuth2ClientCredentials(f"http://127.0.0.1:{dead_port()}/token", "id", CANARY)
            made = subscriptions.add(connection, receiver.url, ["*"], authentication=own)
            ended = relay("test", made.id, "--json")
        assert (ended.code, receiver.requests) == (1, [])
        assert (ended.document["outcome"], ended.document["request"]) == ("authorization", None)
        assert "no access token from" in ended.document["diagnosis"]
        assert CANARY not in ended.stdout


class TestAddresses:
    @pytest.mark.case("D17")
    def test_a_forbidden_address_is_named_and_nothing_of_it_is_shown(self, relay, connection, monkeypatch) -> None:
        monkeypatch.setenv("RELAY_ALLOW_NETWORKS", "127.0.0.2/32")
        with scripted(answers(response(200, CANARY.encode()))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            ended, checked = relay("test", name, "--json"), relay("check", name, "--json")
        assert (ended.code, checked.code, receiver.accepted) == (1, 1, 0)
        assert (ended.document["outcome"], ended.document["response"]) == ("blocked_address", None)
        assert "127.0.0.1, this machine itself" in ended.document["diagnosis"]
        assert [row.outcome for row in attempts(connection)] == ["blocked_address"]

    @pytest.mark.parametrize("command", [send_test, check_endpoint])
    def test_a_name_that_leads_to_a_private_network(self, engine, connection, command: Callable) -> None:
        name = seeding.subscribe(connection, url="https://hooks.example.com/")
        found = ask(command, _config(engine.url), name, network=_resolving("10.0.0.5"))
        assert found.ok is False
        assert in_sentences(found.findings) == (
            "hooks.example.com resolves to 10.0.0.5, a private network: RELAY_ALLOW_NETWORKS=10.0.0.0/8 would permit "
            "it, or a narrower network."
        )

    def test_a_name_that_nobody_knows(self, engine, connection) -> None:
        name = seeding.subscribe(connection, url="https://hooks.example.com/")
        error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = ask(send_test, _config(engine.url), name, network=_resolving(error=error))
        assert (found.outcome, found.sent) == ("dns", False)
        assert in_sentences(found.findings).startswith("DNS: there is no address for hooks.example.com")

    def test_what_comes_and_goes_is_said_to(self, relay, engine, connection) -> None:
        """The message met a dead name server; a moment later the look finds everything open."""
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=f"http://hooks.example.com:{receiver.port}/")
            errors = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure")]
            found = ask(send_test, _config(engine.url), name, network=_resolving("127.0.0.1", errors=errors))
        assert found.outcome == "dns"
        assert in_sentences(found.findings).endswith("A look just after found the way open: it comes and goes.")


def _resolving(
    *addresses: str, error: OSError | None = None, errors: list[OSError] | None = None
) -> Callable[[Config], Network]:
    """A way out whose names all lead to these addresses, once `errors` are used up."""

    async def resolve(_: str) -> list[str]:
        if error or errors:
            raise error or errors.pop()  # type: ignore[union-attr]
        return list(addresses)

    def network(config: Config) -> Network:
        policy = AddressPolicy(config.allow_networks, allow_http=config.allow_http)
        dialler = DirectDialler(policy, resolve)
        return Network(
            HttpSender(dialler, user_agent="outbox-relay/test"),
            lambda endpoint, seconds: inspect(endpoint, dialler, timeout_seconds=seconds),
        )

    return network


class TestChecking:
    def test_nothing_is_sent_and_every_step_is_shown(self, relay, connection) -> None:
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            shown, document = relay("check", name), relay("check", name, "--json").document
        assert (shown.code, receiver.requests, attempts(connection)) == (0, [], [])
        steps = [(step["name"], step["state"]) for step in document["steps"]]
        assert steps == [(name, "ok") for name in ("secrets", "dns", "policy", "tcp", "tls")]
        assert f"relay subscriptions test {name}" in shown.stdout

    def test_a_secret_that_cannot_be_opened(self, relay, connection) -> None:
        with scripted(answers(response(200))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            sealed = "sealed:1:0123456789abcdef:" + "QUJD" * 20
            connection.execute(text("update outbox.secrets set secret = :sealed"), {"sealed": sealed})
            checked, tested = relay("check", name, "--json"), relay("test", name, "--json")
        assert (checked.code, tested.code, receiver.requests) == (1, 1, [])
        steps = {step["name"]: step["state"] for step in checked.document["steps"]}
        assert (steps["secrets"], steps["tcp"]) == ("failed", "ok")
        assert checked.document["diagnosis"].startswith(f"the signing secret of {name} is")
        assert (tested.document["outcome"], tested.document["sent"]) == ("key_unavailable", False)
        assert "QUJD" not in checked.stdout + tested.stdout
        assert [row.outcome for row in attempts(connection)] == ["key_unavailable"]

    def test_a_url_that_somebody_wrote_past_the_checks(self, relay, connection) -> None:
        name = seeding.subscribe(connection)
        connection.execute(text("update outbox.subscriptions set url = 'https://user@host/'"))
        checked, tested = relay("check", name), relay("test", name)
        assert (checked.code, tested.code) == (1, 1)
        assert "url: holds a user name" in checked.stdout
        assert "url: holds a user name" in tested.stdout


class TestStatistics:
    """A test attempt is on record, and no figure counts it."""

    @pytest.fixture
    def ask(self, capsys) -> Callable[..., str]:
        def ask(*arguments: str, code: int = 0) -> str:
            assert run_command(list(arguments)) == code
            printed = capsys.readouterr()
            return printed.err if code else printed.out

        return ask

    def test_lists_and_status_pass_it_over_and_it_can_be_looked_at(self, relay, connection, ask) -> None:
        with scripted(answers(response(500))) as receiver:
            name = seeding.subscribe(connection, url=receiver.url)
            (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
            seeding.attempt(connection, delivery, "delivered")
            test_id = relay("test", name, "--json").document["delivery_id"]
        shown = relay("show", name, "--json").document
        assert (shown["last_outcome"], shown["last_status"]) == ("delivered", 204)
        assert test_id not in ask("deliveries", "list", "--json")
        assert test_id not in ask("deliveries", "list", "--state", "delivered", "--json")
        found = json.loads(ask("deliveries", "show", test_id, "--json"))
        assert (found["state"], found["event_id"], found["attempts_made"][0]["verdict"]) == ("test", None, "test")
        assert "test" in ask("deliveries", "show", test_id)
        assert "delivery: no" in ask("replay", test_id, "--yes", code=1)

    def test_it_is_no_sign_of_life_and_is_pruned_like_any_attempt(self, relay, connection, ask) -> None:
        with scripted(answers(response(500))) as receiver:
            relay("test", seeding.subscribe(connection, url=receiver.url))
        assert json.loads(ask("status", "--json"))["attempts"] == {"last_at": None, "last_delivered_at": None}
        connection.execute(text("update outbox.attempts set at = now() - interval '100 days'"))
        for options in (["--dry-run"], []):
            assert json.loads(ask("prune", *options, "--json"))["attempts"] == 1
        assert attempts(connection) == []


class TestOverTls:
    """Real processes, real certificates, and an authority that the machine's store is told of."""

    @pytest.fixture
    def authority(self, tmp_path) -> trustme.CA:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        return authority

    def run(self, tmp_path: Path, database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(tmp_path / "authority.pem"),
                   "RELAY_DATABASE_URL": database_url, "RELAY_ALLOW_NETWORKS": "127.0.0.0/8,::1/128"}  # fmt: skip
        return subprocess.run(
            [Path(sys.executable).with_name("relay"), "subscriptions", *arguments],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def test_a_certificate_for_another_name(self, tmp_path, authority, database_url, connection) -> None:
        with listening(server_context(authority.issue_cert("www.example.com"))) as heard:
            name = seeding.subscribe(connection, url=f"https://localhost:{heard.port}/hook")
            ended = self.run(tmp_path, database_url, "check", name)
        assert (ended.returncode, ended.stderr, heard.data) == (1, "", b"")
        assert "TLS: the certificate is for www.example.com, not localhost: add the name" in ended.stdout
        assert "issuer" in ended.stdout

    def test_a_certificate_for_this_name(self, tmp_path, authority, database_url, connection) -> None:
        answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        with listening(server_context(authority.issue_cert("localhost")), answer) as heard:
            name = seeding.subscribe(connection, url=f"https://localhost:{heard.port}/hook")
            ended = self.run(tmp_path, database_url, "test", name)
        assert (ended.returncode, heard.data.count(b"POST /hook HTTP/1.1")) == (0, 1)
        assert ended.stdout.endswith("The endpoint accepted the message (204).\n")


def test_a_server_that_wants_a_client_certificate(relay, connection, tmp_path, monkeypatch) -> None:
    """With TLS 1.3 it says so only after the handshake, when the request is on its way."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = server_context(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    with listening(context) as heard:
        name = seeding.subscribe(connection, url=f"https://127.0.0.1:{heard.port}/")
        found = relay("test", name, "--json").document
    assert found["outcome"] in ("tls", "connection")  # its alert, or the reset that overtakes it
    assert "--client-certificate FILE --client-key FILE" in found["diagnosis"]


def test_on_a_terminal_lines_fit_and_commands_stay_whole(relay, connection, monkeypatch) -> None:
    monkeypatch.setattr("relay.cli.endpoint_tests.columns", lambda: 80)
    name = seeding.subscribe(connection, url=f"http://127.0.0.1:{dead_port()}/")
    subscriptions.pause(connection, name)
    printed = relay("check", name).stdout + relay("test", name).stdout
    command = f"relay subscriptions resume {name}"
    assert command in printed
    assert [line for line in printed.splitlines() if len(line) > 80 and command not in line] == []
