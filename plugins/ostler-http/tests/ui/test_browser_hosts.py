"""The web page of one of two hosts, over TLS, in a real browser."""

from __future__ import annotations

import re

import pytest
import trustme
from browser import MARKS, is_too_wide, violations_of
from daemon_process import DaemonProcess
from host_processes import HostProcesses

pytestmark = MARKS
WEB = """
[services.web]
manager = "http"
tls = {{ certificate = "{root}/cert.pem", key = {{ file = "{root}/key.pem" }} }}
[services.web.apps."/"]
app = "ui"
"""


@pytest.fixture(scope="module")
def hosts():
    made = []

    def make_daemon(config="", environ=None):
        made.append(DaemonProcess(config, environ))
        return made[-1]

    found = HostProcesses(make_daemon)
    try:
        found.start(node1="near", node2="far")
        root = found["node1"].daemon.root
        issued = trustme.CA().issue_cert("localhost", "127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(str(root / "cert.pem"))
        issued.private_key_pem.write_to_path(str(root / "key.pem"))
        (root / "key.pem").chmod(0o600)
        found.configure("node1", "near", more=WEB.format(root=root))
        found["node1"].daemon.stop()
        found["node1"].start()
        yield found
    finally:
        for daemon in made:
            daemon.close()


@pytest.fixture
def page(chromium, hosts):
    context = chromium.new_context(viewport={"width": 1100, "height": 800}, ignore_https_errors=True)
    page = context.new_page()
    page.set_default_timeout(20_000)
    link = hosts["node1"].daemon.command("http", "login-link").stdout.strip()
    page.base = link.partition("/login#")[0]
    page.goto(link)
    page.wait_for_url(re.compile(r"/$"))
    yield page
    context.close()


def test_cookies_are_for_tls_alone_and_out_of_reach(page):
    assert page.base.startswith("https://")
    cookies = page.context.cookies()
    assert {cookie["name"].partition("-")[0] for cookie in cookies} == {"ostler"}
    assert all(cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in cookies)
    assert page.evaluate("document.cookie") == ""


def test_another_host_is_seen_and_its_services_are_looked_after(page, hosts):
    page.goto(f"{page.base}/hosts")
    there = page.get_by_role("region", name="node2")
    there.get_by_text("up").wait_for()
    there.get_by_role("link", name="far").click()
    page.get_by_role("heading", name="far on node2").wait_for()
    page.get_by_role("button", name="Disable…").click()
    page.get_by_label("Reason").fill("from the other host")
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("far is disabled").wait_for()
    (far,) = [each for each in hosts["node2"].daemon.status()["services"] if each["topic"] == "far" and each["here"]]
    assert (far["enabled"], far["disabled_reason"]) == (False, "from the other host")
    page.goto(f"{page.base}/")
    problem = page.get_by_role("article").filter(has_text="from the other host")
    problem.get_by_role("button", name="Enable far").click()
    page.get_by_text("far is enabled").wait_for()
    page.get_by_text("No problems.").wait_for()


def test_a_host_that_is_lost_is_the_first_thing_to_see(page, hosts):
    page.get_by_text("No problems.").wait_for()
    hosts["node2"].daemon.running.kill()
    hosts["node2"].daemon.wait_end()
    page.get_by_role("region", name="Problems").get_by_text("node2").first.wait_for()
    for path in ("/", "/hosts", "/services", "/services/far?host=node2"):
        page.goto(f"{page.base}{path}")
        page.get_by_text("unreachable").first.wait_for()
        assert violations_of(page) == []
        assert not is_too_wide(page)
    hosts["node2"].start()
    page.goto(f"{page.base}/")
    page.get_by_text("No problems.").wait_for()
