"""A server that is hostile, broken, slow or not ours: each time an error that says so, in bounded time and memory."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec
import pytest

from ostler.cli.command_line import run_command
from ostler.errors import (
    Busy,
    ConnectionLost,
    DeadlineExceeded,
    MalformedMessage,
    MessageTooLarge,
    NotFound,
    NotPermitted,
    RemoteError,
)

from .conftest import JSON, LINES, chunk

MIB = 2**20


class Lamp(msgspec.Struct):
    name: str


def json_reply(body: bytes) -> bytes:
    return JSON + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


BROKEN = [
    (b"", ConnectionLost),
    (b"nonsense\r\n\r\n", MalformedMessage),
    (b"\x16\x03\x01\x02\x00\x01\x00", MalformedMessage),
    (b"SSH-2.0-OpenSSH_9.2\r\n", MalformedMessage),
    (b"HTTP/1.1 abc OK\r\n\r\n", MalformedMessage),
    (b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000 + b": y\r\n\r\n", MalformedMessage),
    (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", MalformedMessage),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", MalformedMessage),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", MalformedMessage),
    (b"HTTP/1.1 204 No Content\r\n\r\n", MalformedMessage),
    (JSON + b"Content-Length: 100\r\n\r\n{}", ConnectionLost),
    (JSON + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{", ConnectionLost),
    (JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{", ConnectionLost),
    (JSON + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", MalformedMessage),
    (json_reply(b""), MalformedMessage),
    (json_reply(b'{"name":'), MalformedMessage),
    (json_reply(b'{"name": 7}'), MalformedMessage),
    (json_reply(b"[]"), MalformedMessage),
    (json_reply(b'{"name": "\xff"}'), MalformedMessage),
    (json_reply(b"[" * 100_000), MalformedMessage),
    (json_reply(b"[" + b"[]," * 1_100_000 + b"[]]"), MessageTooLarge),
    (json_reply(b"[" + b'{"a":1},' * 400_000 + b"1]"), MessageTooLarge),
]


@pytest.mark.parametrize(("reply", "kind"), BROKEN)
def test_a_broken_answer_is_an_error(server, open_client, reply, kind):
    server.sends(reply)
    with pytest.raises(kind) as caught:
        open_client().on(type=Lamp).call("lamp", "show")
    assert caught.value.hint
    assert len(server.requests) == 1, "nothing is sent again"


BROKEN_LINES = [
    (b"", ConnectionLost),
    (b'{"progress": {"done": 1, "total": 2, "text": ""}}\n', ConnectionLost),
    (b'{"result": {"name": "a"}', ConnectionLost),
    (b'{"stopping": {"detail": "x"}}\n', ConnectionLost),
    (b'{"item": 1}\n', ConnectionLost),
    (b"nonsense\n", MalformedMessage),
    (b"7\n", MalformedMessage),
    (b'{"result": {"name": 7}}\n', MalformedMessage),
    (b'{"progress": 7}\n', MalformedMessage),
    (b'{"error": 7}\n', MalformedMessage),
    (b'{"error": {"error": 7}}\n', MalformedMessage),
    (b'{"error": {}}\n', RemoteError),
    (b'{"error": {"error": "ostler.NotFound", "detail": "x", "details": {"retry_after": "soon"}}}\n', NotFound),
]


@pytest.mark.parametrize(("lines", "kind"), BROKEN_LINES)
@pytest.mark.parametrize("ended", [True, False])
def test_broken_frames_are_an_error(server, open_client, lines, kind, ended):
    server.sends(LINES, chunk(lines) if lines else b"", b"0\r\n\r\n" if ended else b"")
    with pytest.raises(kind):
        open_client().on(type=Lamp, on_progress=lambda _: None).call("lamp", "show")


@pytest.mark.parametrize("lines", [line for line, _ in BROKEN_LINES if line != b'{"item": 1}\n'])
def test_broken_frames_end_streams_and_events(server, open_client, lines):
    server.sends(LINES, chunk(lines) if lines else b"")
    kinds = (ConnectionLost, MalformedMessage, RemoteError, NotFound)
    with pytest.raises(kinds):
        list(open_client().stream("lamp", "watch"))
    with pytest.raises(kinds):
        open_client().events("lamp")


@pytest.mark.parametrize("event", [b"7", b"{}", b'{"topic":"a","host":"b","name":7,"sequence":1,"epoch":1}'])
def test_a_broken_event_is_an_error(server, open_client, event):
    server.sends(LINES, chunk(b'{"ready": {}}\n'), chunk(b'{"event": %s}\n' % event))
    with open_client().events("lamp") as events, pytest.raises(MalformedMessage):
        next(events)


ENDLESS = [
    (JSON + b"Content-Length: 1000000000000\r\n\r\n", b" " * MIB),
    (JSON + b"\r\n", b" " * MIB),
    (JSON + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" " * MIB)),
    (LINES, chunk(b"x" * MIB)),
]


@pytest.mark.parametrize(("first", "part"), ENDLESS)
def test_an_endless_answer_is_given_up_within_bounds_of_memory(server, open_client, first, part):
    server.sends_again_and_again(first, part)
    client = open_client(timeout=50.0)
    view = client.on(on_progress=lambda _: None) if first is LINES else client
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge):
            view.call("lamp", "show")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160 * MIB


SLOW = [
    (b"", b"", 0.0),
    (b"HTTP/1.1 200 OK\r\n", b"X", 0.02),
    (b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001),
    (JSON + b"Content-Length: 1000000\r\n\r\n", b" ", 0.02),
    (JSON + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Trailer: 1\r\n", 0.02),
    (LINES, b"1\r\n\n\r\n", 0.02),
]


@pytest.mark.parametrize(("first", "part", "pause"), SLOW)
def test_a_slow_answer_ends_with_the_deadline(server, open_client, first, part, pause):
    if part:
        server.sends_again_and_again(first, part, pause)
    else:
        server.keeps_silent(first)
    view = open_client().on(timeout=0.05)
    with pytest.raises(DeadlineExceeded, match=r"no answer from lamp.show within 50ms"):
        (view.on(on_progress=lambda _: None) if first is LINES else view).call("lamp", "show")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(server, open_client, status):
    target = f"http://127.0.0.1:{server.port}/elsewhere".encode()
    server.sends(b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, target))
    with pytest.raises(NotPermitted, match=r"redirects to .*/elsewhere") as caught:
        open_client().call("lamp", "show")
    assert len(server.requests) == 1
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "exit_code"),
    [
        (400, RemoteError, 1), (401, NotPermitted, 4), (403, NotPermitted, 4), (404, NotFound, 1), (405, NotFound, 1),
        (408, DeadlineExceeded, 1), (413, MessageTooLarge, 1), (429, Busy, 1), (500, RemoteError, 1),
        (502, ConnectionLost, 1), (503, Busy, 1), (504, DeadlineExceeded, 1), (599, RemoteError, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", [b"<html>", b'{"detail": 7}', b"{", b'{"status": 1, "detail": "told"}'])
def test_what_a_proxy_says_is_an_error_of_its_kind(server, open_client, status, kind, exit_code, body):
    server.sends(
        b"HTTP/1.1 %d X\r\nContent-Type: application/problem+json\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%s"
        % (status, len(body), body)
    )
    with pytest.raises(kind) as caught:
        open_client().call("lamp", "show")
    assert (type(caught.value), caught.value.exit_code) == (kind, exit_code)
    assert str(status) in caught.value.message
    assert kind is not Busy or caught.value.retry_after == 7
    assert ("told" in caught.value.message) == (b"told" in body)


def test_a_connection_is_used_again_and_one_that_was_closed_is_not(server, open_client):
    server.sends(json_reply(b'{"name": "a"}'), then_close=False)
    client = open_client()
    for _ in range(3):
        assert client.call("lamp", "show") == {"name": "a"}
    assert server.connections == 1
    server.sends(json_reply(b'{"name": "a"}'), then_close=True)
    assert client.call("lamp", "show") == {"name": "a"}
    assert server.has_closed.wait(20)
    assert client.call("lamp", "show") == {"name": "a"}
    assert server.connections == 2


def test_nothing_listens(server, capsys):
    server.stop_listening()
    code = run_command(["--address", f"http://127.0.0.1:{server.port}/v1", "status"], {})
    assert code == 3
    assert "cannot connect to" in capsys.readouterr().err


def test_a_broken_server_is_a_line_and_no_traceback(server, capsys):
    server.sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/\x1b[31m\r\n\r\n")
    assert run_command(["--address", f"http://127.0.0.1:{server.port}/v1", "status"], {}) == 1
    err = capsys.readouterr().err
    assert err.startswith("ostler: ")
    assert "\x1b" not in err
    assert len(err.splitlines()) == 2


def test_a_token_goes_into_the_header_alone(server, open_client):
    server.sends(json_reply(b"1"))
    open_client().call("lamp", "show", name="a")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/topics/lamp/methods/show HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret-token" in head
    assert body == b'{"name":"a"}'
