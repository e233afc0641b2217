"""How much may be promised on a backend, and what a scheduler is told of that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ostler import Json, OstlerError, Store
from ostler_volume.backend_records import Seen
from ostler_volume.filesystem import filesystem_id
from ostler_volume.records import Records

_UNKNOWN_SHOWN = 20


class Rooms:
    """Measures backends, and keeps room for the database where it is on the same file system. Everything blocks.

    Args:
        records: The records of the service, which know what is promised.
        store: The daemon's store.
        reserve: Returns the bytes that the database is to have left where it is on the file system of a backend.
        unknown: For each backend, the files without a record and their sizes.
        log: Where it is said that something cannot be kept.
    """

    def __init__(
        self,
        records: Records,
        store: Store,
        reserve: Callable[[], int],
        unknown: Mapping[str, Mapping[str, int]],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._records = records
        self._store = store
        self._reserve = reserve
        self._unknown = unknown
        self._log = log

    def limit(self, backend: str, driver: Any) -> int:
        """Return how many bytes may be promised to the records of a backend in all; see `Records.provisioned`."""
        room = driver.room()
        self._note(backend, room.filesystem, room.oversubscription, room.allocated)
        unknown = sum(self._unknown.get(backend, {}).values())
        return int(room.limit) - unknown - self._for_state(room.filesystem, room.oversubscription)

    def facts(self, backend: str, driver: Any) -> dict[str, Json]:
        """Return what a backend says of itself, with what is promised on it and what others leave it."""
        # Counted first: what is recorded while the driver is at it stands under a lease, and is not to count twice.
        unknown = self._unknown.get(backend, {})
        volumes, snapshots = self._records.counts(backend)
        promised = self._records.promised(backend)
        facts = dict(driver.capabilities())
        filesystem = str(facts.get("filesystem") or "")
        factor = float(facts.get("oversubscription") or 1.0)
        self._note(backend, filesystem, factor, int(facts.get("allocated_bytes") or 0))
        if facts.get("promise_limit_bytes") is not None:
            others = self._records.claims(backend) + self._for_state(filesystem, factor)
            facts["promise_limit_bytes"] = max(0, int(facts["promise_limit_bytes"]) - others)
        return {
            **facts,
            "provisioned_bytes": promised + sum(unknown.values()),
            "volumes": volumes,
            "snapshots": snapshots,
            "unknown_files": len(unknown),
            "unknown": [*islice(unknown, _UNKNOWN_SHOWN)],
        }

    def _for_state(self, filesystem: str, factor: float) -> int:
        try:
            here = bool(filesystem) and filesystem_id(self._store.path.parent) == filesystem
        except OSError:
            return 0
        if not here:
            return 0
        self._store.keep_spare_room()
        return int(self._reserve() * factor)

    def _note(self, backend: str, filesystem: str, factor: float, written: int) -> None:
        unrecorded = sum(self._unknown.get(backend, {}).values())
        try:
            self._records.backends.note(backend, Seen(filesystem, factor, written, unrecorded))
        except OstlerError as error:  # a full disk; what was noted before goes on to count
            self._log.debug("how much is written on backend %s cannot be noted: %s", backend, error)
