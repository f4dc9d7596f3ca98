"""What `import outbox` gives, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types

import outbox

NAMES = {
    *("record", "arecord", "Event", "Outbox", "RawJSON", "events_table"),
    *("emit", "use_session", "sessions_from", "current_session", "silenced", "refused_events"),
    *("EventType", "Catalogue", "catalogue", "CatalogueError", "PayloadInvalid"),
    *("capture", "Capture", "Change", "CaptureError"),
    *("subscribe", "subscriptions", "statistics", "act_as", "ActorError"),
    *("events", "deliveries", "dead_letters", "replays", "FilterError", "ByHandError", "ReplayError"),
    *("request_test", "read_test", "wait_for_test", "await_test", "ProbeError", "NoAnswerError"),
    *("AnsweredTest", "RequestedTest", "portal_url", "revoke_portal_urls"),
    *("BasicAuth", "BearerToken", "OAuth2ClientCredentials", "TLS"),
    *("sign", "signed_headers", "verify", "Webhook", "Secret"),
    *("OutboxError", "RecordError", "PayloadError", "PayloadTooLarge", "TransactionError", "TargetError"),
    *("SchemeDeclaration", "declare_scheme"),
    *("allow_endpoints", "EVERY_TENANT", "ArgumentError", "BodyError", "BusyError", "InboxError"),
    *("SubscriptionError", "NotFoundError", "SchemaError", "SignatureError", "__version__"),
}


def test_the_public_names_are_these():
    assert sorted(outbox.__all__, key=lambda name: (not name.isupper(), name)) == outbox.__all__
    assert set(outbox.__all__) == NAMES
    for name in NAMES:
        assert getattr(outbox, name) is not None


def test_nothing_else_is_public():
    extra = {name for name, value in vars(outbox).items() if name[0] != "_" and not isinstance(value, types.ModuleType)}
    assert extra <= NAMES


def test_every_public_name_says_what_it_is():
    for name in NAMES - {"__version__", "events_table"}:
        assert inspect.getdoc(getattr(outbox, name)), name


def test_every_error_is_an_outbox_error():
    for name in NAMES:
        if name.endswith("Error") or name in ("PayloadInvalid", "PayloadTooLarge"):
            assert issubclass(getattr(outbox, name), outbox.OutboxError)


def test_importing_loads_sqlalchemy_and_the_standard_library_only():
    """No driver, no client, no greenlet: in a new interpreter, whatever is installed."""
    program = "import sys; import outbox; print(*{name.partition('.')[0] for name in sys.modules})"
    output = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True).stdout
    loaded = set(output.split())
    assert {"sqlalchemy", "outbox"} <= loaded
    before = subprocess.run(
        [sys.executable, "-I", "-c", program.replace("import outbox;", "")], capture_output=True, text=True, check=True
    ).stdout
    foreign = loaded - set(before.split()) - set(sys.stdlib_module_names) - {"outbox", "sqlalchemy"}
    compiled = {name for name in foreign if "cython" in name or name.startswith("_sysconfigdata")}
    assert foreign - compiled <= {"typing_extensions", "mypy_extensions"}


def test_signatures():
    assert str(inspect.signature(outbox.record)).startswith("(session_or_connection: ")
    parameters = inspect.signature(outbox.record).parameters
    assert [name for name, each in parameters.items() if each.kind is each.POSITIONAL_ONLY] == ["session_or_connection"]
    assert [name for name, each in parameters.items() if each.kind is each.POSITIONAL_OR_KEYWORD] == ["type", "data"]
    keywords = {name: each.default for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
    assert keywords == {
        "key": None,
        "tenant": "",
        "available_at": None,
        "idempotency_key": None,
        "priority": 0,
        "trace": None,
        "metadata": None,
        "on_error": "raise",
    }
    assert not inspect.iscoroutinefunction(outbox.record)
    assert inspect.iscoroutinefunction(outbox.arecord)


def test_an_event_carries_no_payload():
    assert list(outbox.Event.__dataclass_fields__) == ["id", "type", "key", "tenant", "available_at", "recorded"]
