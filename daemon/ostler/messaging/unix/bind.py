"""Unix sockets: bound by us, so that their mode is right at once, and left-over sockets are told from those in use."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from ostler.errors import Conflict, InvalidInput, MessagingError, NotPermitted

LISTEN_BACKLOG = 1024
MAX_PATH_LENGTH = 107
"""Bytes of the longest path that the kernel takes for a unix socket."""
_SCHEME = "ipc://"


def socket_path(address: str) -> Path:
    """Return the path of an `ipc://` address.

    Raises:
        InvalidInput: It is another kind of address, or the path is too long for the kernel.
    """
    text = address.removeprefix(_SCHEME)
    if text == address or not text.startswith("/"):
        raise InvalidInput(
            f"{address!r} is not a valid address of a daemon", hint="use ipc:///path/to/socket", address=address
        )
    if len(os.fsencode(text)) > MAX_PATH_LENGTH:
        raise InvalidInput(
            f"the path of the socket {text} is longer than {MAX_PATH_LENGTH} bytes, which the kernel does not accept",
            hint="choose a shorter directory with `--root` or OSTLER_ROOT",
            path=text,
        )
    return Path(text)


class BoundUnixSocket:
    """A listening unix socket.

    Args:
        path: Where it is.
        mode: Mode of its file.

    Raises:
        Conflict: The address is already in use.
        NotPermitted: The directory is not writable.
        MessagingError: It cannot be made for another reason.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._file_id: tuple[int, int] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._bind(mode)
        except OSError as error:
            self._socket.close()
            raise _bind_error(path, error) from error
        except BaseException:
            self._socket.close()
            raise

    def detach(self) -> int:
        """Give the descriptor away; whoever takes it closes it."""
        return self._socket.detach()

    def set_mode(self, mode: int) -> None:
        """Give the file another mode, unless it is another's by now."""
        with suppress(OSError):
            if self._is_ours():
                self.path.chmod(mode)

    def is_in_place(self) -> bool:
        """Return whether the path still leads to this socket."""
        try:
            return self._is_ours()
        except OSError:
            return False

    def unlink(self) -> None:
        """Remove the file, unless it is another's by now."""
        with suppress(OSError):
            if self._is_ours():
                self.path.unlink()

    def _is_ours(self) -> bool:
        found = self.path.lstat()
        return (found.st_dev, found.st_ino) == self._file_id

    def _bind(self, mode: int) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Two daemons that start at once must not both find the left-over unused: the second would remove the
            # socket of the first.
            fcntl.flock(folder, fcntl.LOCK_EX)
            _remove_stale_socket(self.path)
            # The mode of the descriptor is that of the file at bind, less the umask: nobody gets in before chmod.
            os.fchmod(self._socket.fileno(), 0o600)
            self._socket.bind(str(self.path))
            self._file_id = _set_socket_mode(folder, self.path, mode)
            self._socket.listen(LISTEN_BACKLOG)
        finally:
            os.close(folder)


class InheritedSocket:
    """The file of a listening socket that was handed over: who made it owns it, and does not see when it is removed.

    Args:
        fd: The socket.
    """

    def __init__(self, fd: int) -> None:
        with socket.socket(fileno=os.dup(fd)) as listening:
            name = listening.getsockname()
        self.path = Path(name) if isinstance(name, str) and name else None
        self._original_status: os.stat_result | None = None
        with suppress(OSError):
            self._original_status = self.path.lstat() if self.path is not None else None

    def is_in_place(self) -> bool:
        """Return whether the path still leads to the file that was there at first; also if there is no path."""
        if self.path is None:
            return True
        with suppress(OSError):
            return self._original_status is not None and os.path.samestat(self.path.lstat(), self._original_status)
        return False

    def rebind(self, mode: int) -> BoundUnixSocket:
        """Return a socket of our own at the path, with the mode and, where that is allowed, the owner of the first.

        Raises:
            OstlerError: See `BoundUnixSocket`.
        """
        assert self.path is not None  # noqa: S101 - one without a path is always in place
        made = self._original_status
        bound = BoundUnixSocket(self.path, stat.S_IMODE(made.st_mode) if made is not None else mode)
        if made is not None:
            with suppress(OSError):
                os.chown(self.path, made.st_uid, made.st_gid, follow_symlinks=False)
        return bound


def _set_socket_mode(directory: int, path: Path, mode: int) -> tuple[int, int]:
    """Set the mode of the socket that was just made, not of what a link in its place leads to; return which it is."""
    made = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(made)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "something else has been put in its place", str(path))
        Path(f"/proc/self/fd/{made}").chmod(mode)
        return found.st_dev, found.st_ino
    finally:
        os.close(made)


def _remove_stale_socket(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(f"{path} exists and is not a socket", hint="move it away", path=path)
    if _try_connect(path) in (0, errno.EAGAIN, errno.EPERM, errno.EACCES):
        raise Conflict(
            f"another daemon already listens on {path}",
            hint="stop it, or use another directory with `--root`",
            path=path,
        )
    path.unlink()


def _bind_error(path: Path, error: OSError) -> MessagingError | NotPermitted:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotPermitted(
            f"the socket {path} cannot be created: {error.strerror}",
            hint="make the directory writable for the daemon's user, or use another with `--root`",
            path=path,
        )
    return MessagingError(
        f"the socket {path} cannot be created: {error.strerror}", hint="check that its directory exists", path=path
    )


def _try_connect(path: Path) -> int:
    """Return 0 when somebody listens, else the number of the error."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probing:
        probing.setblocking(False)
        try:
            return probing.connect_ex(str(path))
        except OSError as error:
            return error.errno or errno.EINVAL
