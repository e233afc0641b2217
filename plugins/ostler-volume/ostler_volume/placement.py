"""Where a new volume goes when nobody said: the scheduler decides, or without one this manager for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostler import Draining, NoCapacity, OstlerError, TargetNotFound, format_size
from ostler_volume.wire import Selection
from ostler_volume.workshop import Workshop


class Placement:
    """Chooses a backend.

    Args:
        workshop: Records and drivers.
        client: Calls other services.
    """

    def __init__(self, workshop: Workshop, client: Any) -> None:
        self._shop = workshop
        self._client = client

    def choose(self, scheduler: str, size: int, features: Sequence[str], *, here: bool) -> Selection:
        """Return where a volume should go.

        Args:
            scheduler: The topic of the scheduler; empty to do without.
            size: Bytes that are needed.
            features: What the backend must offer.
            here: Whether it must be on this host, for instance because the image lies here.

        Raises:
            NoCapacity: No backend has the room and the features.
        """
        if not scheduler:
            return self._by_room(size, features)
        where = {"on_host": self._shop.host} if here else {}
        try:
            chosen: Selection = self._client.call(
                scheduler, "select", type=Selection, topic=self._shop.topic, size=size, features=list(features), **where
            )
        except (TargetNotFound, Draining) as error:
            self._shop.log.debug("no scheduler (%s), choosing a backend here", error)
            return self._by_room(size, features)
        return chosen

    def _by_room(self, size: int, features: Sequence[str]) -> Selection:
        best, most, refusals = "", -1, []
        for name in sorted(self._shop.drivers):
            left, why = self._left(name, features)
            if not why and left < size:
                why = f"{format_size(max(0, left))} can still be promised"
            if why:
                refusals.append(f"{name}: {why}")
            elif left > most:
                best, most = name, left
        if not best:
            raise NoCapacity(
                f"no backend takes {format_size(size)}: {'; '.join(refusals) or 'there is none'}",
                hint="`ostler status` shows the backends",
                size=size,
            )
        return Selection(host=self._shop.host, backend=best)

    def _left(self, name: str, features: Sequence[str]) -> tuple[int, str]:
        try:
            driver = self._shop.backend(name)
            missing = sorted(set(features) - set(driver.features))
            if missing:
                return 0, f"does not offer {', '.join(missing)}"
            return self._shop.limit(name, driver) - self._shop.records.provisioned(name), ""
        except OstlerError as error:
            return 0, error.message
