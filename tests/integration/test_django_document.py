"""The Python of docs/django.md runs as it stands, and does what the page says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.http import HttpResponse
from django.test import RequestFactory

import outbox
from tests.support import django_site, readme
from tests.support.django_site import forget_connections, scalars

django_site.begin()

import outbox.django  # noqa: E402 - only now are there settings
from examples.django_shop.models import Order  # noqa: E402

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module")
def url(server_url):
    with django_site.site_database(server_url) as url:
        yield url


def run_page() -> dict[str, Any]:
    """Run the page's Python from top to bottom, and return what it has defined."""
    from asgiref.sync import sync_to_async

    names = {
        "outbox": outbox, "Order": Order, "connection": connection, "transaction": transaction, "receiver": receiver,
        "post_save": post_save, "HttpResponse": HttpResponse, "sync_to_async": sync_to_async, "secret": SECRET,
    }  # fmt: skip
    for block in readme.blocks(readme.ROOT / "docs" / "django.md"):
        if block.language == "python":
            exec(compile(block.text, str(block), "exec", dont_inherit=True), names)
    return names


def test_the_page_runs(url):
    names = run_page()
    try:
        assert names["INSTALLED_APPS"] == ["outbox.django"]
        assert names["page"].items == ()
        assert scalars(url, "select paused_at is not null from outbox.subscriptions") == [True]
        with transaction.atomic():
            Order.objects.create(cents=1).save()
        assert types(url) == ["order.placed", "order.changed"]
        post_save.disconnect(names["tell_of_order"], sender=Order)
        request = RequestFactory().post("/orders")
        assert names["place_order"](request).status_code == 201
        answer = asyncio.run(in_its_thread(names["place_order_asynchronously"], request))
        assert answer.status_code == 201
        check_receiver(url, names["receive_payment"])
    finally:
        post_save.disconnect(names["tell_of_order"], sender=Order)
    assert types(url)[:4] == ["order.placed", "order.changed", "order.placed", "order.placed"]


def check_receiver(url, view):
    """A copy does nothing, a forged one is refused, and of what fails nothing stays: the next copy is taken."""
    made = Order.objects.count()
    for number, (body, status) in enumerate((
        (b'{"data":{"cents":7}}', 200), (b'{"data":{"cents":7}}', 200), (b'{"data":{"cents":8}}', 401),
    )):  # fmt: skip
        signed = outbox.signed_headers(SECRET, "pay_1", b"forged" if status == 401 else body)
        assert view(posted(body, signed)).status_code == status, number
    broken = outbox.signed_headers(SECRET, "pay_2", b'{"data":{}}')
    with pytest.raises(KeyError):
        view(posted(b'{"data":{}}', broken))
    mended = b'{"data":{"cents":9}}'
    assert view(posted(mended, outbox.signed_headers(SECRET, "pay_2", mended))).status_code == 200
    assert Order.objects.count() == made + 2
    assert types(url)[4:] == ["order.paid", "order.paid"]
    kept = scalars(url, "select outcome || ' ' || status from outbox.inbox order by at")
    assert kept == ["accepted 200", "duplicate 200", "refused 401", "failed 500", "accepted 200"]


def posted(body, headers):
    return RequestFactory().post("/payments", body, content_type="application/json", headers=headers)


async def in_its_thread(view, request):
    from asgiref.sync import sync_to_async

    try:
        return await view(request)
    finally:
        await sync_to_async(forget_connections)()


def types(url):
    return scalars(url, "select type from outbox.events order by seq")
