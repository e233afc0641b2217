"""Where a daemon's configuration, state and sockets are; imports nothing heavy, the command uses it as well."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ostler.errors import ConfigurationError

SOCKET_PATH_MAX = 107
"""Longest path of a unix socket in bytes; the kernel's `sun_path` has 108 with the final zero."""

_SYSTEM_STATE = Path("/var/lib/ostler")
_SYSTEM_RUN = Path("/run/ostler")


class Paths(msgspec.Struct, frozen=True):
    """The places of one daemon. Nothing is created or opened here.

    Attributes:
        root: The folder given by `--root` or `OSTLER_ROOT`; None without one.
        config_file: The main configuration file.
        config_dirs: The layers of the configuration, first to last: files, and folders of `*.toml` files.
        state: The folder of the database and of what services keep.
        run: The folder of the sockets.
        trust_owner: Whether files are believed whoever they belong to (`--trust-owner`, `OSTLER_TRUST_OWNER`).
    """

    root: Path | None
    config_file: Path
    config_dirs: tuple[Path, ...]
    state: Path
    run: Path
    trust_owner: bool = False

    @classmethod
    def find(cls, root: str | None, environ: Mapping[str, str], *, uid: int | None = None) -> Paths:
        """Return the places of the daemon that is meant.

        A root (the argument, else `OSTLER_ROOT`) wins. Without one root, and a service of the system's systemd under
        whatever user, get the system's places; any other user gets the XDG ones.

        Args:
            root: The value of `--root`, None or empty when it was not given.
            environ: The environment.
            uid: The user, by default the effective one of this process.

        Raises:
            ConfigurationError: The sockets' paths would be too long for the kernel, or the user has no home.
        """
        uid = os.geteuid() if uid is None else uid
        chosen = root or environ.get("OSTLER_ROOT")
        if chosen:
            paths = _below(Path(chosen).expanduser().absolute())
        elif uid == 0 or _in_system_unit(environ):
            paths = cls.system(environ)
        else:
            paths = _of_user(environ, uid)
        if environ.get("OSTLER_TRUST_OWNER", "0") not in ("", "0"):
            paths = msgspec.structs.replace(paths, trust_owner=True)
        return _checked(paths)

    @classmethod
    def for_client(cls, root: str | None, environ: Mapping[str, str], *, uid: int | None = None) -> Paths:
        """Return the places of the daemon that a command talks to.

        As `find`, but a user who runs no daemon of their own is led to the system's, when that one has a socket.
        """
        paths = cls.find(root, environ, uid=uid)
        system = cls.system({})
        if paths.root is None and not paths.rpc_socket.exists() and system.rpc_socket.exists():
            return system
        return paths

    @classmethod
    def system(cls, environ: Mapping[str, str]) -> Paths:
        """Return the system's places; `$STATE_DIRECTORY` and `$RUNTIME_DIRECTORY` win where they are set."""
        config_file = Path("/etc/ostler/ostler.toml")
        layers = (
            Path("/usr/lib/ostler/conf.d"),
            config_file,
            Path("/etc/ostler/conf.d"),
            Path("/run/ostler/conf.d"),
        )
        state = _unit_directory(environ, "STATE_DIRECTORY") or _SYSTEM_STATE
        run = _unit_directory(environ, "RUNTIME_DIRECTORY") or _SYSTEM_RUN
        return cls(None, config_file, layers, state, run)

    @property
    def rpc_socket(self) -> Path:
        """The unix socket of calls."""
        return self.run / "rpc.sock"

    @property
    def events_socket(self) -> Path:
        """The unix socket of events."""
        return self.run / "events.sock"

    @property
    def rpc_address(self) -> str:
        """The ZeroMQ address of calls."""
        return f"ipc://{self.rpc_socket}"

    @property
    def events_address(self) -> str:
        """The ZeroMQ address of events."""
        return f"ipc://{self.events_socket}"

    @property
    def database(self) -> Path:
        """The database file."""
        return self.state / "ostler.db"


def _below(root: Path) -> Paths:
    config_file = root / "etc" / "ostler.toml"
    layers = (config_file, root / "etc" / "conf.d")
    return Paths(root, config_file, layers, root / "state", root / "run")


def _of_user(environ: Mapping[str, str], uid: int) -> Paths:
    home = _absolute(environ.get("HOME")) or _home_of(uid)
    config = (_absolute(environ.get("XDG_CONFIG_HOME")) or home / ".config") / "ostler"
    state = (_absolute(environ.get("XDG_STATE_HOME")) or home / ".local" / "state") / "ostler"
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    config_file = config / "ostler.toml"
    return Paths(
        root=None,
        config_file=config_file,
        config_dirs=(config_file, config / "conf.d"),
        state=_unit_directory(environ, "STATE_DIRECTORY") or state,
        run=_unit_directory(environ, "RUNTIME_DIRECTORY") or (runtime / "ostler" if runtime else state / "run"),
    )


def _home_of(uid: int) -> Path:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        raise ConfigurationError(
            f"user {uid} has no home folder, so that there is no place for configuration and state",
            hint="name a folder with `--root DIR` or OSTLER_ROOT",
        ) from None


def _absolute(text: str | None) -> Path | None:
    # The XDG specification: paths that are not absolute are ignored.
    return Path(text) if text and text.startswith("/") else None


def _unit_directory(environ: Mapping[str, str], name: str) -> Path | None:
    # systemd lists several directories with colons; the unit names ours first.
    return _absolute(environ.get(name, "").partition(":")[0])


def _in_system_unit(environ: Mapping[str, str]) -> bool:
    # A unit of a user's own systemd has its state at home and its sockets below /run/user.
    state, run = _unit_directory(environ, "STATE_DIRECTORY"), _unit_directory(environ, "RUNTIME_DIRECTORY")
    if state is not None and state.is_relative_to("/var/lib"):
        return True
    return run is not None and run.is_relative_to("/run") and not run.is_relative_to("/run/user")


def _checked(paths: Paths) -> Paths:
    socket = paths.events_socket
    length = len(os.fsencode(socket))
    if length > SOCKET_PATH_MAX:
        raise ConfigurationError(
            f"{socket} has {length} bytes, and the kernel allows {SOCKET_PATH_MAX} for the path of a socket",
            hint="choose a root with a shorter path",
        )
    return paths
