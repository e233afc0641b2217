"""Named points between two steps of the daemon at which it dies: a plugin for tests, loaded as every other one.

It wraps functions of the daemon when it is imported, so that the daemon itself has no code for this. Which point is
meant stands in `OSTLER_FAULT_POINT`; the process dies there by SIGKILL, at the pass that `OSTLER_FAULT_PASS` counts
(from 1), once the file `OSTLER_FAULT_ARMED` exists. It then writes the name of the point to `OSTLER_FAULT_HIT`.

A name that is not found any more, because somebody has renamed what a point wraps, is an error at the import: the
daemon of the test does not start.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Condition = Callable[..., bool]
"""Whether a pass counts; gets the arguments of the wrapped function."""
_labels = threading.local()


class FaultPoint:
    """Dies when it has been passed often enough.

    Args:
        name: The name of the point.
        passes: At which pass.
        armed: The file that arms it.
        hit: The file that gets the name.
    """

    def __init__(self, name: str, passes: int, armed: Path, hit: Path) -> None:
        self._name, self._left, self._armed, self._hit = name, passes, armed, hit
        self._lock = threading.Lock()

    def pass_by(self) -> None:
        """Die, or count."""
        with self._lock:
            if not self._armed.exists():
                return
            self._left -= 1
            if self._left > 0:
                return
            self._hit.write_text(self._name, encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal ends all threads, this one at the latest here


def wrap(
    owner: Any, name: str, die: Callable[[], None], *, before: bool, condition: Condition = lambda *_, **__: True
) -> None:
    """Have a method of a class call `die` before or after its work; of a coroutine after it has ended."""
    function = owner.__dict__[name]

    if not before and _is_coroutine(function):

        @functools.wraps(function)
        async def after(*args: Any, **named: Any) -> Any:
            result = await function(*args, **named)
            if condition(*args, **named):
                die()
            return result

        setattr(owner, name, after)
        return

    @functools.wraps(function)
    def wrapped(*args: Any, **named: Any) -> Any:
        if before and condition(*args, **named):
            die()
        result = function(*args, **named)
        if not before and condition(*args, **named):
            die()
        return result

    setattr(owner, name, wrapped)


def _is_coroutine(function: Any) -> bool:
    import inspect

    return inspect.iscoroutinefunction(function)


# ---------------------------------------------------------------- the store


def _in_commit(prefix: str, when: str) -> Callable[[Callable[[], None]], None]:
    """Die before or after the commit of a group in which there is a write whose label begins with this."""

    def install(die: Callable[[], None]) -> None:
        import sqlite3

        from ostler.store.session import Database

        class DyingConnection(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> Any:
                if not sql.lstrip().upper().startswith("COMMIT"):
                    return super().execute(sql, *args)
                seen, _labels.seen = getattr(_labels, "seen", []), []
                is_meant = any(label.startswith(prefix) for label in seen)
                if is_meant and when == "before":
                    die()
                result = super().execute(sql, *args)
                if is_meant and when == "after":
                    die()
                return result

        init = Database.__init__

        def dying_init(self: Any, *args: Any, **named: Any) -> None:
            init(self, *args, **named, factory=DyingConnection)

        # The daemon is given no connection: this is the one place where all of them are made.
        Database.__init__ = dying_init
        _note_labels()

    return install


def _note_labels() -> None:
    """Have each write put down its label on the thread that runs it."""
    from ostler.store.store import Store

    write, awrite = Store.__dict__["write"], Store.__dict__["awrite"]

    def noted(label: str, fn: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            _labels.seen = [*getattr(_labels, "seen", []), label]
            return fn()

        return run

    def noted_write(self: Any, fn: Any, *args: Any, label: str = "", **named: Any) -> Any:
        return write(self, noted(label, fn), *args, label=label, **named)

    async def noted_awrite(self: Any, fn: Any, *args: Any, label: str = "", **named: Any) -> Any:
        return await awrite(self, noted(label, fn), *args, label=label, **named)

    # A commit is to be known by what it is of, and it serves all who wait.
    Store.write, Store.awrite = noted_write, noted_awrite


# ---------------------------------------------------------------- everything else


def _method(
    module: str, owner: str, name: str, when: str, condition: Condition = lambda *_, **__: True
) -> Callable[[Callable[[], None]], None]:
    def install(die: Callable[[], None]) -> None:
        import importlib

        found = getattr(importlib.import_module(module), owner)
        wrap(found, name, die, before=when == "before", condition=condition)

    return install


def _file_step(step: str) -> Callable[[Callable[[], None]], None]:
    """Die before a step of the file driver; see `VolumeDirectory.on_step`."""

    def install(die: Callable[[], None]) -> None:
        from ostler_volume.volume_directory import VolumeDirectory

        init = VolumeDirectory.__init__

        def initialise(self: Any, *args: Any, **named: Any) -> None:
            init(self, *args, **named)
            self.on_step = lambda name: die() if name == step else None

        # `on_step` is there for this; the driver makes the directory itself.
        VolumeDirectory.__init__ = initialise

    return install


def _is_work(_self: Any, first: Any, *_: Any, **__: Any) -> bool:
    """Whether a call, or the record of an operation, is of the topic `work`."""
    return (getattr(first, "topic", "") or first.request.topic) == "work"


def _is_state(*states: str) -> Condition:
    return lambda _self, record, *_, **__: record.topic == "work" and record.state in states


def _is_run_of_work(_self: Any, _queue: Any, record: Any, *_: Any, **__: Any) -> bool:
    return bool(record.topic == "work")


def _is_end_of_work(_self: Any, _queue: Any, call: Any, *_: Any, **__: Any) -> bool:
    return bool(call.record.topic == "work")


def _has_work(_self: Any, rows: Any) -> bool:
    return any(row.topic == "work" for row in rows)


_OPERATIONS = "ostler.operations.operations"
_RECORDS = "ostler_volume.records"
_JOURNAL = "ostler.store.records.journal_records"
POINTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "store.before-commit": _in_commit("set ", "before"),
    "store.after-commit": _in_commit("set ", "after"),
    "operation.before-commit": _in_commit("submit operation", "before"),
    "operation.after-commit": _in_commit("submit operation", "after"),
    "operation.stored": _method(
        "ostler.operations.operation_views", "OperationViews", "announce", "before", _is_state("queued", "running")
    ),
    "operation.claimed": _method(_OPERATIONS, "Operations", "_run", "before", _is_run_of_work),
    "operation.step-done": _method(_OPERATIONS, "Operations", "save_step", "before", _is_work),
    "operation.step-recorded": _method(_OPERATIONS, "Operations", "save_step", "after", _is_work),
    "operation.done": _method(_OPERATIONS, "Operations", "_on_attempt_end", "before", _is_end_of_work),
    "operation.ended": _method(
        "ostler.operations.operation_views",
        "OperationViews",
        "announce",
        "before",
        _is_state("succeeded", "failed", "cancelled"),
    ),
    "operation.taken-over": _method("ostler.store.records.operation_records", "OperationRecords", "take_over", "after"),
    "journal.before-append": _method(_JOURNAL, "JournalRecords", "append", "before", _has_work),
    "journal.after-append": _method(_JOURNAL, "JournalRecords", "append", "after", _has_work),
    "volume.recorded": _method(_RECORDS, "Records", "add_volume", "after"),
    "volume.created": _method(_RECORDS, "Records", "end_transition", "before"),
    "volume.end-recorded": _method(_RECORDS, "Records", "end_transition", "after"),
    "volume.change-recorded": _method(_RECORDS, "Records", "begin_transition", "after"),
    "volume.deletion-recorded": _method(_RECORDS, "Records", "begin_deleting", "after"),
    "volume.deleted": _method(_RECORDS, "Records", "delete_volume", "before"),
    "volume.record-deleted": _method(_RECORDS, "Records", "delete_volume", "after"),
    "snapshot.recorded": _method(_RECORDS, "Records", "add_snapshot", "after"),
    "snapshot.created": _method(_RECORDS, "Records", "move_snapshot", "before"),
    "snapshot.deleted": _method(_RECORDS, "Records", "delete_snapshot", "before"),
    "file.partial": _file_step("partial"),
    "file.fill": _file_step("fill"),
    "file.sync": _file_step("sync"),
    "file.rename": _file_step("rename"),
    "file.sync-folder": _file_step("sync folder"),
    "file.unlink": _file_step("unlink"),
    "reply.before": _method("ostler.messaging.rpc.thread_replies", "ThreadReplies", "send", "before", _is_work),
    "reply.after": _method("ostler.messaging.rpc.thread_replies", "ThreadReplies", "send", "after", _is_work),
    "cast.accepted": _method("ostler.messaging.rpc.dispatcher", "Dispatcher", "send_accepted", "after", _is_work),
    "periodic.done": _method("ostler.store.records.periodic_records", "PeriodicRecords", "save", "before"),
}
"""What installs each point; it gets the function that dies."""


def _acknowledge_too_early() -> None:
    """Return from setting a value before it is committed."""
    from ostler.store.kv import KeyValue

    commit = KeyValue.set

    def set_later(self: Any, key: str, value: Any) -> None:
        if self.namespace.startswith("service/"):
            threading.Timer(0.2, commit, (self, key, value)).start()
        else:
            commit(self, key, value)

    KeyValue.set = set_later  # what is broken is the daemon's own


def _forget_steps() -> None:
    """Go on with the next step without having recorded the last one."""
    from ostler.operations.operations import Operations

    Operations.save_step = lambda *_: True  # what is broken is the daemon's own


def _run_twice() -> None:
    """Run again after a restart what must not run twice."""
    from ostler import Durable
    from ostler.operations import outcomes

    decide = outcomes.decide_after_restart
    retry = Durable(on_restart="retry")
    outcomes.decide_after_restart = lambda record, _: decide(record, retry)  # what is broken is the daemon's own


def _leave_files() -> None:
    """Delete the record of a volume, and not its file."""
    from ostler_volume.volume_directory import VolumeDirectory

    VolumeDirectory.remove = lambda *_: None  # what is broken is the daemon's own


SABOTAGE: dict[str, Callable[[], None]] = {
    "acknowledge too early": _acknowledge_too_early,
    "forget steps": _forget_steps,
    "run twice": _run_twice,
    "leave files": _leave_files,
}
"""What breaks the daemon, for tests that see whether that is found."""


def install(environ: Any) -> str:
    """Install the point that the environment names; return its name, empty for none."""
    if sabotage := environ.get("OSTLER_SABOTAGE", ""):
        SABOTAGE[sabotage]()
    name = environ.get("OSTLER_FAULT_POINT", "")
    if name:
        point = FaultPoint(
            name, int(environ.get("OSTLER_FAULT_PASS", "1")),
            Path(environ["OSTLER_FAULT_ARMED"]), Path(environ["OSTLER_FAULT_HIT"]),
        )  # fmt: skip
        POINTS[name](point.pass_by)
    return name


installed = install(os.environ)
