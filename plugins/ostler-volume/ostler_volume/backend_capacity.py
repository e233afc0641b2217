"""Computes how much space may be promised on a backend, and its capabilities for the scheduler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from ostler import Json, OstlerError, Store
from ostler_volume.backend_records import BackendMeasurement
from ostler_volume.filesystem import filesystem_id
from ostler_volume.records import Records

_MAX_SHOWN_UNRECORDED = 20


class BackendCapacity:
    """Measures backends, and reserves space for a database on the same file system. All methods block.

    Args:
        records: The records of the service, with the promises.
        store: The daemon's store.
        reserve: Returns the bytes to reserve for a database on the file system of a backend.
        unrecorded: For each backend, the files without a record and their sizes.
        log: The logger for measurements that cannot be recorded.
    """

    def __init__(
        self,
        records: Records,
        store: Store,
        reserve: Callable[[], int],
        unrecorded: Mapping[str, Mapping[str, int]],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._records = records
        self._store = store
        self._reserve = reserve
        self._unrecorded = unrecorded
        self._log = log

    def limit(self, backend: str, driver: Any) -> int:
        """Return the maximum of all promises to the records of a backend in bytes; see `Records.provisioned`."""
        room = driver.room()
        self._record_measurement(backend, room.filesystem, room.oversubscription, room.allocated)
        unknown = sum(self._unrecorded.get(backend, {}).values())
        return int(room.limit) - unknown - self._database_reserve(room.filesystem, room.oversubscription)

    def capabilities(self, backend: str, driver: Any) -> dict[str, Json]:
        """Return the capabilities of a backend, with its promises and what other backends leave free."""
        # Counted first: what is recorded during the call of the driver is covered by a lease, and must not count twice.
        unknown = self._unrecorded.get(backend, {})
        volumes, snapshots = self._records.counts(backend)
        promised = self._records.promised(backend)
        facts = dict(driver.capabilities())
        filesystem = str(facts.get("filesystem") or "")
        factor = float(facts.get("oversubscription") or 1.0)
        self._record_measurement(backend, filesystem, factor, int(facts.get("allocated_bytes") or 0))
        if facts.get("promise_limit_bytes") is not None:
            others = self._records.promised_by_others(backend) + self._database_reserve(filesystem, factor)
            facts["promise_limit_bytes"] = max(0, int(facts["promise_limit_bytes"]) - others)
        return {
            **facts,
            "provisioned_bytes": promised + sum(unknown.values()),
            "volumes": volumes,
            "snapshots": snapshots,
            "unknown_files": len(unknown),
            "unknown": [*islice(unknown, _MAX_SHOWN_UNRECORDED)],
        }

    def _database_reserve(self, filesystem: str, factor: float) -> int:
        try:
            here = bool(filesystem) and filesystem_id(self._store.path.parent) == filesystem
        except OSError:
            return 0
        if not here:
            return 0
        self._store.keep_spare_room()
        return int(self._reserve() * factor)

    def _record_measurement(self, backend: str, filesystem: str, factor: float, written: int) -> None:
        unrecorded = sum(self._unrecorded.get(backend, {}).values())
        try:
            self._records.backends.record_measurement(
                backend, BackendMeasurement(filesystem, factor, written, unrecorded)
            )
        except OstlerError as error:  # a full disk; the previous measurement stays valid
            self._log.debug("cannot record the measurement of backend %s: %s", backend, error)
