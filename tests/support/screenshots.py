"""Make the pictures of docs/dashboard.md and docs/portal.md: `python -m tests.support.screenshots`.

With a directory as argument: every page, those that a post leads to among them, narrow and wide, light and dark, whole.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import outbox
from relay.local import embedded
from tests.support import databases, posted_pages
from tests.support.browser import chromium, sign_in
from tests.support.dashboard import Scene, seed, served
from tests.support.loopback import allow_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    Enter = Callable[[Page], object]

WIDTHS, COLOURS = (1280, 360), ("light", "dark")
DOCS = Path(__file__).parents[2] / "docs" / "screenshots"


def _documented(scene: Scene) -> tuple[tuple[str, str, int, int, str], ...]:
    """Name, path, width, height and colours of each picture."""
    return (
        ("overview", "/", 1040, 720, "light"),
        ("overview-narrow", "/", 360, 780, "dark"),
        ("subscription", f"/subscriptions/{scene.failing}", 1040, 720, "dark"),
        ("delivery", f"/deliveries/{scene.dead_delivery}", 1120, 600, "light"),
        ("dead-letters", "/dead-letters", 1120, 600, "light"),
        ("event-narrow", f"/events/{scene.dead_event}", 360, 780, "light"),
    )


def _all(scene: Scene) -> list[tuple[str, str]]:
    return [
        ("overview", "/"), ("findings", "/findings"), ("subscriptions", "/subscriptions"),
        ("subscription", f"/subscriptions/{scene.failing}"), ("new", "/subscriptions/new"),
        ("edit", f"/subscriptions/{scene.subscription}/edit"),
        ("secret", f"/subscriptions/{scene.subscription}/secret"),
        ("test", f"/subscriptions/{scene.subscription}/test"), ("events", "/events"),
        ("types", "/types"), ("type", "/types/order.created"),
        ("event", f"/events/{scene.dead_event}"), ("deliveries", "/deliveries"),
        ("delivery", f"/deliveries/{scene.dead_delivery}"),
        ("request", f"/deliveries/{scene.delivered_delivery}/request"), ("dead-letters", "/dead-letters"),
        ("attempts", "/attempts"), ("bulk", "/bulk"), ("bulk-new", "/bulk/new"), ("bulk-one", f"/bulk/{scene.bulk}"),
        ("audit", "/audit"), ("tokens", "/tokens"), ("preferences", "/preferences"), ("error", "/events/evt_0"),
    ]  # fmt: skip


def _of_portal(scene: Scene) -> list[tuple[str, str]]:
    return [
        ("portal", "/portal/"), ("portal-endpoint", f"/portal/endpoints/{scene.failing}"),
        ("portal-new", "/portal/endpoints/new"), ("portal-edit", f"/portal/endpoints/{scene.failing}/edit"),
        ("portal-secret", f"/portal/endpoints/{scene.failing}/secret"),
        ("portal-test", f"/portal/endpoints/{scene.failing}/test"), ("portal-deliveries", "/portal/deliveries"),
        ("portal-delivery", f"/portal/deliveries/{scene.dead_delivery}"), ("portal-types", "/portal/types"),
        ("portal-type", "/portal/types/order.created"), ("portal-missing", "/portal/endpoints/none"),
        ("portal-ended", "/portal/open?link=none"),
    ]  # fmt: skip


PORTAL: dict[str, Any] = {"portal_name": "Shop webhooks", "portal_colours": ("#6d28d9",), "portal_filters": True}
DOCUMENTED_PORTAL = (
    ("portal", "/portal/", 1040, 720, "light"),
    ("portal-narrow", "/portal/types/order.created", 360, 780, "dark"),
)


def _shoot(browser: Browser, address: str, enter: Enter, shots: list[tuple[str, str, int, int, str]], to: Path) -> None:
    for name, path, width, height, colours in shots:
        context = browser.new_context(
            base_url=address,
            viewport={"width": width, "height": height or 800},
            color_scheme=colours,  # type: ignore[arg-type]
        )
        page = context.new_page()
        enter(page)
        page.goto(path)
        page.screenshot(path=to / f"{name}.png", full_page=not height)
        context.close()


def _shoot_along(page: Page, names: Iterator[str], to: Path) -> None:
    """Take each page of a walk, which cannot be loaded again."""
    for name in names:
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 800})
            for colours in COLOURS:
                page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
                page.screenshot(path=to / f"{name}-{width}-{colours}.png", full_page=True)


def _shoot_posted(browser: Browser, address: str, scene: Scene, link: Enter, to: Path) -> None:
    with browser.new_context(base_url=address) as context:
        page = context.new_page()
        page.goto("/sign-in")
        _shoot_along(page, iter(["sign-in"]), to)
        sign_in(page, scene.operator)
        _shoot_along(page, posted_pages.of_dashboard(page, scene, address), to)
        link(page)
        _shoot_along(page, posted_pages.of_portal(page, scene, address), to)
        page.goto("/api/v1/docs#get_own_token")
        _shoot_along(page, iter(["explorer"]), to)


def main(directory: str | None) -> None:
    allow_loopback()
    to = Path(directory) if directory else DOCS
    to.mkdir(parents=True, exist_ok=True)
    home = tempfile.mkdtemp(prefix="outbox-screenshots-")
    with embedded.start(Path(home)) as server, databases.database(server.url()) as url:
        databases.migrate(url)
        with databases.engine_on(url) as engine:
            with engine.begin() as connection:
                scene = seed(connection)

            def link(page: Page) -> None:
                with engine.begin() as connection:
                    made = outbox.portal_url(
                        connection, "globex", f"{address}/portal", rights="manage", person="carol@globex.example"
                    )
                page.goto(made)

            with served(url, **PORTAL) as address, chromium() as browser:
                shots, of_portal = list(_documented(scene)), list(DOCUMENTED_PORTAL)
                if directory is not None:
                    shots, of_portal = _everywhere(_all(scene)), _everywhere(_of_portal(scene))
                _shoot(browser, address, lambda page: sign_in(page, scene.operator), shots, to)
                _shoot(browser, address, link, of_portal, to)
                if directory is not None:
                    _shoot_posted(browser, address, scene, link, to)


def _everywhere(pages: list[tuple[str, str]]) -> list[tuple[str, str, int, int, str]]:
    """Return each page narrow and wide, light and dark, whole."""
    return [
        (f"{name}-{width}-{colours}", path, width, 0, colours)
        for name, path in pages for width in WIDTHS for colours in COLOURS
    ]  # fmt: skip


if __name__ == "__main__":
    main(next(iter(sys.argv[1:]), None))
