"""What is said of a service that launches applications from the configuration; each sentence has a test."""

# private: _thread: a loop that ends without a stop cannot be had otherwise

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time

import pytest
from http_harness import DEFAULT, TIMEOUT, EchoApp, configuration, read_all, read_until, send_text, status_of

from ostler import ConfigurationError, ServiceError, ServiceState

# private: _server, _thread: a loop that is too slow for a stop would have to be slow for seconds


@pytest.fixture(autouse=True)
def _forget():
    EchoApp.started.clear()
    EchoApp.stopped.clear()


def answer(web, path="/open"):
    status, _, body = web.get(path)
    assert status == 200
    return json.loads(body)


def pool_of(web):
    found = web.status()
    return found["wsgi_threads"], found["wsgi_overdue"], found["wsgi_limit"]


def test_it_launches_an_application_from_the_configuration(serve):
    with serve('[services.web.apps."/a"]\napp = "open"\ngreeting = "salve"') as web:
        assert answer(web, "/a/b")["greeting"] == "salve"
        assert EchoApp.started == ["salve"]


def test_port_0_is_a_random_port_that_status_event_and_command_report(serve):
    with serve() as web:
        address = web.address()
        assert address.startswith("http://127.0.0.1:")
        assert web.port() > 0
        assert web.host.status("web").addresses == [address]
        assert web.host.events("web.*.listening")[0].payload == {"addresses": [address]}
        assert web.host.command("http", "address", "web").stdout == f"{address}\n"
        assert web.host.command("http", "address").stdout == f"web {address}\n"


def test_requests_times_refusals_and_connections_are_metrics(serve):
    with serve() as web:
        assert [web.get(path)[0] for path in ("/open", "/open", "/echo", "/none")] == [200, 200, 401, 404]
        metric, wait = web.host.metric, web.host.wait_for
        wait(lambda: metric("http_requests_total") == 4, "the count of requests")
        assert metric("http_requests_total", service="web", mount="/open", code="200") == 2
        assert metric("http_requests_total", mount="/echo", code="401") == 1
        assert metric("http_requests_total", mount="", code="404") == 1
        assert metric("http_response_start_seconds", mount="/open") == 2
        assert metric("http_refused_total", reason="unauthenticated") == 1
        assert metric("http_connections_accepted_total") == 4
        wait(lambda: metric("http_connections") == 0, "the end of the connections")
        with web.connect():
            wait(lambda: metric("http_connections") == 1, "the connection")


def test_start_answers_before_the_service_is_up(serve):
    with serve() as web:
        assert web.host.states()["web"] is ServiceState.UP
        assert answer(web)["path"] == "/open"


def test_stop_waits_for_a_request_in_progress_and_then_refuses_connections(serve, blocker):
    with serve('[services.web.apps."/"]\napp = "slow"\nfilters = []', apps={"slow": slow_wsgi(blocker)}) as web:
        port, result = web.port(), []
        asking = threading.Thread(target=lambda: result.append(web.get("/")))
        asking.start()
        blocker.wait_until_entered()
        stopping = threading.Thread(target=web.host.manager("web").cleanup_host)
        stopping.start()
        wait_until_refused(port)
        blocker.released.set()
        asking.join()
        stopping.join()
        assert result[0][0] == 200


def test_stop_cuts_what_has_not_ended_at_its_deadline(serve, blocker):
    with (
        serve(
            '[services.web.apps."/"]\napp = "slow"\nfilters = []',
            "stop_timeout = 0.2",
            apps={"slow": slow_wsgi(blocker)},
        ) as web,
        web.connect() as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        blocker.wait_until_entered()
        began = time.monotonic()
        web.host.manager("web").cleanup_host()
        assert time.monotonic() - began < TIMEOUT / 2, "the application goes on for TIMEOUT"
        assert read_all(connection) == b""


def test_a_stop_that_is_given_up_leaves_no_connection_open(serve, blocker):
    mounts = '[services.web.apps."/"]\napp = "slow"\nfilters = []'
    with serve(mounts, apps={"slow": slow_wsgi(blocker)}) as web, web.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        blocker.wait_until_entered()
        manager = web.host.manager("web")
        with pytest.raises(TimeoutError):
            manager._thread.call(manager._server.stop(3600), 0.05)
        assert read_all(connection) == b""


def test_a_loop_that_ends_without_a_stop_leaves_no_socket_open(serve):
    with serve() as web, web.connect() as connection:
        port = web.port()
        connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\n\r\n")
        read_until(connection, b"}")
        thread = web.host.manager("web")._thread
        assert thread.stop(20)
        assert read_all(connection) == b""
        wait_until_refused(port)


def test_stop_before_the_start_has_finished_and_twice_is_safe(serve):
    with serve() as web:
        manager = web.host.manager("web")
        manager.cleanup_host()
        manager.cleanup_host()
        type(manager)(manager.environment).cleanup_host()


def test_wait_returns_when_the_thread_of_the_service_has_ended(serve):
    with serve() as web:
        web.host.manager("web").cleanup_host()
        assert [each.name for each in threading.enumerate() if each.name.startswith("web-http")] == []
        assert EchoApp.stopped == ["hello", "hello"]


def test_reset_brings_the_pool_back_to_its_configured_size(serve, blocker):
    mounts = '[services.web.apps."/"]\napp = "slow"\nfilters = []\nresponse_timeout = 0.2'
    with serve(mounts, "wsgi_threads = 2\nwsgi_queue = 0", apps={"slow": slow_wsgi(blocker)}) as web:
        assert [web.get("/")[0] for _ in range(2)] == [504, 504]
        assert web.get("/")[0] == 503
        assert pool_of(web) == (2, 2, 2)
        assert "2 of 2 threads" in web.host.manager("web").problems()[0]
        web.host.manager("web").reset()
        assert pool_of(web) == (0, 0, 2)
        assert web.host.manager("web").problems() == []
        assert web.get("/")[0] == 504


def test_a_reload_changes_the_size_of_the_pool(serve):
    with serve() as web:
        web.host.reload(configuration(options="wsgi_threads = 3"))
        assert pool_of(web) == (0, 0, 3)


def test_a_reload_replaces_mounts_without_dropping_a_connection(serve):
    with serve() as web, web.client() as client:
        client.request("GET", "/open")
        assert client.getresponse().read()
        before = client.sock.getsockname()
        web.host.reload(configuration('[services.web.apps."/open"]\napp = "open"\ngreeting = "other"'))
        client.request("GET", "/open")
        assert json.loads(client.getresponse().read())["greeting"] == "other"
        assert client.sock.getsockname() == before
        assert EchoApp.stopped == ["hello", "hello"]


def test_a_reload_leaves_mounts_alone_that_have_not_changed(serve):
    with serve() as web:
        web.host.reload(configuration(DEFAULT + '[services.web.apps."/more"]\napp = "open"\ngreeting = "more"'))
        assert EchoApp.started == ["hello", "hello", "more"]
        assert EchoApp.stopped == []


def test_a_request_of_a_replaced_mount_ends_with_its_old_application(serve, blocker):
    mounts = '[services.web.apps."/"]\napp = "slow"\nfilters = []'
    with serve(mounts, apps={"slow": slow_wsgi(blocker)}) as web:
        result = []
        asking = threading.Thread(target=lambda: result.append(web.get("/")))
        asking.start()
        blocker.wait_until_entered()
        web.host.reload(configuration('[services.web.apps."/"]\napp = "open"'))
        assert answer(web, "/x")["path"] == "/x"
        blocker.released.set()
        asking.join()
        assert result[0][2] == b"slow"


def test_a_websocket_of_a_removed_mount_is_closed_when_its_time_is_up(serve):
    with serve(options="stop_timeout = 0.2") as web, web.connect() as connection:
        connection.sendall(websocket_request("/open"))
        read_until(connection, b"\r\n\r\n")
        web.host.reload(configuration('[services.web.apps."/"]\napp = "open"', "stop_timeout = 0.2"))
        assert read_all(connection) == b"\x88\x02\x03\xf4"
        web.wait_refused("stopping")


@pytest.mark.parametrize("name", ["deaf", "silent"])
def test_a_request_of_a_removed_mount_ends_when_its_time_is_up(serve, name):
    mounts = f'[services.web.apps."/"]\napp = "{name}"\nfilters = []'
    entered = threading.Event()

    async def silent(scope, receive, send):
        entered.set()
        await asyncio.Event().wait()

    with serve(mounts, "stop_timeout = 0.2", apps={"deaf": deaf_stream, "silent": silent}) as web:
        with web.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            if name == "deaf":
                read_until(connection, b"first")
            else:
                assert entered.wait(20)
            web.host.reload(configuration('[services.web.apps."/"]\napp = "open"', "stop_timeout = 0.2"))
            if name == "deaf":
                assert not read_all(connection).endswith(b"0\r\n\r\n")
            else:
                assert status_of(read_until(connection, b"}")) == 503
        web.wait_refused("stopping")


def test_a_changed_address_is_listened_on_before_the_old_one_is_closed(serve):
    with serve() as web, web.client() as client:
        client.request("GET", "/open")
        client.getresponse().read()
        before = web.port()
        web.host.reload(configuration(options='listen = ["[::1]:0"]'))
        assert web.address().startswith("http://[::1]:")
        client.request("GET", "/open")
        assert client.getresponse().status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", before))


def test_a_wider_address_of_the_same_port_takes_over(serve):
    with serve() as web:
        port = web.port()
        web.host.reload(configuration(options=f'listen = ["127.0.0.1:{port}"]'))
        web.host.reload(configuration(options=f'listen = ["0.0.0.0:{port}"]\nplain_text = true'))
        assert web.address() == f"http://0.0.0.0:{port}"
        assert answer(web)["path"] == "/open"


def test_a_reload_that_cannot_listen_changes_nothing(serve):
    with serve() as web, socket.create_server(("127.0.0.1", 0)) as other:
        before, taken = web.status()["addresses"], other.getsockname()[1]
        with pytest.raises(ServiceError, match="another process listens there"):
            web.host.reload(configuration('[services.web.apps."/x"]\napp = "open"', f'listen = ["127.0.0.1:{taken}"]'))
        assert web.status()["addresses"] == before
        assert answer(web)["path"] == "/open"
        assert web.get("/x")[0] == 404


def test_a_reload_whose_application_does_not_start_changes_nothing(serve):
    with serve(apps={"broken": BrokenApp}) as web:
        with pytest.raises(ServiceError, match="broken at /x could not be started: ValueError: no disk"):
            web.host.reload(configuration('[services.web.apps."/x"]\napp = "broken"'))
        assert answer(web)["path"] == "/open"
        assert EchoApp.stopped == []


def test_several_services_run_beside_each_other(serve):
    other = '[services.other]\nmanager = "http"\n[services.other.apps."/"]\napp = "open"\ngreeting = "other"'
    with serve(f"{DEFAULT}{other}") as web:
        port = int(web.host.call("other", "http_status")["addresses"][0].rpartition(":")[2])
        client = http.client.HTTPConnection("127.0.0.1", port)
        client.request("GET", "/")
        assert json.loads(client.getresponse().read())["greeting"] == "other"
        client.close()
        assert answer(web)["greeting"] == "hello"


def test_a_unix_socket_says_who_its_user_is(serve, tmp_path):
    path = tmp_path / "http.sock"
    with serve(options=f'listen = ["unix:{path}"]\nunix_mode = "0600"') as web:
        assert web.address() == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(path))
            connection.sendall(b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            facts = json.loads(read_all(connection).partition(b"\r\n\r\n")[2])
        assert facts["caller"].startswith("uid ")
        assert facts["role"] == "admin"
    assert not path.exists()


def test_a_unix_socket_left_by_a_crash_is_replaced_and_a_used_one_is_not(serve, tmp_path):
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with serve(options=f'listen = ["unix:{path}"]') as web:
        assert web.address() == f"unix:{path}"
        with (
            pytest.raises(Exception, match="another process listens there"),
            serve(options=f'listen = ["unix:{path}"]'),
        ):
            pytest.fail("it has started")
        assert path.exists()


def test_event_streams_are_told_of_the_stop(serve):
    mounts = '[services.web.apps."/"]\napp = "stream"\nfilters = []'
    with serve(mounts, apps={"stream": stream}) as web, web.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        read_until(connection, b"first")
        web.host.manager("web").cleanup_host()
        assert read_all(connection).endswith(b"goodbye\r\n0\r\n\r\n")


def test_an_event_stream_that_does_not_listen_is_ended_before_the_deadline(serve):
    mounts = '[services.web.apps."/"]\napp = "deaf"\nfilters = []'
    with serve(mounts, "stop_timeout = 0.4", apps={"deaf": deaf_stream}) as web, web.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        read_until(connection, b"first")
        web.host.manager("web").cleanup_host()
        assert read_all(connection) == b""


def test_websockets_get_a_close_frame_at_the_stop(serve):
    with serve() as web, web.connect() as connection:
        connection.sendall(websocket_request("/open"))
        assert status_of(connection.recv(65536)) == 101
        connection.sendall(b"\x81\x82\0\0\0\0hi")
        assert connection.recv(100) == b"\x81\x02hi"
        web.host.manager("web").cleanup_host()
        assert read_all(connection).startswith(b"\x88\x02\x03\xf4")


def test_a_websocket_whose_client_vanishes_is_no_error_of_the_application(serve, caplog):
    mounts = '[services.web.apps."/"]\napp = "chatty"\nfilters = []'
    with serve(mounts, apps={"chatty": chatty}) as web:
        with web.connect() as connection:
            connection.sendall(websocket_request("/"))
            read_until(connection, b"\x81")
        web.host.wait_for(lambda: web.status()["mounts"][0]["in_flight"] == 0, "the end of the WebSocket")
        assert web.refused("response_failed") == 0


def test_a_reload_sets_the_permissions_of_a_unix_socket(serve, tmp_path):
    listen = f'listen = ["unix:{tmp_path}/http.sock"]'
    with serve(options=listen) as web:
        web.host.reload(configuration(options=f'{listen}\nunix_mode = "0600"'))
        assert (tmp_path / "http.sock").stat().st_mode & 0o777 == 0o600


def test_a_stop_while_an_application_starts_leaves_no_listener_behind(serve, blocker):
    class SlowStart(EchoApp):
        async def start(self):
            await asyncio.get_running_loop().run_in_executor(None, blocker.wait)

    with serve(apps={"slow": SlowStart}) as web, socket.create_server(("127.0.0.1", 0)) as other:
        port, free = web.port(), other.getsockname()[1]
        other.close()
        failures = []

        def reload():
            try:
                changed = f'listen = ["127.0.0.1:{free}"]'
                web.host.reload(configuration('[services.web.apps."/"]\napp = "slow"', changed))
            except ServiceError as error:
                failures.append(str(error))

        reloading = threading.Thread(target=reload)
        reloading.start()
        blocker.wait_until_entered()
        stopping = threading.Thread(target=web.host.manager("web").cleanup_host)
        stopping.start()
        wait_until_refused(port)
        blocker.released.set()
        reloading.join()
        stopping.join()
        assert failures
        wait_until_refused(free)


def test_a_loop_that_an_application_blocks_makes_the_service_degraded(serve, blocker):
    async def block(scope, receive, send):
        blocker.wait()
        await send_text(send, "")

    with serve('[services.web.apps."/"]\napp = "block"\nfilters = []', apps={"block": block}) as web:
        with web.connect() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            blocker.wait_until_entered()
            with pytest.raises(ServiceError, match="the event loop of web has not responded"):
                web.host.manager("web").is_working(timeout=0.05)
            blocker.released.set()
            assert status_of(connection.recv(65536)) == 200
        assert web.host.manager("web").is_working()


def test_an_address_that_is_in_use_fails_the_start_of_the_service(serve):
    with socket.create_server(("127.0.0.1", 0)) as other:
        options = f'listen = ["127.0.0.1:{other.getsockname()[1]}"]'
        with pytest.raises(Exception, match="another process listens there"), serve(options=options):
            pytest.fail("it has started")


def test_an_unknown_application_is_refused_before_anything_starts(serve):
    with (
        pytest.raises(ConfigurationError, match=r':5:7: services.web.apps."/x".app: .*did you mean "echo"'),
        serve('[services.web.apps."/x"]\napp = "ecko"'),
    ):
        pytest.fail("it has started")


class BrokenApp(EchoApp):
    async def start(self):
        raise ValueError("no disk")


def slow_wsgi(blocker):
    def app(environ, start_response):
        blocker.wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"slow"]

    return app


async def stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await scope["ostler.stopping"].wait()
    await send({"type": "http.response.body", "body": b"goodbye"})


async def chatty(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        await send({"type": "websocket.send", "text": "again"})
        await asyncio.sleep(0)


async def deaf_stream(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass


def websocket_request(path, headers=b""):
    return (
        b"GET %s HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n" % (path.encode(), headers)
    )


def wait_until_refused(port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionResetError:  # it was in the queue of a socket that is being closed: the next one is refused
            continue
        except ConnectionRefusedError:
            return
