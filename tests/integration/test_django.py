"""An event that is recorded on Django's connection lives and dies with Django's transaction."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.core.cache import cache
from django.db import DataError, connection, connections, transaction
from django.forms.models import model_to_dict
from django.test.utils import CaptureQueriesContext
from django.utils.functional import lazystr
from django.utils.translation import gettext_lazy
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox import ArgumentError, PayloadError, PayloadTooLarge, RecordError, SchemaError, TransactionError
from outbox.signing.verify import new_secret
from tests.support import databases, django_site
from tests.support.django_site import forget_connections, on_database, scalars

django_site.begin()

import outbox.django  # noqa: E402 - only now are there settings
from examples.django_shop.models import Order  # noqa: E402

pytestmark = [pytest.mark.field("F51"), pytest.mark.xdist_group("django")]  # the site is migrated once


@pytest.fixture(scope="module")
def url(server_url):
    with django_site.site_database(server_url) as url:
        yield url


@pytest.fixture(autouse=True)
def _empty(url):
    with databases.engine_on(url) as engine, engine.begin() as connection:
        tables = "outbox.events, outbox.pending, outbox.idempotency_keys, outbox.subscriptions, django_shop_order"
        connection.execute(text(f"truncate {tables} cascade"))


def types(url):
    """The types of the committed events, all of them pending."""
    return scalars(url, "select type from outbox.events e join outbox.pending p on p.event_seq = e.seq order by seq")


def record_on_the_connection(type_: str, data: Any, **more: Any) -> outbox.Event:
    return outbox.record(connection, type_, data, **more)


savepoint = getattr(transaction, "savepoint_create", None) or transaction.savepoint  # its name until Django 6.1


@contextmanager
def undone(block: AbstractContextManager[Any]) -> Iterator[Any]:
    """A block of Django's that ends with an error."""
    with suppress(ZeroDivisionError), block as given:
        yield given
        raise ZeroDivisionError


both_ways = pytest.mark.parametrize(
    "record", [record_on_the_connection, outbox.django.record], ids=["outbox.record", "outbox.django.record"]
)


@both_ways
def test_an_event_commits_with_its_row(url, record):
    with transaction.atomic():
        order = Order.objects.create(cents=4200)
        event = record("order.placed", {"id": order.pk}, key=f"order-{order.pk}", tenant="acme", priority=2)
        assert types(url) == []
    assert scalars(url, "select outbox.text_id('evt', id) from outbox.events") == [event.id]
    assert scalars(url, "select payload from outbox.events") == [f'{{"id":{order.pk}}}']
    assert types(url) == ["order.placed"]


def test_a_rollback_takes_it_along_and_a_savepoint_its_own(url):
    with undone(transaction.atomic()):
        outbox.record(connection, "never", 1)
    with transaction.atomic(durable=True):
        outbox.record(connection, "first", 1)
        with undone(transaction.atomic()):
            outbox.record(connection, "undone", 1)
        with transaction.atomic():
            outbox.record(connection, "second", 1)
        point = savepoint()
        outbox.record(connection, "undone.too", 1)
        transaction.savepoint_rollback(point)
    assert types(url) == ["first", "second"]


@both_ways
def test_autocommit_is_refused_before_anything_is_written(url, record):
    Order.objects.create(cents=1)
    with CaptureQueriesContext(connection) as sent, pytest.raises(TransactionError, match=r"transaction\.atomic\(\)"):
        record("lost", 1)
    assert sent.captured_queries == []
    assert types(url) == []


def test_on_commit_comes_too_late(url):
    refused = []

    def late() -> None:
        with pytest.raises(TransactionError, match="autocommit"):
            outbox.record(connection, "late", 1)
        refused.append(True)

    with transaction.atomic():
        transaction.on_commit(late)
    assert refused == [True]
    assert types(url) == []


def test_a_transaction_that_was_begun_by_hand_will_do(url):
    transaction.set_autocommit(False)
    try:
        outbox.record(connection, "by.hand", 1)
        transaction.commit()
        outbox.record(connection, "never", 1)
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert types(url) == ["by.hand"]


def test_a_broken_transaction_is_refused(url):
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(TransactionError, match="'default' is broken"):
            outbox.record(connection, "never", 1)
    with undone(transaction.atomic()), connection.cursor() as cursor:
        with pytest.raises(DataError):
            cursor.execute("select 1/0")
        with pytest.raises(TransactionError, match="roll it back"):
            outbox.record(connection, "never", 1)
    with transaction.atomic():
        outbox.record(connection, "again", 1)
    assert types(url) == ["again"]


def test_a_closed_connection_is_refused(url):
    with transaction.atomic():
        connection.close()
        with pytest.raises(TransactionError, match="broken"):
            outbox.record(connection, "never", 1)
    assert types(url) == []


@pytest.mark.parametrize("more", [{}, {"server_side_binding": True}], ids=["client", "server"])
def test_it_is_one_statement_that_django_sees(url, more):
    with on_database(url, OPTIONS=more) as connection, transaction.atomic():
        for arguments in ({}, {"priority": 1}, {"idempotency_key": "once"}, {"available_at": dt.timedelta(1)}):
            with CaptureQueriesContext(connection) as sent:
                outbox.record(connection, "order.placed", {"text": "100 % of %s, 'quoted' \\ 😀"}, **arguments)
            assert len(sent) == 1
    assert {json.loads(payload)["text"] for payload in scalars(url, "select payload from outbox.events")} == {
        "100 % of %s, 'quoted' \\ 😀"
    }
    assert len(types(url)) == 4


def test_an_idempotency_key_stands_for_one_event(url):
    with transaction.atomic():
        first = outbox.django.record("a", 1, idempotency_key="once")
        assert outbox.django.record("a", 1, idempotency_key="once").id == first.id
    with transaction.atomic():
        assert outbox.django.record("a", 1, idempotency_key="once") == first
        with pytest.raises(RecordError, match="idempotency_key"):
            outbox.django.record("b", 1, idempotency_key="once")
        outbox.django.record("after", 1)  # the refusal broke nothing
    assert types(url) == ["a", "after"]


def test_an_error_of_the_server_is_named_and_holds_no_payload(url):
    larger = outbox.Outbox(max_payload_bytes=1_000_000)
    with undone(transaction.atomic()), pytest.raises(PayloadTooLarge) as raised:
        larger.record(connection, "a", "canary" * 60_000)
    links = [raised.value]
    while (cause := links[-1].__cause__) is not None:
        links.append(cause)
    assert len(links) > 1
    assert [link for link in links if "canary" in f"{link!r} {link}"] == []


def test_values_of_django_become_json_or_are_refused_with_the_mend(url):
    order = Order(pk=7, cents=4200)
    data = {
        "title": gettext_lazy("Order"), gettext_lazy("Order"): [lazystr("ä"), Decimal("19.90")],
        "day": dt.date(2026, 1, 31), "uuid": uuid.UUID(int=1), **model_to_dict(order),
    }  # fmt: skip
    with transaction.atomic():
        outbox.django.record("order.placed", data)
        for value, mend in ((order, "model_to_dict"), (Order.objects.all(), "list"), (Order.objects, "list")):
            with pytest.raises(PayloadError, match=rf"^data\.order: .*{mend}"):
                outbox.django.record("refused", {"order": value})
    (payload,) = scalars(url, "select payload from outbox.events")
    assert payload == (
        '{"title":"Order","Order":["ä",19.90],"day":"2026-01-31",'
        '"uuid":"00000000-0000-0000-0000-000000000001","id":7,"cents":4200}'
    )


def test_several_databases_and_the_transaction_of_the_wrong_one(url, server_url, migrated_template):
    with (
        databases.database(server_url, template=migrated_template) as second,
        on_database(second, "second") as other,
    ):
        with transaction.atomic(using="second"):
            outbox.record(other, "there", 1)
            outbox.django.record("there.too", 1, using="second")
            with pytest.raises(TransactionError, match=r"'default' is in autocommit.* say using='second'"):
                outbox.django.record("lost", 1)
        assert (types(url), types(second)) == ([], ["there", "there.too"])
    for wrong in ("elsewhere", 5, ["default"]):
        with pytest.raises(ArgumentError, match=r"^using: .* is no database of settings\.DATABASES, which has default"):
            outbox.django.record("lost", 1, using=wrong)  # type: ignore[arg-type]


def test_routers_are_asked_where_the_outbox_is(url, server_url, migrated_template, monkeypatch):
    from django.db import router

    class ToSecond:
        def db_for_write(self, model, **hints):
            return "second" if model is apps.get_model("outbox_relay", "Event") else None

    monkeypatch.setattr(router, "routers", [ToSecond()])
    with databases.database(server_url, template=migrated_template) as second, on_database(second, "second"):
        with transaction.atomic(using="second"):
            outbox.django.record("routed", 1)
        assert types(second) == ["routed"]


def test_another_database_than_postgresql_is_refused(tmp_path):
    connections.settings["lite"] = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3",
                                    "NAME": str(tmp_path / "lite"), "OPTIONS": {}}  # fmt: skip
    try:
        for verb in (
            lambda: outbox.record(connections["lite"], "a", 1),
            lambda: outbox.events.list(connections["lite"]),
        ):
            with pytest.raises(RecordError, match="'lite' speaks sqlite"):
                verb()
    finally:
        connections["lite"].close()
        del connections["lite"], connections.settings["lite"]


def test_a_database_without_the_schema_says_what_to_run(empty_database_url):
    with on_database(empty_database_url) as django, transaction.atomic():
        with pytest.raises(SchemaError, match="migrate"):
            outbox.record(django, "a", 1)
        assert django.needs_rollback


def test_code_that_awaits_is_told_where_to_record(url):
    async def view() -> None:
        for verb in (lambda: outbox.django.record("lost", 1), lambda: outbox.subscriptions.list(connection)):
            with pytest.raises(TransactionError, match="sync_to_async"):
                verb()
        with pytest.raises(outbox.TargetError, match="sync_to_async"):
            await outbox.arecord(connection, "lost", 1)
        await sync_to_async(place)()

    def place() -> None:
        with transaction.atomic():
            outbox.django.record("from.a.thread", 1)
        forget_connections()

    asyncio.run(view())
    assert types(url) == ["from.a.thread"]


def test_what_only_looks_like_djangos_connection_is_refused(url):
    with pytest.raises(outbox.TargetError, match=r"ConnectionProxy: pass a SQLAlchemy Session.*Django's"):
        outbox.record(cache, "a", 1)


def test_every_verb_takes_djangos_connection_and_its_transaction_decides(url):
    with undone(transaction.atomic()):
        gone = outbox.subscribe(connection, "https://example.com/hooks", ["*"])
        assert outbox.subscriptions.get(connection, gone.id).metadata == {}
    assert outbox.subscriptions.list(connection) == []
    with transaction.atomic():
        made = outbox.subscribe(connection, "https://example.com/hooks", ["order.*"], metadata={"a": "b"}, name="crm")
        outbox.act_as(connection, "alice@example.com")
        outbox.subscriptions.update(connection, made.id, description="x")
        outbox.subscriptions.pause(connection, made.id)
        assert outbox.subscriptions.rotate_secret(connection, made.id).secret.startswith("whsec_")
        asked = outbox.request_test(connection, made.id)
        event = outbox.django.record("order.placed", {"id": 1})
        assert outbox.portal_url(connection, "", "https://hooks.example.com/portal")
        with pytest.raises(TransactionError, match="commit before you wait"):
            outbox.wait_for_test(connection, asked, seconds=0)
    with pytest.raises(outbox.NoAnswerError):
        outbox.wait_for_test(connection, asked, seconds=0)
    assert outbox.subscriptions.get(connection, "crm").metadata == {"a": "b"}
    assert outbox.events.get(connection, event.id).recorded_at.tzinfo is not None
    assert [str(one.id) for one in outbox.events.list(connection)] == [event.id]
    assert outbox.deliveries.list(connection).items == ()
    assert outbox.statistics.read(connection, "").delivered == 0
    assert "alice@example.com" in scalars(url, "select actor from outbox.audit")


@pytest.mark.field("F46")
def test_a_verb_that_writes_is_refused_in_autocommit(url):
    for verb in (
        lambda: outbox.subscribe(connection, "https://example.com/", ["*"]),
        lambda: outbox.act_as(connection, "alice"),
        lambda: outbox.replays.replay_matching(connection, type="a.b"),
    ):
        with pytest.raises(TransactionError, match=r"transaction\.atomic\(\)"):
            verb()
    assert outbox.subscriptions.list(connection) == []


def test_a_connection_of_sqlalchemy_in_djangos_transaction(url):
    with transaction.atomic():
        Order.objects.create(cents=1)
        with outbox.django.connection() as ours:
            assert ours.scalar(text("select count(*) from django_shop_order")) == 1
            outbox.record(ours, "first", 1)
            ours.commit()
            outbox.record(ours, "second", 1)
            ours.rollback()
            ours.close()
        assert types(url) == []
        outbox.django.record("third", 1)
    assert types(url) == ["first", "second", "third"]
    with outbox.django.connection() as ours:
        outbox.record(ours, "alone", 1)
    assert types(url)[-1] == "alone"
    with undone(outbox.django.connection()) as ours:
        outbox.record(ours, "never", 1)
    assert types(url)[-1] == "alone"


def test_the_inbox_does_not_process_in_a_transaction_that_it_cannot_end(url):
    secret, body = new_secret(), b"{}"
    request = outbox.inbox.Request("POST", "/hooks", outbox.signed_headers(secret, "evt_1", body), body)

    def handle(_message):
        outbox.django.record("half.done", 1)
        raise outbox.inbox.Refused("never", status=422)

    with outbox.django.connection() as ours, Session(ours) as session:
        for target in (ours, session):
            with pytest.raises(ArgumentError, match=r"^session: .* pass django\.db\.connection itself"):
                outbox.inbox.process(target, request, secret, handle, source="shop")
        assert outbox.inbox.receive(ours, request, secret, source="shop").id == "evt_1"
    assert types(url) == []


def test_an_error_inside_it_undoes_its_own_block_only(url):
    with transaction.atomic():
        outbox.django.record("kept", 1)
        with suppress(outbox.NotFoundError), outbox.django.connection() as ours:
            outbox.record(ours, "undone", 1)
            outbox.subscriptions.pause(ours, "sub_01jd3v0000e008000000000000")
        with pytest.raises(DBAPIError), outbox.django.connection() as ours:
            ours.execute(text("select 1/0"))
        outbox.django.record("kept.too", 1)
    assert types(url) == ["kept", "kept.too"]


def test_an_error_that_is_caught_in_the_middle_loses_no_row_silently(url):
    with transaction.atomic():
        outbox.django.record("never", 1)
        with pytest.raises(DBAPIError, match="does not exist"):
            outbox.subscriptions.pause(_without_table(), "sub_01jd3v0000e008000000000000")
        with pytest.raises(transaction.TransactionManagementError):
            Order.objects.create(cents=1)
    assert types(url) == []


def _without_table():
    with connection.cursor() as cursor:
        cursor.execute("alter table outbox.subscriptions rename to hidden")
    return connection


def test_what_it_leaves_behind_is_nothing(url):
    """Django's own settings of the connection stand, and it is Django's to close."""
    with transaction.atomic():
        outbox.subscribe(connection, "https://example.com/", ["*"])
        driver = connection.connection
        with connection.cursor() as cursor:
            cursor.execute("select '{\"a\": 1}'::jsonb, current_setting('search_path')")
            assert cursor.fetchone() == ('{"a": 1}', '"$user", public')
    assert connection.connection is driver
    assert not driver.closed
    assert driver.info.transaction_status == 0


@both_ways
@pytest.mark.parametrize("data", ["x" * 300_000, object()], ids=["too long", "no JSON"])
def test_a_refused_event_that_may_fail_harms_no_row(url, record, data):
    before = sum(outbox.refused_events().values())
    with transaction.atomic():
        Order.objects.create(cents=4200)
        refused = record("order.placed", data, on_error="log")
        taken = record("order.placed", {"cents": 4200}, on_error="log", idempotency_key=uuid.uuid4().hex)
    assert (refused.recorded, taken.recorded) == (False, True)
    assert sum(outbox.refused_events().values()) == before + 1
    assert types(url) == ["order.placed"]
    assert Order.objects.count() == 1


@both_ways
def test_what_the_database_refuses_harms_no_row_either(url, record):
    with databases.engine_on(url) as engine, engine.begin() as opened:
        opened.execute(text("alter table outbox.events add constraint not_this check (type <> 'refused')"))
    try:
        with transaction.atomic():
            Order.objects.create(cents=4200)
            assert not record("refused", 1, on_error="log").recorded
            assert record("order.placed", 2, on_error="log").recorded
    finally:
        with databases.engine_on(url) as engine, engine.begin() as opened:
            opened.execute(text("alter table outbox.events drop constraint not_this"))
    assert types(url) == ["order.placed"]
    assert Order.objects.count() == 1
