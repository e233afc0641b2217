"""TCP ports: bound here, so that a port that is in use is reported at once."""

from __future__ import annotations

import errno
import socket
from typing import Any, NamedTuple

from ostler.errors import Conflict, InvalidInput, MessagingError, NotPermitted
from ostler.messaging.unix.bind import LISTEN_BACKLOG

TCP_SCHEME = "tcp://"
ADDRESS_NOT_READY = "not yet"
"""The reason of an error that goes away when the network comes up."""
_TRANSIENT_ERRORS = {
    errno.EADDRNOTAVAIL,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENODEV,
    errno.ENXIO,
    errno.EAFNOSUPPORT,
}


class HostPort(NamedTuple):
    """Where to listen or connect; an empty host is every address of this machine."""

    host: str
    port: int


def is_tcp(address: str) -> bool:
    """Return whether an address is one on a network."""
    return address.startswith(TCP_SCHEME)


def parse_tcp_address(address: str) -> HostPort:
    """Return the host and port of `tcp://HOST:PORT`; IPv6 addresses stand in brackets, `*` is every address.

    Raises:
        InvalidInput: It is not such an address.
    """
    host, colon, port = address.removeprefix(TCP_SCHEME).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    well = is_tcp(address) and colon and host and port.isascii() and port.isdecimal() and int(port) <= 65535
    if not well or (":" in bare and bare == host) or any(letter.isspace() or letter in "/;[]" for letter in bare):
        raise InvalidInput(
            f"{address!r} is not a valid network address", hint="use tcp://HOST:PORT, such as tcp://0.0.0.0:7890"
        )
    return HostPort("" if bare == "*" else bare, int(port))


class BoundPort:
    """A listening port.

    Args:
        address: Where to listen; port 0 for any free one.

    Raises:
        Conflict: The address is already in use.
        NotPermitted: This user is not allowed to.
        InvalidInput: It is not a valid network address.
        MessagingError: It cannot be used for another reason.
    """

    def __init__(self, address: str) -> None:
        self.address: str
        self._socket, where = _make_socket(address)
        try:
            self._bind(where)
        except OSError as error:
            self._socket.close()
            raise _bind_error(address, error) from error
        host, port = self._socket.getsockname()[:2]
        self.address = f"{TCP_SCHEME}{f'[{host}]' if ':' in host else host}:{port}"

    def duplicate_descriptor(self) -> int:
        """Return a descriptor for ZeroMQ, which closes it."""
        return self._socket.dup().detach()

    def unlink(self) -> None:
        """Stop listening, as soon as ZeroMQ has closed its descriptor as well. May be called twice."""
        self._socket.close()

    def _bind(self, where: Any) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._socket.family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self._socket.bind(where)
        self._socket.listen(LISTEN_BACKLOG)
        self._socket.setblocking(False)


def _make_socket(address: str) -> tuple[socket.socket, Any]:
    wanted = parse_tcp_address(address)
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(
            wanted.host or None, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.socket(family, kind, protocol), found
    except OSError as error:
        raise _bind_error(address, error) from error


def check_address(address: str) -> None:
    """Find out whether this machine has an address; nobody can connect meanwhile. May wait for a name server.

    Raises:
        InvalidInput: It is not a valid network address.
        MessagingError: It cannot be used; `reason` is `ADDRESS_NOT_READY` when that may change by itself.
    """
    trying, where = _make_socket(address)
    with trying:
        try:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trying.bind(where)
        except OSError as error:
            raise _bind_error(address, error) from error


def _bind_error(address: str, error: OSError) -> MessagingError | Conflict | NotPermitted:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"{address} is already in use", hint="stop the process that uses it, or choose another port in [network]"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(
            f"not allowed to listen on {address}: {error.strerror}", hint="ports below 1024 require root"
        )
    return MessagingError(
        f"cannot listen on {address}: {error.strerror or error}",
        hint="use an address of this machine; tcp://0.0.0.0:PORT stands for all of them",
        address=address,
        reason=ADDRESS_NOT_READY if isinstance(error, socket.gaierror) or error.errno in _TRANSIENT_ERRORS else "",
    )


def next_port(address: str) -> str:
    """Return the address for events that belongs to one for calls: the next port.

    Raises:
        InvalidInput: It is not a valid network address.
    """
    port = parse_tcp_address(address).port
    return f"{address.rpartition(':')[0]}:{port + 1 if port else 0}"
