"""What clients of a daemon have asked for and been told, line by line in files, and what follows from it.

A client writes that it begins something before it sends the request, and what came of it after the reply. What has no
end when the daemon is killed may have been done or not: both are right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

BEGIN, DONE, REFUSED, UNKNOWN = "begin", "done", "refused", "unknown"
"""The phases of what a client does: before the request; it has a result; nothing was changed; nobody knows."""


class Spec(NamedTuple):
    """A volume or snapshot: its size, and whether it has the content of the image."""

    size: int
    filled: bool


class Journal:
    """Writes the records of one client. Any thread; one write for each record.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, what: str, key: str, phase: str, **details: Any) -> None:
        """Add a record."""
        os.write(self._file, (json.dumps([what, key, phase, details]) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


@dataclass
class KnownOperation:
    """What the clients know of an operation, or of a call that is one."""

    method: str = ""
    topic: str = "work"
    steps: int = 0
    is_call: bool = False
    is_accepted: bool = False
    is_refused: bool = False
    cancel_begun: bool = False
    ended: tuple[str, Any] | None = None
    """Its final state and result, as a client was told."""


@dataclass
class KnownVolume:
    """What may be the case of a volume or a snapshot; None stands for: there is none."""

    possible: set[Spec | None] = field(default_factory=lambda: {None})
    before: set[Spec | None] = field(default_factory=lambda: {None})
    is_open: bool = False
    """Whether something was begun that has no end."""


@dataclass
class History:
    """All that clients know; `add` takes their records in the order of each client."""

    operations: dict[str, KnownOperation] = field(default_factory=dict)
    values: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of each key the last value that was acknowledged, and the last one that was tried."""
    pairs: dict[str, tuple[int, int]] = field(default_factory=dict)
    casts: set[str] = field(default_factory=set)
    volumes: dict[str, KnownVolume] = field(default_factory=dict)
    snapshots: dict[str, KnownVolume] = field(default_factory=dict)
    streams: dict[str, list[tuple[str, list[Any]]]] = field(default_factory=dict)
    """Of each reader of events what it has seen: `event` with number, epoch, whether journaled and payload, or `gap`
    with first and last."""
    count: int = 0

    def add(self, what: str, key: str, phase: str, details: dict[str, Any]) -> None:
        """Add a record."""
        self.count += 1
        getattr(self, f"_add_{what}")(key, phase, details)

    def _add_submit(self, key: str, phase: str, details: dict[str, Any]) -> None:
        if phase == BEGIN:
            self.operations.setdefault(key, KnownOperation(**details))
        self.operations[key].is_accepted |= phase == DONE
        self.operations[key].is_refused |= phase == REFUSED

    def _add_ended(self, key: str, phase: str, details: dict[str, Any]) -> None:
        self.operations[key].ended = (details["state"], details.get("result"))

    def _add_cancel(self, key: str, phase: str, details: dict[str, Any]) -> None:
        self.operations[key].cancel_begun = True

    def _add_set(self, key: str, phase: str, details: dict[str, Any]) -> None:
        _add_value(self.values, key, phase, details["value"])

    def _add_pair(self, key: str, phase: str, details: dict[str, Any]) -> None:
        _add_value(self.pairs, key, phase, details["value"])

    def _add_cast(self, key: str, phase: str, details: dict[str, Any]) -> None:
        self.casts.add(key)

    def _add_event(self, key: str, phase: str, details: dict[str, Any]) -> None:
        self.streams.setdefault(key, []).append(("event", details["item"]))

    def _add_gap(self, key: str, phase: str, details: dict[str, Any]) -> None:
        self.streams.setdefault(key, []).append(("gap", details["item"]))

    def _add_volume(self, key: str, phase: str, details: dict[str, Any]) -> None:
        _add_object(self.volumes.setdefault(key, KnownVolume()), phase, details.get("after"))

    def _add_snapshot(self, key: str, phase: str, details: dict[str, Any]) -> None:
        _add_object(self.snapshots.setdefault(key, KnownVolume()), phase, details.get("after"))


def _add_value(values: dict[str, tuple[int, int]], key: str, phase: str, value: int) -> None:
    acknowledged, tried = values.get(key, (0, 0))
    values[key] = (value if phase == DONE else acknowledged, max(tried, value))


def _add_object(known: KnownVolume, phase: str, after: list[Any] | None) -> None:
    if phase == BEGIN:
        known.before = set(known.possible)
        known.possible = known.before | {None if after is None else Spec(*after)}
        known.is_open = True
    elif phase == DONE:
        known.possible, known.is_open = {None if after is None else Spec(*after)}, False
    elif phase == REFUSED:
        known.possible, known.is_open = known.before, False


class HistoryReader:
    """Reads what clients have written since the last time.

    Args:
        folder: The directory of their files.
    """

    def __init__(self, folder: Path) -> None:
        self.history = History()
        self._folder = folder
        self._positions: dict[Path, int] = {}

    def read(self) -> History:
        """Return the history with what has been added."""
        for path in sorted(self._folder.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._positions.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._positions[path] = self._positions.get(path, 0) + len(whole)
            self.add_lines(whole.splitlines())
        return self.history

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Add records as `Journal` writes them."""
        for line in lines:
            self.history.add(*json.loads(line))
