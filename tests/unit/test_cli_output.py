"""What commands print: tables that fit 80 columns, plain lines when piped, and never a control character."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from outbox.control.dead_letters import DeadDelivery
from outbox.control.pages import Page
from outbox.ids import DeliveryId, SubscriptionId
from relay.cli import output
from relay.cli.options import Moment
from relay.cli.output import print_fields, print_json, print_json_lines, print_table
from relay.operations.denied_rights import missing_grant
from relay.operations.status.documents import Count
from relay.telemetry.redaction import redact

AT = datetime(2026, 1, 31, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def terminal(monkeypatch):
    """Stdout is a terminal of 80 columns."""
    monkeypatch.setattr(output, "terminal_columns", lambda: 80)


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


def test_a_table_fits_the_terminal_by_shortening_the_flexible_columns(capsys, terminal):
    rows = [("dlv_" + "x" * 26, "waiting", AT, 1, "order.created.and.more", "https://example.com/" + "p" * 60)]
    print_table(["DELIVERY", "STATE", "AT UTC", "#", "TYPE", "TO"], rows, flexible=["TYPE", "TO"])
    heading, line = lines(capsys)
    assert len(line) <= 80
    assert heading.index("STATE") == line.index("waiting")
    assert "dlv_" + "x" * 26 in line
    assert line.count("…") == 2
    assert "01-31 12:00:00" in line


def test_wide_characters_take_two_columns(capsys, terminal):
    print_table(["A", "B"], [("日本", "x"), ("ab", "y")])
    heading, wide, narrow = lines(capsys)
    assert (heading, wide, narrow) == ("A     B", "日本  x", "ab    y")


def test_a_table_without_rows_says_so(capsys, terminal):
    print_table(["A"], [])
    assert capsys.readouterr() == ("", "none\n")


def test_piped_a_table_is_whole_and_separated_by_tabs(capsys):
    print_table(["DELIVERY", "AT UTC", "TO"], [("dlv_1", AT, "x" * 200)], flexible=["TO"])
    assert capsys.readouterr().out == f"delivery\tat\tto\ndlv_1\t2026-01-31T12:00:00.000005Z\t{'x' * 200}\n"


@pytest.mark.case("C28")
def test_fields_and_piped_cells_are_escaped_too(capsys):
    print_fields({"description": "\x1b[31m", "tenant": "", "none": None})
    print_table(["A"], [("x\ty\n",)])
    assert capsys.readouterr().out == "description  \\x1b[31m\ntenant       -\nnone         -\na\nx\\ty\\n\n"


def test_json_is_one_document_or_one_object_a_line(capsys):
    print_json({"at": AT})
    print_json_lines([{"a": "\x1b"}, {"a": "é"}])
    assert capsys.readouterr().out == (
        '{\n  "at": "2026-01-31T12:00:00.000005Z"\n}\n{"a": "\\u001b"}\n{"a": "\\u00e9"}\n'
    )


def test_a_document_is_an_object_of_its_fields_and_a_page_a_list(capsys):
    """Text ids, times in UTC, and what a document holds in the same form."""
    attempt = DeadDelivery(
        delivery_id=DeliveryId(int=1), subscription_id=None, attempts=2, died_at=AT, reason="http_5xx", error="\x1b"
    )
    print_json_lines([attempt])
    print_json_lines([{"page": Page((SubscriptionId(int=2),), "cursor"), "count": Count(7, exact=False)}])
    assert capsys.readouterr().out == (
        '{"delivery_id": "dlv_00000000000000000000000001", "subscription_id": null, "attempts": 2, '
        '"died_at": "2026-01-31T12:00:00.000005Z", "reason": "http_5xx", "error": "\\u001b"}\n'
        '{"page": ["sub_00000000000000000000000002"], "count": {"value": 7, "exact": false, "at_least": false}}\n'
    )


def test_what_has_no_json_form_is_refused(capsys):
    with pytest.raises(TypeError, match="object has no JSON form"):
        print_json({"value": object()})


class TestMoments:
    @pytest.mark.parametrize(
        ("text", "moment"),
        [
            ("15m", timedelta(minutes=15)),
            ("2w", timedelta(days=14)),
            ("5214w", timedelta(weeks=5214)),
            ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
            ("2026-01-31T12:00:00.000005Z", AT),
            ("2026-01-31 13:00:00.000005+01:00", AT),
        ],
    )
    def test_what_is_understood(self, text, moment):
        assert Moment().convert(text, None, None) == moment

    @pytest.mark.parametrize(
        "text", ["", "yesterday", "2026-01-31T12:00:00", "15", "-1h", "1y", "9999999d", "٣m", "5215w", "999999w"]
    )
    def test_what_is_refused(self, text):
        with pytest.raises(Exception, match="time"):
            Moment().convert(text, None, None)


class TestFailures:
    @pytest.mark.parametrize(
        "text",
        [
            "whsec_SECRETSECRET/+=",
            "whsk_SECRETSECRET/+=",
            "Secret(rsk_SECRETSECRET/+=)",
            "Authorization: Custom SECRET SECRET",
            "{'authorization': b'SECRET'}",
            "sent Bearer SECRETSECRETSECRET.SECRET",
            "postgresql://u:SECRET@h/d",
            "postgresql://u:SE@CRET@h/d",
            "password=SECRET host=h",
            "{'password': 'SECRET'}",
        ],
    )
    def test_secrets_are_redacted(self, text):
        assert "SECRET" not in redact(f"failed: {text} and more")
        assert "CRET@" not in redact(text)

    @pytest.mark.case("C6")
    @pytest.mark.parametrize(
        ("reason", "statement", "grant"),
        [
            ("permission denied for table events", "select 1", "grant select on outbox.events"),
            (
                "permission denied for table dead_letters",
                "with g as (DELETE FROM outbox.dead_letters) INSERT INTO outbox.deliveries",
                "grant select, delete on outbox.dead_letters",
            ),
            ("permission denied for schema outbox", "", "grant usage on schema outbox"),
            ("permission denied for sequence events_seq", "", "grant usage on sequence outbox.events_seq"),
            ("permission denied for function uuid7", "", "grant execute on function outbox.uuid7"),
            ("must be owner of table events", "", "run it as the owner of the schema outbox"),
        ],
    )
    def test_the_grant_follows_from_what_was_denied(self, reason, statement, grant):
        assert missing_grant(reason, statement, "shop").startswith(grant)
