"""Headers, authentication and certificates on the wire, against receivers and token endpoints on real sockets."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus

import pytest
import trustme

import outbox
from outbox.subscriptions.authentication import TLS, BasicAuth, BearerToken, OAuth2ClientCredentials
from outbox.subscriptions.fields import check_fields
from relay.http import AddressPolicy, HttpSender, Outcome
from relay.message import oauth2 as oauth2_module
from relay.message.authentication import RequestAdditions
from relay.message.oauth2 import Token, Tokens
from tests.integration.sender.conftest import LOOPBACK, MakeSender
from tests.support.scripted_receiver import OK, Exchange, Receiver, receiving, response
from tests.support.waiting import await_until as until

pytestmark = pytest.mark.anyio

SECRET = "s3cret/with+signs"
NAME = "hooks.example.com"


def credentials(url: str, **given: Any) -> RequestAdditions:
    """What a relay makes of a subscription, from what was stored of it."""
    return RequestAdditions(url, {kind: one[0] for kind, one in check_fields(**given).items() if one is not None})


async def post(sender: HttpSender, own: RequestAdditions, timeout_seconds: float = 10) -> Outcome:
    return await own.send(sender, b"webhook-id: evt_1\r\n" + own.lines, b"{}", timeout_seconds)


def fields(exchange: Exchange) -> dict[str, str]:
    lines = exchange.head.decode("ascii").split("\r\n")[1:-2]
    return dict(line.split(": ", 1) for line in lines)


async def answers_ok(exchange: Exchange) -> None:
    await exchange.play(OK)


async def echoes(exchange: Exchange) -> None:
    head = exchange.head
    await exchange.play(response(400, head, b"x-echo: %b\r\n" % head.replace(b"\r\n", b" ")))


class TestHeaders:
    async def test_they_go_out_as_given(self, sender: HttpSender) -> None:
        given = {"X-Api-Key": SECRET, "Cookie": "a=b; c=d", "x-team": "a\tb", "X-Empty": ""}
        async with receiving(answers_ok) as receiver:
            assert (await post(sender, credentials(receiver.url, headers=given))).kind == "delivered"
        assert given.items() <= fields(receiver.requests[0]).items()
        assert receiver.requests[0].head.lower().count(b"\r\nhost:") == 1

    @pytest.mark.field("F09")
    @pytest.mark.parametrize("name", ["User-Agent", "user-agent", "USER-AGENT"])
    async def test_the_user_agent_is_the_subscriptions_where_it_has_one(self, sender: HttpSender, name: str) -> None:
        async with receiving(answers_ok) as receiver:
            for given in ({name: "Acme-Hooks/7 (+https://acme.example)", "x-team": "a"}, {"x-team": "a"}):
                assert (await post(sender, credentials(receiver.url, headers=given))).kind == "delivered"
        said = [fields(exchange)["user-agent"] for exchange in receiver.requests]
        assert said == ["Acme-Hooks/7 (+https://acme.example)", "outbox-relay/test"]
        assert [exchange.head.lower().count(b"user-agent") for exchange in receiver.requests] == [1, 1]

    async def test_basic(self, sender: HttpSender) -> None:
        async with receiving(answers_ok) as receiver:
            await post(sender, credentials(receiver.url, authentication=BasicAuth("Jürgen", "p:€")))
        expected = base64.b64encode("Jürgen:p:€".encode()).decode()
        assert fields(receiver.requests[0])["authorization"] == f"Basic {expected}"

    async def test_bearer(self, sender: HttpSender) -> None:
        async with receiving(answers_ok) as receiver:
            await post(sender, credentials(receiver.url, authentication=BearerToken("abc.def=")))
        assert fields(receiver.requests[0])["authorization"] == "Bearer abc.def="

    @pytest.mark.case("B24")
    @pytest.mark.parametrize(
        ("given", "secrets"),
        [
            ({"headers": {"X-Api-Key": SECRET, "Authorization": f"Token {SECRET}2"}}, [SECRET]),
            ({"authentication": BearerToken(SECRET)}, [SECRET]),
            (
                {"authentication": BasicAuth("user", SECRET)},
                [base64.b64encode(f"user:{SECRET}".encode()).decode()],
            ),
        ],
        ids=["headers", "bearer", "basic"],
    )
    async def test_what_a_receiver_echoes_is_redacted(self, sender: HttpSender, given, secrets) -> None:
        async with receiving(echoes) as receiver:
            outcome = await post(sender, credentials(receiver.url, **given))
        assert (outcome.status, b"***" in outcome.excerpt, "***" in (outcome.headers or "")) == (400, True, True)
        for secret in secrets:
            assert secret in receiver.requests[0].head.decode()
            assert secret not in outcome.excerpt.decode() + (outcome.headers or "")

    @pytest.mark.case("B24")
    @pytest.mark.parametrize(
        "write",
        [json.dumps, lambda text: json.dumps(text).replace("/", "\\/"),
         html.escape, lambda text: html.escape(text).replace("&#x27;", "&#39;"),
         quote, lambda text: quote(text, safe=""), quote_plus],
        ids=["json", "php", "html", "html of others", "path", "query", "form"],
    )  # fmt: skip
    async def test_so_is_what_it_echoes_in_a_spelling_of_its_own(self, sender: HttpSender, write) -> None:
        own = 'a/b+c "d" \\e\' <f>&g=='

        async def shows_the_request(exchange: Exchange) -> None:
            await exchange.play(response(500, " ".join(map(write, fields(exchange).values())).encode()))

        async with receiving(shows_the_request) as receiver:
            given = {"headers": {"X-Own": own}, "authentication": BasicAuth("user", "pass/word ü?")}
            outcome = await post(sender, credentials(receiver.url, **given))
        assert fields(receiver.requests[0])["X-Own"] == own
        for secret in (own, *(value for name, value in fields(receiver.requests[0]).items() if "auth" in name)):
            assert write(secret).strip('"') not in outcome.excerpt.decode()

    @pytest.mark.case("B24")
    async def test_a_secret_that_the_excerpt_cuts_in_two_is_redacted(self, make_sender: MakeSender) -> None:
        async with receiving(echoes) as receiver:
            given = {"headers": {"X-Api-Key": SECRET}}
            start = len(b"POST /hook HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n" % receiver.port) + len(
                b"user-agent: outbox-relay/test\r\naccept-encoding: identity\r\nwebhook-id: evt_1\r\nX-Api-Key: "
            )
            sender = make_sender(excerpt_bytes=start + len(SECRET) - 3)
            outcome = await post(sender, credentials(receiver.url, **given))
        assert outcome.excerpt.endswith(b"X-Api-Key: ***")


class Issuer:
    """A token endpoint: answers with the next of its answers, the last one for ever; by default t1, t2, …"""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.issued = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, exchange: Exchange) -> None:
        self.issued += 1
        await self.go.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else (self.answers or [token(f"t{self.issued}")])[0]
        await exchange.play(answer)


def token(value: object, **others: object) -> bytes:
    document = {"access_token": value, "token_type": "Bearer", "expires_in": 3600} | others
    return response(200, json.dumps(document).encode(), b"content-type: application/json\r\n")


def oauth2(issuer: Receiver, **others: Any) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(issuer.url, "client:7", SECRET, **others)


def accepts(*tokens: str) -> Callable[[Exchange], Any]:
    async def behaviour(exchange: Exchange) -> None:
        known = fields(exchange)["authorization"] in {f"Bearer {value}" for value in tokens}
        await exchange.play(OK if known else response(401))

    return behaviour


def sent_tokens(receiver: Receiver) -> list[str]:
    return [fields(exchange)["authorization"].removeprefix("Bearer ") for exchange in receiver.requests]


@pytest.fixture
def any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused token is replaced however young it is."""
    monkeypatch.setattr(oauth2_module, "REPLACED_AFTER_SECONDS", 0.0)


class TestOAuth2:
    async def test_the_request_for_a_token(self, sender: HttpSender) -> None:
        async with receiving(Issuer()) as issuer, receiving(answers_ok) as receiver:
            given = oauth2(issuer, scope="a b", audience="https://x.example/?y")
            outcome = await post(sender, credentials(receiver.url, authentication=given))
        assert (outcome.kind, sent_tokens(receiver)) == ("delivered", ["t1"])
        asked = fields(issuer.requests[0])
        assert asked["content-type"] == "application/x-www-form-urlencoded"
        pair = base64.b64encode(b"client%3A7:s3cret%2Fwith%2Bsigns").decode()  # form-encoded first: RFC 6749, 2.3.1
        assert asked["authorization"] == f"Basic {pair}"
        assert parse_qs(issuer.requests[0].body.decode(), strict_parsing=True) == {
            "grant_type": ["client_credentials"],
            "scope": ["a b"],
            "audience": ["https://x.example/?y"],
        }

    async def test_the_client_may_authenticate_in_the_form(self, sender: HttpSender) -> None:
        async with receiving(Issuer()) as issuer, receiving(answers_ok) as receiver:
            given = oauth2(issuer, client_authentication="body")
            await post(sender, credentials(receiver.url, authentication=given))
        assert "authorization" not in fields(issuer.requests[0])
        assert parse_qs(issuer.requests[0].body.decode()) == {
            "grant_type": ["client_credentials"],
            "client_id": ["client:7"],
            "client_secret": [SECRET],
        }

    async def test_a_token_is_kept_until_shortly_before_it_ends(self, sender: HttpSender) -> None:
        issue = Issuer(token("t1", expires_in=0), token("t2", expires_in="3600"))
        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            for _ in range(4):
                assert (await post(sender, own)).kind == "delivered"
        assert sent_tokens(receiver) == ["t1", "t2", "t2", "t2"]

    @pytest.mark.parametrize(
        ("expires_in", "seconds"),
        [(3600, 3570), (100, 90), (0, 0), (-5, 0), ("60", 54), (1.5, 1.35), (None, 270), (True, 270), ("soon", 270),
         ([], 270), (10**4000, 86_370), (1e308, 86_370), (float("nan"), 0), (float("inf"), 86_370), ("9" * 30, 270)],
    )  # fmt: skip
    async def test_how_long_a_token_is_used(self, sender: HttpSender, expires_in: object, seconds: float) -> None:
        async with receiving(Issuer(token("t", expires_in=expires_in))) as issuer:
            got = await Tokens(oauth2(issuer), None).get(sender, asyncio.get_running_loop().time() + 10)
        assert isinstance(got, Token)
        assert got.use_until - got.fetched_at == pytest.approx(seconds)
        assert repr(got).count("'t'") == 0

    async def test_whoever_needs_a_token_meanwhile_waits_for_the_same_one(self, sender: HttpSender) -> None:
        issue = Issuer()
        issue.go.clear()
        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            sends = [asyncio.create_task(post(sender, own)) for _ in range(20)]
            await until(lambda: issue.issued)
            issue.go.set()
            assert {outcome.kind for outcome in await asyncio.gather(*sends)} == {"delivered"}
        assert (issue.issued, set(sent_tokens(receiver))) == (1, {"t1"})

    async def test_a_failure_is_shared_as_well(self, sender: HttpSender) -> None:
        issue = Issuer(response(503, b"", b"retry-after: 7\r\n"))
        issue.go.clear()
        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            sends = [asyncio.create_task(post(sender, own)) for _ in range(20)]
            await until(lambda: issue.issued)
            issue.go.set()
            outcomes = await asyncio.gather(*sends)
        assert {(o.kind, o.retry_after_seconds) for o in outcomes} == {("authorization", 7.0)}
        assert (issue.issued, receiver.requests) == (1, [])
        assert len({id(outcome) for outcome in outcomes}) == 20  # each is settled by itself

    async def test_when_the_one_who_fetches_is_cancelled_another_fetches(self, sender: HttpSender) -> None:
        issue = Issuer()
        issue.go.clear()
        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            first, second = (asyncio.create_task(post(sender, own)) for _ in range(2))
            await until(lambda: issue.issued)
            first.cancel()
            await asyncio.wait([first])
            issue.go.set()
            assert (first.cancelled(), (await second).kind) == (True, "delivered")

    async def test_a_refused_token_is_replaced_within_the_attempt(self, sender: HttpSender, any_age) -> None:
        async with receiving(Issuer()) as issuer, receiving(accepts("t2")) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))
        assert (outcome.kind, sent_tokens(receiver)) == ("delivered", ["t1", "t2"])
        assert {fields(exchange)["webhook-id"] for exchange in receiver.requests} == {"evt_1"}

    async def test_a_refused_token_is_replaced_once(self, sender: HttpSender, any_age) -> None:
        async with receiving(Issuer()) as issuer, receiving(accepts()) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))
        assert (outcome.kind, outcome.status) == ("http_4xx", 401)
        assert (sent_tokens(receiver), len(issuer.requests)) == (["t1", "t2"], 2)

    async def test_many_refusals_of_one_token_replace_it_once(self, sender: HttpSender, any_age) -> None:
        async with receiving(Issuer()) as issuer, receiving(accepts("t2")) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            outcomes = await asyncio.gather(*[post(sender, own) for _ in range(20)])
        assert {outcome.kind for outcome in outcomes} == {"delivered"}
        assert len(issuer.requests) == 2

    async def test_a_young_token_that_is_refused_is_kept(self, sender: HttpSender) -> None:
        """An endpoint that refuses every token must not make a flood at the token endpoint."""
        async with receiving(Issuer()) as issuer, receiving(accepts()) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            assert {(await post(sender, own)).status for _ in range(5)} == {401}
        assert (len(receiver.requests), len(issuer.requests)) == (5, 1)

    async def test_other_refusals_replace_nothing(self, sender: HttpSender, any_age) -> None:
        async def forbids(exchange: Exchange) -> None:
            await exchange.play(response(403))

        async with receiving(Issuer()) as issuer, receiving(forbids) as receiver:
            assert (await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))).status == 403
        assert (len(receiver.requests), len(issuer.requests)) == (1, 1)

    async def test_without_another_token_the_refused_one_ends_the_attempt(self, sender: HttpSender, any_age) -> None:
        issue = Issuer(token("t1"), response(400, b'{"error":"invalid_client"}'))
        async with receiving(issue) as issuer, receiving(accepts()) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))
        assert (outcome.kind, outcome.sent, len(receiver.requests)) == ("authorization", True, 1)
        assert "(invalid_client)" in (outcome.error or "")

    async def test_once_a_request_went_out_the_attempt_is_not_given_back(self, sender: HttpSender, any_age) -> None:
        class Failing:
            async def send(self, endpoint, headers, body, timeout_seconds):
                if endpoint.url.port == issuer.port and issuer.requests:
                    return Outcome("local", None, 1, "no socket", sent=False)
                return await sender.send(endpoint, headers, body, timeout_seconds)

        async with receiving(Issuer()) as issuer, receiving(accepts()) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            outcome = await post(Failing(), own)  # type: ignore[arg-type]
        assert (outcome.kind, outcome.status, outcome.sent) == ("http_4xx", 401, True)

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (response(401, b'{"error":"invalid_client","x":"%b"}' % SECRET.encode()), "answered 401 (invalid_client)"),
            (response(400, b'{"error":"%b"}' % SECRET.encode()), "it answered 400"),
            (response(302, b"", b"location: http://127.0.0.1:1/\r\n"), "it answered 302"),
            (response(500, b"oops"), "it answered 500"),
            (response(204), "no access_token"),
            (response(200, b"<html>"), "no access_token"),
            (response(200, b"[1]"), "no access_token"),
            (response(200, b"[" * 16_000), "no access_token"),
            (response(200, b"\xff\xfe\x00"), "no access_token"),
            (response(200, b'{"access_token": "t", "x": "' + b"x" * 70_000 + b'"}'), "no access_token"),
            (token(None), "no access_token"),
            (token(""), "no access_token"),
            (token("a b"), "no access_token"),
            (token("a\r\nx-injected: 1"), "no access_token"),
            (token("€"), "no access_token"),
            (token("x" * 9000), "no access_token"),
            (token("t", token_type="mac"), "another type"),
            (token("t", token_type=7), "another type"),
            (b"SSH-2.0-x\r\n\r\n", "not a valid HTTP response"),
        ],
    )  # fmt: skip
    async def test_without_a_token_nothing_is_sent(self, sender: HttpSender, answer: bytes, words: str) -> None:
        async with receiving(Issuer(answer)) as issuer, receiving(answers_ok) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))
        assert (outcome.kind, outcome.status, outcome.sent, receiver.requests) == ("authorization", None, False, [])
        assert (outcome.headers, outcome.excerpt, outcome.address) == (None, b"", None)
        assert words in (outcome.error or "")
        assert SECRET not in repr(outcome)

    async def test_nobody_listens_there(self, sender: HttpSender) -> None:
        async with receiving(answers_ok) as gone:
            pass
        async with receiving(answers_ok) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(gone)))
        assert (outcome.kind, outcome.sent, receiver.requests) == ("authorization", False, [])
        assert outcome.error == f"no access token from http://127.0.0.1:{gone.port}: connection refused"

    async def test_a_token_that_does_not_come_in_time_ends_the_attempt(self, sender: HttpSender) -> None:
        issue = Issuer()
        issue.go.clear()
        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            outcomes = await asyncio.gather(*[post(sender, own, timeout_seconds=0.1) for _ in range(3)])
            issue.go.set()
        assert {(outcome.kind, outcome.sent) for outcome in outcomes} == {("authorization", False)}
        assert all("in time" in (outcome.error or "") for outcome in outcomes)
        assert receiver.requests == []

    async def test_fetching_a_token_takes_from_the_time_of_the_attempt(self, sender: HttpSender) -> None:
        issue, left = Issuer(), []

        class Watched:
            async def send(self, endpoint, headers, body, timeout_seconds):
                left.append(timeout_seconds)
                return await sender.send(endpoint, headers, body, timeout_seconds)

        async with receiving(issue) as issuer, receiving(answers_ok) as receiver:
            own = credentials(receiver.url, authentication=oauth2(issuer))
            assert (await post(Watched(), own, timeout_seconds=10)).kind == "delivered"  # type: ignore[arg-type]
        assert 10 >= left[0] > left[1] > 0

    @pytest.mark.parametrize(
        ("url", "policy"),
        [
            ("https://10.0.0.1/token", LOOPBACK),
            ("https://169.254.169.254/token", LOOPBACK),
            ("http://127.0.0.1:8080/token", AddressPolicy(["127.0.0.0/8"])),
            ("https://127.0.0.1:25/token", LOOPBACK),
            ("https://auth.example.com/token", LOOPBACK),
        ],
    )
    async def test_the_token_endpoint_is_under_the_same_policy(self, make_sender: MakeSender, url, policy) -> None:
        async def resolve(host: str) -> list[str]:
            return ["192.168.1.1"]

        outbox.allow_endpoints(
            allow_networks=["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16"], allow_http=True, allow_ports=[25, 443, 8080]
        )
        sender = make_sender(policy, resolve=resolve)
        given = OAuth2ClientCredentials(url, "i", SECRET)
        outcome = await post(sender, credentials("https://hooks.example.com/", authentication=given))
        assert (outcome.kind, outcome.sent) == ("blocked_address", False)
        assert (outcome.error or "").startswith("no access token from http")

    async def test_an_echoed_token_is_redacted(self, sender: HttpSender) -> None:
        async with receiving(Issuer(token("tok3n-" * 5))) as issuer, receiving(echoes) as receiver:
            outcome = await post(sender, credentials(receiver.url, authentication=oauth2(issuer)))
        assert b"authorization: Bearer ***\r\n" in outcome.excerpt
        assert "tok3n-" not in repr(outcome)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def one(authority: trustme.CA) -> TLS:
    return shown_by(authority, "one")


@pytest.fixture(scope="module")
def two(authority: trustme.CA) -> TLS:
    return shown_by(authority, "two")


def shown_by(issuer: trustme.CA, name: str, trusted: trustme.CA | None = None) -> TLS:
    leaf = issuer.issue_cert("client.example.com", common_name=name)
    chain = "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)
    return TLS(chain, leaf.private_key_pem.bytes().decode(), pem(trusted or issuer))


def pem(issuer: trustme.CA) -> str:
    return issuer.cert_pem.bytes().decode()


def server(issuer: trustme.CA, *, demands: trustme.CA | None = None, version: ssl.TLSVersion | None = None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert("127.0.0.1", NAME).configure_cert(context)
    if demands:
        context.verify_mode = ssl.CERT_REQUIRED
        demands.configure_trust(context)
    if version:
        context.maximum_version = version
    return context


@contextmanager
def refusing(context: ssl.SSLContext) -> Iterator[int]:
    """A server that refuses a client's certificate as most do, by an alert; asyncio's closes without a word."""

    def serve() -> None:
        connection, _ = listening.accept()
        with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as tls:
            with pytest.raises(ssl.SSLError):
                tls.do_handshake()
            with suppress(OSError):
                socket.socket.shutdown(tls, socket.SHUT_WR)
                while socket.socket.recv(tls, 65_536):
                    pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(20)


def client_of(exchange: Exchange) -> str:
    subject = dict(pair for (pair,) in exchange.writer.get_extra_info("peercert")["subject"])
    return subject["commonName"]


def https(receiver: Receiver, host: str = "127.0.0.1") -> str:
    return f"https://{host}:{receiver.port}/hook"


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


class TestTLS:
    @VERSIONS
    async def test_a_certificate_is_shown(self, sender: HttpSender, authority, one, version) -> None:
        async with receiving(answers_ok, ssl=server(authority, demands=authority, version=version)) as receiver:
            own = credentials(https(receiver), tls=one)
            assert [(await post(sender, own)).kind for _ in range(3)] == ["delivered"] * 3
            assert (client_of(receiver.requests[0]), receiver.accepted) == ("one", 1)

    @VERSIONS
    @pytest.mark.parametrize("which", ["stranger's", "none"])
    async def test_a_certificate_that_is_not_accepted_is_of_class_tls(
        self, sender: HttpSender, authority, stranger, version, which
    ) -> None:
        own = shown_by(stranger, "x", trusted=authority) if which == "stranger's" else TLS(ca=pem(authority))
        with refusing(server(authority, demands=authority, version=version)) as port:
            outcome = await post(sender, credentials(f"https://127.0.0.1:{port}/", tls=own))
        assert (outcome.kind, outcome.status) == ("tls", None)
        assert "alert" in (outcome.error or "")

    @pytest.mark.case("S14")
    async def test_own_authority_takes_the_place_of_the_public_ones(
        self, make_sender: MakeSender, authority, stranger, monkeypatch, tmp_path
    ) -> None:
        public = tmp_path / "public.pem"
        public.write_text(pem(stranger))
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        sender, own = make_sender(ssl_context=None), TLS(ca=pem(authority))
        for issuer, with_own, without in ((authority, "delivered", "tls"), (stranger, "tls", "delivered")):
            async with receiving(answers_ok, ssl=server(issuer)) as receiver:
                assert (await post(sender, credentials(https(receiver), tls=own))).kind == with_own
                assert (await post(sender, credentials(https(receiver)))).kind == without

    @pytest.mark.case("S14")
    async def test_a_certificate_alone_leaves_the_public_authorities(
        self, sender: HttpSender, authority, stranger, monkeypatch, tmp_path
    ) -> None:
        public = tmp_path / "public.pem"
        public.write_text(pem(stranger))
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        full = shown_by(authority, "alone")
        own = TLS(full.client_certificate, full.client_key)
        async with receiving(answers_ok, ssl=server(stranger, demands=authority)) as receiver:
            assert (await post(sender, credentials(https(receiver), tls=own))).kind == "delivered"
            assert client_of(receiver.requests[0]) == "alone"
        async with receiving(answers_ok, ssl=server(authority, demands=authority)) as receiver:
            assert (await post(sender, credentials(https(receiver), tls=own))).kind == "tls"

    @pytest.mark.case("S14")
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1])
    async def test_old_versions_stay_out(self, sender: HttpSender, authority, one, version) -> None:
        context = server(authority)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = version
        async with receiving(answers_ok, ssl=context) as receiver:
            assert (await post(sender, credentials(https(receiver), tls=one))).kind == "tls"

    @pytest.mark.case("S14")
    async def test_names_are_verified(self, make_sender: MakeSender, authority) -> None:
        async def resolve(host: str) -> list[str]:
            return ["127.0.0.1"]

        sender = make_sender(resolve=resolve)
        async with receiving(answers_ok, ssl=server(authority)) as receiver:
            for host, kind in ((NAME, "delivered"), ("other.example.com", "tls")):
                own = credentials(https(receiver, host), tls=TLS(ca=pem(authority)))
                assert (await post(sender, own)).kind == kind

    async def test_different_certificates_never_share_a_connection(
        self, sender: HttpSender, authority, one, two
    ) -> None:
        async with receiving(answers_ok, ssl=server(authority, demands=authority)) as receiver:
            both = [credentials(https(receiver), tls=tls) for tls in (one, two)]
            for _ in range(3):
                for own in both:
                    assert (await post(sender, own)).kind == "delivered"
            assert [client_of(exchange) for exchange in receiver.requests] == ["one", "two"] * 3
            assert receiver.accepted == 2

    async def test_neither_does_one_without_a_certificate(self, make_sender: MakeSender, authority, one) -> None:
        sender = make_sender(ssl_context=ssl.create_default_context(cadata=pem(authority)))
        context = server(authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        authority.configure_trust(context)
        async with receiving(answers_ok, ssl=context) as receiver:
            for given in ({"tls": one}, {}, {"tls": TLS(ca=one.ca)}, {"tls": one}):
                assert (await post(sender, credentials(https(receiver), **given))).kind == "delivered"
            shown = [bool(exchange.writer.get_extra_info("peercert")) for exchange in receiver.requests]
            assert (shown, receiver.accepted) == ([True, False, False, True], 3)

    async def test_the_same_certificate_may_share_one(self, sender: HttpSender, authority, one) -> None:
        async with receiving(answers_ok, ssl=server(authority, demands=authority)) as receiver:
            for _ in range(2):
                await post(sender, credentials(https(receiver), tls=one))
            assert receiver.accepted == 1

    async def test_a_token_endpoint_on_another_host_never_sees_the_certificate(
        self, make_sender: MakeSender, authority, one
    ) -> None:
        async def resolve(host: str) -> list[str]:
            return ["127.0.0.1"]

        sender = make_sender(resolve=resolve, ssl_context=ssl.create_default_context(cadata=pem(authority)))
        context = server(authority)
        context.verify_mode = ssl.CERT_OPTIONAL
        authority.configure_trust(context)
        async with receiving(Issuer(), ssl=context) as issuer, receiving(answers_ok, ssl=context) as receiver:
            for host in ("127.0.0.1", NAME):
                given = OAuth2ClientCredentials(https(issuer, host), "i", SECRET)
                own = credentials(https(receiver), tls=one, authentication=given)
                assert (await post(sender, own)).kind == "delivered"
            shown = [bool(exchange.writer.get_extra_info("peercert")) for exchange in issuer.requests]
            assert shown == [True, False]

    async def test_a_key_leaves_no_descriptor_and_no_file(self, authority, one, monkeypatch, tmp_path) -> None:
        from tests.integration.sender.conftest import descriptors

        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        before = descriptors()
        credentials("https://hooks.example.com/", tls=one)
        assert (descriptors(), list(tmp_path.iterdir())) == (before, [])
