"""`Listener`: one listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ostler import ConfigurationError, ServiceError
from ostler_http.addresses import ListenAddress

_BACKLOG = 1024
_ACCEPTED_AT_ONCE = 32
_RETRY_DELAY = 0.5


class Accepts(Protocol):
    """Takes accepted connections over."""

    def __call__(self, accepted: socket.socket, *, is_tls: bool) -> None:
        """Take one over."""
        ...


class Listener:
    """A listening socket, which is open from the beginning. All methods run on the loop of the service.

    Args:
        address: What the configuration names.
        listening: The socket.
        accept: Takes the connections.
    """

    def __init__(self, address: ListenAddress, listening: socket.socket, accept: Accepts) -> None:
        self.address = address
        self._socket = listening
        self._accept_connection = accept
        self._log = logging.getLogger(__name__)
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self.is_open = True
        self._is_started = False
        self._has_outage = False
        self._file = _file_of(address)

    @property
    def is_current(self) -> bool:
        """Whether clients reach it by its address: the file of a unix socket may have been removed or replaced."""
        return self._file is None or _file_of(self.address) == self._file

    @property
    def has_port(self) -> bool:
        """Whether it is a TCP socket."""
        return self._socket.family != socket.AF_UNIX

    @property
    def bound(self) -> ListenAddress:
        """The address that clients connect to, with the port that the kernel has chosen."""
        name = self._socket.getsockname()
        if not self.has_port:
            return ListenAddress("unix", self.address.host if self.address.kind == "unix" else name)
        return ListenAddress("tcp", name[0], name[1])

    def url(self, *, is_tls: bool) -> str:
        """Return the address as clients write it: `http://127.0.0.1:8080`, `unix:/path`."""
        bound = self.bound
        return f"{'https' if is_tls else 'http'}://{bound}" if self.has_port else str(bound)

    def start(self) -> None:
        """Accept connections from now on."""
        self._is_started = True
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self, most: int = _ACCEPTED_AT_ONCE) -> None:
        for _ in range(most):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors, no memory
                if not self._has_outage:  # else it would be logged twice a second
                    self._log.warning("cannot accept connections on %s: %s; retrying", self.bound, error.strerror)
                self._has_outage = True
                self._loop.remove_reader(self._socket.fileno())
                self._retry = self._loop.call_later(_RETRY_DELAY, self.start)
                return
            self._has_outage = False
            self._accept_connection(accepted, is_tls=self.has_port)

    def set_mode(self, mode: int) -> None:
        """Set the permissions of a unix socket that was created here."""
        if self.address.kind == "unix":
            with contextlib.suppress(OSError):  # somebody has removed it just now; the next reload creates it again
                Path(self.address.host).chmod(mode)

    def close(self) -> None:
        """Stop listening; clients that have connected are accepted still. The file of a unix socket is removed."""
        if not self.is_open:
            return
        if self._is_started:
            self._accept(_BACKLOG)
        self.is_open = False
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket.fileno())
        if self._file is not None and self.is_current:
            Path(self.address.host).unlink(missing_ok=True)
        self._socket.close()


def open_sockets(address: ListenAddress, handed_over: Mapping[str, int], unix_mode: int) -> list[socket.socket]:
    """Return the listening sockets of an address: one, or all that systemd has handed over under its name.

    Args:
        address: What the configuration names.
        handed_over: Sockets of systemd, by name.
        unix_mode: The permissions of a unix socket.

    Raises:
        ServiceError: It cannot be listened on.
    """
    try:
        if address.kind == "systemd":
            return _take_sockets(address.host, handed_over)
        return [_bind_unix(address.host, unix_mode) if address.kind == "unix" else _bind_port(address)]
    except OSError as error:
        why, hint = _explain(address, error)
        raise ServiceError(f"cannot listen on {address}: {why}", hint=hint, address=str(address)) from error


def _explain(address: ListenAddress, error: OSError) -> tuple[str, str]:
    what = {
        errno.EADDRINUSE: ("another process listens there", "`ss -lxtnp` shows which; or choose another address"),
        errno.EADDRNOTAVAIL: ("this host does not have that address", "`ip address` shows those it has"),
        errno.EACCES: ("permission denied", "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket of systemd"),
    }
    if address.kind == "unix":
        what |= {
            errno.EACCES: ("permission denied", "the user of the daemon must be able to write to the directory"),
            errno.ENOENT: ("its directory does not exist", "create it, as with `RuntimeDirectory=` of the unit"),
        }
    default = error.strerror or str(error), f"see `listen` of the service: {address}"
    return what.get(error.errno or 0, default)


def _bind_port(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address.host, address.port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _bind_unix(path: str, mode: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # Bound under another name and moved into place: nobody sees it with other permissions, or without a listener.
    beside = f"{path}.{os.getpid():x}"
    try:
        _remove_stale(path)
        Path(beside).unlink(missing_ok=True)
        made.bind(beside)
        Path(beside).chmod(mode)
        made.listen(_BACKLOG)
        Path(beside).rename(path)
    except OSError:
        made.close()
        Path(beside).unlink(missing_ok=True)
        raise
    return made


def _remove_stale(path: str) -> None:
    """Raise when somebody listens there, or when it is no socket; the rename replaces what is left of a crash."""
    try:
        found = Path(path).lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:  # the one proof that nobody listens; it may be of another user or kind
            return
        except FileNotFoundError:
            return
        except OSError:
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there")


def _file_of(address: ListenAddress) -> tuple[int, int] | None:
    """Return which file a unix socket is; None if there is none."""
    if address.kind != "unix":
        return None
    try:
        found = Path(address.host).lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _take_sockets(name: str, handed_over: Mapping[str, int]) -> list[socket.socket]:
    # Several of one name are `name`, `name-2`, `name-3`.
    is_numbered = re.compile(rf"{re.escape(name)}-[0-9]+").fullmatch
    wanted = [key for key in handed_over if key == name or is_numbered(key)]
    if not wanted:
        raise ConfigurationError(
            f"systemd has handed over no socket named {name}",
            hint=f"add `FileDescriptorName={name}` to the socket unit, and `Sockets=` of it to the service; "
            f"handed over: {', '.join(sorted(handed_over)) or 'none'}",
        )
    with contextlib.ExitStack() as undo:
        taken = [undo.enter_context(_take_socket(key, handed_over[key])) for key in wanted]
        undo.pop_all()
    return taken


def _take_socket(key: str, descriptor: int) -> socket.socket:
    made = socket.socket(fileno=os.dup(descriptor))
    os.set_inheritable(made.fileno(), False)
    made.setblocking(False)
    if not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        made.close()
        raise OSError(errno.EINVAL, f"the socket {key} of systemd does not listen; it needs `ListenStream=`")
    return made
