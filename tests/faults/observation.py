"""What is the case in a daemon's directory: its database, its volumes, and the file of acts."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec


@dataclass
class SeenOperation:
    """One row of the table."""

    topic: str
    method: str
    state: str
    attempts: int
    interruptions: int
    result: Any = None
    error: str = ""
    steps: frozenset[str] = frozenset()


@dataclass
class Observation:
    """What is the case at one moment."""

    operations: dict[str, SeenOperation] = field(default_factory=dict)
    """By the name that the client gave: that of the argument, or else the id."""
    values: dict[str, int] = field(default_factory=dict)
    volumes: dict[str, tuple[str, int]] = field(default_factory=dict)
    """State and size of each record."""
    snapshots: dict[str, tuple[str, int]] = field(default_factory=dict)
    volume_files: dict[str, int] = field(default_factory=dict)
    snapshot_files: dict[str, int] = field(default_factory=dict)
    partials: set[str] = field(default_factory=set)
    acts: Counter[str] = field(default_factory=Counter)
    ticks: list[tuple[str, str]] = field(default_factory=list)
    """Of each begin and end of a periodic run, which run of the daemon it was, and which of both."""
    recorded_ticks: int = 0
    events: dict[int, tuple[int, Any]] = field(default_factory=dict)
    """Of the journal of the topic `work`, number to epoch and payload."""
    last_event: int = 0


def observe(root: Path, *, is_running: bool) -> Observation:
    """Return what is the case.

    Args:
        root: The daemon's directory.
        is_running: Whether a daemon has the database open; else a copy is read, so that nothing there changes.
    """
    seen = Observation()
    database = root / "state" / "ostler.db"
    if is_running:
        _read_database(seen, f"{database.as_uri()}?mode=ro")
    else:
        with tempfile.TemporaryDirectory(prefix="ostler-look-") as folder:
            for path in (database, database.with_name("ostler.db-wal")):
                if path.exists():
                    shutil.copyfile(path, Path(folder) / path.name)
            _read_database(seen, (Path(folder) / database.name).as_uri())
    _read_files(seen, root / "volumes")
    _read_acts(seen, root / "acts")
    return seen


def _read_database(seen: Observation, uri: str) -> None:
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as database:
        database.execute("BEGIN")  # one view for all that follows
        steps: dict[int, set[str]] = {}
        for operation, name in database.execute("SELECT operation, name FROM operation_steps"):
            steps.setdefault(operation, set()).add(name)
        for row in database.execute(
            "SELECT number, id, topic, method, state, attempts, interruptions, arguments, result, error FROM operations"
        ):
            _add_operation(seen, row, steps)
        seen.values = {
            key: int(value)
            for key, value in database.execute("SELECT key, value FROM key_value WHERE namespace = 'service/work'")
        }
        _read_volumes(seen, database)
        _read_journal(seen, database)
        for (runs,) in database.execute("SELECT runs FROM periodic_runs WHERE service = 'work' AND task = 'tick'"):
            seen.recorded_ticks = runs


def _add_operation(seen: Observation, row: tuple[Any, ...], steps: dict[int, set[str]]) -> None:
    number, key, topic, method, state, attempts, interruptions, arguments, result, error = row
    given = msgspec.msgpack.decode(arguments)
    key = given.get("name", key) if topic == "work" and isinstance(given, dict) else key
    seen.operations[key] = SeenOperation(
        topic, method, state, attempts, interruptions,
        None if result is None else msgspec.msgpack.decode(result),
        "" if error is None else msgspec.msgpack.decode(error)[0][0].rsplit(".", 1)[-1],
        frozenset(steps.get(number, ())),
    )  # fmt: skip


def _read_volumes(seen: Observation, database: sqlite3.Connection) -> None:
    names = {}
    for key, name, state, size in database.execute("SELECT id, name, state, size FROM volume_volumes"):
        names[key] = name
        seen.volumes[name] = (state, size)
    for volume, name, state, size in database.execute("SELECT volume_id, name, state, size FROM volume_snapshots"):
        seen.snapshots[f"{names[volume]}@{name}"] = (state, size)


def _read_journal(seen: Observation, database: sqlite3.Connection) -> None:
    for key, last in database.execute("SELECT id, last FROM event_topics WHERE topic = 'work'"):
        seen.last_event = last
        for number, data in database.execute("SELECT number, data FROM events WHERE topic_id = ?", (key,)):
            event = msgspec.msgpack.decode(data)
            seen.events[number] = (event[5], event[3])


def _read_files(seen: Observation, folder: Path) -> None:
    for kind, files in (("volumes", seen.volume_files), ("snapshots", seen.snapshot_files)):
        for path in (folder / kind).glob("*"):
            try:
                size = path.stat().st_size
            except FileNotFoundError:  # of a daemon that runs
                continue
            if path.name.startswith("."):
                seen.partials.add(path.name)
            else:
                files[path.name] = size


def _read_acts(seen: Observation, path: Path) -> None:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("tick "):
            _, run, what = line.split(" ")
            seen.ticks.append((run, what))
        else:
            seen.acts[line] += 1


def content_is_right(path: Path, image: bytes, filled: bool) -> bool:
    """Return whether a file has the content of the image, or none, and zeros behind it."""
    data = path.read_bytes()
    head = image if filled else b""
    return data == head + bytes(len(data) - len(head))
