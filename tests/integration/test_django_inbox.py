"""The inbox on Django's own connection: a message, the models' rows and the next event commit together or not."""

from __future__ import annotations

import asyncio
import threading
import unittest
from contextlib import suppress
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse
from django.test import Client, TestCase, override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from sqlalchemy import text
from sqlalchemy.orm import Session

import outbox
import outbox.inbox
from outbox import ArgumentError, TransactionError
from outbox.inbox import Refused, Request, refusals
from outbox.inbox import receiving as inside
from outbox.signing.verify import new_secret
from tests.support import databases, django_site
from tests.support.django_site import forget_connections, on_database, scalars

django_site.begin()

import outbox.django  # noqa: E402 - only now are there settings
from examples.django_shop.models import Order  # noqa: E402

pytestmark = pytest.mark.xdist_group("django")  # the site is migrated once

SECRET = new_secret()
BODY = b'{"data":{"cents":7}}'


@pytest.fixture(scope="module")
def url(server_url):
    with django_site.site_database(server_url) as url:
        yield url


@pytest.fixture(autouse=True)
def _empty(url, monkeypatch):
    monkeypatch.setattr(inside, "refusals_kept", refusals.Bound())
    with databases.engine_on(url) as engine, engine.begin() as connection:
        tables = "outbox.events, outbox.pending, outbox.inbox, outbox.inbox_ids, django_shop_order"
        connection.execute(text(f"truncate {tables} cascade"))


def signed(message_id: str = "pay_1", secret: str = SECRET, body: bytes = BODY) -> Request:
    return Request("POST", "/payments", outbox.signed_headers(secret, message_id, body), body)


def pay(message: outbox.inbox.Received) -> None:
    """The application: a row of its own by the ORM, and its next event."""
    order = Order.objects.create(cents=message.json()["data"]["cents"])
    message.entity = f"order:{order.pk}"
    outbox.django.record("order.paid", {"id": order.pk})


def fail(message: outbox.inbox.Received) -> None:
    pay(message)
    raise RuntimeError("the shop is shut")


def process(request: Request, handle: Any = pay) -> tuple[int, str]:
    answer = outbox.inbox.process(connection, request, SECRET, handle, source="payments")
    return answer.status, answer.outcome


def committed(url: str) -> tuple[list[Any], list[Any], list[Any]]:
    """What another session sees: the orders, the events, the ids of the messages that were taken."""
    statements = ("select cents from django_shop_order", "select type from outbox.events",
                  "select message_id from outbox.inbox_ids")  # fmt: skip
    orders, events, ids = (scalars(url, statement) for statement in statements)
    return orders, events, ids


def rows(url: str) -> list[str]:
    statement = "select concat_ws(' ', outcome, status, reason, message_id) from outbox.inbox order by at, id"
    return scalars(url, statement)


NOTHING: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
PAID = ([7], ["order.paid"], ["pay_1"])


def test_a_message_is_acted_upon_once_with_its_row_and_the_next_event(url):
    seen = []

    def look_and_pay(message):
        pay(message)
        seen.append(committed(url))

    assert [process(signed(), look_and_pay) for _ in range(3)] == [(200, "accepted"), *[(200, "duplicate")] * 2]
    assert seen == [NOTHING]
    assert committed(url) == PAID
    assert rows(url) == ["accepted 200 pay_1", *["duplicate 200 pay_1"] * 2]
    assert scalars(url, "select entity from outbox.inbox where outcome = 'accepted'")[0].startswith("order:")
    assert connection.get_autocommit()


def test_what_raises_leaves_nothing_but_its_row_and_the_next_copy_is_taken(url):
    with pytest.raises(RuntimeError, match="the shop is shut"):
        process(signed(), fail)
    assert committed(url) == NOTHING
    assert rows(url) == ["failed 500 RuntimeError pay_1"]
    assert process(signed()) == (200, "accepted")
    assert committed(url) == PAID


def never(message: outbox.inbox.Received) -> None:
    pay(message)
    raise Refused("no such order", status=422)


@pytest.mark.parametrize(
    ("request_", "handle", "answer", "row"),
    [
        (signed(secret=new_secret()), pay, (401, "refused"), "refused 401 signature"),
        (Request("POST", "/", {}, b"", too_large=True, size=2_000_000), pay, (413, "refused"), "refused 413 too_large"),
        (signed(), never, (422, "refused"), "refused 422 application pay_1"),
        (signed(body=b"no JSON"), pay, (400, "refused"), "refused 400 body pay_1"),
    ],
    ids=["forged", "too large", "by the application", "no JSON"],
)
@pytest.mark.parametrize("is_inside", [False, True], ids=["alone", "inside atomic()"])
def test_a_refused_request_leaves_its_row_whatever_becomes_of_the_callers_block(
    url, is_inside, request_, handle, answer, row
):
    if is_inside:
        with suppress(ZeroDivisionError), transaction.atomic():
            assert process(request_, handle) == answer
            raise ZeroDivisionError
    else:
        assert process(request_, handle) == answer
    assert (committed(url), rows(url)) == (NOTHING, [row])


def test_refusals_are_bounded_and_counted(url, monkeypatch):
    now = 0.0
    monkeypatch.setattr(inside, "refusals_kept", refusals.Bound(lambda: now))
    for _ in range(refusals.BURST + 7):
        assert process(signed(secret=new_secret())) == (401, "refused")
    assert len(rows(url)) == refusals.BURST
    now += refusals.ROW_EVERY_SECONDS
    process(signed(secret=new_secret()))
    assert scalars(url, "select max(unrecorded) from outbox.inbox") == [7]


def test_inside_a_block_it_commits_with_that_block(url):
    with transaction.atomic():
        Order.objects.create(cents=1)
        assert process(signed()) == (200, "accepted")
        assert process(signed()) == (200, "duplicate")
        assert committed(url) == NOTHING
    assert committed(url) == ([1, 7], ["order.paid"], ["pay_1"])


def test_inside_a_block_that_rolls_back_nothing_is_taken(url):
    with suppress(ZeroDivisionError), transaction.atomic():
        assert process(signed()) == (200, "accepted")
        raise ZeroDivisionError
    assert (committed(url), rows(url)) == (NOTHING, [])
    with suppress(RuntimeError), transaction.atomic():
        process(signed(), fail)
    assert (committed(url), rows(url)) == (NOTHING, ["failed 500 RuntimeError pay_1"])
    assert process(signed()) == (200, "accepted")


def test_a_block_goes_on_after_a_message_that_failed(url):
    with transaction.atomic():
        Order.objects.create(cents=1)
        with pytest.raises(RuntimeError):
            process(signed(), fail)
        outbox.django.record("payment.failed", 1)
    assert committed(url) == ([1], ["payment.failed"], [])


def break_silently(message: outbox.inbox.Received) -> None:
    pay(message)
    with suppress(IntegrityError):
        Order.objects.create(pk=Order.objects.get().pk, cents=8)


def undo(message: outbox.inbox.Received) -> None:
    pay(message)
    transaction.set_rollback(True)


def close(message: outbox.inbox.Received) -> None:
    pay(message)
    connection.close()


def commit(message: outbox.inbox.Received) -> None:
    pay(message)
    transaction.commit()


@pytest.mark.parametrize(
    ("handle", "told"),
    [
        (break_silently, pytest.raises(TransactionError, match="Django rolls this block back")),
        (undo, pytest.raises(TransactionError, match="Django rolls this block back")),
        (close, pytest.raises(TransactionError, match="Django rolls this block back")),
        (commit, pytest.raises(transaction.TransactionManagementError, match="forbidden")),
    ],
)
def test_what_would_be_rolled_back_is_never_answered_as_taken(url, handle, told):
    """Django rolls such a block back without a word, and the sender would never come again."""
    with told:
        process(signed(), handle)
    assert committed(url) == NOTHING
    assert [row.split()[0] for row in rows(url)] == ["failed"]
    assert process(signed()) == (200, "accepted")
    assert committed(url) == PAID


def test_a_hook_that_raises_after_the_commit_leaves_the_message_taken(url):
    def pay_and_tell(message):
        pay(message)
        transaction.on_commit(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        process(signed(), pay_and_tell)
    assert process(signed()) == (200, "duplicate")
    assert committed(url) == PAID
    assert rows(url) == ["accepted 200 pay_1", "duplicate 200 pay_1"]


@pytest.mark.parametrize("has_hook", [False, True])
def test_a_commit_that_fails_leaves_the_row_of_a_failure(url, has_hook):
    def pay_twice_at_the_end(message):
        pay(message)
        break_at_the_end()
        if has_hook:
            transaction.on_commit(pytest.fail)

    with pytest.raises(IntegrityError, match="twice"):
        process(signed(), pay_twice_at_the_end)
    assert (committed(url), rows(url)) == (NOTHING, ["failed 500 IntegrityError pay_1"])


def break_at_the_end() -> None:
    """Let the commit fail."""
    with connection.cursor() as cursor:
        cursor.execute("create table twice (id int unique deferrable initially deferred)")
        cursor.execute("insert into twice values (1), (1)")


@pytest.fixture
def without_autocommit(url):
    with on_database(url, AUTOCOMMIT=False) as connection_:
        yield connection_


def test_without_autocommit_what_is_answered_as_taken_is_committed(url, without_autocommit):
    Order.objects.create(cents=1)  # on the connection before, as in a Session: it goes with the message
    assert process(signed()) == (200, "accepted")
    assert committed(url) == ([1, 7], ["order.paid"], ["pay_1"])
    assert process(signed()) == (200, "duplicate")
    assert rows(url) == ["accepted 200 pay_1", "duplicate 200 pay_1"]


def test_without_autocommit_what_fails_or_is_refused_leaves_its_row_only(url, without_autocommit):
    Order.objects.create(cents=1)  # rolled back too, as in a Session
    with pytest.raises(RuntimeError, match="the shop is shut"):
        process(signed(), fail)
    assert process(signed(secret=new_secret())) == (401, "refused")
    assert process(signed("pay_2"), never) == (422, "refused")
    without_autocommit.commit()  # the application's next one takes nothing along
    assert committed(url) == NOTHING
    assert rows(url) == [
        "failed 500 RuntimeError pay_1", "refused 401 signature", "refused 422 application pay_2",
    ]  # fmt: skip


def test_without_autocommit_a_commit_that_fails_is_no_success(url, without_autocommit):
    def pay_at_the_end(message):
        pay(message)
        break_at_the_end()

    with pytest.raises(IntegrityError, match="twice"):
        process(signed(), pay_at_the_end)
    assert (committed(url), rows(url)) == (NOTHING, ["failed 500 IntegrityError pay_1"])
    assert process(signed()) == (200, "accepted")
    assert committed(url) == PAID


def test_without_autocommit_a_block_that_commits_nothing_is_refused(url, without_autocommit):
    with pytest.raises(TransactionError, match="autocommit is off"), transaction.atomic():
        process(signed(), pytest.fail)
    assert (committed(url), rows(url)) == (NOTHING, [])


def test_a_savepoint_of_the_application_is_its_own(url):
    def try_first(message):
        with suppress(ZeroDivisionError), transaction.atomic():
            Order.objects.create(cents=1)
            raise ZeroDivisionError
        pay(message)

    assert process(signed(), try_first) == (200, "accepted")
    assert committed(url) == PAID


def test_a_copy_that_comes_meanwhile_waits_for_the_first_ones_end(url):
    answers, first_has_it, others = [], threading.Event(), []

    def pay_slowly(message):
        pay(message)
        first_has_it.set()
        while not scalars(url, "select pid from pg_stat_activity where wait_event_type = 'Lock'"):
            pass

    def second():
        first_has_it.wait(20)
        try:
            answers.append(process(signed(), others.append))
        finally:
            forget_connections()

    thread = threading.Thread(target=second)
    thread.start()
    try:
        assert process(signed(), pay_slowly) == (200, "accepted")
    finally:
        first_has_it.set()
        thread.join(20)
    assert (answers, others) == ([(200, "duplicate")], [])
    assert committed(url) == PAID


def test_receive_keeps_the_row_of_a_refusal_too(url):
    for ours in (lambda: connection, lambda: opened, lambda: Session(bind=opened)):
        with pytest.raises(Refused), transaction.atomic(), outbox.django.connection() as opened:
            outbox.inbox.receive(ours(), signed(secret=new_secret()), SECRET, source="payments")
    assert rows(url) == ["refused 401 signature"] * 3
    with pytest.raises(TransactionError, match=r"transaction\.atomic\(\)"):
        outbox.inbox.receive(connection, signed(), SECRET, source="payments")
    with transaction.atomic():
        message = outbox.inbox.receive(connection, signed(), SECRET, source="payments")
        pay(message)
        message.answered(200)
    assert committed(url) == PAID


def test_a_forgery_is_refused_though_the_database_is_away(url):
    with on_database("postgresql://nobody@127.0.0.1:1/none", "away") as away:
        answer = outbox.inbox.process(away, signed(secret=new_secret()), SECRET, pytest.fail, source="payments")
    assert answer.status == 401


def test_another_database_of_the_settings(url, server_url, migrated_template):
    with databases.database(server_url, template=migrated_template) as second, on_database(second, "second") as other:
        for _ in range(2):
            answer = outbox.inbox.process(
                other, signed(), SECRET, lambda _: outbox.django.record("a", 1, using="second"), source="payments"
            )
        assert answer.outcome == "duplicate"
        assert scalars(second, "select type from outbox.events") == ["a"]
    assert rows(url) == []


def test_code_that_awaits_is_told_what_to_call(url):
    async def view(verb):
        await verb

    for verb in (outbox.inbox.aprocess, outbox.inbox.areceive):
        more = (pay,) if verb is outbox.inbox.aprocess else ()
        with pytest.raises(ArgumentError, match="sync_to_async"):
            asyncio.run(view(verb(connection, signed(), SECRET, *more, source="payments")))
    assert rows(url) == []


@csrf_exempt
def view(request):
    handle = fail if "fail" in request.GET else pay
    answer = outbox.inbox.process(connection, request, SECRET, handle, source="payments")
    return HttpResponse(status=answer.status)


urlpatterns = [path("payments", view)]


def post(client: Client, message_id: str, secret: str = SECRET, query: str = "") -> int:
    headers = outbox.signed_headers(secret, message_id, BODY)
    answer = client.post(f"/payments{query}", BODY, content_type="application/json", headers=headers)
    return int(answer.status_code)


@pytest.mark.parametrize("is_atomic", [False, True], ids=["autocommit", "ATOMIC_REQUESTS"])
@override_settings(ROOT_URLCONF=__name__)
def test_a_view_keeps_what_was_refused_and_what_failed(url, is_atomic):
    with on_database(url, ATOMIC_REQUESTS=is_atomic):
        client = Client(raise_request_exception=False)
        statuses = [post(client, "pay_1"), post(client, "pay_1"), post(client, "pay_2", new_secret()),
                    post(client, "pay_3", query="?fail")]  # fmt: skip
    assert statuses == [200, 200, 401, 500]
    assert committed(url) == PAID
    assert rows(url) == [
        "accepted 200 pay_1", "duplicate 200 pay_1", "refused 401 signature", "failed 500 RuntimeError pay_3",
    ]  # fmt: skip


class OfAnApplication(TestCase):
    """Not collected by itself: it needs the database of this module."""

    __test__ = False

    def test_a_receiver(self) -> None:
        assert process(signed()) == (200, "accepted")
        assert process(signed()) == (200, "duplicate")
        assert process(signed(secret=new_secret())) == (401, "refused")
        with pytest.raises(RuntimeError):
            process(signed("pay_2"), fail)
        kept = outbox.inbox.messages(connection, source="payments").items
        assert [row.outcome for row in reversed(kept)] == ["accepted", "duplicate", "refused", "failed"]
        assert [order.cents for order in Order.objects.all()] == [7]


def test_a_test_case_sees_every_row_and_leaves_none(url):
    found = unittest.TestResult()
    unittest.TestSuite([OfAnApplication("test_a_receiver")]).run(found)
    assert (found.errors, found.failures, found.testsRun) == ([], [], 1)
    assert (committed(url), rows(url)) == (NOTHING, [])
