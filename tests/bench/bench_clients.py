"""A client of HTTP/1.1 that does next to nothing, so that what is measured is the server."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Self

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class KeepAlive:
    """A connection that is kept, with one request again and again.

    Args:
        address: The unix socket of the server.
        path: The path to ask for, with its query.
    """

    def __init__(self, address: Path, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(str(address))
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        self._received = b""

    def send(self) -> None:
        """Send the request."""
        self.socket.sendall(self._request)

    def receive(self) -> None:
        """Wait for the response."""
        while not self.receive_some():
            pass

    def receive_some(self) -> bool:
        """Take what has come; return whether the response is whole.

        Raises:
            RuntimeError: It is not a good one, or the server has closed the connection.
        """
        piece = self.socket.recv(65536)
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not piece or (end and not head.startswith(b"HTTP/1.1 200 ")):
            raise RuntimeError(f"the server has answered {self._received[:500]!r}")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]):
            return False
        self._received = b""
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
