"""What an operator is told and offered on the pages when something is wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from types import ModuleType
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, text

import outbox
from outbox import subscriptions
from outbox.control import event_walk
from outbox.control.by_hand import cancel
from outbox.ids import parse_id
from relay.cli import cli
from relay.operations.bulk.operations import add_bulk
from relay.operations.bulk.request import BulkRequest
from relay.operations.sending_switch import pause_all, read_sending
from relay.operations.status import running
from relay.operations.status.documents import Status
from relay.web.pages import findings, overview
from relay.web.pages.kept_status import kept_status
from tests.support import seeding

pytestmark = pytest.mark.anyio
OPEN = text("""
insert into outbox.health (subscription_id, failures, opened_at, probe_at)
values (:id, 9, clock_timestamp(), clock_timestamp() + interval '1 hour')
""")
SLOWED = text("insert into outbox.limits (id, slowed_to) values (:id, :takes)")
ANSWERED = text("""
update outbox.attempts set excerpt = :said, headers = 'content-type: text/plain'
where delivery_id = :id and excerpt is null
""")
HOLD = text("update outbox.subscriptions set held_until = clock_timestamp() + cast(:left as interval) where id = :id")


@pytest.fixture
async def operator(client: httpx.AsyncClient, token) -> httpx.AsyncClient:
    """The operator, who is signed in with every right."""
    return await signed_in(client, token(tenant=None))


async def signed_in(client: httpx.AsyncClient, given: str) -> httpx.AsyncClient:
    found = re.search(r'name="csrf" value="(\w+)"', (await client.get("/sign-in")).text)
    assert found
    assert (await client.post("/sign-in", data={"csrf": found[1], "token": given})).status_code == 303
    return client


def words_of(page: str) -> str:
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


async def resume(client: httpx.AsyncClient, page: str, name: str) -> None:
    """Press the button of a page."""
    found = re.search(rf'action="(/subscriptions/{name}/resume)"[^>]*><input[^>]*name="csrf" value="(\w+)"', page)
    assert found
    assert (await client.post(found[1], data={"csrf": found[2]})).status_code == 303


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ("2 minutes", r"by the receiver's Retry-After, for 1m 5\ds more"),
        ("400 days", r"by hand \(relay audit\), for 399d 23h more"),
    ],
)
async def test_a_subscription_that_is_held_back_says_so_and_is_resumed_there(
    connection: Connection, operator, left: str, said: str
) -> None:
    name = seeding.subscribe(connection)
    connection.execute(HOLD, {"id": parse_id("sub", name), "left": left})
    page = (await operator.get(f"/subscriptions/{name}")).text
    assert re.search(f"It is held back {said}", words_of(page))
    await resume(operator, page, name)
    assert "It is held back" not in words_of((await operator.get(f"/subscriptions/{name}")).text)


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize(
    ("error", "said"),
    [("certificate has expired", "it answers 500: certificate has expired"), (None, "it answers 500")],
)
async def test_the_overview_says_why_an_endpoint_fails(
    connection: Connection, operator, error: str | None, said: str, *, is_open: bool
) -> None:
    name = seeding.subscribe(connection)
    (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
    seeding.attempt(connection, delivery, "retry", error=error)
    if is_open:
        connection.execute(OPEN, {"id": parse_id("sub", name)})
    more = "; breaker open since" if is_open else " 0 0"
    assert f"failing {said}{more}" in words_of((await operator.get("/")).text)


async def test_a_subscription_whose_endpoint_fails_says_how_on_its_page(connection: Connection, operator) -> None:
    name = seeding.subscribe(connection)
    (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
    seeding.attempt(connection, delivery, "retry", error="certificate has expired")
    connection.execute(OPEN, {"id": parse_id("sub", name)})
    told = words_of((await operator.get(f"/subscriptions/{name}")).text)
    assert "Its endpoint fails: It answers 500: certificate has expired. Breaker open since" in told.replace(" :", ":")


async def test_a_delivery_that_was_never_tried_says_how_others_failed_and_leads_to_one(
    connection: Connection, operator
) -> None:
    name = seeding.subscribe(connection)
    failed, untried = seeding.resolve(connection, seeding.record(connection), name, name)
    seeding.attempt(connection, failed, "retry", error="certificate has expired")
    seeding.attempt(connection, failed, "retry", outcome="stood_still", status=None, error="we stood still")
    connection.execute(OPEN, {"id": parse_id("sub", name)})
    page = (await operator.get(f"/deliveries/{untried}")).text
    assert "failed too often (it answers 500: certificate has expired; the last was" in words_of(page)
    assert f'<a class="mono" href="/deliveries/{failed}">{failed}</a>' in page


async def test_what_the_endpoint_said_last_stands_in_the_open(connection: Connection, operator) -> None:
    """'Its answer should say why', says the advice beside it; the answers before it are folded."""
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    for said in ("expected a number", "expected a date"):
        seeding.attempt(connection, delivery, "retry", outcome="http_4xx", status=422)
        connection.execute(ANSWERED, {"id": parse_id("dlv", delivery), "said": said.encode()})
    page = (await operator.get(f"/deliveries/{delivery}")).text
    in_the_open = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert "expected a date" in in_the_open
    assert "expected a number" not in in_the_open
    assert "expected a number" in page


async def test_an_attempt_that_is_not_charged_says_so_beside_its_number(connection: Connection, operator) -> None:
    """The next one has the same number."""
    name = seeding.subscribe(connection)
    (delivery,) = seeding.resolve(connection, seeding.record(connection), name)
    seeding.attempt(connection, delivery, "retry", outcome="stood_still", status=None)
    told = words_of((await operator.get(f"/deliveries/{delivery}")).text)
    assert "stood still 12 ms" in told
    assert "It is tried again, and this attempt is not charged." in told
    page = (await operator.get("/attempts")).text
    assert '<span class="badge warn">stood still</span>' in page


async def test_whose_endpoint_it_is_and_its_name_stand_wherever_it_is_in_trouble(
    connection: Connection, operator
) -> None:
    made = subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant="acme", name="warehouse").id
    seeding.resolve(connection, seeding.record(connection, tenant="acme"), made)
    subscriptions.disable(connection, made, reason="410 Gone", tenant="acme")
    assert "warehouse https://example.com/hooks acme disabled" in words_of((await operator.get("/")).text)
    for path in ("/", "/findings"):
        told = words_of((await operator.get(path)).text)
        assert f"{made} (warehouse of acme, https://example.com/hooks) is disabled since" in told, path
    assert "warehouse https://example.com/hooks" in words_of((await operator.get("/subscriptions")).text)


@pytest.mark.parametrize(("takes", "is_held_up"), [(21.951, False), (1.4898, True)])
async def test_an_endpoint_that_is_slowed_is_in_trouble_only_while_that_holds_something_up(
    connection: Connection, operator, takes: float, *, is_held_up: bool
) -> None:
    name = seeding.subscribe(connection)
    connection.execute(SLOWED, {"id": parse_id("sub", name), "takes": takes})
    due = seeding.resolve(connection, seeding.record(connection), *[name] * 3)
    overview = words_of((await operator.get("/")).text)
    assert ("slowed its receiver takes 1.5 a second 3 0" in overview) == is_held_up
    assert ("its receiver takes" in overview) == is_held_up
    told = words_of((await operator.get(f"/deliveries/{due[2]}")).text)
    assert ("takes no more than 1.5 requests a second" in told) == is_held_up
    assert ("takes no more than" in told) == is_held_up


LATE = text("update outbox.deliveries set due_at = clock_timestamp() - interval '90 s' where id = :id")


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize(("takes", "said"), [(1.5, "slowed its receiver takes 1.5 a second; behind for"),
                                             (None, "behind behind for")])  # fmt: skip
async def test_an_endpoint_that_is_behind_fails_in_nothing_and_is_not_behind_where_nothing_is_sent(
    connection: Connection, operator, takes: float | None, said: str, *, runs: bool
) -> None:
    name = seeding.subscribe(connection)
    if takes:
        connection.execute(SLOWED, {"id": parse_id("sub", name), "takes": takes})
    if runs:
        seeding.sign_in(connection, host="alive")
    for one in seeding.resolve(connection, seeding.record(connection), *[name] * 3):
        connection.execute(LATE, {"id": parse_id("dlv", one)})
    told = words_of((await operator.get("/")).text)
    assert (said in told) == runs
    assert "failing" not in told


async def test_a_subscription_whose_last_attempt_failed_says_what_mends_that(connection: Connection, operator) -> None:
    name = seeding.subscribe(connection)
    first, second = seeding.resolve(connection, seeding.record(connection), name, name)
    seeding.attempt(connection, first, "retry", outcome="http_4xx", status=401)
    page = (await operator.get(f"/subscriptions/{name}")).text
    assert "The endpoint refuses the signature or the credentials." in words_of(page)
    assert "mostly the secret was exchanged on one side only" in words_of(page).lower()
    assert f'<a href="/subscriptions/{name}/test">Check the endpoint</a>' in page
    seeding.attempt(connection, second, "delivered")
    assert "refuses the signature" not in (await operator.get(f"/subscriptions/{name}")).text


async def test_a_backlog_that_was_counted_so_far_says_so(connection: Connection, operator) -> None:
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), *[name] * 1100)
    subscriptions.disable(connection, name, reason="410 Gone")
    assert "410 Gone over 1,000 0" in words_of((await operator.get("/")).text)


async def test_a_type_that_looks_misspelt_is_on_the_overview_and_marked_among_the_types(
    connection: Connection, operator
) -> None:
    subscriptions.add(connection, "https://example.com/hooks", ["invoice.paid"], tenant="umbrella")
    subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant="acme")
    for type_ in ("invoice.paid", "invoice.payed"):
        event = seeding.record(connection, type=type_, tenant="umbrella")
        if type_ == "invoice.payed":
            lost = event
            seeding.resolve(connection, event)
    page = (await operator.get("/")).text
    assert "1 event of type invoice.payed of umbrella" in words_of(page)
    assert "did you mean invoice.paid," in words_of(page)
    assert "To mend it: Correct the type where it is recorded, or subscribe to this one too;" in words_of(page)
    (address,) = re.findall(r'href="(/events\?[^"]+)">Show them', page)
    listed = (await operator.get(unescape(address))).text
    assert lost in listed
    types = words_of((await operator.get("/types")).text)
    assert "invoice.payed no subscriber 1 event of umbrella went to nobody; did you mean invoice.paid?" in types
    assert "invoice.paid no subscriber" not in types
    assert "no subscriber" in words_of((await operator.get("/types/invoice.payed")).text)


async def test_a_blocked_key_is_told_on_the_page_of_its_subscription_and_of_what_blocks_it(
    connection: Connection, operator
) -> None:
    name = subscriptions.add(connection, "https://example.com/hooks", ["*"], ordered=True).id
    head, *_ = [seeding.resolve(connection, seeding.record(connection, key="TCK-1"), name)[0] for _ in range(3)]
    connection.execute(text("update outbox.deliveries set lane = 7, due_at = 'infinity'"))
    seeding.attempt(connection, head, "retry", error="no such ticket")
    page = (await operator.get(f"/subscriptions/{name}")).text
    assert "Key TCK-1 is blocked" in words_of(page)
    assert "(no such ticket), and 2 of the same key wait behind it" in words_of(page)
    assert f'href="/deliveries/{head}">its first delivery</a>' in page
    told = words_of((await operator.get(f"/deliveries/{head}")).text)
    assert "2 of the same key wait: they go when it is delivered; Cancel frees them at once" in told


async def test_a_cancelled_attempt_names_its_endpoint_as_the_others_do(connection: Connection, operator) -> None:
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    cancel(connection, None, [parse_id("dlv", delivery)])
    page = words_of((await operator.get("/attempts")).text)
    assert "https://example.com/hooks" in page
    assert "sub_" not in page.partition("Endpoint Tenant")[2]


async def test_what_was_done_to_one_is_said_of_one(operator) -> None:
    assert "1 put back: it is a new delivery, due now." in (await operator.get("/deliveries?done=replayed&n=1")).text
    assert "2 put back: each is a new delivery" in (await operator.get("/deliveries?done=replayed&n=2")).text


async def test_the_times_of_a_bulk_operation_are_written_as_everywhere(connection: Connection, operator) -> None:
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    seeding.attempt(connection, delivery, "dead")
    asked = BulkRequest(kind="redrive", since=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
    made = add_bulk(connection, None, asked, rate=1)
    told = words_of((await operator.get(f"/bulk/{made.id}")).text)
    assert "Since 2026-01-02 03:04:05Z" in told
    assert not re.search(r"\d\dT\d\d:", told)


async def test_an_open_transaction_is_a_line_of_how_everything_stands(
    connection: Connection, operator, engine, monkeypatch
) -> None:
    monkeypatch.setattr(running, "YOUNGER_TRANSACTION_SECONDS", -1)
    with engine.begin() as other:
        other.execute(text("set application_name = 'nightly-report'"))
        pid = other.execute(text("select pg_backend_pid() from pg_current_xact_id()")).scalar_one()
        told = words_of((await operator.get("/findings")).text)
    assert f"server process {pid}, nightly-report, role" in told
    assert "idle in transaction, for" in told
    assert f"To end it: select pg_terminate_backend({pid}) ; what it has not committed is undone" in told
    assert "While it is open, vacuum removes no row that was deleted since it began" in told


async def test_a_relay_that_is_gone_ran_until_its_last_sign(connection: Connection, operator) -> None:
    seeding.sign_in(connection, started=10_000, seen=2_785)
    assert "gone 1.0 2h 46m" in words_of((await operator.get("/")).text)


@pytest.mark.parametrize("path", ["/", "/findings"])
async def test_a_finding_is_mended_where_it_stands(connection: Connection, operator, path: str) -> None:
    name = seeding.subscribe(connection)
    seeding.resolve(connection, seeding.record(connection), name)
    subscriptions.disable(connection, name, reason="410 Gone")
    page = (await operator.get(path)).text
    assert "is disabled since" in page
    await resume(operator, page, name)
    assert "is disabled since" not in (await operator.get(path)).text


async def test_a_finding_offers_no_button_to_whoever_may_only_look(connection: Connection, client, token) -> None:
    subscriptions.disable(connection, seeding.subscribe(connection), reason="410 Gone")
    page = (await (await signed_in(client, token("read", tenant=None))).get("/findings")).text
    assert "is disabled since" in page
    assert "/resume" not in page
    assert ">Open the subscription</a>" in page


async def test_a_finding_of_dead_letters_leads_to_them(connection: Connection, operator) -> None:
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    seeding.attempt(connection, delivery, "dead")
    page = (await operator.get("/findings")).text
    assert "1 dead letter waits for a person." in page
    assert '<a href="/dead-letters">Show them</a>' in page
    assert "<summary>By command</summary>relay dead-letters list" in page


async def test_a_delivery_that_fails_has_advice_on_its_page_by_api_and_by_command(
    connection: Connection, operator, client, token, database_url: str
) -> None:
    event = seeding.record(connection)
    (delivery,) = seeding.resolve(connection, event, seeding.subscribe(connection))
    seeding.attempt(connection, delivery, "dead")
    connection.execute(text("update outbox.attempts set outcome = 'http_4xx', status = 401"))
    said = "The endpoint refuses the signature or the credentials"
    page = (await operator.get(f"/deliveries/{delivery}")).text
    assert re.search(rf"At the last attempt, \S+ \S+Z \((now|\ds ago)\): note answer\.401 {said}", words_of(page))
    assert "To mend it: Mostly the secret was exchanged on one side only: compare it, or rotate it" in words_of(page)
    assert "By command" not in page
    assert '/test">Check the endpoint</a>' in page
    headers = {"Authorization": f"Bearer {token(tenant=None)}"}
    found = (await client.get(f"/api/v1/deliveries/{delivery}", headers=headers)).json()["advice"]
    assert (found["code"], found["seen"], found["action"]["page"]) == ("answer.401", said, "test")
    tracked = (await client.get(f"/api/v1/events/{event}/track", headers=headers)).json()["deliveries"][0]["advice"]
    assert tracked == found
    for command in (["explain", event], ["deliveries", "show", delivery]):
        ended = CliRunner().invoke(cli, command, env={"RELAY_DATABASE_URL": database_url})
        assert f"{said}: mostly the secret was exchanged on one side only" in ended.stdout


async def test_all_sending_is_resumed_where_the_finding_stands(connection: Connection, operator) -> None:
    pause_all(connection, None, "the bank called")
    page = (await operator.get("/findings")).text
    finding = page[page.index("sending.paused") :]
    found = re.search(r'action="(/findings/sending)"[^>]*><input[^>]*name="csrf" value="(\w+)"', finding)
    assert found
    await operator.post(found[1], data={"csrf": found[2], "to": "resumed"})
    assert not read_sending(connection, None).is_paused


async def test_events_of_one_state_are_found_on_the_page_by_command_and_in_python(
    connection: Connection, operator, database_url: str
) -> None:
    seeding.record(connection, type="order.waits")
    lost = seeding.record(connection, type="order.nobody")
    seeding.resolve(connection, lost)
    page = (await operator.get("/events?state=unmatched")).text
    assert "order.nobody" in page
    assert "order.waits" not in page
    assert '<option value="unmatched" selected>unmatched</option>' in page
    run = CliRunner().invoke
    listed = run(cli, ["events", "list", "--state", "pending"], env={"RELAY_DATABASE_URL": database_url}).stdout
    assert "order.waits" in listed
    assert "order.nobody" not in listed
    assert [str(one.id) for one in outbox.events.list(connection, "unmatched")] == [lost]


async def press(client: httpx.AsyncClient, page: str, address: str) -> httpx.Response:
    """Press the button of a page that posts to this address; return the page that it leads to."""
    found = re.search(rf'action="{re.escape(address)}"[^>]*><input[^>]*name="csrf" value="(\w+)"', page)
    assert found
    return await client.post(address, data={"csrf": found[1]}, follow_redirects=True)


@pytest.mark.parametrize("path", ["/subscriptions/{}", "/findings"])
async def test_what_waits_for_a_retry_is_said_with_its_time_and_tried_at_once_by_a_button(
    connection: Connection, operator, path: str
) -> None:
    name = seeding.subscribe(connection)
    for delivery in seeding.resolve(connection, seeding.record(connection), name, name):
        seeding.attempt(connection, delivery, "retry")
    connection.execute(
        text("update outbox.deliveries set due_at = clock_timestamp() + interval '4 minutes 34 seconds'")
    )
    page = (await operator.get(path.format(name))).text
    assert re.search("2 wait for a retry: (the first )?until|2 retries wait, such as", words_of(page))
    assert "4m 3" in words_of((await operator.get(f"/subscriptions/{name}")).text)
    after = await press(operator, page, f"/subscriptions/{name}/retry")
    assert "2 due now; a relay takes them in their turn." in after.text
    assert "wait for a retry" not in words_of(after.text)
    assert connection.execute(text("select count(*) from outbox.deliveries where due_at <= now()")).scalar_one() == 2
    noted = connection.execute(text("select action, subject, details ->> 'count' from outbox.audit order by at desc"))
    assert noted.first() == ("retried", name, "2")


async def test_retries_are_tried_at_once_by_nobody_without_the_right_to_operate(
    connection: Connection, client, token
) -> None:
    name = seeding.subscribe(connection)
    seeding.attempt(connection, *seeding.resolve(connection, seeding.record(connection), name), "retry")
    page = (await (await signed_in(client, token("read", tenant=None))).get(f"/subscriptions/{name}")).text
    assert "1 waits for its retry" in words_of(page)
    assert "Try it now" not in page


async def test_the_page_of_a_subscription_shows_its_secrets_by_age_and_end_and_never_a_secret(
    connection: Connection, operator
) -> None:
    name = seeding.subscribe(connection)
    first = words_of((await operator.get(f"/subscriptions/{name}")).text)
    assert re.search(r"Signing secrets The newest, made \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ ", first)
    assert "An older one" not in first
    made = subscriptions.rotate_secret(connection, name, overlap_seconds=3600)
    page = words_of((await operator.get(f"/subscriptions/{name}")).text)
    assert re.search(r"An older one, made \S+ \S+Z , signs along until \S+ \S+Z \(in (59m \d+s|1h 0m)\)", page)
    assert str(made.secret) not in page
    assert "whsec_" not in page


async def test_an_exchange_says_until_when_the_old_secret_signs_along(connection: Connection, operator) -> None:
    name = seeding.subscribe(connection)
    form = (await operator.get(f"/subscriptions/{name}/secret")).text
    found = re.search(r'name="csrf" value="(\w+)"', form)
    assert found
    for overlap, said in [("3600", r"The old one signs along until \S+ \S+Z \(UTC\)"), ("0", "does not sign any more")]:
        answer = await operator.post(
            f"/subscriptions/{name}/secret", data={"csrf": found[1], "overlap_seconds": overlap, "secret": ""}
        )
        assert re.search(said, words_of(answer.text))
        assert "close this page before you have kept it, rotate the secret again" in words_of(answer.text)


@pytest.mark.parametrize(("path", "page"), [("/", overview), ("/findings", findings)])
async def test_what_is_older_than_five_seconds_says_of_when_it_is_at_the_top(
    connection: Connection, operator, monkeypatch, path: str, page: ModuleType
) -> None:
    assert "As of" not in words_of((await operator.get(path)).text)

    def of_before(*asked: Any) -> Status:
        found = kept_status(*asked)
        return replace(found, at=found.at - timedelta(seconds=14))

    monkeypatch.setattr(page, "kept_status", of_before)
    told = (await operator.get(path)).text
    assert re.search(
        r"As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \(1\ds ago\): what is due and dead, the endpoints", words_of(told)
    )
    assert told.index("As of") < told.index("data-live>") + 200


@pytest.mark.parametrize("stands", ["paused", "no relay", None])
async def test_a_kept_status_is_not_shown_once_everything_stands(
    connection: Connection, operator, app, monkeypatch, stands: str | None
) -> None:
    """Under a backlog it is kept for a minute and a half: as long the overview said nothing of a pause by command."""
    monkeypatch.setattr("relay.web.pages.kept_status.CHEAP_SECONDS", -1.0)
    monkeypatch.setattr("relay.web.pages.kept_status.KEPT_TIMES", 1000)
    monkeypatch.setattr("relay.web.pages.kept_status.LOOK_SECONDS", 0.0)
    seeding.sign_in(connection, host="alive")
    read: list[Status] = []

    def noted(*asked: Any) -> Status:
        read.append(kept_status(*asked))
        return read[-1]

    monkeypatch.setattr(overview, "kept_status", noted)
    await operator.get("/")
    if stands == "paused":
        pause_all(connection, None, reason="wrong prices")
    elif stands:
        connection.execute(text("update outbox.relays set seen_at = now() - interval '1 hour'"))
    told = words_of((await operator.get("/")).text)
    assert (read[0].at == read[1].at) == (stands is None)
    assert ("wrong prices" in told) == (stands == "paused")
    assert ("No relay" in told) == (stands == "no relay")


async def test_what_the_overview_has_from_an_older_status_says_its_age_and_what_is_new_does_not(
    connection: Connection, operator, monkeypatch
) -> None:
    """On a full disk, or under a great backlog: a figure said no dead letter, and the table beside it had one."""
    seeding.sign_in(connection, seen=600, leased=7)
    (delivery,) = seeding.resolve(connection, seeding.record(connection), seeding.subscribe(connection))
    kept: list[Status] = []

    def of_before(*asked: Any) -> Status:
        kept.append(kept[0] if kept else replace(kept_status(*asked), at=datetime.now(UTC) - timedelta(seconds=14)))
        return kept[0]

    monkeypatch.setattr(overview, "kept_status", of_before)
    await operator.get("/")
    seeding.attempt(connection, delivery, "dead")
    told = words_of((await operator.get("/")).text)
    aged = r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
    for older in ("Findings", "Dead letters 0 none", "events pending", "Endpoints in trouble", "Relays"):
        assert re.search(rf"{older} {aged}", told), older
    for newer in ("Newest dead letters", "Newest events"):
        assert re.search(rf"{newer} All", told), newer
    assert "7 at its last sign" in told


async def test_a_page_that_found_nothing_so_far_says_up_to_where_it_looked_and_how_to_go_on(
    connection: Connection, operator, monkeypatch
) -> None:
    for name in ("LOOKED", "LOOKED_FOR_STATE", "LOOKED_BY_INDEX"):
        monkeypatch.setattr(event_walk, name, 60)
    name = seeding.subscribe(connection)
    for _ in range(70):
        seeding.resolve(connection, seeding.record(connection), name)
    told = words_of((await operator.get("/events?state=unmatched")).text)
    said = r"Nothing was found up to \S+ \S+Z \. The rest is not searched yet: the next page goes on from there\."
    assert re.search(said, told)
    assert "This page was searched up to" not in told
    assert "Next page" in told


async def test_an_added_sealing_key_says_who_did_it_why_and_when_nothing_is_to_do(connection, operator) -> None:
    """Its two words alone alarmed whoever looked for the change that broke something."""
    connection.execute(text("select set_config('outbox.actor', 'alice <b>', false)"))
    add = "insert into outbox.sealing_keys (id, key) select left(encode(sha256(k), 'hex'), 16), encode(k, 'base64')"
    connection.execute(text(f"{add} from (select sha256('a') k) made"))
    page = words_of((await operator.get("/audit", params={"action": "sealing key added"})).text)
    assert "that is what relay secrets rekey does, at the first time and with each new secret_key" in page
    assert "If alice <b> ran it there is nothing to do" in page


async def test_an_operation_says_what_became_of_what_it_put_back(connection: Connection, operator) -> None:
    made = subscriptions.add(connection, "https://example.com/hooks", ["*"], tenant="acme", name="warehouse").id
    operation = seeding.put_back(connection, made, 3)
    told = words_of((await operator.get(f"/bulk/{operation}")).text)
    for path in ("/bulk", f"/bulk/{operation}"):
        assert "warehouse https://example.com/hooks" in words_of((await operator.get(path)).text), path
    assert "Of those, arrived 0 On their way 3 Dead once more 0 Others 2 retries that were made due" in told
