"""What clients may send: each is refused or bounded by an option, and counted by its name."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
import time

import pytest
from http_harness import raise_error, read_all, read_until, send_text, status_of

OPEN = b"GET /open HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


def limits(**values):
    return "limits = {" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items()) + "}"


def mount(name, *lines, path="/"):
    return "\n".join([f'[services.web.apps."{path}"]', f'app = "{name}"', "filters = []", *lines])


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"FETCH / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /open HTTP/1.1\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\nauthorization: a\r\nauthorization: b\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\na: b\x00c\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost : x\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT other:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_no_valid_request_is_refused_with_400(serve, data):
    with serve() as web, web.connect() as connection:
        connection.sendall(data)
        assert status_of(read_until(connection, b"\r\n\r\n")) == 400
        web.wait_refused("malformed")


@pytest.mark.parametrize(
    "path",
    [
        "/open/../echo",
        "/open/%2e%2e/echo",
        "/open/.",
        "/open/a%00b",
        "/open/a%0d%0ab",
        "/open/%5c..%5c",
        "/open/%ff%fe",
    ],
)
def test_tricks_with_paths_are_refused(serve, path):
    with serve() as web:
        assert status_of(web.raw(OPEN.replace(b"/open", path.encode()) + b"\r\n")) == 400
        assert web.refused("path") == 1


def test_a_path_that_only_looks_like_a_mount_leads_nowhere(serve):
    with serve() as web:
        for path in ("/openly", "//open", "/OPEN", "/", "*"):
            assert web.get(path)[0] == 404
        assert web.refused("not_found") == 5


def test_a_request_for_another_host_by_its_whole_address_is_one_for_this(serve):
    with serve() as web:
        answer = web.raw(OPEN.replace(b"/open", b"http://other.example/open/x") + b"\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == "/open/x"


@pytest.mark.parametrize("part", [b"x: " + b"a" * 5000, b"\r\n".join(b"x%d: y" % n for n in range(200))])
def test_huge_headers_are_refused(serve, part):
    with serve(options=limits(max_header_size="4KiB", max_headers=100)) as web:
        assert status_of(web.raw(OPEN + part + b"\r\n\r\n")) == 431
        assert web.refused("header_size") == 1


def test_a_header_without_an_end_is_cut_off(serve):
    with serve(options=limits(max_header_size="4KiB")) as web, web.connect() as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"GET /" + b"a" * 10_000)
        read_all(connection)
        web.wait_refused("header_size")


def test_endless_trailers_are_cut_off_and_change_no_header(serve):
    with serve(options=limits(max_header_size="4KiB")) as web:
        head = b"POST /open HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
        answer = web.raw(head + b"authorization: Bearer late\r\n\r\n")
        assert "authorization" not in dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
        web.raw(head + b"a: b\r\n" * 200 + b"\r\n")
        web.wait_refused("header_size")


def test_half_a_request_is_closed_at_the_time_limit(serve):
    with serve(options=limits(header_timeout=0.1)) as web:
        assert status_of(web.raw(b"GET /open HTTP/1.1\r\nhost: ")) == 408
        assert web.refused("header_timeout") == 1


def test_a_client_that_sends_byte_by_byte_gains_no_time(serve):
    with serve(options=limits(header_timeout=0.2)) as web, web.connect() as connection:
        ended = threading.Event()

        connection.sendall(b"GET /")

        def drip():
            with contextlib.suppress(OSError):
                while not ended.wait(0.02):
                    connection.sendall(b"a")

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert status_of(read_all(connection)) == 408
        ended.set()
        dripping.join()


def test_an_idle_connection_is_closed_at_the_time_limit(serve):
    with serve(options=limits(idle_timeout=0.1)) as web, web.connect() as connection:
        connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 200")


def test_a_connection_that_never_asks_is_closed_at_the_time_limit(serve):
    with serve(options=limits(idle_timeout=0.1)) as web, web.connect() as connection:
        assert read_all(connection) == b""


@pytest.mark.parametrize("options", [{"body_timeout": 0.1}, {"body_timeout": 0.1, "min_body_rate": "1MiB"}])
def test_a_body_that_does_not_come_is_given_up(serve, options):
    with serve(options=limits(**options)) as web:
        answer = web.raw(b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc")
        assert status_of(answer) == 408
        assert web.refused("body_timeout") == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused(serve, chunked):
    mounts = '[services.web.apps."/open"]\napp = "open"\nmax_body_size = "1KiB"'
    with serve(mounts) as web:
        body = b"a" * 5000
        if chunked:
            request = (
                OPEN.replace(b"GET", b"POST") + b"transfer-encoding: chunked\r\n\r\n1388\r\n" + body + b"\r\n0\r\n\r\n"
            )
        else:
            request = OPEN.replace(b"GET", b"POST") + b"content-length: 5000\r\n\r\n" + body
        answer = web.raw(request)
        assert status_of(answer) == 413
        assert b"max_body_size" in answer
        assert web.refused("body_size") == 1


def test_an_endless_body_that_nobody_reads_ends_the_connection(serve):
    with serve(mount("curt"), apps={"curt": curt}) as web, web.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
        web.host.wait_for(lambda: web.status()["connections"] == 0, "the end of the connection")


def test_a_compressed_body_is_refused_before_anything_unpacks_it(serve):
    with serve() as web:
        bomb = gzip.compress(b"\0" * 10_000_000)
        assert web.get("/open", method="POST", body=bomb, headers={"Content-Encoding": "gzip"})[0] == 415
        assert web.refused("encoding") == 1


def test_a_client_that_reads_nothing_is_cut_off(serve):
    with (
        serve(mount("endless"), limits(send_timeout=0.2), apps={"endless": endless}) as web,
        web.connect() as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        web.wait_refused("send_timeout")
        web.host.wait_for(lambda: web.status()["mounts"][0]["in_flight"] == 0, "the end of the request")


def test_requests_in_advance_are_bounded(serve):
    with serve() as web, web.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
        read_all(connection)
        assert web.refused("pipeline") == 1


def test_a_malformed_request_behind_another_does_not_get_into_its_response(serve):
    with serve(mount("late"), apps={"late": late}) as web:
        answer = web.raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n")
        assert answer == b""
        assert web.refused("malformed") == 1


def test_an_application_that_raises_gets_500_without_its_secret(serve):
    with serve(mount("broken"), apps={"broken": raise_error}) as web:
        status, headers, body = web.get("/")
        assert (status, headers["content-type"]) == (500, "application/problem+json")
        assert b"secret" not in body
        assert json.loads(body)["request_id"] == headers["x-request-id"]
        assert web.refused("response_failed") == 1


def test_an_application_that_raises_amid_its_response_breaks_the_connection(serve):
    with serve(mount("half"), apps={"half": half}) as web:
        assert not web.raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").endswith(b"0\r\n\r\n")
        assert web.refused("response_failed") == 1


def test_an_application_that_hangs_gets_504(serve):
    with serve(mount("hang", "response_timeout = 0.1"), apps={"hang": hang}) as web:
        assert web.get("/")[0] == 504
        assert web.refused("response_timeout") == 1


def test_an_application_that_leaves_by_system_exit_harms_nobody(serve):
    mounts = mount("leave", path="/leave") + '\n[services.web.apps."/open"]\napp = "open"'
    with serve(mounts, apps={"leave": leave}) as web:
        assert web.get("/leave")[0] == 500
        assert web.get("/open")[0] == 200


def test_a_response_cannot_forge_headers(serve):
    with serve(mount("forge"), apps={"forge": forge}) as web:
        status, headers, _ = web.get("/")
        assert status == 500
        assert "set-cookie" not in headers


def test_many_idle_connections_keep_nobody_out(serve):
    with (
        serve(options=limits(max_connections=20, max_connections_per_client=20)) as web,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(60):
            stack.enter_context(web.connect()).sendall(b"GET /open")
        assert web.get("/open")[0] == 200
        assert web.refused("evicted") >= 40
        assert web.status()["connections"] <= 20


def test_connections_in_use_are_not_given_to_others(serve, blocker):
    def app(environ, start_response):
        blocker.wait()
        start_response("200 OK", [])
        return [b"done"]

    with serve(mount("slow"), limits(max_connections=2), apps={"slow": app}) as web, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(web.connect()) for _ in range(2)]
        for connection in busy:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            blocker.wait_until_entered()
        assert web.raw(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") == b""
        assert web.refused("connections") == 1
        blocker.released.set()
        assert all(b"done" in read_all(connection) for connection in busy)


def test_one_address_does_not_take_all_connections(serve):
    options = limits(max_connections=20, max_connections_per_client=5)
    with serve(options=options) as web, contextlib.ExitStack() as stack:
        held = [stack.enter_context(web.connect()) for _ in range(10)]
        web.wait_refused("evicted", 5)
        assert read_all(held[0]) == b""
        assert web.status()["connections"] == 5


def test_a_websocket_message_above_the_limit_ends_it(serve):
    with serve(options=limits(max_websocket_message="1KiB")) as web, web.connect() as connection:
        connection.sendall(
            b"GET /open HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        read_until(connection, b"\r\n\r\n")
        connection.sendall(b"\x81\xfe\x20\x00\0\0\0\0" + b"a" * 0x2000)
        assert read_all(connection)[2:4] == b"\x03\xf1"


def test_an_unknown_upgrade_is_answered_as_if_it_were_none(serve):
    with serve() as web:
        answer = web.raw(OPEN.replace(b"connection: close", b"connection: upgrade, close\r\nupgrade: h2c") + b"\r\n")
        assert status_of(answer) in (200, 400)


def test_heartbeats_and_calls_notice_nothing_of_bad_clients(serve):
    with serve(options=limits(max_connections=100)) as web, contextlib.ExitStack() as stack:
        stop = threading.Event()
        port = web.port()
        flooding = [threading.Thread(target=flood, args=(port, stop)) for _ in range(4)]
        for each in flooding:
            each.start()
        stack.callback(stop.set)
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            web.host.call("web", "http_status")
            slowest = max(slowest, time.monotonic() - began)
        stop.set()
        for each in flooding:
            each.join()
        assert slowest < 2
        assert web.refused("malformed") > 10


def flood(port, stop):
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"nonsense " * 1000)
            connection.recv(1000)


async def curt(scope, receive, send):
    await send_text(send, "done")


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"a" * 65536, "more_body": True})


async def late(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass
    await send_text(send, "late")


async def half(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ValueError


async def hang(scope, receive, send):
    await asyncio.Event().wait()


async def leave(scope, receive, send):
    raise SystemExit(3)


async def forge(scope, receive, send):
    await send_text(send, "", headers=[(b"x-name", b"a\r\nset-cookie: b")])
