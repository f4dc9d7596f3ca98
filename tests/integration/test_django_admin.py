"""The admin shows the outbox, without secrets and within bounds, and does by hand what a user has the right to."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from sqlalchemy import text

import outbox
from tests.support import databases, django_site, seeding
from tests.support.django_site import scalars

django_site.begin()

from django.contrib.auth.models import Permission, User  # noqa: E402 - only now are there settings

from outbox.django import admin  # noqa: E402
from outbox.django.models import Attempt, DeadLetter, Delivery, Event, Subscription  # noqa: E402

pytestmark = pytest.mark.xdist_group("django admin")  # the site is migrated once
PAGES = ("event", "subscription", "delivery", "deadletter")
ROOT = "/admin/outbox_relay"
CANARY = "s3cr3t-in-the-path"


@pytest.fixture(scope="module")
def url(server_url):
    with django_site.site_database(server_url) as url:
        yield url


def rows(url):
    """Three events for one subscription: a delivery that waits for its retry, a dead letter, and a parked delivery."""
    with databases.engine_on(url) as engine, engine.begin() as connection:
        slack = f"https://hooks.slack.com/services/T0/B0/{CANARY}"
        made = seeding.subscribe(connection, url=slack, tenant="acme")
        events = [seeding.record(connection, tenant="acme") for _ in range(2)]
        waiting, dead = (seeding.resolve(connection, event, made)[0] for event in events)
        seeding.attempt(connection, waiting, "retry", error="refused <b>")
        seeding.attempt(connection, dead, "dead", error="gone")
        parked = seeding.resolve(connection, seeding.record(connection, tenant="acme"), made)[0]
        connection.execute(text("update outbox.deliveries set due_at = 'infinity' where attempts = 0"))
        connection.execute(text("delete from outbox.pending"))
    return {"sub": made, "evt": events[0], "waiting": waiting, "dead": dead, "parked": parked}


@pytest.fixture(scope="module")
def ids(url):
    """Rows that no test changes."""
    return rows(url)


@pytest.fixture
def client(url):
    user, _ = User.objects.get_or_create(username="alice", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    return client


def page(client, path):
    answer = client.get(f"{ROOT}/{path}")
    assert answer.status_code == 200, path
    shown = answer.content.decode()
    assert CANARY not in shown
    assert "whsec_" not in shown
    return shown


@pytest.mark.parametrize("name", PAGES)
def test_a_list_shows_its_rows_and_bounds_what_it_reads(client, ids, name):
    with CaptureQueriesContext(connection) as sent:
        shown = page(client, f"{name}/")
    assert re.search(rf"{ids['sub'] if name == 'subscription' else '(evt|dlv)_'}", shown)
    ours = [one["sql"] for one in sent.captured_queries if f'FROM "outbox"."{admin_table(name)}"' in one["sql"]]
    assert ours
    assert [sql for sql in ours if f"LIMIT {admin.NEWEST}" not in sql] == []
    assert [sql for sql in ours if '"payload"' in sql] == []


def admin_table(name):
    return {"event": "events", "subscription": "subscriptions", "delivery": "deliveries",
            "deadletter": "dead_letters"}[name]  # fmt: skip


def test_the_newest_rows_are_a_list_and_the_search_finds_the_others(client, ids, monkeypatch):
    monkeypatch.setattr(admin, "NEWEST", 1)
    shown = page(client, "event/")
    assert ids["evt"] not in shown
    assert "1 event" in shown
    assert ids["evt"] in page(client, f"event/?q={ids['evt']}")
    assert ids["dead"] in page(client, f"deadletter/?q={ids['dead']}")


@pytest.mark.parametrize(
    ("name", "by", "found"),
    [("delivery", "sub", "waiting"), ("delivery", "waiting", "waiting"), ("deadletter", "sub", "dead"),
     ("subscription", "sub", "sub"), ("event", "evt", "evt")],
)  # fmt: skip
def test_the_search_takes_ids(client, ids, name, by, found):
    assert ids[found] in page(client, f"{name}/?q={ids[by]}")


@pytest.mark.parametrize("wrong", ["order", "evt_1", "aud_01jd3v0000e008000000000000", "dlv_" + "z" * 26])
def test_a_search_for_what_is_no_id_says_so(client, ids, wrong):
    shown = page(client, f"delivery/?q={wrong}")
    assert "no id that is looked for here" in shown
    assert ids["waiting"] not in shown


def test_a_search_for_the_event_finds_its_dead_letter(client, ids):
    event = DeadLetter.objects.get(pk=key(DeadLetter, ids["dead"])).event_text_id
    assert ids["dead"] in page(client, f"deadletter/?q={event}")


def test_a_page_tells_of_one_row_with_its_attempts(client, ids):
    waiting = page(client, f"delivery/{key(Delivery, ids['waiting'])}/change/")
    assert "refused &lt;b&gt;" in waiting
    assert "waiting" in waiting
    assert "parked" in page(client, f"delivery/{key(Delivery, ids['parked'])}/change/")
    dead = page(client, f"deadletter/{key(DeadLetter, ids['dead'])}/change/")
    assert "gone" in dead
    event = page(client, f"event/{key(Event, ids['evt'])}/change/")
    assert "refused &lt;b&gt;" in event
    shown = page(client, f"subscription/{key(Subscription, ids['sub'])}/change/")
    assert "https://hooks.slack.com/" in shown


def key(model, text_id):
    (found,) = [one.pk for one in model.objects.all() if one.text_id == text_id]
    return found


def test_models_are_to_be_read(ids):
    assert Delivery.objects.get(pk=key(Delivery, ids["parked"])).due_at is None  # infinity, for which Python has none
    assert Subscription.objects.get(pk=key(Subscription, ids["sub"])).types == "*"
    attempts = Attempt.objects.filter(delivery=key(DeadLetter, ids["dead"]))
    assert [str(one) for one in attempts] == [f"{ids['dead']} attempt 1"]
    letter = DeadLetter.objects.select_related("subscription").get(pk=key(DeadLetter, ids["dead"]))
    assert (str(letter), letter.event_text_id[:4], str(letter.subscription)) == (ids["dead"], "evt_", ids["sub"])


@pytest.mark.parametrize(
    "write",
    [
        lambda: Event.objects.create(type="a"), lambda: Event.objects.all().delete(),
        lambda: Subscription.objects.update(name="x"), lambda: DeadLetter.objects.first().delete(),
        lambda: DeadLetter.objects.first().save(), lambda: Delivery.objects.bulk_create([]),
    ],
)  # fmt: skip
def test_models_write_nothing(ids, write):
    with pytest.raises(outbox.ArgumentError, match="for reading"):
        write()


def act(client, name, action, *keys):
    data = {"action": action, "_selected_action": [str(one) for one in keys]}
    return client.post(f"{ROOT}/{name}/", data, follow=True).content.decode()


def test_actions_do_it_in_the_name_of_the_user(client, url):
    ids = rows(url)
    subscription = key(Subscription, ids["sub"])
    assert "Done: 1." in act(client, "subscription", "pause", subscription)
    assert Subscription.objects.get(pk=subscription).paused_at is not None
    assert "Done: 1." in act(client, "subscription", "resume", subscription)
    assert Subscription.objects.get(pk=subscription).paused_at is None
    assert "Done: 1." in act(client, "delivery", "retry", key(Delivery, ids["waiting"]))
    refused = act(client, "delivery", "retry", key(Delivery, ids["parked"]), key(Delivery, ids["waiting"]))
    assert "Nothing was changed. " in refused
    assert "alice" in scalars(url, "select actor from outbox.audit")
    event = DeadLetter.objects.get(pk=key(DeadLetter, ids["dead"])).event_text_id
    assert "Done: 1." in act(client, "deadletter", "replay", key(DeadLetter, ids["dead"]))
    with outbox.django.connection() as ours:
        assert [one.state for one in outbox.events.get(ours, event, tenant="acme").deliveries] == ["due"]


def test_each_action_needs_its_own_right(url, ids):
    user = User.objects.create(username="bob", is_staff=True)
    client = Client()
    client.force_login(user)
    assert client.get(f"{ROOT}/deadletter/").status_code == 403
    user.user_permissions.add(*Permission.objects.filter(codename__startswith="view_"))
    assert 'value="replay"' not in page(client, "deadletter/")
    for path in ("deadletter/add/", f"deadletter/{key(DeadLetter, ids['dead'])}/delete/"):
        assert client.get(f"{ROOT}/{path}").status_code == 403
    act(client, "deadletter", "replay", key(DeadLetter, ids["dead"]))
    assert DeadLetter.objects.filter(pk=key(DeadLetter, ids["dead"])).exists()
    user.user_permissions.add(Permission.objects.get(codename="replay_deadletter"))
    user = User.objects.get(pk=user.pk)
    assert 'value="replay"' in page(client, "deadletter/")
    assert 'value="retry"' not in page(client, "delivery/")
