"""The application `health`: verdicts, who is told why, and a daemon that does not answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from asgi_client import ANONYMOUS, VIEWER, AsgiClient, FakeGateway

from ostler import ConnectionLost, DeadlineExceeded, Draining, NotPermitted
from ostler_http.health.application import HealthApplication


def service(topic="lamp", state="up", *, ready=True, required=False, why="", evidence=None):
    return {
        "topic": topic, "state": state, "ready": ready, "required": required, "why": why, "evidence": evidence or {},
    }  # fmt: skip


def health(**fields):
    well = {"host": "node1", "state": "up", "live": True, "started": True, "ready": True}
    return {**well, "stale": [], "waiting_for": [], "why": [], "services": [service()], **fields}


STARTING = health(state="starting", started=False, ready=False, waiting_for=["lamp: init_host"], why=["it starts"],
                  services=[service(state="starting", ready=False, why="init_host")])  # fmt: skip
STOPPING = health(state="draining", ready=False, why=["the daemon is draining"])
HANGING_STORE = health(
    live=False, ready=False, stale=["the store (silent for 40s)"], why=["no sign of life: the store"]
)
LAMP_FAILED = service(state="failed", ready=False, required=True, why="no light")
FAILED = health(state="degraded", ready=False, why=["service lamp is failed"], services=[LAMP_FAILED, service("fan")])


def client_for(answer, **options):
    return AsgiClient(HealthApplication, FakeGateway(health=answer), **options)


@pytest.mark.parametrize(
    ("answer", "livez", "readyz", "startupz"),
    [
        (health(), 200, 200, 200), (STARTING, 200, 503, 503), (STOPPING, 200, 503, 200),
        (HANGING_STORE, 503, 503, 200), (FAILED, 200, 503, 200), (Draining("the daemon is stopping"), 200, 503, 503),
    ],
)  # fmt: skip
@pytest.mark.parametrize("caller", [VIEWER, ANONYMOUS], ids=["viewer", "anonymous"])
async def test_each_endpoint_says_what_it_is_for(answer, livez, readyz, startupz, caller):
    client = client_for(answer)
    for path, status in (("/livez", livez), ("/readyz", readyz), ("/startupz", startupz)):
        response = await client.request(path, caller=caller)
        assert response.status == status
        assert response.headers["cache-control"] == "no-store"
        assert response.text.splitlines()[-1] == ("ok" if status == 200 else "not ok")


async def test_a_caller_with_a_role_is_told_why_and_with_verbose_everything():
    client = client_for(FAILED)
    assert (await client.request("/readyz")).text == "[-]service lamp not ok: failed: no light\nnot ok\n"
    lines = (await client.request("/readyz?verbose")).text.splitlines()
    assert "[+]watchdog ok" in lines
    assert "[+]service fan ok" in lines
    assert "[-]service lamp not ok: failed: no light" in lines


@pytest.mark.parametrize(
    "path", ["/readyz?verbose", "/livez?verbose", "/startupz?verbose", "/readyz/lamp", "/readyz/nothing"]
)
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_an_outsider_is_told_only_whether(path, accept):
    response = await client_for(FAILED).request(path, caller=ANONYMOUS, accept=accept)
    word = "ok" if response.status == 200 else "not ok"
    assert response.text in (f"{word}\n", json.dumps({"status": word}, separators=(",", ":")))


async def test_one_service_has_a_verdict_of_its_own_with_its_evidence():
    degraded = service(state="degraded", evidence={"is_working": "no light", "driver desk": "it\nfailed"})
    client = client_for(health(services=[degraded, service("fan", "failed", ready=False, why="no wind")]))
    assert (await client.request("/readyz/lamp")).status == 200
    verbose = (await client.request("/readyz/lamp?verbose")).text
    assert "[+]lamp: is_working ok: no light" in verbose
    assert "it failed" in verbose
    response = await client.request("/readyz/fan")
    assert (response.status, response.text) == (503, "[-]service fan not ok: failed: no wind\nnot ok\n")
    assert (await client.request("/readyz/nothing")).status == 404


async def test_programs_get_json_when_they_accept_it():
    response = await client_for(FAILED).request("/readyz", accept="application/json")
    document = json.loads(response.text)
    assert (response.status, document["status"]) == (503, "not ok")
    (lamp,) = [check for check in document["checks"] if check["name"] == "service lamp"]
    assert lamp == {"name": "service lamp", "ok": False, "decides": True, "why": "failed: no light"}


@pytest.mark.parametrize("error", [DeadlineExceeded("late"), ConnectionLost("no sign of life")])
async def test_a_loop_that_hangs_is_told_apart_and_nothing_is_ready(error):
    client = client_for(error)
    for path in ("/livez", "/readyz", "/startupz", "/readyz/lamp"):
        response = await client.request(path)
        assert response.status == 503
        assert "[-]daemon not ok: the event loop of the daemon has not answered for" in response.text
    assert client.application.environment.gateway.timeouts[0] == 5


async def test_a_daemon_that_refuses_to_tell_is_alive_and_not_known_to_be_ready():
    client = client_for(NotPermitted("no role"))
    assert (await client.request("/livez", caller=ANONYMOUS)).text == "ok\n"
    for path in ("/readyz", "/startupz", "/readyz/lamp"):
        assert (await client.request(path)).status == 503
    line = "[+]daemon ok: the daemon has refused to tell its health: no role"
    assert line in (await client.request("/readyz?verbose")).text


async def test_however_many_ask_the_daemon_is_asked_once_and_again_later():
    gateway = FakeGateway(health=health())
    client = AsgiClient(HealthApplication, gateway)
    gateway.released.clear()
    waiting = [asyncio.ensure_future(client.request("/livez", caller=ANONYMOUS)) for _ in range(100)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await asyncio.sleep(0)
    gateway.released.set()
    assert {(await each).status for each in waiting} == {200}
    assert gateway.calls == [("uid 0", "health")]
    gateway.answers["health"] = FAILED
    client.clock.advance(1)
    assert (await client.request("/readyz")).status == 503


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("", "GET", 404), ("/", "GET", 404), ("/healthz", "GET", 404), ("/livez/lamp", "GET", 404),
        ("/readyz", "POST", 405), ("/livez/", "GET", 200), ("/livez", "HEAD", 200),
    ],
)  # fmt: skip
async def test_there_are_three_endpoints_which_are_read(path, method, status):
    assert (await client_for(health()).request(path, method=method)).status == status
