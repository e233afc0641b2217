"""Requests to the API of one host for services of another one: relayed with the caller's own role."""

from __future__ import annotations

import json

import pytest
from daemon_process import DaemonProcess, wait_for
from host_processes import HostProcesses

WEB = """
[services.web]
manager = "http"
listen = ["unix:{root}/web.sock"]

[services.web.apps."/v1"]
app = "api"
"""
WHERE = "/topics/far/methods/where"


@pytest.fixture(scope="module")
def site(make_site):
    made = []

    def make_daemon(config="", environ=None):
        made.append(DaemonProcess(config, environ))
        return made[-1]

    hosts = HostProcesses(make_daemon)
    try:
        hosts.start(node1="", node2="far")
        hosts.configure("node1", "", more=WEB)
        hosts["node1"].daemon.stop()
        hosts["node1"].start()
        found = make_site(hosts["node1"].daemon)
        wait_for(lambda: found("GET", WHERE)[0] == 200, "node1 to know node2")
        yield found
    finally:
        for daemon in made:
            daemon.close()


def test_a_service_of_another_host_is_found_with_and_without_its_name(site):
    for path in (WHERE, f"{WHERE}?host=node2"):
        status, found, _ = site("GET", path, X_Request_Id="far-1")
        assert (status, found["host"]) == (200, "node2")
        assert found["request_id"].startswith("far-1")


def test_the_daemon_of_another_host_is_asked_by_name(site):
    assert site("GET", "/status?host=node2")[1]["host"] == "node2"
    assert {each["topic"] for each in site("GET", "/topics")[1]} >= {"far", "ostler", "web"}
    assert [each["method"] for each in site("GET", "/topics/far")[1]].count("where") == 1


def test_the_deadline_goes_along(site):
    assert 3 < site("GET", f"{WHERE}?host=node2", Request_Timeout="5")[1]["left"] <= 5
    status, problem, _ = site("POST", "/topics/far/methods/work?host=node2", {"seconds": 30}, Request_Timeout="0.3")
    assert (status, problem["error"]) == (504, "ostler.DeadlineExceeded")


def test_a_stream_of_another_host_ends_with_its_reader(site):
    connection, reply = site.open("GET", "/topics/far/methods/numbers?host=node2", Accept="application/x-ndjson")
    assert [json.loads(reply.readline())["item"] for _ in range(1000)] == list(range(1000))
    connection.close()


def test_a_client_that_leaves_cancels_the_work_on_the_other_host(site):
    request = site.connect()
    body, headers = '{"seconds": 60}', {"Content-Type": "application/json"}
    request.request("POST", "/v1/topics/far/methods/work?host=node2", body, headers)
    wait_for(lambda: in_flight(site) == 1, "the work to begin")
    request.close()
    wait_for(lambda: in_flight(site) == 0, "the work to be cancelled")


def in_flight(site):
    _, traffic, _ = site("GET", "/topics/ostler/methods/traffic?host=node2")
    return next(topic["in_flight"] for topic in traffic["topics"] if topic["topic"] == "far")


def test_work_is_submitted_on_another_host_and_followed_there(site):
    status, found, headers = site("POST", "/topics/far/methods/work/submit?host=node2", {"seconds": 0.01})
    assert (status, found["host"]) == (202, "node2")
    assert headers["Location"].endswith("?host=node2")
    path = headers["Location"].removeprefix("/v1").replace("?", "/watch?")
    connection, reply = site.open("GET", path, Accept="application/x-ndjson")
    lines = reply.read().splitlines()
    connection.close()
    assert json.loads(lines[-2])["status"]["state"] == "succeeded"


def test_the_role_of_the_caller_counts_on_the_way(site):
    secret = site.daemon.command("token", "new", "far", "--role", "viewer").stdout.strip()
    bearer = {"Authorization": f"Bearer {secret}"}
    assert site("GET", f"{WHERE}?host=node2", **bearer)[0] == 200
    status, problem, _ = site("POST", "/topics/far/methods/work?host=node2", {"seconds": 0.01}, **bearer)
    assert (status, problem["error"]) == (403, "ostler.NotPermitted")
