"""Listening sockets: of whom they are, what happens to their files, and to who has connected when they close."""

# private: _server: a test host has no sockets of systemd to hand over
# private: _context: it has the sockets that were handed over

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from http_harness import configuration, read_all

from ostler import ServiceError
from ostler_http.addresses import ListenAddress, parse_address
from ostler_http.server.listener import open_sockets


def ask(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        connection.sendall(b"GET /open HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return json.loads(read_all(connection).partition(b"\r\n\r\n")[2])


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_somebody_uses_is_not_replaced(tmp_path, kind):
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(tmp_path / "socket"))
        if kind != socket.SOCK_DGRAM:
            other.listen(0)
        before = os.lstat(tmp_path / "socket").st_ino
        with pytest.raises(ServiceError, match="another process listens there"):
            open_sockets(parse_address(f"unix:{tmp_path}/socket"), {}, 0o600)
        assert os.lstat(tmp_path / "socket").st_ino == before
    assert [each.name for each in tmp_path.iterdir()] == ["socket"]


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path):
    (tmp_path / "file").write_text("data")
    with pytest.raises(ServiceError, match="not a socket"):
        open_sockets(parse_address(f"unix:{tmp_path}/file"), {}, 0o600)
    assert (tmp_path / "file").read_text() == "data"


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ServiceError, match="its directory does not exist"):
        open_sockets(parse_address(f"unix:{tmp_path}/no/socket"), {}, 0o600)


def test_the_longest_path_that_is_accepted_can_be_bound(tmp_path):
    name = "s" * (100 - len(str(tmp_path)) - 1)
    for made in open_sockets(parse_address(f"unix:{tmp_path}/{name}"), {}, 0o600):
        made.close()


def test_a_socket_of_systemd_that_does_not_listen_is_closed_with_the_others(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as good, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bad:
        before = open_files()
        with pytest.raises(ServiceError, match="does not listen"):
            open_sockets(ListenAddress("systemd", "w"), {"w": good.fileno(), "w-2": bad.fileno()}, 0)
        assert open_files() == before


def test_a_reload_creates_a_unix_socket_again_that_was_removed(serve, tmp_path):
    path = tmp_path / "http.sock"
    listen = f'listen = ["unix:{path}"]'
    with serve(options=listen) as web:
        path.unlink()
        web.host.reload(configuration(options=f'{listen}\nunix_mode = "0600"'))
        assert ask(path)["path"] == "/open"
    assert not path.exists()


def test_a_stop_leaves_a_socket_alone_that_is_of_another_now(serve, tmp_path):
    path = tmp_path / "http.sock"
    with serve(options=f'listen = ["unix:{path}"]') as web, socket.socket(socket.AF_UNIX) as other:
        path.unlink()
        other.bind(str(path))
        web.host.manager("web").cleanup_host()
    assert path.exists()


def test_who_has_connected_before_a_listener_closed_is_served(serve, blocker):
    async def block(scope, receive, send):
        blocker.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    mounts = '[services.web.apps."/"]\napp = "block"\nfilters = []'
    with serve(mounts, apps={"block": block}) as web, web.connect() as busy:
        busy.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        blocker.wait_until_entered()  # the loop accepts nobody from now on
        port = web.host.manager("web").listen_addresses[0].rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port)), timeout=20) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            blocker.released.set()
            web.host.reload(configuration(mounts, 'listen = ["[::1]:0"]'))
            assert read_all(waiting).startswith(b"HTTP/1.1 204")


def test_a_socket_of_systemd_for_other_hosts_needs_tls_as_well(serve):
    with serve() as web, socket.create_server(("0.0.0.0", 0)) as wide:
        server = web.host.manager("web")._server
        context = server._context
        server._context = type(context)(
            **{name: getattr(context, name) for name in context.__struct_fields__}
            | {"sockets": {"wide": wide.fileno()}}
        )
        with pytest.raises(Exception, match="which other hosts can reach"):
            web.host.reload(configuration(options='listen = ["systemd:wide"]'))
        web.host.reload(configuration(options='listen = ["systemd:wide"]\nplain_text = true'))
        assert web.get("/open")[0] == 200
