"""Who may ask, and how often: callers, and the filters `auth`, `limit`, `cors` and `log`."""

from __future__ import annotations

import json
import logging

import pytest
from http_harness import DEFAULT, configuration, read_all, read_until, status_of

from ostler import ConfigurationError
from ostler_http import Filter, FilterOptions
from ostler_http.callers import FailureLimit


def test_a_caller_without_a_role_is_refused_by_default(serve):
    with serve() as web:
        status, headers, body = web.get("/echo")
        assert status == 401
        assert headers["www-authenticate"] == 'Bearer realm="ostler"'
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["status"] == 401
        assert web.refused("unauthenticated") == 1


def test_a_token_says_who_asks_and_with_which_role(serve):
    with serve() as web:
        status, _, body = web.get("/echo", token=web.host.token("operator"))
        facts = json.loads(body)
        assert (status, facts["caller"], facts["role"]) == (200, "token:test-operator", "operator")


@pytest.mark.parametrize(
    "authorization", ["Bearer unknown", "Bearer ", "Basic dXNlcjpwYXNz", "nonsense", "Bearer \xe4", ""]
)
def test_a_token_that_is_not_valid_is_refused_even_where_none_is_needed(serve, authorization):
    with serve() as web:
        status, headers, body = web.get("/open", headers={"Authorization": authorization})
        if not authorization:
            assert status == 200
            return
        assert status == 401
        assert headers["www-authenticate"] == 'Bearer realm="ostler", error="invalid_token"'
        assert b"unknown" not in body.partition(b"detail")[0]


def test_failed_attempts_of_an_address_are_limited_and_others_are_not(serve):
    with serve(options="limits = { failed_logins = 3 }") as web:
        token = web.host.token("viewer")
        answers = [web.get("/echo", token="wrong")[0] for _ in range(5)]
        assert answers == [401, 401, 401, 429, 429]
        status, headers, _ = web.get("/echo", token=token)
        assert status == 429
        assert 0 < int(headers["retry-after"]) <= 60
        assert web.get("/open")[0] == 200
        assert web.refused("failed_logins") == 3


def test_the_limit_of_failures_ends_after_a_minute_and_is_bounded():
    now = 0.0
    limit = FailureLimit(lambda: now)
    limit.limit = 2
    for _ in range(2):
        limit.add("a")
    assert limit.blocked_for("a") == 60
    assert limit.blocked_for("b") == 0
    now = 61.0
    assert limit.blocked_for("a") == 0
    for number in range(20_000):
        limit.add(str(number))
    assert len(limit) == 10_000


def test_a_mount_may_ask_for_more_than_a_viewer(serve):
    mounts = '[services.web.apps."/"]\napp = "echo"\nfilters = ["change"]'
    filters = '\n[services.web.filters.change]\nfilter = "auth"\nrole = "operator"'
    with serve(mounts + filters) as web:
        assert web.get("/", token=web.host.token("viewer"))[0] == 403
        assert web.get("/", token=web.host.token("operator"))[0] == 200
        assert web.get("/", token=web.host.token("admin"))[0] == 200
        assert web.refused("forbidden") == 1


def test_without_filters_an_application_is_open(serve):
    with serve('[services.web.apps."/"]\napp = "echo"\nfilters = []') as web:
        assert json.loads(web.get("/")[2])["caller"] == "anonymous"


def test_a_websocket_is_refused_like_a_request(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(
            b"GET /echo HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        answer = read_all(connection)
        assert status_of(answer) == 401
        assert b"authentication is needed" in answer


def limited(**options):
    lines = "\n".join(f"{name} = {value}" for name, value in options.items())
    return (
        '[services.web.apps."/"]\napp = "open"\nfilters = ["few"]\n'
        f'[services.web.filters.few]\nfilter = "limit"\n{lines}'
    )


def test_a_caller_above_its_rate_is_told_when_to_come_again(serve):
    with serve(limited(rate=0.1, burst=2)) as web:
        assert [web.get("/")[0] for _ in range(2)] == [200, 200]
        status, headers, _ = web.get("/")
        assert status == 429
        assert headers["retry-after"] == "10"
        assert web.get("/", token=web.host.token("viewer"))[0] == 200
        assert web.refused("rate") == 1


def test_a_caller_above_its_concurrency_is_refused(serve, blocker):
    def app(environ, start_response):
        blocker.wait()
        start_response("200 OK", [])
        return []

    mounts = limited(concurrency=1).replace('"open"', '"slow"')
    with serve(mounts, apps={"slow": app}) as web, web.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        blocker.wait_until_entered()
        assert web.get("/")[0] == 429
        blocker.released.set()
        read_until(connection, b"\r\n\r\n")
        web.host.wait_for(lambda: web.get("/")[0] == 200, "the end of the first request")


def test_cors_is_off_by_default(serve):
    with serve() as web:
        headers = web.get("/open", headers={"Origin": "https://a.example"})[1]
        assert "access-control-allow-origin" not in headers


def test_cors_lets_named_origins_ask_and_no_others(serve):
    mounts = (
        '[services.web.apps."/"]\napp = "echo"\nfilters = ["console", "auth"]\n'
        '[services.web.filters.console]\nfilter = "cors"\norigins = ["https://a.example"]'
    )
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with serve(mounts) as web:
        status, headers, _ = web.get("/", method="OPTIONS", headers={"Origin": "https://a.example", **preflight})
        assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
        assert "access-control-allow-credentials" not in headers
        status, headers, _ = web.get("/", method="OPTIONS", headers={"Origin": "https://b.example", **preflight})
        assert status == 400
        assert "access-control-allow-origin" not in headers


def test_cors_for_everybody_is_an_error_of_the_configuration(serve):
    mounts = DEFAULT + '[services.web.filters.console]\nfilter = "cors"\norigins = ["*"]'
    with pytest.raises(ConfigurationError, match=r"filters\.console\.origins: must name whole origins"), serve(mounts):
        pytest.fail("it has started")


def test_the_log_has_a_line_for_each_request_and_no_secret_and_no_forged_line(serve, caplog):
    mounts = '[services.web.apps."/"]\napp = "open"\nfilters = ["log"]'
    caplog.set_level(logging.INFO)
    with serve(mounts) as web:
        web.get("/a%20b/%E2%80%AE?token=hush", headers={"X-Request-Id": "r-1", "Cookie": "hush"})
        web.host.wait_for(lambda: "request r-1" in caplog.text, "the line")
    lines = [record.getMessage() for record in caplog.records if "request r-1" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith("anonymous GET /a%20b/%E2%80%AE: 200, ")
    assert "hush" not in lines[0]


def test_a_request_id_is_passed_through_or_made(serve):
    with serve() as web:
        assert web.get("/open", headers={"X-Request-Id": "abc-1"})[1]["x-request-id"] == "abc-1"
        for wrong in ("a b", "x" * 200, "\x80"):
            assert len(web.get("/open", headers={"X-Request-Id": wrong})[1]["x-request-id"]) == 32


def test_a_trace_is_passed_through_if_it_is_one(serve):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serve() as web:
        assert json.loads(web.get("/open", headers={"traceparent": trace})[2])["trace"] == trace
        assert json.loads(web.get("/open", headers={"traceparent": "nonsense"})[2])["trace"] == ""


def test_a_filter_of_a_plugin_has_options_and_its_order(serve):
    class Stamp(Filter):
        class Options(FilterOptions):
            text: str = "plain"

        def wrap(self, app):
            async def call(scope, receive, send):
                name = b"x-" + self.environment.options.text.encode()
                scope["headers"] = [*scope["headers"], (name, str(len(scope["headers"])).encode())]
                await app(scope, receive, send)

            return call

    mounts = (
        '[services.web.apps."/"]\napp = "open"\nfilters = ["second", "stamp"]\n'
        '[services.web.filters.second]\nfilter = "stamp"\ntext = "second"'
    )
    with serve(mounts, filters={"stamp": Stamp}) as web:
        names = [name for name, _ in json.loads(web.get("/")[2])["headers"]]
        assert names[-2:] == ["x-second", "x-plain"]
        web.host.reload(configuration(mounts.replace('text = "second"', 'text = "third"')))
        names = [name for name, _ in json.loads(web.get("/")[2])["headers"]]
        assert names[-2:] == ["x-third", "x-plain"]
