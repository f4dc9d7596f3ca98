"""Format, settings and secret of a subscription: checked together, stored, shown without credentials; imports."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, Engine, text

import outbox
from outbox import subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from outbox.errors import SubscriptionError
from outbox.formats import FORMATS
from outbox.ids import parse_id
from relay.cli import cli
from relay.operations.status.status import status

pytestmark = pytest.mark.field("F54")
URL = "https://hooks.example.com/in"
SLACK = "https://hooks.slack.com/services/T0/B0/canary-4711"
KEY = "canary0canary0canary0canary04711"


@pytest.fixture
def connection(engine: Engine) -> Any:
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def relay(database_url: str) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["subscriptions", *arguments], env={"RELAY_DATABASE_URL": database_url})

    return run


def add(connection: Connection, url: str = URL, **given: Any) -> Any:
    return subscriptions.add(connection, url, ["*"], **given)


def test_dotted_settings_of_a_command_line_are_those_of_a_mapping(connection: Connection) -> None:
    made = add(connection, format="cloudevents", format_settings={"source": "/a", "extensions.region": "eu"})
    assert made.format_settings == {"source": "/a", "extensions": {"region": "eu"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"format": "clodevents"}, "format: 'clodevents' is not known; did you mean cloudevents?"),
        ({"format_settings": {"source": "/a"}}, "format_settings: 'source' is no setting of standard"),
        ({"format": "cloudevents", "format_settings": {"sorce": "/"}}, "did you mean source?"),
        ({"format": "cloudevents", "format_settings": {"extensions.A": "b"}}, "format_settings.extensions.A: "),
        ({"format": "pagerduty"}, "format_secret: pagerduty needs its PagerDuty routing key"),
        ({"format": "pagerduty", "format_secret": "canary-short"}, "format_secret: is no PagerDuty routing key"),
        ({"format": "slack", "format_secret": KEY}, "format_secret: slack has none"),
        ({"format": "cloudevents-binary", "headers": {"Ce-Id": "1"}}, "headers: ce-id is written by the format"),
        ({"format": "slack", "format_settings": {"text": "x" * 9000}}, "format_settings.text: is 9000 bytes"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    connection: Connection, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SubscriptionError) as refused:
        add(connection, **given)
    assert said in str(refused.value)
    assert "canary" not in str(refused.value)
    assert not connection.execute(text("select count(*) from outbox.subscriptions where url = :u"), {"u": URL}).scalar()


def test_a_retired_connector_of_teams_is_refused_with_what_to_make_instead(connection: Connection) -> None:
    with pytest.raises(SubscriptionError, match=r"^url: Microsoft has retired connectors .*Workflows"):
        add(connection, "https://acme.webhook.office.com/webhookb2/a/b", format="teams")


def test_another_format_needs_settings_that_it_knows_and_drops_a_secret_that_it_does_not_need(
    connection: Connection,
) -> None:
    made = add(connection, format="pagerduty", format_secret=KEY, format_settings={"severity": "info"})
    assert made.format_secret == "set"
    with pytest.raises(SubscriptionError, match=r"^format_settings: 'severity' is no setting of raw"):
        subscriptions.update(connection, made.id, format="raw")
    with pytest.raises(SubscriptionError, match=r"^format_secret: pagerduty needs"):
        subscriptions.update(connection, made.id, format_secret=None)
    changed = subscriptions.update(connection, made.id, format="raw", format_settings=None)
    assert (changed.format, changed.format_settings, changed.format_secret) == ("raw", {}, "")
    with pytest.raises(SubscriptionError, match=r"^format_secret: pagerduty needs"):
        subscriptions.update(connection, made.id, format="pagerduty")
    assert subscriptions.update(connection, made.id, description="x").format == "raw"
    headers = subscriptions.update(connection, made.id, headers={"X-A": "b"})
    assert headers.headers == ("X-A",)


def test_a_url_that_is_a_credential_is_read_by_nobody(connection: Connection) -> None:
    made = add(connection, SLACK, format="slack")
    listed = subscriptions.list(connection)
    for found in (made, subscriptions.get(connection, made.id), *listed):
        assert found.url == "https://hooks.slack.com/services/***"
        assert "canary" not in repr(found) + str(found.to_dict())
    with pytest.raises(SubscriptionError, match=r"^url: \*\*\* stands for what is not shown"):
        subscriptions.update(connection, made.id, url=made.url)
    kept = subscriptions.update(connection, made.id, timeout_seconds=3)
    assert kept.url == made.url
    stored = connection.execute(
        text("select url from outbox.subscriptions where id = :id"), {"id": parse_id("sub", made.id)}
    )
    assert stored.scalar_one() == SLACK


def test_the_audit_names_no_credential(connection: Connection) -> None:
    made = add(connection, SLACK, format="slack")
    subscriptions.update(connection, made.id, url=SLACK + "2")
    n8n = add(connection, "https://n8n.example.com/webhook/canary", format="n8n")
    subscriptions.update(connection, n8n.id, url="https://n8n.example.com/webhook/canary2")
    page = list_audit(connection, None, Filters(limit=50))
    shown = [entry for entry in page.items if entry.after and "url" in entry.after]
    assert len(shown) == 4
    assert "canary" not in str(page.items)


def test_an_own_id_is_kept_and_refused_where_it_is_taken(connection: Connection) -> None:
    uuid = uuid4()
    made = add(connection, id=str(uuid))
    assert parse_id("sub", made.id) == uuid
    before = add(connection)
    with pytest.raises(SubscriptionError, match=rf"^id: {made.id} is taken"):
        add(connection, id=made.id)
    assert subscriptions.get(connection, before.id).id == before.id, "the caller's transaction goes on"
    with pytest.raises(SubscriptionError, match=r"^id: 'seven' is not an id of the form sub_"):
        add(connection, id="seven")


@pytest.mark.parametrize(("scheme", "secret"), [("fulfil", "k"), ("standard", "whsec_c2hvcnQ=")])
def test_a_weak_secret_is_taken_only_where_somebody_says_so_and_with_a_warning(
    connection: Connection, scheme: str, secret: str
) -> None:
    with pytest.raises(SubscriptionError, match=r"^secret: \d bytes long"):
        add(connection, scheme=scheme, secret=secret)
    with pytest.warns(UserWarning, match=r"^secret: \d bytes long.*weak secrets are allowed") as caught:
        made = add(connection, scheme=scheme, secret=secret, allow_weak_secret=True)
    assert made.secret == secret
    assert secret.removeprefix("whsec_") not in str(caught[0].message).replace("weak", "")
    with pytest.raises(SubscriptionError, match=r"^secret: empty"):
        add(connection, scheme=scheme, secret="", allow_weak_secret=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        add(connection, scheme="fulfil", secret="long enough it is", allow_weak_secret=True)


def test_unsigned_is_said_explicitly_and_shown(connection: Connection, relay: Any, engine: Engine) -> None:
    made = add(connection, scheme="none")
    assert (made.scheme, made.secret, made.public_key) == ("none", "", "")
    for given in ({"secret": "x" * 20}, {"key_type": "hmac"}):
        with pytest.raises(SubscriptionError, match=r"^scheme: none signs nothing"):
            add(connection, scheme="none", **given)
    with pytest.raises(SubscriptionError, match=r"^scheme: it is unsigned, so there is no secret"):
        subscriptions.rotate_secret(connection, made.id)
    connection.commit()
    assert status(connection, None).subscriptions.unsigned == 1
    assert "subscriptions.unsigned" in [finding.code for finding in status(connection, None).findings]
    listed = relay("list")
    assert "active, unsigned" in listed.stdout
    assert f"warning: {made.id} is unsigned" in relay("show", made.id).stderr
    signed = subscriptions.rotate_secret(connection, made.id, scheme="standard")
    assert signed.secret.startswith("whsec_")
    with pytest.raises(SubscriptionError, match=r"^scheme: none signs nothing and verifies nothing"):
        subscriptions.rotate_secret(connection, made.id, scheme="none")
    with pytest.raises(outbox.ArgumentError, match=r"^scheme: none"):
        outbox.verify([], {}, b"", scheme="none")


def test_the_command_line_imports_an_old_endpoint(relay: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("k\n")
    name = str(uuid4())
    arguments = (
        "add",
        URL,
        "*",
        "--format",
        "fulfil",
        "--scheme",
        "fulfil",
        "--secret-file",
        str(secret),
        "--id",
        name,
    )
    refused = relay(*arguments)
    assert refused.exit_code == 1
    made = relay(*arguments, "--allow-weak-secret", "--json")
    assert made.exit_code == 0, made.output
    assert "warning: secret: 1 bytes long" in made.stderr
    assert str(parse_id("sub", json.loads(made.stdout)["id"])) == name


def test_the_command_line_keeps_a_routing_key_to_itself(relay: Any, tmp_path: Path, engine: Engine) -> None:
    key = tmp_path / "key"
    key.write_text(KEY + "\n")
    made = relay("add", "https://events.pagerduty.com/v2/enqueue", "*", "--format", "pagerduty",
                 "--format-secret-file", str(key), "--format-settings", "severity=info")  # fmt: skip
    assert made.exit_code == 0, made.output
    with engine.connect() as connection:
        stored = connection.execute(text("select secret from outbox.secrets where kind = 'format_secret'")).scalar_one()
    assert stored == KEY
    for printed in (made, relay("list", "--json")):
        assert KEY not in printed.output
        assert "canary" not in printed.output


def test_the_command_line_warns_of_what_a_url_will_not_do(relay: Any) -> None:
    made = relay("add", "https://n8n.example.com/webhook-test/x", "*", "--format", "n8n")
    assert "warning: /webhook-test/ answers only while the editor listens" in made.stderr
    assert "/webhook-test/***" in made.stdout
    made = relay("add", "https://discord.com/api/webhooks/1/t", "*", "--format", "discord")
    assert "without ?wait=true" in made.stderr


def test_formats_are_listed_with_what_they_can_be_told(relay: Any) -> None:
    listed = [json.loads(line) for line in relay("formats", "--json").stdout.splitlines()]
    assert [one["name"] for one in listed] == list(FORMATS)
    assert relay("formats").exit_code == 0
    assert "source" in listed[3]["settings"]
