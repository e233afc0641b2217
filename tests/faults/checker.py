"""Compares what clients were told with what is the case, and says what was lost, done twice, or left half done.

`check_killed` is for a daemon that was killed a moment ago: nothing moves, and what was acknowledged is there. It also
keeps what must not happen again, such as a step that is recorded, and how often that has happened until then.
`check_settled` is for a daemon that was started again and has nothing left to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from history import History, KnownOperation, KnownVolume, Spec
from observation import Observation, SeenOperation

FINAL = frozenset({"succeeded", "failed", "cancelled"})
SETTLED = frozenset({"available"})
MAX_INTERRUPTIONS = 5
"""How often the daemon may end in the midst of an operation that is continued; see docs/operations.md."""
JOURNALED = 1
"""`Event.journaled` of an event that was in the journal when it was sent."""


@dataclass
class Frozen:
    """What was seen at an earlier kill of one operation, and must not change any more."""

    seen: SeenOperation
    acts: Counter[str]
    """How often its acts had happened: all of them if it had ended, else those of its recorded steps."""


class Checker:
    """Checks one daemon's directory again and again.

    Args:
        keeps_all: Whether the daemon keeps all that has ended; else what was seen to have ended may be gone later.
        was_full: Whether its disk was full now and then. A deletion that failed then may have removed the file and not
            the record, which says so: it is in `error`, because its file is missing.
    """

    def __init__(self, *, keeps_all: bool = True, was_full: bool = False) -> None:
        self._keeps_all = keeps_all
        self._was_full = was_full
        self._frozen: dict[str, Frozen] = {}
        self._events: dict[int, tuple[int, Any]] = {}
        self._stream_positions: dict[str, int] = {}

    def check_killed(self, history: History, seen: Observation) -> list[str]:
        """Return what is wrong at a moment when no daemon runs, and keep what must not happen again."""
        found = [*self._always(history, seen)]
        self._freeze(seen)
        return found

    def check_settled(self, history: History, seen: Observation) -> list[str]:
        """Return what is wrong when a daemon runs and has had time to end all that it has."""
        return [
            *self._always(history, seen),
            *self._operations_ended(history, seen),
            *self._objects_settled(history, seen),
            *(f"the unfinished file {name} was left" for name in sorted(seen.partials)),
        ]

    def is_settled(self, history: History, seen: Observation) -> bool:
        """Return whether nothing is under way any more, as far as states and files tell."""
        return not (
            any(row.state not in FINAL for row in seen.operations.values())
            or any(True for _ in self._objects_settled(history, seen))
            or seen.partials
        )

    def _objects_settled(self, history: History, seen: Observation) -> Iterator[str]:
        for kind, known, records, files in (
            ("volume", history.volumes, seen.volumes, seen.volume_files),
            ("snapshot", history.snapshots, seen.snapshots, seen.snapshot_files),
        ):
            excused = {
                name
                for name, (state, _) in records.items()
                if self._was_full and state == "error" and name not in files and is_open_deletion(known.get(name))
            }
            rest = {name: found for name, found in records.items() if name not in excused}
            yield from _volumes_settled(known, rest, files, kind)

    def _always(self, history: History, seen: Observation) -> Iterator[str]:
        yield from self._lost_operations(history, seen)
        yield from self._changed_operations(seen)
        yield from self._repeated_acts(seen)
        yield from _acts_allowed(history, seen)
        yield from _values_kept(history.values, seen.values)
        yield from _pairs_whole(history.pairs, seen.values)
        yield from _known_volumes(history.volumes, seen.volumes, seen.volume_files, "volume")
        yield from _known_volumes(history.snapshots, seen.snapshots, seen.snapshot_files, "snapshot")
        yield from self._journal(history, seen)
        yield from _ticks(seen)

    # ---------------------------------------------------------------- operations

    def _lost_operations(self, history: History, seen: Observation) -> Iterator[str]:
        for name, known in history.operations.items():
            row = seen.operations.get(name)
            if row is None:
                was_ended = name in self._frozen and self._frozen[name].seen.state in FINAL
                if known.is_accepted and not known.is_call and (self._keeps_all or not was_ended):
                    yield f"operation {name} ({known.method}) was accepted and is lost"
            elif known.ended is not None and (row.state, row.result) != known.ended:
                yield f"operation {name} ended as {known.ended}, and is now {row.state} with {row.result!r}"
            elif known.is_refused:
                yield f"operation {name} was refused, and is {row.state}"

    def _changed_operations(self, seen: Observation) -> Iterator[str]:
        for name, frozen in self._frozen.items():
            row, before = seen.operations.get(name), frozen.seen
            if row is None:
                if self._keeps_all or before.state not in FINAL:
                    yield f"operation {name} was stored as {before.state} and is gone"
            elif before.state in FINAL and (row.state, row.result) != (before.state, before.result):
                yield f"operation {name} had ended: {before.state}; now it is {row.state}"
            elif row.method == "resumed" and not before.steps <= row.steps:
                yield f"operation {name} has lost the steps {sorted(before.steps - row.steps)}"

    def _repeated_acts(self, seen: Observation) -> Iterator[str]:
        for name, frozen in self._frozen.items():
            for act, count in frozen.acts.items():
                if seen.acts[act] != count:
                    yield f"{act} was done {seen.acts[act]} times, {count} of them when {name} had it recorded"

    def _freeze(self, seen: Observation) -> None:
        for name, row in seen.operations.items():
            if row.topic != "work":
                self._frozen[name] = Frozen(row, Counter())
                continue
            if row.state in FINAL:
                acts = _acts_of(row.method)
                frozen = Counter({act: seen.acts[act] for act in (f"{name} {each}" for each in acts)})
            elif row.method == "resumed":
                frozen = Counter({act: seen.acts[act] for act in _final_steps(name, row, seen.acts)})
            else:
                frozen = Counter()
            self._frozen[name] = Frozen(row, frozen)

    def _operations_ended(self, history: History, seen: Observation) -> Iterator[str]:
        for name, row in seen.operations.items():
            if row.state not in FINAL:
                yield f"operation {name} ({row.method}) hangs: it is {row.state}"
                continue
            known = history.operations.get(name)
            if known is not None and row.topic == "work":
                yield from _wrong_end(name, known, row, seen.acts)

    # ---------------------------------------------------------------- events

    def _journal(self, history: History, seen: Observation) -> Iterator[str]:
        for number, before in self._events.items():
            if seen.events.get(number, before) != before:
                yield f"event {number} of the journal was {before}, and is {seen.events[number]}"
        first = min(seen.events, default=0)
        missing = [number for number in range(first, seen.last_event + 1) if number not in seen.events] if first else []
        if missing:
            yield f"the journal ends with {seen.last_event}, and lacks {missing[:5]}"
        for reader, items in history.streams.items():
            start = self._stream_positions.get(reader, 0)
            yield from _stream_faults(reader, items, max(0, start - 1), seen, first)
            self._stream_positions[reader] = len(items)
        self._events = dict(seen.events)


def _final_steps(name: str, row: SeenOperation, acts: Counter[str]) -> list[str]:
    """Return the steps that must not be done again: those that are recorded, and those that another one followed."""
    all_steps = [f"s{n}" for n in range(10)]
    last = max((n for n, step in enumerate(all_steps) if acts[f"{name} {step}"]), default=0)
    return [f"{name} {step}" for step in {*row.steps, *all_steps[:last]}]


def _acts_of(method: str) -> tuple[str, ...]:
    return {"undone": ("begin", "end", "undo"), "once": ("once",)}.get(method, tuple(f"s{n}" for n in range(10)))


def _acts_allowed(history: History, seen: Observation) -> Iterator[str]:
    """Find acts that were done too often, whatever became of the operation."""
    for name in history.casts:
        if seen.acts[f"{name} once"] > 1:
            yield f"the cast {name} ran {seen.acts[f'{name} once']} times"
    for name, known in history.operations.items():
        row = seen.operations.get(name)
        if known.is_refused and any(seen.acts[f"{name} {act}"] for act in _acts_of(known.method)):
            yield f"operation {name} was refused, and was done"
        if row is None or row.topic != "work":
            continue
        limit = 1 if row.method in {"once", "undone"} else max(1, row.attempts)
        for act in _acts_of(row.method):
            count = seen.acts[f"{name} {act}"]
            # Undoing is repeated until its end is recorded.
            allowed = max(limit, row.interruptions + 1) if act == "undo" else limit
            if count > allowed:
                yield f"{name} {act} of {row.method} was done {count} times in {row.attempts} attempts"


def _wrong_end(name: str, known: KnownOperation, row: SeenOperation, acts: Counter[str]) -> Iterator[str]:
    """Find what is wrong about the end of an operation."""
    what = f"operation {name} ({row.method})"
    if row.state == "succeeded":
        yield from _wrong_success(what, name, known, row, acts)
    elif row.state == "cancelled":
        if not known.cancel_begun:
            yield f"{what} was cancelled by nobody"
    elif row.error != "OperationInterrupted":
        yield f"{what} failed with {row.error}"
    elif row.interruptions < MAX_INTERRUPTIONS:
        if row.method not in {"once", "undone"}:
            yield f"{what} is to be continued, and has failed after {row.interruptions} interruptions"
        elif row.method == "undone" and not acts[f"{name} undo"]:
            yield f"{what} was cut off and not undone"


def _wrong_success(
    what: str, name: str, known: KnownOperation, row: SeenOperation, acts: Counter[str]
) -> Iterator[str]:
    if row.result != f"{name}:{known.steps}":
        yield f"{what} has the result {row.result!r}"
    needed = {"undone": ["begin", "end"], "once": ["once"]}.get(row.method, [f"s{n}" for n in range(known.steps)])
    if missing := [each for each in needed if not acts[f"{name} {each}"]]:
        yield f"{what} succeeded without {', '.join(missing)}"
    if acts[f"{name} undo"]:
        yield f"{what} succeeded and was undone"


# ---------------------------------------------------------------- values


def _values_kept(known: Mapping[str, tuple[int, int]], values: Mapping[str, int]) -> Iterator[str]:
    for key, (acknowledged, tried) in known.items():
        found = values.get(key, 0)
        if not acknowledged <= found <= tried:
            yield f"the value {key} is {found}: {acknowledged} was acknowledged, {tried} was tried last"


def _pairs_whole(known: Mapping[str, tuple[int, int]], values: Mapping[str, int]) -> Iterator[str]:
    for key in known:
        if values.get(f"{key}.left") != values.get(f"{key}.right"):
            yield f"a write of two values was done by half: {key} is {values.get(f'{key}.left')} and " + str(
                values.get(f"{key}.right")
            )
    yield from _values_kept(known, {key: values.get(f"{key}.left", 0) for key in known})


# ---------------------------------------------------------------- volumes


def _known_volumes(
    known: Mapping[str, KnownVolume], records: Mapping[str, tuple[str, int]], files: Mapping[str, int], kind: str
) -> Iterator[str]:
    """Find what was acknowledged, was not touched since, and is not so."""
    for name, one in known.items():
        if one.is_open or len(one.possible) != 1:
            continue
        (spec,) = one.possible
        found, size = records.get(name), files.get(name)
        if spec is None:
            if found is not None or size is not None:
                yield f"{kind} {name} was deleted, and there is a record {found} and a file of {size} bytes"
        elif found is None or size is None:
            yield f"{kind} {name} was acknowledged and is lost: its record is {found}, its file has {size} bytes"
        elif found[0] not in SETTLED or {found[1], size} != {spec.size}:
            yield f"{kind} {name} has {spec.size} bytes; its record is {found}, its file has {size} bytes"


def is_open_deletion(known: KnownVolume | None) -> bool:
    """Return whether nobody knows how a deletion ended."""
    return known is not None and known.is_open and None in known.possible


def _volumes_settled(
    known: Mapping[str, KnownVolume], records: Mapping[str, tuple[str, int]], files: Mapping[str, int], kind: str
) -> Iterator[str]:
    """Find what hangs, records and files that do not agree, and what cannot have come of what was asked."""
    for name, (state, size) in records.items():
        if state not in SETTLED:
            yield f"{kind} {name} hangs: it is {state}"
        if files.get(name) != size:
            yield f"{kind} {name} has a record of {size} bytes, and a file of {files.get(name)}"
    for name in sorted(files.keys() - records.keys()):
        yield f"the file of {kind} {name} has no record"
    for name, one in known.items():
        found = records.get(name)
        sizes = {None if spec is None else spec.size for spec in one.possible}
        if (None if found is None else found[1]) not in sizes:
            yield f"{kind} {name} is {found}, and can only be {sorted(sizes, key=str)}"


def expected_content(known: KnownVolume, size: int) -> set[bool]:
    """Return which contents a volume of a size may have: that of the image, or none."""
    return {spec.filled for spec in known.possible if isinstance(spec, Spec) and spec.size == size}


# ---------------------------------------------------------------- events and periodic runs


def _stream_faults(
    reader: str, items: list[tuple[str, list[Any]]], start: int, seen: Observation, first: int
) -> Iterator[str]:
    """Find holes that were not shown as a `Gap`, and events that were seen and are not in the journal."""
    last = 0
    for kind, item in items[start:]:
        if kind == "gap":
            last = item[1]
            continue
        number, epoch, journaled, payload = item
        if last and number != last + 1:
            yield f"{reader} got event {number} after {last}, and no gap"
        last = number
        if journaled == JOURNALED and number >= first and seen.events.get(number) != (epoch, payload):
            yield f"{reader} got event {number} of run {epoch}, and the journal has {seen.events.get(number)}"


def _ticks(seen: Observation) -> Iterator[str]:
    """Find runs of the periodic task that overlap, and runs that are recorded and were not."""
    running = ""
    begun = 0
    for run, what in seen.ticks:
        if what == "begin":
            begun += 1
            if running == run:
                yield f"two runs of the periodic task overlap in {run}"
            running = run
        elif running != run:
            yield f"a run of the periodic task ended in {run}, where none had begun"
        else:
            running = ""
    if seen.recorded_ticks > begun:
        yield f"{seen.recorded_ticks} runs of the periodic task are recorded, and {begun} were begun"
