"""Calls that try a subscription: a test message, the way to its endpoint, a preview, its filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from relay.client.calls.making import send

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outbox.control.filter_answers import FilterTest
    from relay.client.call import Call
    from relay.operations.endpoint_tests.documents import CheckedEndpoint, SentTest
    from relay.operations.endpoint_tests.preview import PreviewedRequest

__all__ = ["ask_filter", "ask_stored_filter", "check_subscription", "preview_request", "send_test_message"]


def send_test_message(subscription_id: object, *, type: str = "outbox.test", **data: Any) -> Call[SentTest]:  # noqa: A002
    """Send one test message; `data=…` is any JSON, or RawJSON that is sent as it is written."""
    from relay.operations.endpoint_tests.documents import SentTest

    return send(SentTest, "POST", "/subscriptions/{}/test", subscription_id, body={"type": type, **data})


def check_subscription(subscription_id: object) -> Call[CheckedEndpoint]:
    """Look at the way to the endpoint and send nothing."""
    from relay.operations.endpoint_tests.documents import CheckedEndpoint

    return send(CheckedEndpoint, "POST", "/subscriptions/{}/check", subscription_id)


def preview_request(subscription_id: object, **about: Any) -> Call[PreviewedRequest]:
    """Show the request that an event becomes: event_id, or type, key and data; transformation."""
    from relay.operations.endpoint_tests.preview import PreviewedRequest

    return send(PreviewedRequest, "POST", "/subscriptions/{}/preview", subscription_id, body=about)


def ask_stored_filter(subscription_id: object, **about: Any) -> Call[FilterTest]:
    """Ask its filter about an event (event_id) or a draft (type, key, data)."""
    from outbox.control.filter_answers import FilterTest

    return send(FilterTest, "POST", "/subscriptions/{}/filter-test", subscription_id, body=about)


def ask_filter(filter: Mapping[str, Any], **about: Any) -> Call[FilterTest]:  # noqa: A002 - the field's name
    """Ask a filter that nobody has."""
    from outbox.control.filter_answers import FilterTest

    return send(FilterTest, "POST", "/filter-test", body={"filter": filter, **about})
