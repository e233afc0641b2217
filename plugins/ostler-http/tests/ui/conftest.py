"""A daemon as the page sees it: a gateway with callers, methods with roles, and answers with hostile names."""

from __future__ import annotations

import asyncio
import html
import logging
import re
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest
from browser import launch
from starlette.requests import Request
from starlette.testclient import TestClient

from ostler import NotPermitted, Peer, Role
from ostler.messaging.gateway.caller import Caller
from ostler.testing import FakeClock
from ostler.types import (
    AuditEntry,
    DaemonStatus,
    DriverStatus,
    MethodTraffic,
    OperationError,
    OperationStatus,
    OptionValue,
    PeriodicHistory,
    PeriodicRunStatus,
    PeriodicStatus,
    PluginStatus,
    ServiceStatus,
    StatusCause,
    TopicTraffic,
    TrafficCounters,
    Upgrade,
)
from ostler_http.application import AppEnvironment
from ostler_http.ui.application import UiApplication
from ostler_http.ui.options import UiOptions

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>'{{7*7}}\u202e\x1b[31m"
"""A name that would do harm wherever it is not escaped."""
NOW = 1_800_000_000.0
TOKENS = {"viewer-secret": Role.VIEWER, "operator-secret": Role.OPERATOR, "admin-secret": Role.ADMIN}
ROLES = {
    "viewer": (
        "status service_list service_show operation.list operation.show periodic_list periodic_show traffic "
        "describe event_topics events_since plugin_list service_versions"
    ),
    "operator": (
        "config log_follow dump service_enable service_disable periodic_run periodic_pause periodic_resume "
        "operation.cancel operation.retry driver.reset service_delete"
    ),
    "admin": (
        "audit reload reload_plan service_freeze service_thaw service_drain service_resume service_start "
        "service_stop service_restart driver.restart driver.abandon"
    ),
}


def answers(name=HOSTILE):
    """Return what the methods of a daemon answer when everything has the same name."""
    driver = DriverStatus(name=name, driver=name, state="failed", why=name, last_error=name, pending=name, retry_at=NOW)
    service = ServiceStatus(
        topic=name, host=name, manager="volume", state="degraded", why=name, up=True, enabled=False,
        disabled_reason=name, drivers=[driver], causes=[StatusCause(kind="driver", text=name, tried=name, remedy=name)],
        depends_on=[name], since=NOW,
    )  # fmt: skip
    operation = OperationStatus(
        id=name, topic=name, host=name, method=name, state="running", why=name, requester=name, done=1, total=3,
        text=name, arguments={name: name}, result={name: [name]}, steps=[name],
        error=OperationError(name=name, message=name, hint=name),
    )  # fmt: skip
    task = PeriodicStatus(service=name, task=name, spacing=name, health="failing", why=name, last_error=name)
    method = MethodTraffic(method=name, requests=4, errors=1, buckets={40: 4})
    traffic = TrafficCounters(
        at=1.0, host=name, topics=[TopicTraffic(topic=name, requests=4, errors={name: 1}, methods=[method])]
    )
    plugin = PluginStatus(name=name, state="failed", why=name, version=name, distribution=name, hooks=[name])
    status = DaemonStatus(
        host=name, version=name, pid=1, state="up", since=NOW, started=NOW, services=[service], plugins=[plugin],
        not_well=[name, f"plugin {name} is failed"], log=name,
    )  # fmt: skip
    audit = AuditEntry(at=NOW, who=name, user=name, topic=name, method=name, arguments=name, result=name, text=name)
    found = {
        "status": status, "service_list": [service], "service_show": service, "operation.list": [operation],
        "operation.show": operation, "periodic_list": [task], "traffic": traffic, "plugin_list": [plugin],
        "periodic_show": PeriodicHistory(task=task, runs=[PeriodicRunStatus(started=NOW, seconds=1, error=name)]),
        "event_topics": [[name, name, 1, 1, 7]], "service_versions": [Upgrade(topic=name, cap=name, newest=name)],
        "events_since": [[], [[name, name, name, {name: name}, 1, 7, NOW]], False], "audit": [audit],
        "config": [OptionValue(path=f"services.{name}.x", value=name, origin=name)], "dump": {name: {name: [name]}},
        "reload_plan": {"changes": [{"path": name, "old": name, "new": name, "needs": "live"}], "warnings": [name],
                        "steps": [{"action": name, "subject": name, "why": name}], "needs_restart": []},
    }  # fmt: skip
    return {method: msgspec.to_builtins(answer) for method, answer in found.items()}


class FakeClient:
    """What a caller's requests come to: an answer or an error by name of the method."""

    def __init__(self, gateway, caller):
        self.gateway, self.caller = gateway, caller

    async def call(self, topic, method, arguments=None, *, request_id="", **options):
        self.gateway.request_ids += [request_id] if request_id else []
        self.gateway.calls.append((self.caller.name, topic, method, dict(arguments or {})))
        answer = self.gateway.answers.get(method)
        if method == "describe":
            return self.gateway.describe((arguments or {})["topic"])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cast(self, topic, method, arguments=None, **options):
        self.gateway.cast.append(method)
        await self.call(topic, method, arguments, request_id=options.get("request_id", ""))
        return 1

    async def submit(self, topic, method, arguments=None, **options):
        await self.call(topic, method, arguments, request_id=options.get("request_id", ""))
        return "op-1"

    async def stream(self, topic, method, arguments=None, **options):
        for item in self.gateway.streamed:
            yield item
        await self.gateway.more.wait()

    @asynccontextmanager
    async def subscribe(self, *prefixes, since=None):
        self.gateway.subscribed.append(prefixes)
        self.gateway.since.append(since)
        yield FakeEvents(self.gateway)


class FakeEvents:
    """A subscription that has the events of the gateway, and waits for more."""

    def __init__(self, gateway):
        self.gateway, self.left = gateway, list(gateway.events)

    def __aiter__(self):
        return self

    async def __anext__(self):
        while not self.left:
            await self.gateway.more.wait()
        return self.left.pop(0)

    @property
    def waiting_count(self):
        return len(self.left)


class FakeGateway:
    """Knows three tokens and the user 0; methods have the roles of a daemon."""

    anonymous = Caller("anonymous", None, Peer(name="anonymous"))

    def __init__(self):
        self.tokens = dict(TOKENS)
        self.users = {0: Role.ADMIN}
        self.answers = answers()
        self.roles = {method: role for role, methods in ROLES.items() for method in methods.split()}
        self.calls, self.streamed, self.events, self.subscribed = [], [], [], []
        self.since = []
        self.cast, self.origins, self.request_ids = [], [], []
        self.described = {}
        self.more = asyncio.Event()

    def caller_of_token(self, secret, *, origin=""):
        self.origins.append(origin)
        if secret not in self.tokens:
            raise NotPermitted("unknown token")
        return Caller(f"token:{secret.split('-')[0]}", self.tokens[secret], Peer(name=secret))

    def caller_of_user(self, uid, gid, pid):
        return Caller(f"uid {uid}", self.users.get(uid), Peer(uid, gid, pid, f"uid {uid}"))

    def client(self, caller):
        return FakeClient(self, caller)

    def describe(self, topic):
        if topic in self.described:
            return self.described[topic]
        return [{"method": method, "role": role, "doc": HOSTILE} for method, role in self.roles.items()]

    def changes(self):
        """Return the calls that are not reads of pages."""
        return [call for call in self.calls if call[2] not in self.answers and call[2] != "describe"]


class Site:
    """The page as a browser meets it, with one session at most."""

    def __init__(self, gateway, clock, pages=None, **options):
        self.gateway, self.clock = gateway, clock
        environment = AppEnvironment(
            topic="web", host="node1", mount="/", gateway=gateway, client=SimpleNamespace(),
            log=logging.LoggerAdapter(logging.getLogger("test.ui"), {}), clock=clock, pages=pages or {},
            apps={"/": "ui"},
        )  # fmt: skip
        self.application = UiApplication(environment, UiOptions(app="ui", **options))
        self.parts = self.application.parts
        self.browser = TestClient(
            self.application.build(), base_url="http://node1:8080", follow_redirects=False, client=("192.0.2.7", 5000)
        )

    def get(self, path, **options):
        return self.browser.get(path, **options)

    def post(self, path, origin="http://node1:8080", **fields):
        return self.browser.post(path, data=fields, headers={"origin": origin} if origin else {})

    def log_in(self, secret="admin-secret", target="", **options):
        form = self.get("/login")
        return self.post("/login", csrf=hidden(form.text, "csrf"), secret=secret, next=target, **options)

    def csrf(self, path="/periodic"):
        return hidden(self.get(path).text, "csrf")

    def do(self, action, csrf=None, origin="http://node1:8080", **fields):
        given = {key.replace("arg_", "arg."): value for key, value in fields.items()}
        return self.post(
            "/do", origin, csrf=self.csrf() if csrf is None else csrf, action=action, back="/services", **given
        )

    def ask(self, action, back="/services", **fields):
        given = {key.replace("arg_", "arg."): value for key, value in fields.items()}
        return self.get("/ask", params={"action": action, "back": back, **given})

    def request(self, path="/", **params):
        """Return the request of this browser, for what answers with a stream."""
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.browser.cookies.jar)
        path_only, _, query = path.partition("?")
        return Request(
            {
                "type": "http", "method": "GET", "path": path_only, "query_string": query.encode(), "scheme": "http",
                "headers": [(b"host", b"node1:8080"), (b"cookie", cookies.encode())], "server": ("node1", 8080),
                "root_path": "", "path_params": params, "client": ("192.0.2.7", 5000),
            }
        )  # fmt: skip


def hidden(page, name):
    """Return the value of the first hidden field of a name."""
    return html.unescape(re.search(rf'name="{re.escape(name)}" value="([^"]*)"', page).group(1))


@pytest.fixture(scope="module")  # no longer: no other loop can run in this thread meanwhile
def chromium():
    from playwright.sync_api import sync_playwright  # not where there is no browser

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def gateway():
    return FakeGateway()


@pytest.fixture
def clock():
    return FakeClock(wall=NOW)


@pytest.fixture
def make_site(gateway, clock):
    def make(at=None, **options):
        return Site(gateway, at or clock, **options)

    return make


@pytest.fixture
def site(make_site):
    return make_site()


@pytest.fixture
def admin(site):
    assert site.log_in().status_code == 303
    return site


@pytest.fixture
def hostile():
    return HOSTILE


@pytest.fixture
def hostile_answers():
    return lambda more: answers(f"{HOSTILE} {more}")


@pytest.fixture
def field():
    return hidden
