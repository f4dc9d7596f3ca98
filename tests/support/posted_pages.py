"""The pages that only a post leads to: questions, secrets and tokens that were just made, results, forms with errors.

Each walk goes through them in a browser as a person does, and yields the name of the page that is there now. Whoever
walks may change the screen meanwhile, and leaves the page as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.support.dashboard import Scene

__all__ = ["of_dashboard", "of_portal"]


def of_dashboard(page: Page, scene: Scene, address: str) -> Iterator[str]:
    """Walk through the dashboard's, signed in as the operator; the endpoint that is tried is at `address`."""
    yield from _subscription_added(page, address)
    yield from _tried(page)
    for path, button, heading in (
        (f"/subscriptions/{scene.failing}", "Remove", "Remove this subscription?"),
        (f"/deliveries/{scene.waiting_delivery}", "Cancel", "Cancel this delivery?"),
        (f"/deliveries/{scene.dead_delivery}", "Delete", "Delete 1 dead letter?"),
        (f"/bulk/{scene.bulk}", "Cancel", "Cancel this operation?"),
        ("/findings", "Pause all sending", "Pause all sending"),
    ):
        page.goto(path)
        _press(page, button, heading)
        yield f"asked-{button.lower().replace(' ', '-')}-{path.split('/')[1]}"
    page.goto(f"/subscriptions/{scene.subscription}/secret")
    _press(page, "Rotate the secret", "The new secret")
    yield "secret-made"
    page.goto(f"/subscriptions/{scene.subscription}/secret")
    page.get_by_label("Old secrets sign along").fill("a day")
    _press(page, "Rotate the secret", "This was not done")
    yield "refused"
    yield from _bulk_and_tokens(page)


def _subscription_added(page: Page, address: str) -> Iterator[str]:
    page.goto("/subscriptions/new")
    page.get_by_label("URL", exact=True).fill("ftp://nowhere")
    page.get_by_label("Timeout in seconds", exact=True).fill("soon")
    _press(page, "Add", "Add a subscription")
    page.wait_for_selector("[aria-invalid=true]")
    yield "new-wrong"
    page.get_by_label("URL", exact=True).fill(f"{address}/nowhere")
    page.get_by_label("Event types", exact=True).fill("order.*")
    page.get_by_label("Timeout in seconds", exact=True).fill("5")
    _press(page, "Add", "The subscription is there")
    yield "new-made"


def _tried(page: Page) -> Iterator[str]:
    page.get_by_role("link", name="Send a test").click()
    _press(page, "Send a test", "Test and preview")
    page.wait_for_selector("#t-result")
    yield "test-sent"
    _press(page, "Check", "Test and preview")
    page.wait_for_selector("#t-way")
    yield "test-checked"
    _press(page, "Preview", "Test and preview")
    page.wait_for_selector("#t-preview")
    yield "test-previewed"
    page.get_by_label("Data (JSON)", exact=True).fill("no JSON")
    _press(page, "Send a test", "Test and preview")
    page.wait_for_selector("text=not JSON")
    yield "test-wrong"


def _bulk_and_tokens(page: Page) -> Iterator[str]:
    page.goto("/bulk/new")
    _press(page, "Plan it", "Plan a bulk operation")
    page.wait_for_selector("text=is needed for recover")
    yield "bulk-wrong"
    page.goto("/tokens")
    page.get_by_label("Name", exact=True).fill("the shop's backend")
    _press(page, "Make the token", "Tokens")
    page.wait_for_selector("text=rights")
    yield "token-wrong"
    page.get_by_label("Name", exact=True).fill("the shop's backend")
    page.get_by_label("read: look at everything").check()
    _press(page, "Make the token", "Tokens")
    page.wait_for_selector("[data-secret]")
    yield "token-made"


def of_portal(page: Page, scene: Scene, address: str) -> Iterator[str]:
    """Walk through the portal's, in a session of the tenant that the scene's failing endpoint is of."""
    page.goto("/portal/endpoints/new")
    page.get_by_label("URL", exact=True).fill("ftp://nowhere")
    _press(page, "Add", "Add an endpoint")
    page.wait_for_selector("[aria-invalid=true]")
    yield "portal-new-wrong"
    page.get_by_label("URL", exact=True).fill(f"{address}/nowhere")
    page.get_by_label("order.created").check()
    _press(page, "Add", "The endpoint is there")
    yield "portal-new-made"
    page.get_by_role("link", name="Send a test").click()
    _press(page, "Send the test", "Send a test")
    page.wait_for_selector("text=The endpoint did not take it.")
    yield "portal-test-sent"
    page.get_by_label("Data, as JSON").fill("no JSON")
    _press(page, "Send the test", "Send a test")
    page.wait_for_selector("text=Type or data cannot be sent.")
    yield "portal-test-wrong"
    one = f"/portal/endpoints/{scene.failing}"
    for path, button, heading, name in (
        (one, "Remove", "Remove this endpoint?", "asked-to-remove"),
        (one, "Send again", "Send what failed again?", "asked-to-replay"),
        (f"{one}/secret", "Exchange the secret", "The new secret", "secret-made"),
    ):
        page.goto(path)
        _press(page, button, heading)
        yield f"portal-{name}"


def _press(page: Page, button: str, heading: str) -> None:
    """Press a button of the page, and wait for the page with this heading."""
    page.get_by_role("button", name=button, exact=True).click()
    page.wait_for_selector(f"h1:has-text('{heading}')")
