"""The web page in a real browser, on a real daemon. Skipped with its reason where there is none."""

from __future__ import annotations

import json
import re

import pytest
from browser import MARKS, is_too_wide, violations_of
from daemon_process import DaemonProcess

from ostler.time_text import format_duration

pytestmark = MARKS
CONFIG = """
[events]
journal = ["ostler"]

[services.scheduler]
manager = "scheduler"

[services.volume]
manager = "volume"
[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"

[services.web]
manager = "http"
[services.web.apps."/ui"]
app = "ui"
[services.web.apps."/v1"]
app = "api"
"""
QUESTION = "/ask?action=service.disable&arg.topic=volume&arg.on_host="
PAGES = [
    "/", "/services", "/services/volume", "/topics", "/topics/volume", "/operations", "/periodic",
    "/periodic/volume/check", "/events", "/log", "/audit", "/configuration?all=yes", "/configuration/plan", "/plugins",
    "/hosts", "/dump", "/pages/volumes", "/nowhere", "/services/nowhere", "/login", QUESTION,
    "/ask?action=volumes/volume/create", "/ask?action=volumes/volume/delete&arg.name=x&arg.on_host=y", "/../v1/docs",
]  # fmt: skip


@pytest.fixture(scope="module")
def daemon():
    made = DaemonProcess(CONFIG)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def open_page(chromium, daemon):
    """Return what opens a page that has logged in; what its console says ends the test."""
    contexts, said = [], []

    def log_in(**options):
        context = chromium.new_context(viewport={"width": 1280, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        link = daemon.command("http", "login-link").stdout.strip()
        page.goto(link)
        page.wait_for_url(re.compile(r"/ui/$"))
        page.base = link.partition("/login#")[0]
        page.said = said
        return page

    yield log_in
    for context in contexts:
        context.close()
    assert [text for text in said if not re.search("status of 40[14]", text)] == []


@pytest.fixture
def page(open_page):
    return open_page()


def test_a_login_link_works_once_and_leaves_no_code_behind(daemon, chromium, open_page):
    link = daemon.command("http", "login-link").stdout.strip()
    code = link.partition("#once=")[2]
    first, second = chromium.new_context(), chromium.new_context()
    try:
        page = first.new_page()
        page.goto(link)
        page.get_by_role("heading", name="Overview").wait_for()
        assert code not in page.evaluate("location.href + document.documentElement.outerHTML")
        page.go_back()
        assert code not in page.url
        again = second.new_page()
        again.goto(link)
        again.get_by_role("alert").wait_for()
        assert "not known" in again.get_by_role("alert").inner_text()
    finally:
        first.close()
        second.close()
    assert code not in daemon.log


def test_what_happens_is_seen_without_a_reload(page, daemon):
    page.get_by_text("No problems.").wait_for()
    link = page.get_by_role("link", name="Topics")
    link.focus()
    page.evaluate("window.marker = 'same document'")
    daemon.command("service", "disable", "scheduler", "--reason", "new disks")
    page.get_by_text("1 problem").wait_for()
    page.get_by_text("new disks").first.wait_for()
    page.get_by_role("listitem").filter(has_text="service disabled scheduler by").first.wait_for()
    assert page.title().startswith("(1) ")
    assert page.evaluate("window.marker") == "same document"
    assert link.evaluate("each => each === document.activeElement")
    page.get_by_role("button", name="Enable scheduler").click()
    page.get_by_text("scheduler is enabled").wait_for()
    page.get_by_text("No problems.").wait_for()


def test_why_a_page_is_not_kept_up_to_date_stays_to_be_read(page):
    """The stream is ours here: it says why there is none, and ends."""
    base = f"{page.base}/services"

    def answer(route):
        if "text/event-stream" not in route.request.headers["accept"]:
            route.continue_()
            return
        body = 'retry: 50\n\nevent: problem\ndata: {"text": "100 pages are open"}\n\n'
        route.fulfill(content_type="text/event-stream", body=body)

    page.route(base, answer)
    page.goto(base)
    page.get_by_text("Not up to date: 100 pages are open").wait_for()
    with page.expect_request(base):
        pass  # it has noticed the end of the stream
    page.get_by_text("Not up to date: 100 pages are open").wait_for()
    assert page.get_by_text("no connection").count() == 0
    page.unroute(base)


def test_time_spans_of_the_script_are_in_the_notation_of_the_command(page):
    spans = [0, 1, 59, 60, 65, 3599, 3600, 3605, 5400, 86_399, 86_400, 90_000, 86_405, 400 * 86_400]
    page.evaluate(
        """spans => {
            const began = Date.now();
            for (const span of spans) {
                const time = document.createElement("time");
                time.className = "span tried";
                time.dateTime = new Date(began - span * 1000 + 400).toISOString();
                document.querySelector("main").append(time);
            }
        }""",
        spans,
    )
    page.locator("time.tried:not(:empty)").nth(len(spans) - 1).wait_for()
    shown = page.locator("time.tried").all_inner_texts()
    assert shown in ([f"for {format_duration(span + late)}" for span in spans] for late in (0, 1, 2))


def test_a_page_says_when_it_is_not_up_to_date_and_goes_on(page, daemon):
    page.get_by_text("No problems.").wait_for()
    daemon.configure('[services.web]\nlisten = ["127.0.0.1:0"]\n', "conf.d/port.toml")
    port = page.base.split(":")[2].split("/")[0]
    daemon.configure(f'[services.web]\nlisten = ["127.0.0.1:{port}"]\n', "conf.d/port.toml")
    daemon.command("reload")
    page.goto(f"{page.base}/")
    daemon.command("service", "stop", "web")
    page.get_by_text("Not up to date: no connection").wait_for()
    assert page.get_by_text("No problems.").count() == 1, "what was known has gone"
    daemon.command("service", "start", "web")
    page.get_by_role("heading", name="Log in to").wait_for()
    page.said.clear()


def test_history_outlives_a_restart_of_the_page_where_the_journal_has_it(open_page, daemon):
    daemon.command("service", "disable", "scheduler", "--reason", "before the restart")
    daemon.command("service", "enable", "scheduler")
    daemon.command("service", "restart", "web")
    page = open_page()
    page.goto(f"{page.base}/services/scheduler")
    history = page.get_by_role("region", name="History")
    history.get_by_text("before the restart").wait_for()
    assert history.get_by_text("Since the service of this page was started").count() == 0


def test_a_volume_is_created_extended_and_deleted_by_the_page_of_its_plugin(page):
    page.get_by_role("link", name="Volumes").click()
    page.get_by_role("button", name="Create a volume…").click()
    page.get_by_label("Name").fill("first")
    page.get_by_label("Size").fill("nonsense")
    page.get_by_role("button", name="Create a volume").click()
    page.get_by_text("failed").first.wait_for()
    page.goto(f"{page.base}/pages/volumes")
    page.get_by_role("button", name="Create a volume…").click()
    page.get_by_label("Name").fill("first")
    page.get_by_label("Size").fill("16MiB")
    page.get_by_role("button", name="Create a volume").click()
    page.get_by_text("succeeded").wait_for()
    page.get_by_role("link", name="Volumes").click()
    row = page.get_by_role("row", name=re.compile("^first"))
    row.get_by_role("button", name="Snapshot").click()
    page.get_by_label("Name of the snapshot").fill("before")
    page.get_by_role("button", name="Snapshot").click()
    page.get_by_text("succeeded").wait_for()
    page.get_by_role("link", name="Volumes").click()
    page.get_by_role("row", name=re.compile("^first@before")).get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("the snapshot before of first was deleted").wait_for()
    row.get_by_role("button", name="Extend").click()
    page.get_by_label("New size").fill("32MiB")
    page.get_by_role("button", name="Extend").click()
    page.get_by_text("succeeded").wait_for()
    page.get_by_role("link", name="Volumes").click()
    row.get_by_text("32MiB").wait_for()
    row.get_by_role("button", name="Delete").click()
    page.get_by_text("Its content is lost").wait_for()
    page.get_by_role("link", name="Back").click()
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    page.get_by_text("There are no volumes.").wait_for()


def test_events_and_the_log_come_as_they_happen(page, daemon):
    page.goto(f"{page.base}/events?pattern=volume")
    page.get_by_text("Live", exact=True).wait_for()
    daemon.command("volume", "create", "seen", "--size", "1MiB")
    page.get_by_text("created").first.wait_for()
    page.goto(f"{page.base}/log?level=debug")
    page.get_by_text("Live", exact=True).wait_for()
    daemon.command("volume", "delete", "seen")
    daemon.command("service", "restart", "scheduler")
    page.get_by_text("service scheduler is draining").first.wait_for()
    page.get_by_role("button", name="Pause").click()
    page.get_by_text("Paused").wait_for()


def test_all_can_be_read_and_done_without_the_script(chromium, daemon, page):
    secret = daemon.json("token", "new", "browser", "--role", "operator")["secret"]
    context = chromium.new_context(java_script_enabled=False)
    try:
        plain = context.new_page()
        plain.goto(f"{page.base}/periodic")
        plain.get_by_label("Token or one-time code").fill(secret)
        plain.get_by_role("button", name="Log in").click()
        plain.get_by_role("button", name="Run now check").click()
        assert "check of volume runs" in plain.get_by_role("status").last.inner_text()
        for path in ("/", "/services/volume", "/topics", "/operations", "/configuration", "/pages/volumes"):
            plain.goto(f"{page.base}{path}")
            assert plain.locator("main").inner_text().strip()
        assert plain.goto(f"{page.base}/audit").status == 403
        daemon.command("token", "revoke", "browser")
        plain.goto(f"{page.base}/")
        plain.get_by_label("Token or one-time code").wait_for()
    finally:
        context.close()


def test_the_keyboard_alone_is_enough(page):
    page.get_by_role("heading", name="Overview").wait_for()
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to content")
    assert skip.evaluate("each => each === document.activeElement && each.getBoundingClientRect().left >= 0")
    page.keyboard.press("Enter")
    page.locator("#content:focus").wait_for()
    page.get_by_role("link", name="Services", exact=True).first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Services", level=1).wait_for()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(open_page, scheme, width):
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    found = []
    for path in PAGES:
        page.goto(f"{page.base}{path}")
        found += [(path, *violation) for violation in violations_of(page)]
        if is_too_wide(page):
            found.append((path, "wider than the screen"))
    assert found == []


def test_axe_finds_nothing_on_pages_before_a_login_and_after_a_session(chromium, daemon, page):
    context = chromium.new_context(viewport={"width": 390, "height": 800})
    try:
        other = context.new_page()
        other.goto(f"{page.base}/")
        assert violations_of(other) == []
        other.get_by_label("Token or one-time code").fill("wrong")
        other.get_by_role("button", name="Log in").click()
        other.get_by_role("alert").wait_for()
        assert violations_of(other) == []
        secret = daemon.json("token", "new", "short", "--role", "operator")["secret"]
        other.get_by_label("Token or one-time code").fill(secret)
        other.get_by_role("button", name="Log in").click()
        other.get_by_role("heading", name="Overview").wait_for()
        other.goto(f"{page.base}/audit")
        assert violations_of(other) == []
        other.goto(f"{page.base}{QUESTION}")
        daemon.command("token", "revoke", "short")
        other.get_by_label("Reason").fill("nobody is there any more")
        other.get_by_role("button", name="Disable").click()
        other.get_by_text("The session has ended: nothing was done").wait_for()
        assert violations_of(other) == []
        assert not is_too_wide(other)
    finally:
        context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_on_the_documentation_of_the_api(open_page, daemon, scheme, width):
    page = open_page(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    secret = daemon.command("token", "new", f"docs-{scheme}", "--role", "viewer").stdout.strip()
    page.goto(f"{page.base.removesuffix('/ui')}/v1/docs")
    page.get_by_label("Token").fill(secret)
    page.get_by_role("button", name="Show").click()
    page.get_by_label("Filter").fill("volume/methods/create_volume")
    page.locator("summary:visible").first.click()
    page.locator("table:visible").first.wait_for()
    assert violations_of(page) == []
    assert not is_too_wide(page)


def test_the_way_back_from_an_action_leads_to_its_question_and_twice_is_once(page, daemon):
    page.goto(f"{page.base}/pages/volumes")
    page.get_by_role("button", name="Create a volume…").click()
    page.get_by_label("Name").fill("once")
    page.get_by_label("Size").fill("1MiB")
    once = page.locator("[name=once]").get_attribute("value")
    page.get_by_role("button", name="Create a volume").click()
    page.get_by_text("succeeded").wait_for()
    first = page.url
    page.go_back()
    page.get_by_role("heading", name="Create a volume").wait_for()
    page.get_by_label("Name").fill("once")
    page.get_by_label("Size").fill("1MiB")
    page.locator("[name=once]").evaluate("(each, value) => { each.value = value }", once)
    page.get_by_role("button", name="Create a volume").click()
    page.wait_for_url(re.compile("/operations/"))
    assert page.url == first
    daemon.command("volume", "delete", "once")


def test_two_clicks_on_a_button_are_one_request(page, daemon):
    page.goto(f"{page.base}/periodic/volume/check")
    runs = []
    page.on("request", lambda request: runs.append(request) if request.method == "POST" else None)
    page.get_by_role("button", name="Run now").dblclick()
    page.get_by_text("check of volume runs").wait_for()
    assert len(runs) == 1


def test_who_follows_a_link_of_another_site_stays_logged_in(page):
    page.goto("about:blank")
    page.set_content(f"<a href='{page.base}/hosts'>look at this</a>")
    page.get_by_role("link", name="look at this").click()
    page.get_by_role("heading", name="Hosts").wait_for()


def test_axe_would_find_something(page):
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<input>')")
    assert "label" in [violation[0] for violation in violations_of(page)]


def test_hostile_names_run_nothing(page, daemon):
    """What others choose is in reasons, names of operations, and lines of the log."""
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    daemon.command("service", "disable", "scheduler", "--reason", hostile)
    try:
        for path in ("/", "/services/scheduler", "/audit", "/events", "/log"):
            page.goto(f"{page.base}{path}")
            if path == "/":
                page.get_by_text("onerror").first.wait_for()
                page.locator("html[data-updates]").wait_for(state="attached")
            assert page.title() != "owned"
            assert page.locator("img[src=x]").count() == 0
    finally:
        daemon.command("service", "enable", "scheduler")


def test_what_is_replaced_keeps_focus_text_and_what_was_opened(page):
    """The stream is ours here: the order of a list changes while somebody types and reads."""
    order, base = ["a", "b", "c"], f"{page.base}/services"

    def answer(route):
        if "text/event-stream" not in route.request.headers["accept"]:
            route.continue_()
            return
        rows = "".join(f"<li data-key='{key}'><button id='{key}'>{key}</button></li>" for key in order)
        live = f"<ul>{rows}</ul><input id='typed' value=''><details id='more'><summary>more</summary>text</details>"
        data = json.dumps({"live": live, "health": "", "title": "-".join(order)})
        route.fulfill(content_type="text/event-stream", body=f"retry: 50\n\nevent: live\ndata: {data}\n\n")

    page.route(base, answer)
    page.goto(base)
    page.locator("#typed").fill("half a word")
    page.get_by_text("more").click()
    page.locator("#c").focus()
    page.locator("#c").evaluate("each => { each.marker = 'the same element' }")
    order[:] = ["c", "b", "new"]
    page.locator("#new").wait_for()
    assert page.locator("#live li").all_inner_texts() == ["c", "b", "new"]
    assert page.locator("#c").evaluate("each => each.marker") == "the same element"
    assert page.locator("#c").evaluate("each => each === document.activeElement")
    assert page.locator("#typed").input_value() == "half a word"
    assert page.locator("#more").evaluate("each => each.open")
    page.unroute(base)
