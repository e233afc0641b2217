"""Pages: each shows what the daemon says, whatever that is, and offers what its visitor may do."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from importlib.resources import files
from types import SimpleNamespace
from urllib.parse import quote

import msgspec
import pytest

from ostler import Busy, DeadlineExceeded, NotFound, NotPermitted
from ostler_http.ui.pages import all_pages
from ostler_http.ui.pages.overview import explained
from ostler_http.ui.visit import Visits

PATHS = [
    "/", "/services", "/services/volume", "/topics", "/topics/volume", "/operations", "/operations/op-1", "/periodic",
    "/periodic/volume/check", "/events", "/log", "/audit", "/configuration?all=yes", "/configuration/plan", "/plugins",
    "/hosts", "/dump",
]  # fmt: skip
NOW = 1_800_000_000.0
OURS = {
    "html", "head", "meta", "title", "link", "script", "body", "a", "header", "img", "span", "div", "p", "form",
    "input", "button", "nav", "details", "summary", "ul", "ol", "li", "main", "h1", "h2", "h3", "section", "article",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "code", "pre", "strong", "time", "svg",
    "polyline", "progress", "meter", "label", "select", "option", "noscript", "br",
}  # fmt: skip


class Elements(HTMLParser):
    """Collects the elements of a page with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_every_page_is_tried():
    known = {re.sub(r"\{\w+\}", "", page.path) for page in all_pages()}
    tried = {path.partition("?")[0] for path in PATHS}
    assert len(tried) == len(known)


@pytest.mark.parametrize("path", PATHS)
def test_hostile_names_are_shown_and_do_nothing(admin, gateway, path):
    gateway.described["volume"] = gateway.describe("ostler")
    page = admin.get(path)
    assert page.status_code == 200
    elements = Elements(page.text).found
    assert {tag for tag, _ in elements} <= OURS
    assert all(attributes.get("src", "").startswith("/static/") for tag, attributes in elements if tag == "script")
    assert [tag for tag, attributes in elements if tag == "img" and attributes.get("src") != "/static/icon.svg"] == []
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on") or name == "style"]
    assert "alert(1)" in page.text, "the name is not shown at all"
    assert "\u202e" not in page.text
    assert "\x1b" not in page.text
    assert "49" not in re.sub(r"[0-9a-f]{64}", "", page.text), "a template was run on a name"


def test_hostile_paths_and_queries_are_shown_and_do_nothing(admin, gateway, hostile):
    gateway.answers["service_show"] = NotFound(f"service {hostile} was not found", hint=hostile)
    answer = admin.get("/services/" + quote(hostile.replace("/", ""), safe=""))
    assert answer.status_code == 404
    for path in ("/audit?who=", "/log?logger=", "/events?pattern=", "/operations?topic=", "/configuration?q="):
        page = admin.get(path, params={path.partition("?")[2].rstrip("="): hostile})
        assert page.status_code == 200
        assert {tag for tag, _ in Elements(page.text).found} <= OURS


@pytest.mark.parametrize("path", PATHS)
def test_a_viewer_is_offered_no_button(site, path):
    site.log_in("viewer-secret")
    page = site.get(path)
    assert page.status_code in (200, 403)
    assert 'action="/do"' not in page.text
    assert 'action="/ask"' not in page.text


@pytest.mark.parametrize(("path", "needed"), [("/audit", "admin"), ("/log", "operator"), ("/dump", "operator")])
def test_a_page_without_the_role_for_it_says_which_one_is_needed(site, gateway, path, needed):
    site.log_in("viewer-secret")
    gateway.calls.clear()
    page = site.get(path)
    assert page.status_code == 403
    assert f"needs the role {needed}" in page.text
    assert {call[2] for call in gateway.calls} <= {"describe", "status"}


def test_an_operator_is_offered_what_operators_may_do(site):
    site.log_in("operator-secret")
    page = site.get("/services/volume").text
    assert "Enable" in page
    assert "Stop…" not in page
    site.browser.cookies.clear()
    site.log_in()
    assert "Stop…" in site.get("/services/volume").text


@pytest.mark.parametrize(
    ("error", "status"), [(NotPermitted("no"), 403), (NotFound("gone", hint="look"), 404), (Busy("full"), 503)]
)
def test_an_error_of_the_daemon_is_a_page_with_what_to_do(admin, gateway, error, status):
    gateway.answers["service_list"] = error
    page = admin.get("/services")
    assert page.status_code == status
    assert error.message in page.text
    assert error.hint in page.text
    assert "Overview" in page.text


def test_the_overview_stays_when_a_part_of_it_fails(admin, gateway):
    gateway.answers["periodic_list"] = Busy("the scheduler is busy")
    gateway.answers["service_show"] = Busy("nobody explains")
    page = admin.get("/")
    assert page.status_code == 200
    assert "the scheduler is busy" in page.text
    assert "nobody explains" in page.text


def test_a_problem_is_said_once_with_its_cause_and_remedy(admin, gateway):
    service = gateway.answers["status"]["services"][0]
    service.update(topic="volume", host="node1", drivers=[{"name": "fast", "state": "failed"}])
    cause = {"kind": "driver", "text": "no disk", "since": 0, "tried": "again", "remedy": "`ostler driver restart`"}
    gateway.answers["service_show"] = {**service, "causes": [cause]}
    gateway.answers["status"]["not_well"] = [
        "service volume: no backend", "driver fast of volume is failed: no disk", "plugin lamp is failed: x",
    ]  # fmt: skip
    page = admin.get("/").text
    assert page.count("no disk") == 1
    assert "<code>ostler driver restart</code>" in page
    assert "service volume: no backend" not in page
    assert "plugin lamp is failed: x" in page
    assert ">3 problems<" in page


def test_a_problem_leads_to_the_page_that_says_more_and_many_are_cut(admin, gateway):
    there = {**gateway.answers["status"]["services"][0], "host": "node2", "here": False, "link": "no answer"}
    gateway.answers["status"]["services"] = [there]
    failed = [f"plugin p{number} is failed: x" for number in range(300)]
    lost = "node2 has been unreachable for 4s: check that `rpc` is set"
    gateway.answers["status"]["not_well"] = [lost, *failed, "the log lost 7 lines"]
    page = admin.get("/").text
    assert page.index("check that <code>rpc</code>") < page.index('More: <a href="/hosts">Hosts</a>')
    assert page.count('More: <a href="/plugins">Plugins</a>') == 39
    assert "<p>262 more: " in page
    assert ">302 problems<" in page


def test_what_is_known_of_a_problem_stays_when_its_causes_cannot_be_read(admin, gateway):
    service = {**gateway.answers["status"]["services"][0], "topic": "volume", "host": "node1", "drivers": []}
    gateway.answers["status"]["services"] = [service]
    gateway.answers["status"]["not_well"] = ["service volume: no disk", "service volume is disabled by root: new disks"]
    gateway.answers["service_show"] = DeadlineExceeded("no answer within 3s", hint="increase the timeout")
    page = admin.get("/").text
    assert page.index("no disk") < page.index("new disks") < page.index("could not be read: no answer within 3s")
    assert page.count("no disk") == 1
    assert "increase the timeout" not in page


def test_causes_of_services_are_read_at_once_and_not_for_long(admin, gateway):
    service = {**gateway.answers["status"]["services"][0], "state": "failed"}
    gateway.answers["status"]["services"] = [{**service, "topic": f"s{number}"} for number in range(30)]
    running, most, timeouts = 0, 0, []

    async def slow(topic, method, arguments, *, timeout):
        nonlocal running, most
        timeouts.append(timeout)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        raise Busy(f"nobody explains {arguments['topic']}")

    visit = Visits(admin.parts).of(admin.request("/"))
    visit.client = SimpleNamespace(call=slow)
    found = asyncio.run(explained(visit, gateway.answers["status"]["services"], []))
    assert (len(found), most, max(timeouts)) == (10, 10, 3.0)


def test_a_daemon_that_says_less_is_shown_as_far_as_it_does(admin, gateway):
    gateway.answers["service_list"] = [
        {key: service[key] for key in ("topic", "host", "here", "state", "up", "enabled", "link", "drivers")}
        for service in gateway.answers["service_list"]
    ]
    assert admin.get("/services").status_code == 200


def test_the_dump_is_saved_as_a_file_with_a_harmless_name(admin, gateway, hostile):
    admin.parts.environment = msgspec.structs.replace(admin.parts.environment, host=hostile)
    answer = admin.get("/dump.json")
    assert answer.json() == {hostile: {hostile: [hostile]}}
    assert re.fullmatch(
        r'attachment; filename="ostler-dump-[A-Za-z0-9-]+-20270115T080000Z\.json"',
        answer.headers["content-disposition"],
    )


def test_the_dump_is_a_file_only_for_who_may_see_it(site, gateway):
    assert site.get("/dump.json").status_code == 303
    site.log_in("viewer-secret")
    assert site.get("/dump.json").status_code == 403
    assert "dump" not in [call[2] for call in gateway.calls]


@pytest.mark.parametrize("path", ["/nowhere", "/static/../application.py", "/static/%2e%2e%2fapplication.py"])
def test_a_path_that_does_not_exist_says_so(admin, path):
    answer = admin.get(path)
    assert answer.status_code == 404
    assert "There is no such page" in answer.text
    assert "Log out" in answer.text, "the menu is not there"


def test_what_pages_load_is_small_ours_and_cached_by_its_content(site):
    static = files("ostler_http.ui").joinpath("static")
    assert sum(len(each.read_bytes()) for each in static.iterdir()) < 60_000
    for name in ("ui.css", "ui.js", "icon.svg"):
        answer = site.get(f"/static/{name}")
        assert answer.status_code == 200
        assert site.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_no_page_asks_another_host_or_has_a_script_or_style_within():
    ui = files("ostler_http.ui")
    for each in [*ui.joinpath("templates").iterdir(), *ui.joinpath("static").iterdir()]:
        text = each.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|//\w+\.\w|@import", text), each.name
        assert not re.search(r'<style| style=| on[a-z]+="|<script(?! src=)|javascript:', text), each.name


def test_no_template_switches_escaping_off():
    for each in files("ostler_http.ui").joinpath("templates").iterdir():
        assert not re.search(r"\|\s*safe|autoescape", each.read_text(encoding="utf-8")), each.name


def test_what_was_read_for_one_visitor_is_not_shown_to_who_may_not_read_it(make_site, gateway):
    site = make_site()
    site.log_in("operator-secret")
    gateway.roles.update(status="operator", traffic="operator")
    gateway.answers["status"]["services"][0]["topic"] = "only-for-operators"
    assert "only-for-operators" in site.get("/").text
    site.browser.cookies.clear()
    site.log_in("viewer-secret")
    gateway.answers["status"] = gateway.answers["traffic"] = NotPermitted("viewers may not")
    for path in ("/", "/services", "/topics", "/plugins"):
        assert "only-for-operators" not in site.get(path).text, path
    assert site.get("/").status_code == 403


def test_a_page_of_ours_that_fails_says_so_and_the_log_says_why(admin, gateway):
    gateway.answers["plugin_list"] = 7
    admin.browser = type(admin.browser)(
        admin.browser.app, base_url="http://node1:8080", cookies=admin.browser.cookies, raise_server_exceptions=False
    )
    answer = admin.get("/plugins")
    assert answer.status_code == 500
    assert "The page has failed: AttributeError" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_what_does_not_work_comes_before_what_was_set_aside(admin, gateway):
    base = {**gateway.answers["status"]["services"][0], "drivers": [], "host": "node1"}
    gateway.answers["status"]["services"] = [
        {**base, "topic": "set-aside", "state": "up"}, {**base, "topic": "half", "state": "degraded"},
        {**base, "topic": "gone-wrong", "state": "failed", "enabled": True},
    ]  # fmt: skip
    gateway.answers["service_show"] = Busy("no causes")
    page = admin.get("/").text
    order = [page.index(f"services/{topic}") for topic in ("gone-wrong", "half", "set-aside")]
    assert order == sorted(order)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("", [9, 1]), ("volume", [9, 1]), ("volume.*.created", [9]), ("vol", []), ("v*", [9, 1]), ("[", []), ("(", [])],
)
def test_events_of_the_journal_are_those_that_fit_newest_first(admin, gateway, pattern, expected):
    gateway.answers["event_topics"] = [["volume", "node1", 1, 9, 7]]
    gateway.answers["events_since"] = [[], [["volume", "node1", "deleted", "no-1.", 1, 7, NOW],
                                            ["volume", "node1", "created", "no-9.", 9, 7, NOW + 5]], False]  # fmt: skip
    page = admin.get("/events", params={"pattern": pattern}).text
    assert [int(number) for number in re.findall(r"no-(\d)\.", page)] == expected


def test_a_topic_that_cannot_be_read_hides_no_other(admin, gateway):
    gateway.answers["event_topics"] = [[f"t{number}", "node1", 1, 9, 7] for number in range(12)]
    gateway.answers["events_since"] = Busy("not now")
    assert admin.get("/events").status_code == 200
    asked = [call[3] for call in gateway.calls if call[2] == "events_since"]
    assert [len(arguments["positions"]) for arguments in asked] == [5, 5, 2]


def test_services_of_other_hosts_are_told_apart_and_asked_there(admin, gateway):
    here = {**gateway.answers["service_list"][0], "topic": "volume", "host": "node1", "state": "up", "enabled": True}
    there = {**here, "host": "node2", "here": False, "link": "no answer for 12 s", "last_report": NOW}
    gateway.answers["service_list"] = [there, here]
    gateway.answers["status"] |= {"services": [here, there], "host": "node1", "not_well": ["host node2: no answer"]}
    page = admin.get("/services").text
    assert page.index("node1</td>") < page.index("node2</td>")
    assert 'href="/services/volume?host=node2"' in page
    assert "no answer for 12 s" in admin.get("/hosts").text
    assert "host node2: no answer" in admin.get("/").text
    gateway.answers["service_show"] = there
    page = admin.get("/services/volume?host=node2").text
    assert gateway.calls[-1][2:] == ("service_show", {"topic": "volume", "on_host": "node2"})
    assert 'name="arg.on_host" value="node2"' in page
    assert 'value="driver.restart"' not in page, "drivers are restarted on their own host only"


@pytest.mark.parametrize(("root_path", "path", "expected"), [("/ui", "/ui", "/ui/"), ("", "", "/")])
def test_the_mount_itself_leads_to_its_first_page_on_the_same_host(admin, root_path, path, expected):
    app = admin.browser.app

    async def mounted(scope, receive, send):
        await app({**scope, "root_path": root_path, "path": path}, receive, send)

    admin.browser = type(admin.browser)(mounted, base_url="http://node1:8080", follow_redirects=False)
    assert admin.get("/x").headers["location"] == expected


def test_a_slash_too_many_is_another_path(admin):
    assert admin.get("/services/").status_code == 404
