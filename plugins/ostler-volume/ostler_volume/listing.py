"""Lists volumes and snapshots, on this and other hosts.

Reads run on the store's threads, so that they are answered while long copies use all threads of the pool.
"""

from __future__ import annotations

from ostler import ServiceClient, Store
from ostler_volume.api_types import Snapshot, SnapshotListing, Volume, VolumeListing
from ostler_volume.backend_operations import BackendOperations
from ostler_volume.errors import VolumeNotFound
from ostler_volume.other_hosts import OtherHosts, only_host_with, parse_volume_address
from ostler_volume.records import Records


class Listings:
    """Finds volumes and snapshots on all hosts. On the loop.

    Args:
        client: Calls the services of other hosts.
        topic: The topic of all of them.
        host: This host.
        store: The store of the records.
        records: The records of this host.
        backends: Marks volumes whose backend no longer exists.
    """

    def __init__(
        self, client: ServiceClient, topic: str, host: str, store: Store, records: Records, backends: BackendOperations
    ) -> None:
        self._client = client
        self._topic = topic
        self._host = host
        self._store = store
        self._records = records
        self._backends = backends
        self._others = OtherHosts(client, topic, host)

    async def volumes(self, backend: str, on_host: str) -> VolumeListing:
        """Return the volumes of all reachable hosts, by name and host, and the unreachable hosts.

        Args:
            backend: Only those of backends with this name; empty for all.
            on_host: Only those on this host; empty for all.
        """
        if on_host == self._host:
            return VolumeListing(host=self._host, volumes=await self._volumes_here(backend))
        if on_host:
            call = self._client.on(host=on_host, type=list[Volume]).acall(
                self._topic, "list_volumes", on_host=on_host, backend=backend
            )
            return VolumeListing(host=self._host, volumes=await call)
        here = await self._volumes_here(backend)
        answers = await self._others.ask("list_volumes", list[Volume], backend=backend)
        found = [*here, *(one for listed in answers.found.values() for one in listed)]
        return VolumeListing(
            host=self._host,
            volumes=sorted(found, key=lambda one: (one.name, one.host)),
            unreachable=answers.unreachable,
        )

    async def _volumes_here(self, backend: str) -> list[Volume]:
        listed = await self._store.aread(lambda: self._records.volumes(backend))
        return self._backends.annotate(listed)

    async def named(self, name: str) -> VolumeListing:
        """Return the volumes of a name on all reachable hosts."""
        answers = await self._others.ask("get_volume", Volume, name=name)
        here = await self._store.aread(lambda: self._records.select_volumes(name=name))
        here = self._backends.annotate(here)
        return VolumeListing(host=self._host, volumes=[*here, *answers.found.values()], unreachable=answers.unreachable)

    async def volume(self, name: str, on_host: str) -> Volume:
        """Return a volume on any host.

        Args:
            name: Its name, or `NAME@HOST`.
            on_host: Its host; empty for the local host, or else the one that has it.

        Raises:
            NotFound: No reachable host has a volume of that name.
            Conflict: Several other hosts have one of that name.
        """
        name, host = parse_volume_address(name, on_host)
        if host in ("", self._host):
            try:
                return self._backends.annotate([await self._store.aread(lambda: self._records.volume(name))])[0]
            except VolumeNotFound:
                if host:
                    raise
            answers = await self._others.ask("get_volume", Volume, name=name)
            found: Volume = answers.found[only_host_with(name, answers)]
            return found
        there: Volume = await self._client.on(host=host, type=Volume).acall(
            self._topic, "get_volume", name=name, on_host=host
        )
        return there

    async def snapshots(self, volume: str, on_host: str) -> SnapshotListing:
        """Return the snapshots of all reachable hosts, or those of a volume; see `volumes`.

        Args:
            volume: Only those of this volume, as for `volume`; empty for all.
            on_host: Only those on this host; empty for all.

        Raises:
            NotFound: The volume was not found.
        """
        if volume and on_host != self._host:
            found = await self.volume(volume, on_host)
            volume, on_host = found.name, found.host
        if on_host == self._host:
            listed = await self._store.aread(lambda: self._snapshots_here(volume))
            return SnapshotListing(host=self._host, snapshots=listed)
        if on_host:
            call = self._client.on(host=on_host, type=list[Snapshot]).acall(
                self._topic, "list_snapshots", volume=volume, on_host=on_host
            )
            return SnapshotListing(host=self._host, snapshots=await call)
        here = await self._store.aread(self._records.snapshots)
        answers = await self._others.ask("list_snapshots", list[Snapshot])
        found_all = [*here, *(one for listed in answers.found.values() for one in listed)]
        return SnapshotListing(
            host=self._host,
            snapshots=sorted(found_all, key=lambda one: (one.volume, one.host, one.name)),
            unreachable=answers.unreachable,
        )

    def _snapshots_here(self, volume: str) -> list[Snapshot]:
        if volume:
            self._records.volume(volume)
        return self._records.snapshots(volume)
