"""Reconciles records and files: after a crash, after a failed operation, and periodically.

Files without a record are never changed, because they may be the only copy of data. They are counted and reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ostler import NotFound, OstlerError, error_line
from ostler_volume.api_types import Snapshot, Volume
from ostler_volume.driver import Inventory
from ostler_volume.reconcile_plan import RepairAction, plan_snapshot, plan_volume
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_states import SnapshotState, VolumeState

_BATCH_SIZE = 500
"""Maximum number of records per write, which blocks other writers."""
_MAX_NAMED = 20
"""Maximum number of corrections of a round that are logged one by one."""

_PlannedRepair: TypeAlias = "tuple[Volume | Snapshot, RepairAction]"


class Reconciler:
    """Compares records with the files on the backends, and applies the decisions of `repair`."""

    def __init__(self, context: VolumeContext) -> None:
        self._context = context

    def reconcile_backend(self, name: str, on_progress: Callable[[str], None] = lambda _text: None) -> None:
        """Reconcile the records and files of a backend, except those that are being worked on. Blocks.

        The inventory is read once to find deviations, and once more while the affected records are held: the effort is
        linear in the number of records.

        Args:
            name: The backend.
            on_progress: Called with the progress, as a text.

        Raises:
            OstlerError: The backend cannot be read. Records that cannot be repaired are logged and retried next time.
        """
        driver = self._context.ready_driver(name)
        on_progress(f"{name}: reading the inventory")
        inventory = driver.inventory()
        if wrong := {_lock_name(one) for one, _ in self._planned_repairs(name, inventory)}:
            self._repair_all(name, wrong, driver, on_progress)
        self._find_unrecorded(name, driver, inventory)

    def _planned_repairs(self, backend: str, inventory: Inventory) -> list[_PlannedRepair]:
        """Return the incorrect records of a backend, each with the action to take."""
        records = self._context.records
        found: list[_PlannedRepair] = [(one, plan_volume(one, inventory)) for one in records.volumes(backend)]
        found += [(one, plan_snapshot(one, inventory)) for one in records.snapshots(backend=backend)]
        return [pair for pair in found if pair[1].kind != "keep"]

    def _repair_all(self, backend: str, names: Iterable[str], driver: Any, on_progress: Callable[[str], None]) -> None:
        claims = self._context.locks
        done = _RepairLog(self._context.log)
        # Records that are held are being worked on by a request, which will update them.
        with claims.lock_all_exclusive(names) as mine:
            # Read both again: what was read before the records were held may be outdated.
            found = [pair for pair in self._planned_repairs(backend, driver.inventory()) if _lock_name(pair[0]) in mine]
            settled = [pair for pair in found if pair[1].kind == "settle"]
            rest = [pair for pair in found if pair[1].kind != "settle"]
            for start in range(0, len(settled), _BATCH_SIZE):
                on_progress(f"{backend}: {start} of {len(found)} records corrected")
                self._apply_batch(settled[start : start + _BATCH_SIZE], driver, done)
            claims.release_exclusive(mine, mine - {_lock_name(one) for one, _ in rest})
            for number, (one, judgement) in enumerate(rest, len(settled)):
                on_progress(f"{backend}: {number} of {len(found)} records corrected")
                self._try_repair(one, judgement, driver, done)
        done.close()

    def _apply_batch(self, repairs: Sequence[_PlannedRepair], driver: Any, done: _RepairLog) -> None:
        """Update records in one write; if that fails, one by one."""
        volumes = {one.name: judgement for one, judgement in repairs if isinstance(one, Volume)}

        def settle() -> None:
            self._context.records.end_transitions(volumes)
            for one, judgement in repairs:
                if isinstance(one, Snapshot):
                    self._repair_snapshot(one, driver, judgement)

        try:
            self._context.records.store.write(settle, label="settle volumes")
        except Exception:  # noqa: BLE001 - the record and the reason are logged when each is tried
            for one, judgement in repairs:
                self._try_repair(one, judgement, driver, done)
        else:
            for one, judgement in repairs:
                done.add(one, judgement)

    def _try_repair(self, one: Volume | Snapshot, action: RepairAction, driver: Any, done: _RepairLog) -> None:
        try:
            if isinstance(one, Snapshot):
                self._repair_snapshot(one, driver, action)
            else:
                self._repair_volume(one, driver, action)
        except NotFound:  # deleted meanwhile
            return
        except Exception as error:  # noqa: BLE001 - a failure of one record must not affect the others
            self._context.log.warning("cannot repair %s; retrying: %s", _record_key(one), error)
            return
        done.add(one, action)

    def resume(self, key: str, driver: Any) -> None:
        """Correct a record that an interrupted operation has left; the operation, which continues, holds its claim.

        Args:
            key: A volume's name, or a snapshot as `VOLUME@NAME`.
            driver: The driver of its backend.

        Raises:
            OstlerError: The backend cannot be read, or the record not be corrected.
        """
        self._repair(key, driver)

    def recover(self, key: str, driver: Any, error: Exception) -> None:
        """Correct a record after an operation on it failed; the caller holds its claim.

        Args:
            key: A volume's name, or a snapshot as `VOLUME@NAME`.
            driver: The driver of its backend.
            error: The failure. If the actual state cannot be read, the record becomes `error` with both reasons.
        """
        try:
            self._repair(key, driver)
        except Exception as second:  # noqa: BLE001 - the record must be correct whatever a third-party driver raises
            self.fail(key, f"{error_line(error)}; the cleanup failed: {error_line(second)}")
        else:
            self._context.log.info("%s was restored to its previous state: %s", key, error_line(error))

    def fail(self, key: str, why: str) -> None:
        """Set a record to `error`; its current state is stored as well, so that it can be completed or undone later.

        If this cannot be written the record stays in that state, and is repaired as after a crash.
        """
        try:
            self._fail(key, why)
        except OstlerError as error:
            self._context.log.error("%s failed (%s), and this cannot be recorded: %s", key, why, error)
        else:
            self._context.log.error("%s is in error: %s", key, why)

    def _fail(self, key: str, why: str) -> None:
        volume, _, snapshot = key.partition("@")
        records = self._context.records
        if snapshot:
            before = records.snapshot(volume, snapshot)
            fault = before.fault or before.state
            records.move_snapshot(volume, snapshot, SnapshotState.ERROR, why=why, fault=fault)
        else:
            found = records.volume(volume)
            records.end_transition(volume, VolumeState.ERROR, why=why, fault=found.fault or found.state)

    def _repair(self, key: str, driver: Any) -> None:
        """Correct a record; the caller holds its claim."""
        volume, _, snapshot = key.partition("@")
        inventory = driver.inventory()
        if snapshot:
            found = self._context.records.snapshot(volume, snapshot)
            self._repair_snapshot(found, driver, plan_snapshot(found, inventory))
        else:
            one = self._context.records.volume(volume)
            self._repair_volume(one, driver, plan_volume(one, inventory))

    def _repair_volume(self, volume: Volume, driver: Any, action: RepairAction) -> None:
        records, name = self._context.records, volume.name
        if action.kind == "settle":
            records.end_transitions({name: action})
        elif action.kind == "forget":
            driver.discard(name)
            records.delete_volume(name)
        elif action.kind == "delete":
            driver.delete(name)
            records.delete_volume(name)

    def _repair_snapshot(self, snapshot: Snapshot, driver: Any, action: RepairAction) -> None:
        records, volume, name = self._context.records, snapshot.volume, snapshot.name
        if action.kind == "settle":
            to = SnapshotState(action.state)
            records.move_snapshot(volume, name, to, why=action.why, fault=action.fault)
        elif action.kind == "forget":
            driver.discard(f"{volume}@{name}")
            records.delete_snapshot(volume, name)
        elif action.kind == "delete":
            driver.delete_snapshot(volume, name)
            records.delete_snapshot(volume, name)

    def _find_unrecorded(self, backend: str, driver: Any, inventory: Inventory) -> None:
        sizes = {**inventory.volumes, **inventory.snapshots}
        strangers = sizes.keys() - self._recorded_keys()
        if strangers:  # without a record, or deleted or created meanwhile
            again: Inventory = driver.inventory()
            strangers = (strangers & (again.volumes.keys() | again.snapshots.keys())) - self._recorded_keys()
        unknown = {key: sizes[key].size for key in sorted(strangers)}
        if unknown and unknown != self._context.unrecorded.get(backend):
            names = ", ".join(unknown)
            self._context.log.warning("files without a record on backend %s, ignored: %s", backend, names)
        before = self._context.unrecorded.get(backend, {})
        self._context.unrecorded[backend] = unknown
        if unknown != before:
            self._context.report_change(backend, "", False)
        for key in driver.inventory().partials if inventory.partials else ():
            self._discard_partial(key, driver)

    def _discard_partial(self, key: str, driver: Any) -> None:
        # An unfinished file is useless. The claim makes sure that no request is writing it.
        with self._context.locks.lock_exclusive(key.partition("@")[0]) as mine:
            if mine and key not in self._recorded_keys():
                driver.discard(key)
                self._context.log.info("removed the unfinished file of %s", key)

    def _recorded_keys(self) -> set[str]:
        records = self._context.records
        kept = {f"{one.volume}@{one.name}" for one in records.snapshots()}
        return kept | {one.name for one in records.volumes()}


class _RepairLog:
    """Logs corrections of records: the first ones by name, and the number of the others.

    Args:
        log: The logger.
    """

    def __init__(self, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._count = 0

    def add(self, one: Volume | Snapshot, action: RepairAction) -> None:
        """Log a correction."""
        self._count += 1
        self._log.log(
            logging.WARNING if self._count <= _MAX_NAMED else logging.DEBUG,
            _repair_message(
                f"{'snapshot' if isinstance(one, Snapshot) else 'volume'} {_record_key(one)}", one.state, action
            ),
        )

    def close(self) -> None:
        """Log how many corrections were not named."""
        if self._count > _MAX_NAMED:
            self._log.warning(
                "%d more records were corrected; they are logged at level debug", self._count - _MAX_NAMED
            )


def _record_key(one: Volume | Snapshot) -> str:
    return f"{one.volume}@{one.name}" if isinstance(one, Snapshot) else one.name


def _lock_name(one: Volume | Snapshot) -> str:
    return one.volume if isinstance(one, Snapshot) else one.name


def _repair_message(what: str, before: str, action: RepairAction) -> str:
    done = {
        "settle": f"has been set to {action.state}",
        "forget": "has been removed, because it was never completed",
        "delete": "has been deleted",
    }
    return f"{what} was {before} and {done[action.kind]}{': ' * bool(action.why)}{action.why}"
