"""Making records and files agree again: after a crash, after a failed operation, and now and then.

Files without a record are never touched: they may be somebody's only copy. They are counted and named.
"""

from __future__ import annotations

from typing import Any

from ostler import NotFound, OstlerError, describe
from ostler_volume.driver import Inventory
from ostler_volume.repair import Judgement, judge_snapshot, judge_volume
from ostler_volume.states import SnapshotState, VolumeState
from ostler_volume.wire import Snapshot, Volume
from ostler_volume.workshop import Workshop


class Reconciler:
    """Compares records with what is on the backends, and acts on what `repair` says."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    def backend(self, name: str) -> None:
        """Make the records and files of a backend agree, but for those that are being worked on. Blocks.

        Raises:
            OstlerError: The backend cannot be looked at. What cannot be repaired is logged and tried again next time.
        """
        driver = self._shop.backend(name)
        inventory = driver.inventory()
        for volume in self._shop.records.volumes(name):
            if judge_volume(volume, inventory).step != "keep":
                self._alone(volume.name, driver, volume.name)
        for snapshot in self._shop.records.snapshots(backend=name):
            if judge_snapshot(snapshot, inventory).step != "keep":
                self._alone(snapshot.volume, driver, f"{snapshot.volume}@{snapshot.name}")
        self._look_for_strangers(name, driver, inventory)

    def recover(self, key: str, driver: Any, error: Exception) -> None:
        """Have a record tell the truth after an operation on it failed; the caller holds its claim.

        Args:
            key: A volume's name, or a snapshot as `VOLUME@NAME`.
            driver: The driver of its backend.
            error: What failed. When the truth cannot be found out, the record becomes `error` with both reasons.
        """
        try:
            self._repair(key, driver)
        except Exception as second:  # noqa: BLE001 - drivers are strangers; whatever they raise, the record is true
            self.fail(key, f"{describe(error)}; and it cannot be cleared up: {describe(second)}")
        else:
            self._shop.log.info("%s is as it was before: %s", key, describe(error))

    def fail(self, key: str, why: str) -> None:
        """Set a record to `error`; the state it is in goes along, so that it can be finished or undone later.

        When even that cannot be written the record stays in that state, and is repaired like one that a crash left.
        """
        try:
            self._fail(key, why)
        except OstlerError as error:
            self._shop.log.error("%s failed (%s), and that cannot be written down: %s", key, why, error)
        else:
            self._shop.log.error("%s is in error: %s", key, why)

    def _fail(self, key: str, why: str) -> None:
        volume, _, snapshot = key.partition("@")
        records = self._shop.records
        if snapshot:
            before = records.snapshot(volume, snapshot)
            fault = before.fault or before.state
            records.move_snapshot(volume, snapshot, SnapshotState.ERROR, why=why, fault=fault)
        else:
            found = records.volume(volume)
            records.settle(volume, VolumeState.ERROR, why=why, fault=found.fault or found.state)

    def _alone(self, claim: str, driver: Any, key: str) -> None:
        with self._shop.claims.alone(claim) as mine:
            if not mine:  # a request is working on it, and will settle it
                return
            try:
                done = self._repair(key, driver)
            except NotFound:  # deleted since we looked
                return
            except Exception as error:  # noqa: BLE001 - one that cannot be repaired does not keep the others from it
                self._shop.log.warning("%s cannot be repaired now, it is tried again: %s", key, error)
                return
            if done:
                self._shop.log.warning(done)

    def _repair(self, key: str, driver: Any) -> str:
        """Have a record tell the truth; return what was done as a sentence, empty when nothing had to be."""
        volume, _, snapshot = key.partition("@")
        # Both are read again: what was seen before nobody else could work on it may have passed.
        inventory = driver.inventory()
        if snapshot:
            return self._act_on_snapshot(self._shop.records.snapshot(volume, snapshot), driver, inventory)
        return self._act_on_volume(self._shop.records.volume(volume), driver, inventory)

    def _act_on_volume(self, volume: Volume, driver: Any, inventory: Inventory) -> str:
        judgement = judge_volume(volume, inventory)
        records, name = self._shop.records, volume.name
        if judgement.step == "settle":
            records.settle(
                name,
                VolumeState(judgement.state),
                why=judgement.why,
                fault=judgement.fault,
                size=judgement.size,
                device=judgement.device,
            )
        elif judgement.step == "forget":
            driver.discard(name)
            records.remove(name)
        elif judgement.step == "delete":
            driver.delete(name)
            records.remove(name)
        return _sentence(f"volume {name}", volume.state, judgement)

    def _act_on_snapshot(self, snapshot: Snapshot, driver: Any, inventory: Inventory) -> str:
        judgement = judge_snapshot(snapshot, inventory)
        records, volume, name = self._shop.records, snapshot.volume, snapshot.name
        if judgement.step == "settle":
            to = SnapshotState(judgement.state)
            records.move_snapshot(volume, name, to, why=judgement.why, fault=judgement.fault)
        elif judgement.step == "forget":
            driver.discard(f"{volume}@{name}")
            records.remove_snapshot(volume, name)
        elif judgement.step == "delete":
            driver.delete_snapshot(volume, name)
            records.remove_snapshot(volume, name)
        return _sentence(f"snapshot {volume}@{name}", snapshot.state, judgement)

    def _look_for_strangers(self, backend: str, driver: Any, inventory: Inventory) -> None:
        sizes = {**inventory.volumes, **inventory.snapshots}
        strangers = sizes.keys() - self._recorded()
        if strangers:  # really without a record, or deleted, or made anew while we looked
            again: Inventory = driver.inventory()
            strangers = (strangers & (again.volumes.keys() | again.snapshots.keys())) - self._recorded()
        unknown = {key: sizes[key].size for key in sorted(strangers)}
        if unknown and unknown != self._shop.unknown.get(backend):
            names = ", ".join(unknown)
            self._shop.log.warning("files without a record on backend %s, left alone: %s", backend, names)
        before = self._shop.unknown.get(backend, {})
        self._shop.unknown[backend] = unknown
        if unknown != before:
            self._shop.changed(backend, "", False)
        for key in driver.inventory().partials if inventory.partials else ():
            self._discard_stray(key, driver)

    def _discard_stray(self, key: str, driver: Any) -> None:
        # An unfinished file is of use to nobody. The claim makes sure that nobody is just writing it.
        with self._shop.claims.alone(key.partition("@")[0]) as mine:
            if mine and key not in self._recorded():
                driver.discard(key)
                self._shop.log.info("what was left of %s is cleared away", key)

    def _recorded(self) -> set[str]:
        records = self._shop.records
        kept = {f"{one.volume}@{one.name}" for one in records.snapshots()}
        return kept | {one.name for one in records.volumes()}


def _sentence(what: str, before: str, judgement: Judgement) -> str:
    done = {
        "settle": f"is {judgement.state} now",
        "forget": "was never finished, so it is removed",
        "delete": "is deleted now",
    }
    if judgement.step == "keep":
        return ""
    return f"{what} was found {before} and {done[judgement.step]}{': ' * bool(judgement.why)}{judgement.why}"
