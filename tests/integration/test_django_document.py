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


@pytest.fixture(scope="module")
def url(server_url):
    with django_site.site_database(server_url) as url:
        yield url


def run_page() -> dict[str, Any]:
    """Run the page's Python from top to bottom, and return what it has defined."""
    from asgiref.sync import sync_to_async

    names = {
        "outbox": outbox, "Order": Order, "connection": connection, "transaction": transaction, "receiver": receiver,
        "post_save": post_save, "HttpResponse": HttpResponse, "sync_to_async": sync_to_async,
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
    finally:
        post_save.disconnect(names["tell_of_order"], sender=Order)
    assert types(url) == ["order.placed", "order.changed", "order.placed", "order.placed"]


async def in_its_thread(view, request):
    from asgiref.sync import sync_to_async

    try:
        return await view(request)
    finally:
        await sync_to_async(forget_connections)()


def types(url):
    return scalars(url, "select type from outbox.events order by seq")
