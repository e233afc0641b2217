"""Pages of a daemon whose names have thousands of characters, in a real browser: nothing runs, nothing is too wide."""

from __future__ import annotations

import re
import threading
import time

import pytest
import uvicorn
from browser import MARKS, is_too_wide

from ostler.testing import FakeClock

pytestmark = MARKS
LONG = "W" * 2500 + "\u0645\u0631\u062d\u0628\u0627" * 100 + "x" * 2000
PATHS = [
    "/", "/services", "/services/volume", "/topics", "/topics/volume", "/operations", "/operations/op-1", "/periodic",
    "/periodic/volume/check", "/events", "/log", "/audit", "/configuration?all=yes", "/configuration/plan", "/plugins",
    "/hosts", "/dump", f"/ask?action=service.disable&arg.topic={'y' * 3000}", "/nowhere", "/login",
]  # fmt: skip


class Serving:
    """A site on a port of the loopback interface, on a thread of its own."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.started:
            assert time.monotonic() < until, "the server does not start"
            threading.Event().wait(0.01)
        self.base = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_):
        self.server.should_exit = self.server.force_exit = True
        self.thread.join(20)


@pytest.mark.parametrize("width", [1280, 390])
def test_names_of_any_length_do_nothing_and_are_no_wider_than_the_screen(chromium, hostile_site, width):
    said = []
    context = chromium.new_context(viewport={"width": width, "height": 900})
    try:
        with Serving(hostile_site.browser.app) as serving:
            page = context.new_page()
            page.on("dialog", lambda dialog: said.append(dialog.message))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(serving.base)
            page.get_by_label("Token or one-time code").fill("admin-secret")
            page.get_by_role("button", name="Log in").click()
            page.wait_for_url(re.compile("/$"))
            for path in PATHS:
                page.goto(f"{serving.base}{path}")
                if is_too_wide(page):
                    said.append(f"{path} is too wide")
            page.goto("about:blank")
    finally:
        context.close()
    assert said == []


@pytest.fixture
def hostile_site(make_site, gateway, hostile_answers):
    gateway.answers = hostile_answers(LONG)
    gateway.described["volume"] = gateway.describe("ostler")
    return make_site(at=FakeClock(wall=time.time()))
