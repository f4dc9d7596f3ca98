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

__all__ = ["chromium", "faults_of", "sign_in"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_RUN = """async rules => {
    for (const one of document.querySelectorAll("details")) one.open = true;
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


def faults_of(page: Page, *rules: str) -> list[str]:
    """Return what axe finds wrong with a page by these rules, or all; every `details` is open then."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_axe())
    found: list[Any] = page.evaluate(_RUN, rules)
    return [str(one) for one in found]


def _axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
