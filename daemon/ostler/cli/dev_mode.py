"""`ostler run --dev`: runs the daemon as a child, and starts it again when files of a plugin change.

A fresh process is the only one that certainly has the new code. Before the running daemon is stopped, the new code is
checked in a process of its own (`ostler check`): while that fails, the daemon goes on with what it has. Files of the
configuration are reloaded as by SIGHUP.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ostler.plugins.discovery import installed_plugins

if TYPE_CHECKING:
    from ostler.cli.fast_run import RunOptions
    from ostler.cli.invocation import Invocation

_POLL_INTERVAL = 0.3
"""Seconds between two looks at the files. A change counts when two looks in a row see the same: editors and package
managers write in several steps."""
_LOOKS_PER_SEARCH = 10
_STOP_TIMEOUT = 30.0
"""Seconds that the daemon has to stop, before it is killed."""
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_SOURCES = {".py", ".toml", ".json", ".sql", ".txt"}
Stamps = Mapping[str, tuple[int, int, int]]


class FileWatch:
    """The files of some directories, compared by time of change, size and inode.

    Args:
        places: Returns the files and directories; asked at each look, since packages come and go.
        suffixes: Which files of directories count.
    """

    def __init__(self, places: Callable[[], Iterable[Path]], suffixes: set[str]) -> None:
        self._places = places
        self._suffixes = suffixes
        self._known = self._seen = self._look()

    def changes(self) -> list[str]:
        """Return the files that have changed since they were last returned, once they have come to rest."""
        now = self._look()
        rested, self._seen = now == self._seen, now
        if not rested or now == self._known:
            return []
        before, self._known = self._known, now
        return sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))

    def _look(self) -> Stamps:
        found: dict[str, tuple[int, int, int]] = {}
        for place in self._places():
            paths = place.rglob("*") if place.is_dir() else [place]
            for path in paths:
                if path != place and (path.suffix not in self._suffixes or "__pycache__" in path.parts):
                    continue
                try:
                    status = path.stat()
                except OSError:
                    continue
                found[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return found


class PluginPlaces:
    """The packages and modules of the installed plugins; nothing of them is imported. Looked for every few seconds."""

    def __init__(self) -> None:
        self._looks = 0
        self._found: list[Path] = []

    def __call__(self) -> list[Path]:
        """Return them."""
        if self._looks % _LOOKS_PER_SEARCH == 0:
            invalidate_caches()
            self._found = sorted({path for plugin in installed_plugins() for path in _places_of(plugin.module)})
        self._looks += 1
        return self._found


def _places_of(module: str) -> list[Path]:
    try:
        spec = find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # half written, or gone
        return []
    if spec is not None and spec.submodule_search_locations:
        return list(map(Path, spec.submodule_search_locations))
    return [Path(spec.origin)] if spec is not None and spec.origin else []


class DevSupervisor(msgspec.Struct):
    """Runs the daemon as a child until it is told to stop; one thread, no others.

    Args:
        command: Runs the daemon.
        check: Checks plugins and configuration; its exit code is 0 if the daemon could start.
        code: The files of plugins.
        configuration: The files of the configuration.
        say: Tells whoever sits at the terminal.
    """

    command: Sequence[str]
    check: Sequence[str]
    code: FileWatch
    configuration: FileWatch
    say: Callable[[str], object]
    child: int = 0
    code_of_child: int | None = None
    is_stopping: bool = False

    def run(self) -> int:
        """Return the exit code of the last daemon, after SIGTERM or SIGINT."""
        # The mask, not handlers: between two looks nothing of it is lost, and a child gets none of it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._start()
            while not self.is_stopping:
                self._await_signal()
                self._collect()
                self._follow_changes()
            return self._stop()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _await_signal(self) -> None:
        """Wait for a signal, but no longer than until the next look at the files."""
        received = signal.sigtimedwait(_SIGNALS, _POLL_INTERVAL)
        number = received.si_signo if received is not None else 0
        self.is_stopping = self.is_stopping or number in (signal.SIGTERM, signal.SIGINT)
        if number == signal.SIGHUP:
            self._signal(signal.SIGHUP)

    def _follow_changes(self) -> None:
        code, configuration = self.code.changes(), self.configuration.changes()
        if code or (configuration and not self.child):
            self.say(f"changed: {_shorten(code or configuration)}")
            if self._can_start():
                self._stop()
                self._start()
            elif not self.is_stopping:
                self.say("that cannot start" + (": the running daemon goes on" if self.child else ""))
        elif configuration:
            self.say(f"changed: {_shorten(configuration)}: reloading")
            self._signal(signal.SIGHUP)

    def _can_start(self) -> bool:
        """Check what is there now, unless this is to stop; a plugin may hang in its import."""
        checking = self._spawn(self.check)
        done, status = 0, 0
        while not done:
            self._await_signal()
            if self.is_stopping:
                os.kill(checking, signal.SIGKILL)
            done, status = os.waitpid(checking, 0 if self.is_stopping else os.WNOHANG)
        return status == 0

    def _start(self) -> None:
        if not self.is_stopping:
            self.code_of_child = None
            self.child = self._spawn(self.command)

    def _spawn(self, command: Sequence[str]) -> int:
        parent, child = os.getpid(), os.fork()  # of one thread
        if child:
            return child
        try:
            # Whoever kills this process means the daemon as well, which would go on with nobody at its terminal.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if os.getppid() == parent:
                os.execve(command[0], list(command), os.environ)  # noqa: S606 - a list of our own making
        finally:
            os._exit(127)

    def _stop(self) -> int:
        """Stop the daemon, if it runs, and return its exit code; of a signal as shells do."""
        if self.child:
            self._signal(signal.SIGTERM)
            waited = 0.0
            while self._collect(is_meant=True) is None:
                if waited >= _STOP_TIMEOUT:
                    self._signal(signal.SIGKILL)
                self._await_signal()
                waited += _POLL_INTERVAL
        code = self.code_of_child or 0
        return code if code >= 0 else 128 - code

    def _collect(self, *, is_meant: bool = False) -> int | None:
        """Return the exit code of the daemon once it has ended; then a change starts it again."""
        if self.child:
            done, status = os.waitpid(self.child, os.WNOHANG)
            if done:
                self.child, self.code_of_child = 0, os.waitstatus_to_exitcode(status)
                if not is_meant:
                    self.say(f"the daemon ended with {self.code_of_child}; a change of a file starts it again")
        return self.code_of_child

    def _signal(self, number: int) -> None:
        if self.child:
            os.kill(self.child, number)  # not collected yet: the number is still its own


def supervise(session: Invocation, options: RunOptions) -> int:
    """Run the daemon in dev mode, and return its exit code.

    Args:
        session: Which daemon.
        options: The options of `ostler run`.
    """
    program = [sys.executable, "-m", "ostler"]
    program += ["--root", str(session.root)] if session.root else []
    program += ["--trust-owner"] if session.trust_owner else []
    words = [word for override in options.overrides for word in ("--set", override)]
    words += ["--log-level", options.log_level] if options.log_level else []
    layers = session.paths().config_layers
    return DevSupervisor(
        command=[*program, "run", *words, *(["--safe"] if options.is_safe else [])],
        check=[*program, "check"],
        code=FileWatch(PluginPlaces(), _SOURCES),
        configuration=FileWatch(lambda: layers, {".toml"}),
        say=lambda text: print(f"ostler: {text}", file=sys.stderr, flush=True),  # noqa: T201 - for the terminal
    ).run()


def _shorten(files: Sequence[str]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{more}"
