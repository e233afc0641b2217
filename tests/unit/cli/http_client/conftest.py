"""A server that does what a test says, on the loopback interface: raw bytes, so that it can do everything wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ostler.cli.http_client.address import find_http_daemon
from ostler.cli.http_client.client import HttpClient

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LINES = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return data as a chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class RawServer:
    """Accepts connections, reads a request of each, and has a function answer it."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.answer: Callable[[socket.socket], object] = lambda peer: peer.close()
        self.stopped = threading.Event()
        self.has_closed = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(peer,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with peer:
            peer.settimeout(20)
            try:
                while self._read_request(peer) and not self.answer(peer):
                    pass
            except OSError:
                pass  # the client has left
        self.has_closed.set()

    def _read_request(self, peer: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = peer.recv(65536)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(fields.get(b"content-length", b"0")):
            body += peer.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        return True

    def sends(self, *parts: bytes, then_close: bool = True) -> None:
        """Answer each request with bytes."""

        def answer(peer: socket.socket) -> bool:
            for part in parts:
                peer.sendall(part)
            return then_close

        self.answer = answer

    def sends_again_and_again(self, first: bytes, part: bytes, pause: float = 0.0) -> None:
        """Answer with bytes that do not end while the client is there."""

        def answer(peer: socket.socket) -> bool:
            peer.sendall(first)
            while not self.stopped.wait(pause):
                peer.sendall(part)
            return True

        self.answer = answer

    def keeps_silent(self, first: bytes = b"") -> None:
        """Answer with bytes, and then with nothing."""

        def answer(peer: socket.socket) -> bool:
            peer.sendall(first)
            self.stopped.wait(20)
            return True

        self.answer = answer

    def stop_listening(self) -> None:
        """Accept no more connections. May be called twice."""
        if self._socket.fileno() >= 0:
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def close(self) -> None:
        """Stop, and wait for the threads."""
        self.stopped.set()
        self.stop_listening()
        for thread in self._threads:
            thread.join(20)


@pytest.fixture
def server() -> Iterator[RawServer]:
    made = RawServer()
    yield made
    made.close()


@pytest.fixture
def open_client(server, tmp_path):
    """Open clients of the server, with a token; they are closed in the end."""
    opened = []
    (tmp_path / "token").write_text("secret-token\n")

    def make(timeout: float | None = 20.0, **options: object) -> HttpClient:
        daemon = find_http_daemon(f"http://127.0.0.1:{server.port}/v1", {"--token-file": str(tmp_path / "token")}, {})
        opened.append(HttpClient(daemon, timeout=timeout, **options))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
