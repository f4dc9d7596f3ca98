"""No frame of a refused call holds a secret: error trackers collect the locals of every frame of a traceback."""

from __future__ import annotations

import json
import pickle
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

import outbox
from outbox import BasicAuth, BearerToken, OAuth2ClientCredentials, Secret, inbox, subscriptions
from outbox.control.portal_links import open_portal_link
from outbox.signing.verify import check_key, check_secret, public_key
from outbox.subscriptions.authentication import authentication_of, tls_of

CANARY = "Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5Q2FuYXJ5"  # base64 of CanaryCanary…
WRONG = (CANARY + "!", CANARY + "\0", CANARY + "\ud800", CANARY[:20], CANARY * 4000, f"whsk_{CANARY}", f"whpk_{CANARY}",
         f"sealed:{CANARY}", f"{CANARY}\r\nX: y", f"sk_{CANARY}é")  # fmt: skip
URL = "https://example.com/hooks"
SEEN = CANARY[:16]
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----"


def leaks(error: BaseException) -> list[str]:
    """Where the canary is in an error, in what led to it, or in a local of any of their frames but the test's own."""
    found, errors, seen = [], [error], set[int]()
    while errors:
        each = errors.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        errors += [other for other in (each.__cause__, each.__context__, getattr(each, "orig", None)) if other]
        texts = (
            str(each),
            repr(each),
            each.args,
            vars(each),
            getattr(each, "object", None),
            getattr(each, "__notes__", None),
        )
        found += [f"{type(each).__name__}: {place}" for place, text in enumerate(texts) if holds(text)]
        found += [*frames(each.__traceback__)]
    return found


def frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename != __file__:
            for name, value in trace.tb_frame.f_locals.items():
                if holds(value):
                    yield f"{code.co_filename}:{code.co_name}: {name}"
        trace = trace.tb_next


def holds(value: Any, depth: int = 6) -> bool:
    """Tell whether the canary is in a value: its repr, its text, its members, its attributes; a Secret is closed."""
    if isinstance(value, Secret) or depth == 0:
        return SEEN in repr(value)
    if isinstance(value, str):
        return SEEN in str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return SEEN.encode() in value or b"CanaryCanary" in value
    if isinstance(value, Mapping):
        return any(holds(each, depth - 1) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(holds(each, depth - 1) for each in value)
    if SEEN in repr(value):
        return True
    return type(value).__module__.startswith("outbox") and holds(getattr(value, "__dict__", None), depth - 1)


def refused(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it was taken")


@pytest.fixture
def connection(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        yield connection


def run(waiting: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that is refused at once: no loop, whose frames would be in the traceback."""
    with pytest.raises(StopIteration):
        waiting.send(None)


NONE: Any = None  # what is refused is refused before the connection is looked at
OAUTH2 = "https://a.example/"
REQUEST = inbox.Request("POST", "/", (), b"{}")
OTHER = outbox.signed_headers("whsec_" + "MfKQ" * 8, "a", b"")
CALLS: dict[str, Callable[[Any], object]] = {
    "add": lambda text: subscriptions.add(NONE, URL, ["*"], secret=text),
    "add, Secret": lambda text: subscriptions.add(NONE, URL, ["*"], secret=Secret(text)),
    "add, as text": lambda text: subscriptions.add(NONE, URL, ["*"], secret=text, scheme="github"),
    "add_for_every_tenant": lambda text: subscriptions.add_for_every_tenant(NONE, URL, ["*"], secret=text),
    "headers": lambda text: subscriptions.add(NONE, URL, ["*"], headers={"X-Key": text + "\n"}),
    "header name": lambda text: subscriptions.add(NONE, URL, ["*"], headers={f"X-Key: {text}": "b"}),
    "authentication": lambda text: subscriptions.add(
        NONE, URL, ["*"], authentication={"type": "bearer", "token": text + "\n"}
    ),
    "authentication, no type": lambda text: subscriptions.add(NONE, URL, ["*"], authentication={"token": text}),
    "authentication, wrong kind": lambda text: subscriptions.add(NONE, URL, ["*"], authentication=text),
    "tls": lambda text: subscriptions.add(NONE, URL, ["*"], tls={"client_key": PEM, "ca": text}),
    "update": lambda text: subscriptions.update(NONE, "sub_", headers={"X-Key": text + "\n"}),
    "update, another field": lambda text: subscriptions.update(NONE, "sub_", headers={"X": CANARY}, timeout_seconds=0),
    "BasicAuth": lambda text: BasicAuth("user", text + "\0"),
    "BasicAuth, user": lambda text: BasicAuth(text + ":", text),
    "BearerToken": lambda text: BearerToken(text + " "),
    "OAuth2": lambda text: OAuth2ClientCredentials("https://a.example/", "id", text + "\0"),
    "OAuth2, url": lambda text: OAuth2ClientCredentials("ftp://a.example/", text, text),
    "OAuth2, choice": lambda text: OAuth2ClientCredentials(OAUTH2, "id", CANARY, client_authentication=text),
    "TLS": lambda text: outbox.TLS(client_key=PEM + text),
    "TLS, without certificate": lambda text: outbox.TLS(client_key=PEM, ca=text),
    "authentication_of": lambda text: authentication_of({"type": "basic", "password": text, "user": text}),
    "tls_of": lambda text: tls_of({"client_key": text, "key": text}),
    "sign": lambda text: outbox.sign(text, "msg.1", 1, b""),
    "sign, Secret": lambda text: outbox.sign(Secret(text), "msg_1", True, b""),
    "signed_headers": lambda text: outbox.signed_headers([CANARY, text], "msg_1", b"", scheme="?"),
    "verify": lambda text: outbox.verify(text, {}, b""),
    "verify, Secret": lambda text: outbox.verify(Secret(text), {}, b""),
    "verify, several": lambda text: outbox.verify([f"whsec_{CANARY}", Secret(text)], {}, b""),
    "verify, right": lambda _: outbox.verify(f"whsec_{CANARY}", {"webhook-id": "x"}, b""),
    "verify, no match": lambda _: outbox.verify(f"whsec_{CANARY}", OTHER, b""),
    "verify, scheme": lambda text: outbox.verify(text, {}, b"", scheme="githbu"),
    "format_secret": lambda text: subscriptions.add(NONE, URL, ["*"], format_secret=text + "\n"),
    "check_secret": lambda text: check_secret(text + "!"),
    "check_key": lambda text: check_key(text + "!"),
    "public_key": lambda text: public_key("whsk_" + text),
}  # fmt: skip
RECEIVING: dict[str, Callable[[Any], object]] = {
    "inbox.receive": lambda text: inbox.receive(NONE, REQUEST, text, source="?!"),
    "inbox.areceive": lambda text: run(inbox.areceive(NONE, REQUEST, text, source="?!")),
    "inbox.process": lambda text: inbox.process(NONE, REQUEST, [text], print, source="?!"),
    "inbox.process, no function": lambda text: inbox.process(NONE, REQUEST, text, NONE, source="n8n"),
    "inbox.aprocess": lambda text: run(inbox.aprocess(NONE, REQUEST, text, NONE, source="n8n")),
    "inbox.processing": lambda text: inbox.processing(NONE, REQUEST, Secret(text), source="?!"),
    "inbox.processing, no session": lambda text: inbox.processing(NONE, REQUEST, text, source="n8n").__enter__(),
    "inbox.aprocessing": lambda text: inbox.aprocessing(NONE, REQUEST, text, source="?!"),
}
"""Their frames stay, since an error of the application's has to show where it came from; without secrets."""


@pytest.mark.field("F115")
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("call", CALLS)
def test_no_frame_of_a_refused_call_holds_a_secret(call: str, text: str) -> None:
    error = refused(lambda: CALLS[call](text))
    assert isinstance(error, outbox.OutboxError)
    assert leaks(error) == []
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "call"


@pytest.mark.field("F115")
@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("call", RECEIVING)
def test_no_frame_of_a_refused_receiver_holds_a_secret(call: str, text: str) -> None:
    error = refused(lambda: RECEIVING[call](text))
    assert isinstance(error, outbox.OutboxError)
    assert leaks(error) == []


def test_the_canary_is_found_where_nothing_hides_it() -> None:
    """The test can fail: of a function of the library that hides nothing every frame shows its arguments."""
    from outbox.signing.schemes.keys import whsec_key

    assert leaks(refused(lambda: whsec_key(CANARY + "!"))) != []


@pytest.mark.field("F115")
class TestDatabase:
    """The driver's errors keep their cause and their text, and neither frames nor parameters."""

    def test_an_error_of_the_driver(self, connection: sa.Connection) -> None:
        connection.execute(sa.text("alter table outbox.secrets rename to elsewhere"))
        error = refused(lambda: subscriptions.add(
            connection, URL, ["*"], secret=f"whsec_{CANARY}", headers={"X-Key": CANARY},
            authentication=BearerToken(CANARY)))  # fmt: skip
        assert isinstance(error, SQLAlchemyError)
        assert leaks(error) == []
        assert "outbox.secrets" in str(error)
        assert "put" in "".join(error.__notes__)

    def test_a_transaction_that_has_failed(self, connection: sa.Connection) -> None:
        made = subscriptions.add(connection, URL, ["*"])
        with pytest.raises(SQLAlchemyError):
            connection.execute(sa.text("select 1 / 0"))
        for call in (
            lambda: subscriptions.rotate_secret(connection, made.id, secret=f"whsec_{CANARY}"),
            lambda: subscriptions.update(connection, made.id, headers={"X-Key": CANARY}),
            lambda: open_portal_link(connection, "ptl_" + (CANARY * 2)[:43]),
        ):
            assert leaks(refused(call)) == []

    @pytest.mark.parametrize("text", WRONG[:6], ids=range(6))
    def test_a_rotation_that_is_refused(self, connection: sa.Connection, text: str) -> None:
        made = subscriptions.add(connection, URL, ["*"])
        for given in (text, Secret(text)):
            error = refused(lambda given=given: subscriptions.rotate_secret(connection, made.id, secret=given))
            assert isinstance(error, outbox.OutboxError)
            assert leaks(error) == []

    def test_a_rotation_to_the_same_secret(self, connection: sa.Connection) -> None:
        made = subscriptions.add(connection, URL, ["*"], secret=f"whsec_{CANARY}")
        error = refused(lambda: subscriptions.rotate_secret(connection, made.id, secret=CANARY))
        assert str(error).startswith("secret: it signs already")
        assert leaks(error) == []

    def test_what_the_caller_was_handling_stays_as_it_was(self, connection: sa.Connection) -> None:
        try:
            raise KeyError("the caller's own")
        except KeyError as own:
            error = refused(lambda: subscriptions.add(connection, URL, ["*"], secret="short"))
            assert error.__context__ is own
            assert own.__traceback__ is not None


@pytest.mark.field("F102")
@pytest.mark.parametrize("value", [
    Secret("x"), BasicAuth("a", "b"), BearerToken("x"), OAuth2ClientCredentials("https://a.example/", "a", "b"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_holds_a_secret_is_not_pickled(value: Any) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match=f"^{type(value).__name__}: holds a secret and cannot be pickled"):
            pickle.dumps([value], protocol)
    with pytest.raises(TypeError):
        json.dumps(value)
