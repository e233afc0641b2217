"""A real browser for tests of pages: chromium, driven by playwright."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKS = [
    pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt install chromium"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed, which drives the browser"),
    pytest.mark.timeout(180),
]
SUMMARY = "axe.run({resultTypes: ['violations']}).then(found => JSON.stringify(found.violations))"


def launch(playwright):
    """Return the browser. Its own sandbox needs a user who is not root; what it shows in tests is ours."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


def violations_of(page):
    """Return what axe says of a page: which rule, how serious, where."""
    import axe_playwright_python  # not where there is no browser

    source = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    session = page.context.new_cdp_session(page)  # the page itself allows no script but ours
    try:
        session.send("Runtime.evaluate", {"expression": source})
        answer = session.send("Runtime.evaluate", {"expression": SUMMARY, "awaitPromise": True})
    finally:
        session.detach()
    violations = json.loads(answer["result"]["value"])
    return [(one["id"], one["impact"], one["nodes"][0]["html"][:200]) for one in violations]


def is_too_wide(page):
    """Return whether a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth > innerWidth")
