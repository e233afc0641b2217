"""The API of the real daemon: over TCP with a token, over the unix socket by uid."""

from __future__ import annotations

import json
import threading

import pytest
from daemon_process import DaemonProcess
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

CONFIG = """
[services.volume]
manager = "volume"
scheduler = ""

[services.volume.drivers.local]
driver = "file"
path = "{root}/volumes"

[services.web]
manager = "http"
listen = ["unix:{root}/web.sock"]

[services.web.apps."/v1"]
app = "api"
"""


@pytest.fixture(scope="module")
def site(make_site):
    daemon = DaemonProcess(CONFIG)
    (daemon.root / "volumes").mkdir()
    try:
        yield make_site(daemon.start())
    finally:
        daemon.close()


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("status", ["status"]),
        ("services", ["service", "list"]),
        ("drivers", ["driver", "list"]),
        ("periodic", ["periodic", "list"]),
        ("plugins", ["plugin", "list"]),
        ("whoami", ["whoami"]),
    ],
)
def test_short_names_show_what_the_command_shows(site, path, command):
    status, found, _ = site("GET", f"/{path}")
    assert status == 200
    shown, expected = ((each[0] if isinstance(each, list) else each) for each in (found, site.daemon.json(*command)))
    assert shown.keys() == expected.keys()
    moments = [name for name, value in expected.items() if isinstance(value, str) and value.endswith("Z")]
    assert all(shown[name].endswith("Z") for name in moments)


def test_the_configuration_has_every_option_and_where_it_comes_from(site):
    options = {each["path"]: each for each in site("GET", "/configuration")[1]}
    assert options["services.volume.drivers.local.driver"]["value"] == "file"
    assert options["services.volume.drivers.local.driver"]["origin"].endswith("ostler.toml:7:1")


def test_a_volume_is_created_listed_and_deleted(site):
    status, volume, _ = site("POST", "/topics/volume/methods/create_volume", {"name": "a", "size": 2**20})
    assert (status, volume["state"]) == (200, "available")
    assert [each["name"] for each in site("GET", "/topics/volume/methods/list_volumes")[1]] == ["a"]
    status, problem, _ = site("POST", "/topics/volume/methods/create_volume", {"name": "a", "size": 2**20})
    assert (status, problem["error"]) == (409, "ostler_volume.AlreadyExists")
    assert site("POST", "/topics/volume/methods/delete_volume", {"name": "a"})[0] == 200


def test_the_audit_log_names_the_caller_and_not_the_plugin(site):
    site("POST", "/topics/volume/methods/create_volume", {"name": "", "size": 1}, X_Request_Id="audit-me")
    found = next(each for each in site("GET", "/audit?limit=5")[1] if each["request_id"].startswith("audit-me"))
    assert (found["topic"], found["method"], found["who"]) == (
        "volume",
        "create_volume",
        site("GET", "/whoami")[1]["name"],
    )


def test_a_token_is_known_until_it_is_revoked(site):
    secret = site.daemon.command("token", "new", "ci", "--role", "viewer").stdout.strip()
    bearer = {"Authorization": f"Bearer {secret}"}
    assert site("GET", "/whoami", **bearer)[1]["role"] == "viewer"
    assert site("POST", "/reload", {}, **bearer)[0] == 403
    site.daemon.command("token", "revoke", "ci")
    status, problem, headers = site("GET", "/whoami", **bearer)
    assert (status, problem["status"]) == (401, 401)
    assert headers["WWW-Authenticate"].startswith("Bearer")


def test_the_id_of_a_request_goes_through_to_the_log(site):
    _, _, headers = site("POST", "/reload", X_Request_Id="find-me")
    assert headers["X-Request-Id"] == "find-me"
    site.daemon.wait_log("request_id=find-me")


def test_a_reload_of_a_wrong_configuration_says_what_is_wrong(site):
    site.daemon.configure("[services.volume]\nmanager = 7\n", "conf.d/90-wrong.toml")
    try:
        for method in ("GET", "POST"):
            status, problem, _ = site(method, "/reload")
            assert (status, problem["error"]) == (409, "ostler.ConfigurationError")
            assert "90-wrong.toml:2:" in problem["detail"]
    finally:
        (site.daemon.root / "etc" / "conf.d" / "90-wrong.toml").unlink()
    assert site("POST", "/reload", {"keep_failed": True})[1]["ok"]


def test_the_document_is_valid_and_follows_reloads(site):
    _, document, before = site("GET", "/openapi.json")
    validate(document, cls=OpenAPIV31SpecValidator)
    assert "/topics/volume/methods/create_volume" in document["paths"]
    assert "/topics/more/methods/create_volume" not in document["paths"]
    more = '[services.more]\nmanager = "volume"\nscheduler = ""\n[services.more.drivers.local]\ndriver = "file"\n'
    site.daemon.configure(f'{more}path = "{{root}}/more"\n', "conf.d/50-more.toml")
    (site.daemon.root / "more").mkdir()
    assert site("POST", "/reload")[1]["ok"]
    _, document, after = site("GET", "/openapi.json")
    assert "/topics/more/methods/create_volume" in document["paths"]
    assert before["ETag"] != after["ETag"]
    assert site("GET", "/openapi.json", If_None_Match=after["ETag"])[0] == 304


def test_events_come_while_they_happen(site):
    connection, reply = site.open("GET", "/events?topic=volume", Accept="application/x-ndjson")
    try:
        assert "ready" in json.loads(reply.readline())
        site("POST", "/topics/volume/methods/create_volume", {"name": "seen", "size": 2**20})
        event = json.loads(reply.readline())
        assert event["event"]["payload"]["name"] == "seen"
        assert event["id"].startswith("volume:")
    finally:
        connection.close()


def test_the_log_is_followed_as_a_stream(site):
    connection, reply = site.open("GET", "/topics/ostler/methods/log_follow", Accept="application/x-ndjson")
    try:
        assert json.loads(reply.readline())["item"] == {"records": [], "dropped": 0}
        site("POST", "/reload")
        records = json.loads(reply.readline())["item"]["records"]
        assert any("reload" in record["message"] for record in records)
    finally:
        connection.close()


def test_streams_are_told_when_the_daemon_stops(make_site):
    daemon = DaemonProcess(CONFIG)
    (daemon.root / "volumes").mkdir()
    try:
        site = make_site(daemon.start())
        connection, reply = site.open("GET", "/events", Accept="text/event-stream")
        lines: list[bytes] = []
        while b"event: ready\n" not in lines:
            lines.append(reply.readline())
        stop = threading.Thread(target=daemon.stop)
        stop.start()
        assert b"event: stopping\n" in reply.read()
        stop.join(20)
        connection.close()
    finally:
        daemon.close()
