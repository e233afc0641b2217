"""WSGI applications, and the pool of threads that runs them."""

from __future__ import annotations

import sys
import threading

import pytest
from http_harness import read_all, status_of

from ostler_http.server.thread_pool import PoolFull, ThreadPool


def mount(*lines, path="/app"):
    return "\n".join([f'[services.web.apps."{path}"]', 'app = "app"', "filters = []", *lines])


def ok(start_response, *headers):
    return start_response("200 OK", [("Content-Type", "text/plain"), *headers])


def test_an_application_gets_what_pep_3333_says(serve):
    seen = {}

    def app(environ, start_response):
        seen.update(environ, body=environ["wsgi.input"].read())
        ok(start_response, ("X-Own", "1"), ("Connection", "keep-alive"))
        return [b"a", b"", b"b"]

    with serve(mount(), apps={"app": app}) as web:
        headers = {"X-Way": "1", "Content-Type": "a/b"}
        status, answered, body = web.get("/app/%C3%A4%20x?q=%20", method="PUT", body=b"data", headers=headers)
        assert (status, body, answered["x-own"]) == (200, b"ab", "1")
        wanted = {
            "REQUEST_METHOD": "PUT", "SCRIPT_NAME": "/app", "PATH_INFO": "/\xc3\xa4 x", "QUERY_STRING": "q=%20",
            "CONTENT_TYPE": "a/b", "CONTENT_LENGTH": "4", "HTTP_X_WAY": "1", "REMOTE_ADDR": "127.0.0.1",
            "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_PORT": str(web.port()), "wsgi.url_scheme": "http",
            "REMOTE_USER": "anonymous", "body": b"data",
        }  # fmt: skip
        assert {name: seen[name] for name in wanted} == wanted


def test_headers_that_could_be_taken_for_others_are_not_passed_on(serve):
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        ok(start_response)
        return []

    with serve(mount(), apps={"app": app}) as web:
        web.raw(
            b"GET /app HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-user: good\r\nx_user: bad\r\nproxy: evil\r\n"
            b"accept: a\r\naccept: b\r\n\r\n"
        )
        assert seen["HTTP_X_USER"] == "good"
        assert "HTTP_PROXY" not in seen
        assert seen["HTTP_ACCEPT"] == "a,b"


def test_a_response_is_passed_on_as_it_comes_and_closed(serve, blocker):
    closed = threading.Event()

    class Parts:
        def __iter__(self):
            yield b"first"
            blocker.wait()
            yield b"second"

        def close(self):
            closed.set()

    def app(environ, start_response):
        ok(start_response)
        return Parts()

    with serve(mount(), apps={"app": app}) as web, web.client() as client:
        client.request("GET", "/app")
        response = client.getresponse()
        assert response.read1() == b"first"
        blocker.released.set()
        assert response.read() == b"second"
        assert closed.wait(20)


def test_an_endless_response_ends_when_its_client_leaves(serve):
    closed = threading.Event()

    def parts():
        try:
            while True:
                yield b"a" * 65536
        finally:
            closed.set()

    def app(environ, start_response):
        ok(start_response)
        return parts()

    with serve(mount(), apps={"app": app}) as web:
        with web.connect() as connection:
            connection.sendall(b"GET /app HTTP/1.1\r\nhost: x\r\n\r\n")
            assert status_of(connection.recv(1000)) == 200
        assert closed.wait(20)


def hanging(blocker):
    def app(environ, start_response):
        ok(start_response)
        yield b"first"
        blocker.wait()

    return app


def test_a_response_that_hangs_in_its_middle_is_ended_and_its_thread_counted(serve, blocker):
    with serve(mount("response_timeout = 0.2"), apps={"app": hanging(blocker)}) as web:
        answer = web.raw(b"GET /app HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"first" in answer
        assert not answer.endswith(b"0\r\n\r\n")
        assert web.refused("response_timeout") == 1
        assert web.status()["wsgi_overdue"] == 1


def test_a_thread_that_hangs_is_counted_when_its_client_leaves(serve, blocker):
    with serve(mount(), apps={"app": hanging(blocker)}) as web:
        with web.connect() as connection:
            connection.sendall(b"GET /app HTTP/1.1\r\nhost: x\r\n\r\n")
            blocker.wait_until_entered()
        web.host.wait_for(lambda: web.status()["wsgi_overdue"] == 1, "the thread to be counted")
        assert "1 of 8 threads" in web.host.manager("web").problems()[0]
        blocker.released.set()
        web.host.wait_for(lambda: not web.host.manager("web").problems(), "the end of the thread's work")


def fail_at_once(environ, start_response):
    raise ValueError("broken")


def fail_later(environ, start_response):
    ok(start_response)
    raise ValueError("broken")
    yield b""


def start_twice(environ, start_response):
    ok(start_response)
    ok(start_response)
    return []


def start_never(environ, start_response):
    return [b"body"]


def exit_process(environ, start_response):
    sys.exit(3)


def return_none(environ, start_response):
    ok(start_response)


def return_text(environ, start_response):
    ok(start_response)
    return ["text"]


@pytest.mark.parametrize(
    "app", [fail_at_once, fail_later, start_twice, start_never, exit_process, return_none, return_text]
)
def test_an_application_that_does_it_wrong_gets_500_and_loses_no_thread(serve, app):
    with serve(mount(), "wsgi_threads = 1", apps={"app": app}) as web:
        for _ in range(3):
            answer = web.raw(b"GET /app HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert answer == b"" or status_of(answer) in (200, 500)
        assert web.refused("response_failed") == 3
        assert web.status()["wsgi_threads"] == 1


def test_an_error_may_replace_a_response_that_has_not_begun(serve):
    def app(environ, start_response):
        ok(start_response)
        try:
            raise ValueError("broken")
        except ValueError:
            start_response("503 Service Unavailable", [], sys.exc_info())
        return [b"later"]

    with serve(mount(), apps={"app": app}) as web:
        assert web.get("/app")[0] == 503


def test_a_slow_client_costs_no_thread(serve):
    calls = []

    def app(environ, start_response):
        calls.append(environ["wsgi.input"].read())
        ok(start_response)
        return []

    with serve(mount(), "wsgi_threads = 1", apps={"app": app}) as web, web.connect() as slow:
        slow.sendall(b"POST /app HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\na")
        assert web.get("/app")[0] == 200
        slow.sendall(b"bc")
        assert status_of(read_all(slow)) == 200
        assert calls == [b"", b"abc"]


def test_a_full_pool_refuses_and_says_when_to_come_again(serve, blocker):
    def app(environ, start_response):
        blocker.wait()
        ok(start_response)
        return [b"done"]

    with serve(mount(), "wsgi_threads = 1\nwsgi_queue = 0", apps={"app": app}) as web, web.connect() as first:
        first.sendall(b"GET /app HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        blocker.wait_until_entered()
        status, headers, _ = web.get("/app")
        assert (status, headers["retry-after"]) == (503, "1")
        assert web.refused("wsgi_queue") == 1
        blocker.released.set()
        assert b"done" in read_all(first)


def test_what_is_written_to_the_errors_goes_to_the_log(serve, caplog):
    def app(environ, start_response):
        print("a line\nanother", file=environ["wsgi.errors"])
        ok(start_response)
        return []

    with serve(mount(), apps={"app": app}) as web:
        web.get("/app")
        assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"][:2] == ["a line", "another"]


def test_a_pool_that_shrinks_ends_threads_and_one_that_grows_takes_what_waits(blocker):
    pool, done = ThreadPool("test", 2, 10), threading.Semaphore(0)
    for _ in range(2):
        pool.submit(blocker.wait)
    blocker.wait_until_entered()
    blocker.wait_until_entered()
    pool.submit(done.release)
    pool.resize(3)
    assert done.acquire(timeout=20)
    assert pool.running() == 3
    pool.resize(0)
    with pytest.raises(PoolFull):
        pool.submit(done.release)
    blocker.released.set()
    for thread in threading.enumerate():
        if thread.name.startswith("test-"):
            thread.join(20)
    assert pool.running() == 0


def test_threads_that_hang_count_until_the_pool_is_resized(blocker):
    pool, hanging = ThreadPool("test", 1, 0), []

    def hang():
        hanging.append(threading.current_thread())
        blocker.wait()

    pool.submit(hang)
    blocker.wait_until_entered()
    pool.mark_overdue(hanging[0])
    with pytest.raises(PoolFull):
        pool.submit(hang)
    pool.resize(1)
    assert (pool.running(), pool.overdue()) == (0, 0)
    done = threading.Event()
    pool.submit(done.set)
    assert done.wait(20)
    pool.resize(0)
