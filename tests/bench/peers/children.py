"""Child processes that do not outlive the run, whatever happens to it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from provide import reason_of

_DEATH_SIGNAL, _SUBREAPER = 1, 36  # of prctl(2)
_PATIENCE = 60.0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_the_parent() -> None:
    _prctl(_DEATH_SIGNAL, signal.SIGTERM)


def _children(pid: int) -> list[int]:
    """Return the children of a process; none when it has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]
    return []


class Children:
    """What runs below this process; a context manager that leaves nothing behind.

    A grandchild whose parent has gone (epmd, the helpers of the Erlang machine) becomes a child of this process, so
    that it is found as well. Use it in the main thread: the children die with the thread that started them.
    """

    def __enter__(self) -> Self:
        _prctl(_SUBREAPER, 1)
        return self

    def __exit__(self, *error: object) -> None:
        for _ in range(100):
            left = _children(os.getpid())
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                for _ in left:
                    os.waitpid(-1, 0)
        _prctl(_SUBREAPER, 0)


class Child:
    """One child; its stdin and stdout are pipes, its stderr goes to a log. A context manager."""

    def __init__(self, arguments: list[str], log: Path, **environment: str) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                arguments,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                preexec_fn=_die_with_the_parent,  # noqa: PLW1509 - this process has no other threads of Python
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        process = self._process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(10 if error[0] is None else 0.1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def terminate(self) -> None:
        """Ask it to end, where the end of its stdin would not say so."""
        self._process.terminate()

    @property
    def running(self) -> bool:
        """Whether it runs still."""
        return self._process.poll() is None

    def line(self, patience: float = _PATIENCE) -> str:
        """Return the next line of its stdout.

        Raises:
            RuntimeError: It ended, or said nothing for so many seconds.
        """
        until, found = time.monotonic() + patience, b""
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self._process.stdout.fileno(), 1 << 20) if ready else b""
            if not more:
                raise RuntimeError(f"{'it ended' if ready else 'it did not answer'}; it said: {self.said()}")
            found += more
        return found.decode()

    def ask(self, verb: str, count: int) -> Any:
        """Have a client do something; return its answer."""
        self._process.stdin.write(f"{verb} {count}\n".encode())
        self._process.stdin.flush()
        return json.loads(self.line())

    def said(self) -> str:
        """Return the line of its log that says what went wrong, as far as one can tell."""
        return reason_of(self.log.read_text(encoding="utf-8", errors="replace"))
