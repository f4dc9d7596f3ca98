"""Which right each post needs, and that a tenant sees its own and nothing of others."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import Engine, text

from outbox import subscriptions
from relay.operations import tokens
from relay.web.pages import router
from tests.support.dashboard import ALL_RIGHTS, Scene, posts_of
from tests.support.visiting import Page, paths_of, post, sign_in

pytestmark = pytest.mark.xdist_group("dashboard")
NEEDS = {
    "/subscriptions/new": "write", "/subscriptions/{subscription}/edit": "write",
    "/subscriptions/{subscription}/pause": "write", "/subscriptions/{subscription}/resume": "write",
    "/subscriptions/{subscription}/disable": "write", "/subscriptions/{subscription}/retry": "operate",
    "/subscriptions/{subscription}/remove": "write", "/subscriptions/{subscription}/secret": "write",
    "/subscriptions/{subscription}/test": "write", "/subscriptions/{subscription}/check": "write",
    "/events/{event}/replay": "operate", "/deliveries/{waiting_delivery}/retry": "operate",
    "/deliveries/{waiting_delivery}/cancel": "operate", "/deliveries/{dead_delivery}/replay": "operate",
    "/dead-letters": "operate", "/findings/sending": "operate", "/bulk/new": "operate",
    "/bulk/{bulk}/{verb}": "operate", "/bulk/{bulk}/rate": "operate", "/bulk/{bulk}/cancel": "operate",
    "/tokens": "admin", "/tokens/{token}/revoke": "admin",
}  # fmt: skip
OPEN = {"/sign-in", "/sign-out", "/preferences", "/subscriptions/{subscription_id}/preview"}


def fill(path: str, scene: Scene) -> str:
    return path.format(**scene.__dict__, token="tok_01m8k6j7ree3jvvj1xzjtnag40", verb="start")


def test_every_post_of_the_pages_is_among_those_whose_right_is_tested(stage) -> None:
    shape = {re.sub(r"\{\w+\}", "{}", path) for path in [*NEEDS, *OPEN]}
    assert {re.sub(r"\{\w+\}", "{}", path) for path in posts_of(router)} == shape


@pytest.mark.parametrize("path", NEEDS)
def test_a_post_is_refused_without_its_right(stage, path: str) -> None:
    address, scene, engine = stage
    token = _all_but(engine, NEEDS[path])
    with engine.begin() as connection:
        before = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    client = sign_in(address, token)
    answer = post(client, fill(path, scene), confirmed="1", all="1", type="order.*", act="purge", to="paused")
    assert answer.status_code == 403
    assert NEEDS[path] in answer.text
    with engine.begin() as connection:
        after = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    assert after - before == 1  # the session itself


@pytest.mark.parametrize("right", sorted(set(NEEDS.values())))
def test_no_page_shows_a_button_whose_right_is_missing(stage, right: str) -> None:
    address, scene, engine = stage
    refused = {fill(path, scene) for path, needs in NEEDS.items() if needs == right}
    client, shown = sign_in(address, _all_but(engine, right)), 0
    for path in paths_of(scene):
        page = client.get(path)
        if page.status_code == 200:
            shown += 1
            assert refused & Page(page.text).posts_to() == set(), path
    assert shown > 15


def _all_but(engine: Engine, right: str) -> str:
    """Return the text of an operator's token with every right but this one."""
    others = [one for one in ALL_RIGHTS if one != right]
    with engine.begin() as connection:
        return tokens.create(connection, None, name=f"all but {right}", rights=others, whose=None).text


def test_a_tenant_sees_its_own_and_nothing_of_others(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    for path in paths_of(scene):
        answer = client.get(path)
        foreign = any(name in path for name in (scene.failing, scene.dead_event, scene.dead_delivery,
                                                scene.waiting_delivery, scene.delivered_delivery,
                                                scene.bulk))  # fmt: skip
        assert answer.status_code == (404 if foreign or path == "/findings" else 200), path
        for name in ("globex", "umbrella", "initech", "relay-a.shop"):
            assert name not in answer.text, path
    for tenant in ("globex", ""):
        listed = client.get("/subscriptions", params={"tenant": tenant}).text
        assert "hooks.acme.example" in listed or tenant
        assert "globex.example" not in listed
    with engine.begin() as connection:
        before = connection.execute(text("select count(*) from outbox.audit")).scalar_one()
    for path in (f"/subscriptions/{scene.failing}/pause", f"/subscriptions/{scene.failing}/remove",
                 f"/subscriptions/{scene.failing}/disable",
                 f"/subscriptions/{scene.failing}/secret", f"/subscriptions/{scene.failing}/test",
                 f"/subscriptions/{scene.failing}/edit", f"/events/{scene.dead_event}/replay",
                 f"/deliveries/{scene.waiting_delivery}/retry", f"/deliveries/{scene.waiting_delivery}/cancel",
                 f"/deliveries/{scene.dead_delivery}/replay", "/dead-letters", "/findings/sending",
                 f"/bulk/{scene.bulk}/start", f"/bulk/{scene.bulk}/cancel", f"/bulk/{scene.bulk}/rate"):  # fmt: skip
        answer = post(client, path, confirmed="1", id=scene.dead_delivery, act="purge", to="paused")
        assert answer.status_code == 404, (path, answer.text)
    with engine.begin() as connection:
        assert connection.execute(text("select count(*) from outbox.audit")).scalar_one() == before


def test_a_tenant_cannot_make_a_token_or_a_subscription_of_another(stage) -> None:
    address, scene, engine = stage
    client = sign_in(address, scene.tenant)
    answer = post(client, "/tokens", name="mine", right="read", every_tenant="1", tenant="globex", days="30")
    made = re.search(r"rtk_[A-Za-z0-9_-]{43}", answer.text)
    assert made
    with engine.begin() as connection:
        found = tokens.authenticate(connection, made[0])
        assert found is not None
        assert found.tenant == "acme"
    answer = post(client, "/subscriptions/new", url="http://127.0.0.1:8999/new", types="order.*", tenant="globex")
    name = re.search(r"sub_[0-9a-z]{26}", answer.text)
    assert name
    with engine.begin() as connection:
        assert subscriptions.get(connection, name[0], tenant="acme").tenant == "acme"
