"""A customer's own words for an endpoint: the description, where `portal_descriptions` says that it is theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

import outbox
from outbox import subscriptions
from outbox.control.audit import list_audit
from outbox.control.filters import Filters
from tests.support import databases, seeding
from tests.support.dashboard import served
from tests.support.loopback import allow_loopback

pytestmark = pytest.mark.xdist_group("dashboard")
URL = "https://example.com/hooks"
HOSTILE = "<img src=x onerror=alert(1)> {{7*7}} \"'&\u202egnp"
NOTE = "Pays late:\n\tslow them\x1b[31m down " + "x" * 400
"""What an operator may have noted: of several lines, longer than a customer may write, with a control character."""


@dataclass(frozen=True)
class Stage:
    """Two portals over one database, with and without descriptions."""

    theirs: str
    ours: str
    engine: Engine

    def subscribe(self, tenant: str, **more: Any) -> str:
        with self.engine.begin() as connection:
            return subscriptions.add(connection, URL, ["order.paid"], tenant=tenant, **more).id

    def description_of(self, name: str, tenant: str) -> str:
        with self.engine.begin() as connection:
            return subscriptions.get(connection, name, tenant=tenant).description


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[Stage]:
    allow_loopback()
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
        served(url, portal_descriptions=True) as theirs,
        served(url) as ours,
    ):
        yield Stage(theirs, ours, engine)


Enter = Callable[..., httpx.Client]


@pytest.fixture
def enter(stage: Stage) -> Iterator[Enter]:
    opened: list[httpx.Client] = []

    def open_(tenant: str, address: str = stage.theirs, **more: Any) -> httpx.Client:
        client = httpx.Client(base_url=address, timeout=30, verify=False)
        opened.append(client)
        with stage.engine.begin() as connection:
            link = outbox.portal_url(connection, tenant, f"{address}/portal", **{"rights": "manage", **more})
        client.get(link)
        return client

    yield open_
    for client in opened:
        client.close()


def field_of(client: httpx.Client, path: str, name: str) -> str:
    found = re.search(rf'name="{name}"[^>]* value="([^"]*)"', client.get(path).text)
    assert found
    return unescape(found[1])


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, data={"csrf": field_of(client, "/portal/deliveries", "csrf"), **fields})


def edit(client: httpx.Client, name: str, **fields: Any) -> httpx.Response:
    path = f"/portal/endpoints/{name}/edit"
    version = field_of(client, path, "version")
    return post(client, path, **{"version": version, "url": URL, "type": "order.paid", **fields})


def test_a_customers_words_stand_before_the_url_wherever_an_endpoint_is_named(stage: Stage, enter: Enter) -> None:
    client = enter("acme", person="carol")
    name = field_of(client, "/portal/endpoints/new", "id")
    made = post(client, "/portal/endpoints/new", id=name, url=URL, type="order.paid", description="  Our\tbilling ")
    assert "whsec_" in made.text
    assert stage.description_of(name, "acme") == "Our billing"
    one = f"/portal/endpoints/{name}"
    with stage.engine.begin() as connection:
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="acme", type="order.paid"), name)
        seeding.attempt(connection, delivery, "dead")
    assert f'<strong><bdi>Our billing</bdi></strong></a><span class="cell-sub"><bdi>{URL}</bdi>' in page(client, "/")
    shown = client.get(one).text
    assert "<title>Our billing · Webhooks</title>" in shown
    assert re.search(rf'<h1><bdi>Our billing</bdi> .*</h1><p class="muted"><bdi>{URL}</bdi></p>', shown)
    for path in ("/edit", "/test", "/secret"):
        assert f'<a href="{one}"><bdi>Our billing</bdi></a>' in client.get(one + path).text
    listed = page(client, "/deliveries")
    assert listed.count(f"Our billing ({URL})") == 2  # the choice of the filter, and the row
    assert f"<bdi>Our billing ({URL})</bdi>" in page(client, f"/deliveries/{delivery}")
    assert f"Nothing is sent to Our billing ({URL}) any more." in post(client, f"{one}/remove").text
    assert f"Given up for Our billing ({URL}): 1." in post(client, f"{one}/replay", since="7d").text
    assert "Our billing" in page(enter("acme", rights="read"), "/")


def page(client: httpx.Client, path: str) -> str:
    return client.get(f"/portal{path}").text


def test_beside_the_operators_name_the_customers_words_come_first(stage: Stage, enter: Enter) -> None:
    name = stage.subscribe("named", name="crm-sync")
    client = enter("named")
    assert "<h1><bdi>crm-sync</bdi>" in page(client, f"/endpoints/{name}")
    assert edit(client, name, description="CRM").headers["location"].endswith("?done=changed")
    shown = page(client, f"/endpoints/{name}")
    assert "<h1><bdi>CRM</bdi>" in shown
    assert '<p class="muted"><bdi>crm-sync</bdi></p>' in shown
    assert re.search(r"<bdi>CRM</bdi>.*<bdi>crm-sync</bdi>.*example\.com/hooks", page(client, "/"))
    assert edit(client, name, description="").status_code == 303
    assert stage.description_of(name, "named") == ""
    assert "<h1><bdi>crm-sync</bdi>" in page(client, f"/endpoints/{name}")


def test_the_audit_says_who_wrote_it(stage: Stage, enter: Enter) -> None:
    name = stage.subscribe("audited")
    assert edit(enter("audited", person="carol"), name, description="Ours").status_code == 303
    with stage.engine.begin() as connection:
        newest = list_audit(connection, "audited", Filters(limit=1)).items[0]
    assert newest.actor == "portal:carol"
    assert newest.after == {"description": "Ours"}


@pytest.mark.parametrize("unseen", ["\u200b\u2060", "\u2800 \u3164", "\U000e0041"])
def test_words_of_another_writer_in_which_nothing_can_be_seen_stand_nowhere(
    stage: Stage, enter: Enter, unseen: str
) -> None:
    """Commands, API and files take any note: it was a link, and a heading, without a text."""
    name = stage.subscribe("umbrella", description=unseen, name=f"warehouse-{ord(unseen[0]):x}")
    client = enter("umbrella")
    for path in ("/portal/", f"/portal/endpoints/{name}"):
        page = client.get(path).text
        assert "warehouse-" in page
        assert unseen not in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("x" * 256, "is 256 characters, at most 255"),
        ("a\x07b", "has a control character"),
        ("\u200b \u2060", "has nothing that can be seen"),
        ("\u2800\u3164", "has nothing that can be seen"),
    ],
    ids=["long", "control", "unseen", "blank"],
)
def test_words_that_are_too_long_or_cannot_be_read_are_refused_at_their_field(
    stage: Stage, enter: Enter, given: str, said: str
) -> None:
    name = stage.subscribe("refused", description="Before")
    client = enter("refused")
    new = post(client, "/portal/endpoints/new", url=URL, type="order.paid", description=given)
    for answer in (new, edit(client, name, description=given)):
        assert answer.status_code == 422
        assert re.search(r'<input id="f-description"[^>]* aria-invalid="true"', answer.text)
        assert said in answer.text
    assert stage.description_of(name, "refused") == "Before"


def test_as_many_characters_as_there_may_be_are_kept_whatever_bytes_they_take(stage: Stage, enter: Enter) -> None:
    name = stage.subscribe("full")
    assert edit(enter("full"), name, description="🦆" * 255).status_code == 303
    assert stage.description_of(name, "full") == "🦆" * 255


def test_hostile_words_are_text_on_every_page(stage: Stage, enter: Enter) -> None:
    client = enter("hostile")
    name = stage.subscribe("hostile")
    assert edit(client, name, description=HOSTILE).status_code == 303
    assert stage.description_of(name, "hostile") == HOSTILE
    with stage.engine.begin() as connection:
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="hostile", type="order.paid"), name)
        seeding.attempt(connection, delivery, "dead")
    one, words = f"/portal/endpoints/{name}", escape(HOSTILE, quote=False).replace("\u202e", "\\u202e")
    asked = [post(client, f"{one}/remove").text, post(client, f"{one}/replay", since="7d").text]
    paths = ("/portal/", one, f"{one}/edit", f"{one}/test", f"{one}/secret", "/portal/deliveries",
             f"/portal/deliveries/{delivery}")  # fmt: skip
    for text in (*asked, *(client.get(path).text for path in paths)):
        assert "<img" not in text
        assert words.replace('"', "&#34;").replace("'", "&#39;") in text
        assert "\u202e" not in re.sub(r"<input[^>]*>", "", text)


def test_what_an_operator_noted_stays_as_it_is_where_a_customer_changes_something_else(
    stage: Stage, enter: Enter
) -> None:
    """A field of one line shows several lines as one: sent back untouched, it is no change."""
    name = stage.subscribe("noted", description=NOTE)
    client = enter("noted")
    shown = field_of(client, f"/portal/endpoints/{name}/edit", "description")
    assert shown == " ".join(NOTE.split())
    assert edit(client, name, description=shown, type="order.*").status_code == 303
    assert edit(client, name, type="invoice.*").status_code == 303  # a form without the field, of a former version
    assert stage.description_of(name, "noted") == NOTE
    assert edit(client, name, description=shown + "!").status_code == 422
    refused = edit(client, name, url="ftp://nowhere")  # as a form of a former version
    assert "slow them" in refused.text


def test_without_the_setting_it_is_the_operators_note_which_no_customer_reads_or_writes(
    stage: Stage, enter: Enter
) -> None:
    name = stage.subscribe("ours", description=NOTE)
    client = enter("ours", stage.ours)
    with stage.engine.begin() as connection:
        (delivery,) = seeding.resolve(connection, seeding.record(connection, tenant="ours", type="order.paid"), name)
        seeding.attempt(connection, delivery, "dead")
    one = f"/portal/endpoints/{name}"
    asked = [post(client, f"{one}/remove").text, post(client, f"{one}/replay", since="7d").text]
    paths = ("/portal/", one, f"{one}/edit", f"{one}/test", f"{one}/secret", "/portal/deliveries",
             f"/portal/deliveries/{delivery}", "/portal/endpoints/new")  # fmt: skip
    for text in (*asked, *(client.get(path).text for path in paths)):
        assert "Pays late" not in text
        assert "f-description" not in text
    assert edit(client, name, description="mine", type="order.*").status_code == 303
    assert stage.description_of(name, "ours") == NOTE
    made = field_of(client, "/portal/endpoints/new", "id")
    assert "whsec_" in post(client, "/portal/endpoints/new", id=made, url=URL, type="a.b", description="mine").text
    assert stage.description_of(made, "ours") == ""
