"""examples/leads: each of the eight wishes of S4-16, with real processes, while the application runs as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import outbox
from examples.running import Example
from relay.operations import tokens
from tests.support import databases
from tests.support.examples import Caller, running
from tests.support.far_end import FarEnd, answering, waits
from tests.support.mail_server import receiving_mail
from tests.support.scrape import Scrape, get
from tests.support.visiting import Visitor, words
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.xdist_group("example-leads-wishes"), pytest.mark.timeout(240), pytest.mark.slow,
    pytest.mark.requirement("S4-16"),
]  # fmt: skip
API = "/api/v1"
SECRET = "n8n-secret-of-the-example-0123456789"


@pytest.fixture(scope="module")
def mail() -> Iterator[tuple[int, list[EmailMessage]]]:
    with receiving_mail() as server:
        yield server


@pytest.fixture(scope="module")
def leads(
    server_url: str, tmp_path_factory: pytest.TempPathFactory, mail: tuple[int, list[EmailMessage]]
) -> Iterator[Example]:
    """Without retries: what fails once is given up. Its n8n has a mail server."""
    directory = tmp_path_factory.mktemp("leads")
    with running("leads", server_url, directory, N8N_RETRIES="0", SMTP_PORT=str(mail[0])) as example:
        yield example


@pytest.fixture
def far_end() -> Iterator[FarEnd]:
    with answering() as receiver:
        yield receiver


@pytest.fixture
def engine(leads: Example) -> Iterator[Engine]:
    with databases.engine_on(leads.database_url) as engine:
        yield engine


@pytest.fixture
def office(leads: Example) -> Iterator[Caller]:
    """The office, where no event of an earlier test waits for whoever is subscribed next."""
    caller = Caller(leads)
    caller.await_resolved()
    yield caller
    caller.close()


@pytest.fixture
def command(leads: Example, engine: Engine) -> Iterator[Any]:
    """Runs `relay …` as a process and returns what it printed; what it subscribed is removed after the test."""
    with Session(engine) as session:
        before = {one.id for one in outbox.subscriptions.list(session, limit=100)}

    def run(*words: str) -> str:
        process = leads.start("command", ["relay", *words])
        assert process.wait(60) == 0, process.last_words()
        return process.text

    yield run
    with Session(engine) as session, session.begin():
        for one in outbox.subscriptions.list(session, limit=100):
            if one.id not in before:
                outbox.subscriptions.remove(session, one.id)


def add_lead(office: Caller, name: str) -> int:
    return int(office.ask("POST", f"{API}/leads", {"name": name}, status=201)["id"])


def await_names(far_end: FarEnd, path: str, count: int) -> list[str]:
    """Return the names of the leads that a path was told of, once that is so many."""
    wait_until(lambda: len(far_end.received[path]) >= count, message=f"fewer than {count} came", timeout_seconds=40)
    return [json.loads(one.body)["data"]["name"] for one in far_end.received[path]]


def test_what_is_given_up_is_a_dead_letter_and_can_be_replayed(
    office: Caller, far_end: FarEnd, engine: Engine, command: Any
) -> None:
    far_end.will("dead", 500)
    add = ["subscriptions", "add", far_end.url("dead"), "lead_scraped", "--schedule-seconds", "none", "--json"]
    made = json.loads(command(*add))["id"]
    add_lead(office, "Dora")
    await_names(far_end, "dead", 1)

    def letters() -> list[Any]:
        with Session(engine) as session:
            return [*outbox.dead_letters.list(session, subscription=made).items]

    wait_until(letters, message="is not given up", timeout_seconds=40)
    (letter,) = map(json.loads, command("dead-letters", "list", "--subscription", made, "--json").splitlines())
    assert (letter["type"], letter["reason"]) == ("lead_scraped", "http_5xx")
    command("replay", letter["id"], "--yes")
    assert await_names(far_end, "dead", 2) == ["Dora", "Dora"]
    assert letters() == []


def test_what_was_delivered_is_replayed(office: Caller, far_end: FarEnd, command: Any) -> None:
    made = json.loads(command("subscriptions", "add", far_end.url("past"), "lead_scraped", "--json"))["id"]
    for name in ("Una", "Duo"):
        add_lead(office, name)
    assert sorted(await_names(far_end, "past", 2)) == ["Duo", "Una"]
    wait_until(lambda: office.ask("GET", f"{API}/webhooks/queue")["pending"] == [], message="is under way")
    command("replay", "--state", "delivered", "--subscription", made, "--since", "1h", "--yes")
    assert sorted(await_names(far_end, "past", 4)) == ["Duo", "Duo", "Una", "Una"]
    assert len({one.headers["webhook-id"] for one in far_end.received["past"]}) == 2


def test_an_endpoint_is_registered_while_everything_runs_with_a_filter_and_a_rate(
    office: Caller, far_end: FarEnd, command: Any
) -> None:
    add_lead(office, "Before")
    office.await_resolved()
    filtered = ["--filter", json.dumps({"payload": {"name": {"$startsWith": "Big"}}})]
    command("subscriptions", "add", far_end.url("filtered"), "lead_scraped", *filtered)
    command("subscriptions", "add", far_end.url("slow"), "lead_scraped", "--rate-limit", "2/s", "--rate-burst", "1")
    for name in ("Big A", "Small B", "Big C", "Small D", "Big E"):
        add_lead(office, name)
    assert len(await_names(far_end, "slow", 5)) == 5
    assert sum(waits(far_end.received["slow"])) > 1.5, "two seconds, less what the first took to come"
    assert sorted(await_names(far_end, "filtered", 3)) == ["Big A", "Big C", "Big E"]


def test_metrics_and_a_page_show_what_went_out(leads: Example, office: Caller, engine: Engine) -> None:
    leads.relay.stop()
    relay = leads.relay = leads.start_relay("--metrics-listen", "127.0.0.1:0")
    wait_until(lambda: relay.said("/ready"), message="has no metrics", timeout_seconds=60)
    address = re.findall(r"health and metrics on (http://\S+)/ready", relay.text + relay.complaints.read_text())[0]

    def delivered() -> float:
        scrape = Scrape(get(f"{address}/metrics").text)
        return scrape.value("outbox_relay_attempts_total", {"outcome": "delivered"})

    for name in ("M1", "M2"):
        add_lead(office, name)
    wait_until(lambda: delivered() == 2, message="are not counted")
    serve = leads.start("serve", ["relay", "serve", "--listen", "127.0.0.1:0"])
    wait_until(lambda: serve.said("serving on ") or not serve.alive, message="does not serve", timeout_seconds=60)
    page = re.findall(r"serving on (http://\S+)", serve.text + serve.complaints.read_text("utf-8"))[0]
    with engine.begin() as connection:
        token = tokens.create(connection, None, name="office", rights=["read"], whose=None).text
    with httpx.Client(base_url=page, timeout=30, verify=False, trust_env=False) as client:
        visitor = Visitor(client)
        visitor.open("/sign-in")
        overview = words(visitor.press("Sign in", token=token))
    with engine.connect() as connection:
        counted = connection.execute(text("select sum(delivered) from outbox.v_statistics_24h")).scalar_one()
    assert re.search(rf"Delivered, last 24h {counted}\b", overview), overview
    serve.stop()


def test_a_breaker_opens_and_slack_and_by_n8n_an_e_mail_tell_of_it(
    leads: Example, office: Caller, far_end: FarEnd, engine: Engine, command: Any,
    mail: tuple[int, list[EmailMessage]], tmp_path: Any,
) -> None:  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    slack = ["--format", "slack", "--format-settings", "text={data.host}: {type}"]
    command("subscriptions", "add", far_end.url("slack"), "relay.breaker.*", *slack)
    n8n = ["--format", "leads", "--scheme", "leads", "--secret-file", str(secret)]
    command("subscriptions", "add", f"{leads.receiver}/hooks/alarms", "relay.breaker.*", *n8n)
    far_end.will("broken", *[500] * 5)
    broken = json.loads(command("subscriptions", "add", far_end.url("broken"), "lead_scraped", "--json"))["id"]
    with engine.begin() as connection:
        connection.execute(text("update outbox.settings set value = 3 where name = 'breaker_attempts'"))
    try:
        for number in range(3):
            add_lead(office, f"Z{number}")
        wait_until(lambda: far_end.received["slack"], message="Slack is not told", timeout_seconds=40)
        add_lead(office, "Z3")
        wait_until(lambda: mail[1], message="no e-mail came", timeout_seconds=40)
    finally:
        with engine.begin() as connection:
            connection.execute(text("update outbox.settings set value = 10 where name = 'breaker_attempts'"))
    assert json.loads(far_end.received["slack"][0].body)["text"] == "127.0.0.1: relay.breaker.opened"
    (first, *_) = mail[1]
    assert (first["To"], first["Subject"]) == ("duty@leads.example", "relay.breaker.opened: 127.0.0.1")
    assert json.loads(first.get_content())["subscription"] == broken
    with engine.connect() as connection:
        state = text("select state from outbox.v_subscriptions_health where subscription_id = :id")
        assert connection.execute(state, {"id": broken}).scalar_one() == "breaker open"
    assert all("Z3" not in one.body for one in far_end.received["broken"]), "nothing more is sent"
