"""What a customer tries who wants more: another tenant's history, a provider's credentials, a stop of the process."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import Engine, text

import outbox
from outbox import SubscriptionError, subscriptions
from outbox.ids import parse_id
from outbox.subscriptions.rows import hold_tenant
from tests.support import databases, seeding
from tests.support.dashboard import served
from tests.support.loopback import allow_loopback
from tests.support.waiting import wait_until

pytestmark = pytest.mark.xdist_group("dashboard")
MOST = 3


@dataclass(frozen=True)
class Stage:
    address: str
    engine: Engine

    def link(self, tenant: str) -> str:
        with self.engine.begin() as connection:
            return outbox.portal_url(connection, tenant, f"{self.address}/portal", rights="manage")


@pytest.fixture(scope="module")
def stage(server_url: str, migrated_template: str) -> Iterator[Stage]:
    """A portal for all tests here; each has a tenant of its own."""
    allow_loopback()
    with (
        databases.database(server_url, template=migrated_template) as url,
        databases.engine_on(url) as engine,
        served(url, portal_filters=True, portal_max_endpoints=MOST) as address,
    ):
        yield Stage(address, engine)


Enter = Callable[[str], httpx.Client]


@pytest.fixture
def enter(stage: Stage) -> Iterator[Enter]:
    opened: list[httpx.Client] = []

    def open_(tenant: str) -> httpx.Client:
        client = httpx.Client(base_url=stage.address, timeout=30, verify=False)
        opened.append(client)
        client.get(stage.link(tenant))
        return client

    yield open_
    for client in opened:
        client.close()


def value_of(name: str, client: httpx.Client, path: str = "/portal/deliveries/none") -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', client.get(path).text)
    return found[1] if found else ""


def post(client: httpx.Client, path: str, **fields: Any) -> httpx.Response:
    return client.post(path, data={"csrf": value_of("csrf", client), **fields})


def test_the_id_of_what_another_tenant_removed_shows_nothing_of_it(stage: Stage, enter: Enter) -> None:
    """Its row goes an hour after it was removed; whose the attempts are, that row had said."""
    with stage.engine.begin() as connection:
        gone = seeding.subscribe(connection, tenant="victim", url="https://victim.example/in")
        event = seeding.record(connection, type="victim.sold", tenant="victim", key="victims-key")
        (delivery,) = seeding.resolve(connection, event, gone)
        seeding.attempt(connection, delivery, "delivered")
        subscriptions.remove(connection, gone, tenant="victim")
        connection.execute(text("delete from outbox.subscriptions where id = :id"), {"id": parse_id("sub", gone)})
    thief = enter("thief")
    answer = post(thief, "/portal/endpoints/new", url="https://thief.example/in", types="*", id=gone)
    assert answer.status_code == 422
    assert "is taken" in answer.text
    assert "victim" not in thief.get("/portal/deliveries").text
    assert thief.get(f"/portal/deliveries/{delivery}").status_code == 404
    with stage.engine.begin() as connection, pytest.raises(SubscriptionError, match=r"^id: sub_\w+ is taken"):
        subscriptions.add(connection, "https://thief.example/in", ["*"], tenant="thief", id=gone)


def test_a_credential_that_is_stored_meanwhile_goes_to_no_other_host(stage: Stage, enter: Enter) -> None:
    """The form was opened before; it is sent while the operator's transaction is not committed yet."""
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="meanwhile", url="https://good.example/in")
    client, path, answers = enter("meanwhile"), f"/portal/endpoints/{name}/edit", []
    fields = {"version": value_of("version", client, path), "url": "https://evil.example/in", "types": "*"}
    with stage.engine.begin() as operator:
        subscriptions.update(operator, name, tenant="meanwhile", headers=[("X-Provider-Key", "provider-s3cret")])
        customer = threading.Thread(target=lambda: answers.append(post(client, path, **fields)))
        customer.start()
        wait_until(lambda: waits(stage.engine))
    customer.join(30)
    assert [answer.status_code for answer in answers] == [409]
    with stage.engine.begin() as connection:
        assert subscriptions.get(connection, name, tenant="meanwhile").url == "https://good.example/in"


def waits(engine: Engine) -> bool:
    """Whether somebody waits for a lock in this database."""
    with engine.begin() as connection:
        statement = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        )
        return bool(connection.execute(text(statement)).scalar_one())


def test_what_is_no_url_is_told_at_its_field_where_only_one_host_may_be_given(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        name = seeding.subscribe(connection, tenant="bound", url="https://good.example/in")
        subscriptions.update(connection, name, tenant="bound", headers=[("X-Provider-Key", "provider-s3cret")])
    client, path = enter("bound"), f"/portal/endpoints/{name}/edit"
    version = value_of("version", client, path)
    for url in (
        "https://[::1", "https://[zz]/", "https://ex℀mple.com/", "https://good.example\\@evil.example/in", "x", "",
        "https://good.example:8443/in", "https://good.example.evil.example/in", "https://good.example@evil.example/",
        "https://good.exa\tmple/in", "http://good.example/in",
    ):  # fmt: skip
        answer = post(client, path, version=version, url=url, types="*")
        assert answer.status_code == 422, url
        assert "aria-invalid" in answer.text
    assert post(client, path, version=version, url="https://GOOD.example:443/other", types="*").status_code == 303


@pytest.mark.parametrize(
    "given", ["[" * 50_000, '{"a":' * 50_000, "\x00", "9" * 10_000, '{"payload": {"\\ud800": 1}}', '{"a": NaN}']
)
def test_a_filter_that_cannot_be_is_told_at_its_field(enter: Enter, given: str) -> None:
    answer = post(enter("odd"), "/portal/endpoints/new", url="https://a.example/in", types="*", filter=given)
    assert answer.status_code == 422
    assert "aria-invalid" in answer.text


@pytest.mark.slow
def test_whatever_stands_in_an_address_a_page_comes_of_it(enter: Enter) -> None:
    client = enter("odd")
    for path in ("types/%00", "endpoints/%00", "deliveries/%00", "types/..%2f..", "types/%ed%a0%80", "none", "open/"):
        assert client.get(f"/portal/{path}").status_code == 404, path
    forever = "WyJkZWxpdmVyaWVzIiwiaW5maW5pdHkiLCIwMTljMDAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAiXQ"
    for value in (b"\0", b"\xed\xa0\x80", b"a" * 5_000, b"*", b"x.*", b"sub_" + b"0" * 26, forever.encode()):
        names = ("type", "endpoint", "after", "since", "window", "done", "n", "tenant")
        for show in ("latest", "failed", "waiting", "given_up"):
            for name in names:
                answer = client.get(f"/portal/deliveries?{urlencode({'show': show, name: value})}")
                assert answer.status_code == 200, (show, name, value)
        for path in ("/portal/", "/portal/endpoints/new", "/portal/types"):
            assert client.get(f"{path}?{urlencode(dict.fromkeys(names, value))}").status_code == 200, (path, value)


def test_many_sessions_at_once_add_no_more_endpoints_than_there_may_be(stage: Stage, enter: Enter) -> None:
    sessions = [(client, value_of("csrf", client)) for client in (enter("crowd") for _ in range(4))]

    def add(number: int) -> int:
        client, csrf = sessions[number % 4]
        fields = {"csrf": csrf, "url": f"https://a.example/{number}", "types": "*"}
        return client.post("/portal/endpoints/new", data=fields).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = sorted(pool.map(add, range(16)))
    assert codes == [200] * MOST + [409] * (16 - MOST)
    with stage.engine.begin() as connection:
        assert len(subscriptions.list(connection, tenant="crowd")) == MOST


@pytest.mark.slow
def test_a_session_that_stopped_while_it_added_one_keeps_others_for_a_bounded_time(stage: Stage, enter: Enter) -> None:
    client = enter("halting")
    fields = {"csrf": value_of("csrf", client), "url": "https://a.example/", "types": "*"}
    with stage.engine.begin() as stopped:
        hold_tenant(stopped, "halting")
        answer = client.post("/portal/endpoints/new", data=fields)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Another endpoint is being added for you" in answer.text
    assert client.post("/portal/endpoints/new", data=fields).status_code == 200


def test_of_browsers_that_open_a_link_at_once_one_comes_in(stage: Stage) -> None:
    def open_(link: str) -> int:
        with httpx.Client(verify=False) as client:
            return client.get(link).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(open_, [stage.link("pair")] * 8)) == [303] + [403] * 7


def test_the_tenant_without_a_name_is_not_every_tenant(stage: Stage, enter: Enter) -> None:
    with stage.engine.begin() as connection:
        names = [seeding.subscribe(connection, tenant=one, url="https://named.example/in") for one in ("named", "*")]
        event = seeding.record(connection, type="named.type", tenant="named", key="named-key")
        given_up = seeding.resolve(connection, event, *names)
        for delivery in given_up:
            seeding.attempt(connection, delivery, "dead")
    client = enter("")
    for path in ("", "types", "deliveries", "deliveries?show=given_up", "deliveries?show=failed"):
        answer = client.get(f"/portal/{path}")
        assert answer.status_code == 200
        assert "named" not in answer.text
    things = [f"endpoints/{one}" for one in names] + [f"deliveries/{one}" for one in given_up] + ["types/named.type"]
    for path in things:
        assert client.get(f"/portal/{path}").status_code == 404
