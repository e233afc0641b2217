"""The paths of a daemon's configuration, state and sockets; imports nothing heavy, because the command uses it."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ostler.errors import ConfigurationError

SOCKET_PATH_MAX = 107
"""Maximum length of the path of a unix socket in bytes; the kernel's `sun_path` has 108 with the final zero."""

_SYSTEM_STATE = Path("/var/lib/ostler")
_SYSTEM_RUN = Path("/run/ostler")
_SYSTEM_PLUGINS = Path("/usr/local/lib/ostler/plugins")


class Paths(msgspec.Struct, frozen=True):
    """The paths of a daemon. Nothing is created or opened here.

    Attributes:
        root: The directory given by `--root` or `OSTLER_ROOT`; None without one.
        config_file: The main configuration file.
        config_layers: The layers of the configuration, first to last: files, and directories of `*.toml` files.
        state_dir: The directory of the database and of data of services.
        runtime_dir: The directory of the sockets.
        trust_owner: Whether files of other users are accepted (`--trust-owner`, `OSTLER_TRUST_OWNER`).
        plugin_dir: The directory of what `ostler plugin install` installs. It is not the daemon's to write: whoever can
            write there can run any code as whoever types a command.
    """

    root: Path | None
    config_file: Path
    config_layers: tuple[Path, ...]
    state_dir: Path
    runtime_dir: Path
    trust_owner: bool = False
    plugin_dir: Path = _SYSTEM_PLUGINS

    @classmethod
    def find(cls, root: str | None, environ: Mapping[str, str], *, uid: int | None = None) -> Paths:
        """Return the paths of the daemon.

        A root (the argument, else `OSTLER_ROOT`) has precedence. Without one, root and system services of systemd, of
        any user, get the system's paths; any other user gets those of XDG.

        Args:
            root: The value of `--root`, None or empty if not given.
            environ: The environment.
            uid: The user, by default the effective one of this process.

        Raises:
            ConfigurationError: The sockets' paths would be too long for the kernel, or the user has no home.
        """
        uid = os.geteuid() if uid is None else uid
        chosen = root or environ.get("OSTLER_ROOT")
        if chosen:
            paths = _paths_below(Path(chosen).expanduser().absolute())
        elif uid == 0 or _in_system_unit(environ):
            paths = cls.system(environ)
        else:
            paths = _user_paths(environ, uid)
        if environ.get("OSTLER_TRUST_OWNER", "0") not in ("", "0"):
            paths = msgspec.structs.replace(paths, trust_owner=True)
        return _check_socket_path(paths)

    @classmethod
    def for_client(cls, root: str | None, environ: Mapping[str, str], *, uid: int | None = None) -> Paths:
        """Return the paths of the daemon that a command talks to.

        As `find`, except that a user without a daemon of their own gets the system's daemon if that has a socket.
        """
        paths = cls.find(root, environ, uid=uid)
        system = cls.system({})
        if paths.root is None and not _is_there(paths.rpc_socket) and _is_there(system.rpc_socket):
            return system
        return paths

    @classmethod
    def system(cls, environ: Mapping[str, str]) -> Paths:
        """Return the system's paths; `$STATE_DIRECTORY` and `$RUNTIME_DIRECTORY` override them."""
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
        return self.runtime_dir / "rpc.sock"

    @property
    def events_socket(self) -> Path:
        """The unix socket of events."""
        return self.runtime_dir / "events.sock"

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
        return self.state_dir / "ostler.db"


def _paths_below(root: Path) -> Paths:
    config_file = root / "etc" / "ostler.toml"
    layers = (config_file, root / "etc" / "conf.d")
    return Paths(root, config_file, layers, root / "state", root / "run", plugin_dir=root / "plugins")


def _user_paths(environ: Mapping[str, str], uid: int) -> Paths:
    home = _absolute_or_none(environ.get("HOME")) or _home_directory(uid)
    config = (_absolute_or_none(environ.get("XDG_CONFIG_HOME")) or home / ".config") / "ostler"
    state = (_absolute_or_none(environ.get("XDG_STATE_HOME")) or home / ".local" / "state") / "ostler"
    data = (_absolute_or_none(environ.get("XDG_DATA_HOME")) or home / ".local" / "share") / "ostler"
    runtime = _absolute_or_none(environ.get("XDG_RUNTIME_DIR"))
    config_file = config / "ostler.toml"
    return Paths(
        root=None,
        config_file=config_file,
        config_layers=(config_file, config / "conf.d"),
        state_dir=_unit_directory(environ, "STATE_DIRECTORY") or state,
        runtime_dir=_unit_directory(environ, "RUNTIME_DIRECTORY") or (runtime / "ostler" if runtime else state / "run"),
        plugin_dir=data / "plugins",
    )


def _home_directory(uid: int) -> Path:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        raise ConfigurationError(
            f"user {uid} has no home directory for configuration and state",
            hint="set a directory with `--root DIR` or OSTLER_ROOT",
        ) from None


def _absolute_or_none(text: str | None) -> Path | None:
    # The XDG specification: paths that are not absolute are ignored.
    return Path(text) if text and text.startswith("/") else None


def _unit_directory(environ: Mapping[str, str], name: str) -> Path | None:
    # systemd separates several directories with colons; the unit names Ostler's first.
    return _absolute_or_none(environ.get(name, "").partition(":")[0])


def _in_system_unit(environ: Mapping[str, str]) -> bool:
    # A unit of a user's own systemd has its state at home and its sockets below /run/user.
    state, run = _unit_directory(environ, "STATE_DIRECTORY"), _unit_directory(environ, "RUNTIME_DIRECTORY")
    if state is not None and state.is_relative_to("/var/lib"):
        return True
    return run is not None and run.is_relative_to("/run") and not run.is_relative_to("/run/user")


def _check_socket_path(paths: Paths) -> Paths:
    socket = paths.events_socket
    length = len(os.fsencode(socket))
    if length > SOCKET_PATH_MAX:
        raise ConfigurationError(
            f"the socket path {socket} is too long: {length} bytes, and the kernel allows {SOCKET_PATH_MAX}",
            hint="choose a root with a shorter path",
        )
    return paths


def _is_there(path: Path) -> bool:
    """Return whether a file is there; False in a folder that is closed, as root's home is to who was root."""
    try:
        return path.exists()
    except OSError:
        return False
