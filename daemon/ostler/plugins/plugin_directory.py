"""The directory of installed plugins: which set of them this process uses, and whether it may be trusted.

`ostler plugin install` builds each set whole in a directory of its own, and replaces a symbolic link:

    plugins/
      current -> sets/000003.cpython-311
      sets/000003.cpython-311/site-packages/   what is imported
      sets/000003.cpython-311/plugins.json     what was asked for, and what was installed
      sets/000003.cpython-311/requirements.txt the same for pip, with hashes
      wheels/                                  what the sets were built from

A process goes on with the set that it began with, and holds a lock on it, so that it is not removed under it. Read by
the daemon and by the command; only the command writes there.
"""

from __future__ import annotations

import fcntl
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

from ostler.config.paths import Paths
from ostler.errors import Problem
from ostler.files import Trust, distrust_reason

CURRENT = "current"
SETS = "sets"
PACKAGES = "site-packages"
_SET_NAME = re.compile(r"(?P<number>[0-9]{6,})\.(?P<python>[A-Za-z0-9_-]+)")


class ActivePlugins:
    """The set of installed plugins that this process imports from; at most one at a time.

    Not thread-safe: the main thread of a daemon or of a command.
    """

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._packages: str | None = None
        self._locks: list[int] = []
        self.problem: Problem | None = None

    def activate(self, directory: Path, trust: Trust) -> Problem | None:
        """Import from the current set of a directory, after everything that is installed elsewhere.

        Called again it takes the set that is current then; modules that are loaded stay those of the earlier set, and
        so do the modules of their packages that are imported later.

        Args:
            directory: The directory of plugins; it need not exist.
            trust: Who may own it and write to it.

        Returns:
            Why the set is not used; None when it is, or when there is none.
        """
        self._directory = directory
        packages, self.problem = _usable_packages(directory, trust)
        if packages == self._packages:
            return self.problem
        if self._packages in sys.path:
            sys.path.remove(self._packages)
        self._packages = packages
        if packages is not None:
            self._lock_set(Path(packages).parent)
            sys.path.append(packages)
        return self.problem

    def replaced_path(self) -> list[str]:
        """Return `sys.path` as a new process would have it: with the set that is current now. Reads one link."""
        if self._directory is None:
            return sys.path
        target = current_set(self._directory)
        now = str(target / PACKAGES) if target is not None else None
        if now == self._packages:
            return sys.path
        path = [entry for entry in sys.path if entry != self._packages]
        return path if now is None else [*path, now]

    @property
    def packages(self) -> str | None:
        """The directory that it imports from, as in `sys.path`."""
        return self._packages

    def _lock_set(self, directory: Path) -> None:
        # Held until the process ends: modules of it may be imported at any time. A set that cannot be locked is used
        # without; then it may be removed after two more installations.
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._locks.append(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


active_plugins = ActivePlugins()
"""That of this process: there is one `sys.path`."""


def activate_plugins(paths: Paths) -> None:
    """Import from the installed plugins of a daemon, if they may be used; see `ActivePlugins.activate`.

    Why they are not used is in `active_plugins.problem`, which the plugin host shows.
    """
    active_plugins.activate(paths.plugin_dir, Trust.of_process(all=paths.trust_owner))


def current_set(directory: Path) -> Path | None:
    """Return the set that is current in a directory of plugins; None without one."""
    try:
        name = os.path.basename(os.readlink(directory / CURRENT))  # noqa: PTH115, PTH119  (each status asks)
    except OSError:
        return None
    return directory / SETS / name


def next_set_name(directory: Path) -> str:
    """Return the name of the next set, which says for which Python it is built."""
    numbers = [number for number, _ in _sets(directory)]
    return f"{max(numbers, default=0) + 1:06}.{sys.implementation.cache_tag}"


def earlier_sets(directory: Path) -> list[Path]:
    """Return the sets that are not current, the newest first."""
    now = current_set(directory)
    return [path for _, path in sorted(_sets(directory), reverse=True) if path != now]


def is_in_use(directory: Path) -> bool:
    """Return whether a process uses a set; the lock is not kept."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _sets(directory: Path) -> list[tuple[int, Path]]:
    try:
        found = list((directory / SETS).iterdir())
    except OSError:
        return []
    return [(int(match["number"]), path) for path in found if (match := _SET_NAME.fullmatch(path.name))]


def _usable_packages(directory: Path, trust: Trust) -> tuple[str | None, Problem | None]:
    target = current_set(directory)
    if target is None:
        return None, None
    if (match := _SET_NAME.fullmatch(target.name)) is None or not (target / PACKAGES).is_dir():
        return None, Problem(
            str(directory / CURRENT),
            "does not lead to a set of plugins: install them again, or set it to an earlier one",
        )
    for path in (directory, directory / SETS, target, target / PACKAGES):
        try:
            why = distrust_reason(path.stat(), trust)
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            return None, Problem(str(path), f"its plugins are not used: the directory {why}")
    if match["python"] != sys.implementation.cache_tag:
        now = f"{sys.implementation.cache_tag}"
        what = f"its plugins are not used: they were installed for {match['python']}, and this is {now}"
        return None, Problem(str(target), f"{what}: run `ostler plugin replay`")
    return str(target / PACKAGES), None
