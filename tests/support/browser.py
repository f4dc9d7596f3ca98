"""A real browser: the system's Chromium, driven by Playwright's Python package, and axe to judge pages by."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["chromium", "faults_of", "faults_of_posted", "sign_in"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_RUN = """async ([rules, opens]) => {
    if (opens) for (const one of document.querySelectorAll("details")) one.open = true;
    const found = await axe.run(document, {
        resultTypes: ["violations"], ...(rules.length ? {runOnly: rules} : {})
    });
    return found.violations.map(one => `${one.id}: ${one.nodes[0].html.slice(0, 200)} (${one.nodes.length})`);
}"""


def _executable() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser; skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = _executable()
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(_NAMES)} is installed (apt-get install chromium)")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def sign_in(page: Page, token: str) -> None:
    """Sign in as a person would."""
    page.goto("/sign-in")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("h1:has-text('Overview')")


def faults_of(page: Page, *rules: str, opens: bool = True) -> list[str]:
    """Return what axe finds wrong with a page by these rules, or all; `opens`: with every `details` open."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_axe())
    found: list[Any] = page.evaluate(_RUN, [rules, opens])
    return [str(one) for one in found]


def faults_of_posted(page: Page, name: str) -> list[str]:
    """Judge it once, narrow and dark: what such a page is made of stands on others, which are judged in each way."""
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 800})
    shapes = {
        "wider than the screen": "() => document.documentElement.scrollWidth > innerWidth",
        "its bar is as high as what is left": "() => document.querySelector('.frame > .side')?.offsetHeight > 100",
    }
    found = faults_of(page) + [fault for fault, is_so in shapes.items() if page.evaluate(is_so)]
    return [f"{name}: {fault}" for fault in found]


def _axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
