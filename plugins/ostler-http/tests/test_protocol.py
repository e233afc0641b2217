"""HTTP/1.1 and the beginning of WebSockets, byte by byte: what is refused, what is answered, who is told."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from http_harness import raise_error, read_all, read_until, send_text, status_of

WEBSOCKET = (
    b"upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
CHUNKED = b"POST /open HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


def mount(name, *lines, path="/"):
    return "\n".join([f'[services.web.apps."{path}"]', f'app = "{name}"', "filters = []", *lines])


@pytest.mark.parametrize(
    "data",
    [
        b"GET /open HTTP/1.1\nhost: x\n\n",
        b"GET /open HTTP/1.1\r\nhost: x\na: b\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\ra: b\r\n\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /open HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ntransfer-encoding : chunked\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\ncontent-length: 1\r\n\r\na",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 1, 1\r\n\r\na",
        b"POST /open HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\na",
        CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"1\na\n0\n\n",
        CHUNKED + b"fffffffffffffffff\r\na",
        CHUNKED + b"1;a\nxx\r\na\r\n0\r\n\r\n",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(serve, data):
    with serve() as web:
        assert status_of(web.raw(data)) == 400
        assert web.refused("malformed") == 1


def test_a_body_that_is_compressed_on_the_way_is_refused(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(CHUNKED.replace(b": chunked", b": gzip, chunked") + b"1\r\na\r\n0\r\n\r\n")
        assert status_of(read_until(connection, b"}")) == 415
        assert web.refused("encoding") == 1


def test_chunks_with_more_around_them_than_in_them_are_cut_off(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(CHUNKED)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                connection.sendall(b"1;" + b"a" * 1000 + b"\r\na\r\n")
        read_all(connection)
        web.wait_refused("chunks")


def test_small_chunks_are_no_reason_to_refuse(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(CHUNKED + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
        assert json.loads(read_until(connection, b"}").partition(b"\r\n\r\n")[2])["size"] == 20_000


def test_the_whole_address_of_a_host_is_its_root(serve):
    with serve(mount("open"), apps={}) as web:
        answer = web.raw(b"GET http://x?a=b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == "/"


def test_a_request_behind_an_upgrade_that_is_not_heeded_is_answered(serve):
    with serve() as web:
        first = b"GET /open HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
        answer = web.raw(first + b"GET /open/second HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert answer.count(b"HTTP/1.1 200") == 2
        assert b"/open/second" in answer


def test_a_client_that_waits_for_100_is_refused_without_it(serve):
    with serve('[services.web.apps."/open"]\napp = "open"\nmax_body_size = "1KiB"') as web:
        head = b"POST /open HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        assert status_of(web.raw(head % 5000)) == 413
        with web.connect() as connection:
            connection.sendall(head % 2)
            assert read_until(connection, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(b"ab")
            assert status_of(read_until(connection, b"}")) == 200


def test_who_is_refused_amid_a_large_body_still_gets_the_answer(serve):
    with serve('[services.web.apps."/echo"]\napp = "echo"\nmax_body_size = "8MB"') as web, web.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n")
        for _ in range(40):
            connection.sendall(b"a" * 100_000)
        answer = read_all(connection)
        assert status_of(answer) == 401
        assert b"connection: close" in answer
        assert b"authentication is needed" in answer


def test_a_body_without_an_end_behind_a_refusal_is_cut_off(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                connection.sendall(b"a" * 100_000)
        web.host.wait_for(lambda: web.status()["connections"] == 0, "the end of the connection")


def test_who_waits_behind_its_refusal_is_cut_off(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        assert status_of(read_all(connection)) == 401
        web.host.wait_for(lambda: web.status()["connections"] == 0, "the end of the connection")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /open HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n" + WEBSOCKET + b"\r\nabc",
        b"GET /open HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET + b"\r\n\x81\x82\0\0\0\0hi",
        b"POST /open HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET + b"\r\n",
        b"GET /open HTTP/1.0\r\n" + WEBSOCKET + b"\r\n",
        b"GET /open HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_no_valid_request_for_a_websocket_is_refused(serve, data):
    with serve() as web:
        assert status_of(web.raw(data)) == 400
        assert web.refused("malformed") == 1


def test_a_request_for_a_websocket_with_a_huge_header_is_refused(serve):
    with serve() as web:
        cookie = b"cookie: " + b"a" * 9000 + b"\r\n"
        assert status_of(web.raw(b"GET /open HTTP/1.1\r\nhost: x\r\n" + cookie + WEBSOCKET + b"\r\n")) == 431
        assert web.refused("header_size") == 1


def test_a_websocket_does_not_begin_amid_another_response(serve):
    mounts = '[services.web.apps."/open"]\napp = "open"\n' + mount("stream", path="/stream")
    with serve(mounts, apps={"stream": stream}) as web, web.connect() as connection:
        connection.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        read_until(connection, b"first")
        connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\n" + WEBSOCKET + b"\r\n")
        assert b"101" not in read_all(connection)
        assert web.refused("malformed") == 1


def test_the_application_is_told_that_its_client_left_behind_other_requests(serve):
    mounts = '[services.web.apps."/open"]\napp = "open"\n' + mount("stream", path="/stream")
    with serve(mounts, apps={"stream": stream}) as web:
        with web.connect() as connection:
            connection.sendall(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n" + b"GET /open HTTP/1.1\r\nhost: x\r\n\r\n")
            read_until(connection, b"first")
        in_flight = lambda: sum(each["in_flight"] for each in web.status()["mounts"])  # noqa: E731 - of two lines
        web.host.wait_for(lambda: in_flight() == 0, "the end of the stream")


def test_a_slow_response_is_not_taken_for_a_slow_client_behind_it(serve, blocker):
    def app(environ, start_response):
        blocker.wait()
        start_response("200 OK", [])
        return [b"done"]

    with serve(mount("slow"), "limits = { header_timeout = 0.05 }", apps={"slow": app}) as web, web.connect() as one:
        one.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2 + b"GET / HT")
        blocker.wait_until_entered()
        with web.connect() as other:  # the time limit has been looked at since
            other.sendall(b"GET / HT")
            assert status_of(read_all(other)) == 408
        blocker.released.set()
        assert b"done" in read_until(one, b"done")


@pytest.mark.parametrize("headers", [[(b"content-length", b"x")], [("name", "text")], [(b"a b", b"c")]])
def test_a_response_that_cannot_be_sent_becomes_500(serve, headers):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    with serve(mount("wrong"), apps={"wrong": app}) as web:
        assert web.get("/")[0] == 500
        assert web.refused("response_failed") == 1


def test_a_status_that_does_not_exist_becomes_500(serve):
    async def app(scope, receive, send):
        await send_text(send, "", status=999)

    with serve(mount("wrong"), apps={"wrong": app}) as web:
        assert web.get("/")[0] == 500
        web.host.wait_for(lambda: web.status()["responses"] == {"5xx": 1}, "the count of the response")


def test_a_failure_behind_an_unread_body_is_answered_at_once(serve):
    with serve(mount("broken"), apps={"broken": raise_error}) as web, web.connect() as connection:
        began = time.monotonic()
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
        assert status_of(read_until(connection, b"}")) == 500
        assert time.monotonic() - began < 10


async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
