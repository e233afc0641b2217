"""Making records and files agree again: after a crash, after a failed operation, and now and then.

Files without a record are never touched: they may be somebody's only copy. They are counted and named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from ostler import NotFound, OstlerError, describe
from ostler_volume.driver import Inventory
from ostler_volume.repair import Judgement, judge_snapshot, judge_volume
from ostler_volume.states import SnapshotState, VolumeState
from ostler_volume.wire import Snapshot, Volume
from ostler_volume.workshop import Workshop

_AT_ONCE = 500
"""Records that are set in one write: the others who write wait for it."""
_NAMED = 20
"""Records of one round whose corrections are named in the log."""

_Judged: TypeAlias = "tuple[Volume | Snapshot, Judgement]"


class Reconciler:
    """Compares records with what is on the backends, and acts on what `repair` says."""

    def __init__(self, workshop: Workshop) -> None:
        self._shop = workshop

    def backend(self, name: str, tell: Callable[[str], None] = lambda _text: None) -> None:
        """Make the records and files of a backend agree, but for those that are being worked on. Blocks.

        What is on the backend is looked at once to find what is wrong, and once more when nobody else can work on that:
        the work grows with the number of records, and not with its square.

        Args:
            name: The backend.
            tell: Told how far it is, in words.

        Raises:
            OstlerError: The backend cannot be looked at. What cannot be repaired is logged and tried again next time.
        """
        driver = self._shop.backend(name)
        tell(f"{name}: looking at what is there")
        inventory = driver.inventory()
        if wrong := {_claim_of(one) for one, _ in self._judged(name, inventory)}:
            self._repair_all(name, wrong, driver, tell)
        self._look_for_strangers(name, driver, inventory)

    def _judged(self, backend: str, inventory: Inventory) -> list[_Judged]:
        """Return the records of a backend that do not tell the truth, each with what to do about it."""
        records = self._shop.records
        found: list[_Judged] = [(one, judge_volume(one, inventory)) for one in records.volumes(backend)]
        found += [(one, judge_snapshot(one, inventory)) for one in records.snapshots(backend=backend)]
        return [pair for pair in found if pair[1].step != "keep"]

    def _repair_all(self, backend: str, names: Iterable[str], driver: Any, tell: Callable[[str], None]) -> None:
        claims = self._shop.claims
        done = _Sentences(self._shop.log)
        # What somebody else has is worked on by a request, which will settle it.
        with claims.all_alone(names) as mine:
            # Looked at and read again: what was seen before nobody else could work on it may have passed.
            found = [pair for pair in self._judged(backend, driver.inventory()) if _claim_of(pair[0]) in mine]
            settled = [pair for pair in found if pair[1].step == "settle"]
            rest = [pair for pair in found if pair[1].step != "settle"]
            for start in range(0, len(settled), _AT_ONCE):
                tell(f"{backend}: {start} of {len(found)} records corrected")
                self._settle_all(settled[start : start + _AT_ONCE], driver, done)
            claims.release(mine, mine - {_claim_of(one) for one, _ in rest})
            for number, (one, judgement) in enumerate(rest, len(settled)):
                tell(f"{backend}: {number} of {len(found)} records corrected")
                self._try(one, judgement, driver, done)
        done.close()

    def _settle_all(self, some: Sequence[_Judged], driver: Any, done: _Sentences) -> None:
        """Set records in one write; when one of them cannot be, each by itself."""
        volumes = {one.name: judgement for one, judgement in some if isinstance(one, Volume)}

        def settle() -> None:
            self._shop.records.settle_all(volumes)
            for one, judgement in some:
                if isinstance(one, Snapshot):
                    self._act_on_snapshot(one, driver, judgement)

        try:
            self._shop.records.store.write(settle, label="settle volumes")
        except Exception:  # noqa: BLE001 - which one it was, and why, is said when each is tried
            for one, judgement in some:
                self._try(one, judgement, driver, done)
        else:
            for one, judgement in some:
                done.add(one, judgement)

    def _try(self, one: Volume | Snapshot, judgement: Judgement, driver: Any, done: _Sentences) -> None:
        try:
            if isinstance(one, Snapshot):
                self._act_on_snapshot(one, driver, judgement)
            else:
                self._act_on_volume(one, driver, judgement)
        except NotFound:  # deleted since we looked
            return
        except Exception as error:  # noqa: BLE001 - one that cannot be repaired does not keep the others from it
            self._shop.log.warning("%s cannot be repaired now, it is tried again: %s", _key_of(one), error)
            return
        done.add(one, judgement)

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

    def _repair(self, key: str, driver: Any) -> None:
        """Have a record tell the truth; whoever calls holds its claim."""
        volume, _, snapshot = key.partition("@")
        inventory = driver.inventory()
        if snapshot:
            found = self._shop.records.snapshot(volume, snapshot)
            self._act_on_snapshot(found, driver, judge_snapshot(found, inventory))
        else:
            one = self._shop.records.volume(volume)
            self._act_on_volume(one, driver, judge_volume(one, inventory))

    def _act_on_volume(self, volume: Volume, driver: Any, judgement: Judgement) -> None:
        records, name = self._shop.records, volume.name
        if judgement.step == "settle":
            records.settle_all({name: judgement})
        elif judgement.step == "forget":
            driver.discard(name)
            records.remove(name)
        elif judgement.step == "delete":
            driver.delete(name)
            records.remove(name)

    def _act_on_snapshot(self, snapshot: Snapshot, driver: Any, judgement: Judgement) -> None:
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


class _Sentences:
    """Says in the log what was done about records: the first ones by name, and how many more there were.

    Args:
        log: Where.
    """

    def __init__(self, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._log = log
        self._count = 0

    def add(self, one: Volume | Snapshot, judgement: Judgement) -> None:
        """Say what was done about a record."""
        self._count += 1
        self._log.log(
            logging.WARNING if self._count <= _NAMED else logging.DEBUG,
            _sentence(f"{'snapshot' if isinstance(one, Snapshot) else 'volume'} {_key_of(one)}", one.state, judgement),
        )

    def close(self) -> None:
        """Say how many were not named."""
        if self._count > _NAMED:
            self._log.warning(
                "%d more records were corrected as well; the level debug names them", self._count - _NAMED
            )


def _key_of(one: Volume | Snapshot) -> str:
    return f"{one.volume}@{one.name}" if isinstance(one, Snapshot) else one.name


def _claim_of(one: Volume | Snapshot) -> str:
    return one.volume if isinstance(one, Snapshot) else one.name


def _sentence(what: str, before: str, judgement: Judgement) -> str:
    done = {
        "settle": f"is {judgement.state} now",
        "forget": "was never finished, so it is removed",
        "delete": "is deleted now",
    }
    return f"{what} was found {before} and {done[judgement.step]}{': ' * bool(judgement.why)}{judgement.why}"
