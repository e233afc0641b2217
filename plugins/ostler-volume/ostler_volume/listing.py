"""What volumes and snapshots there are, here and on other hosts.

Reading is done on the store's threads, so that it is answered while long copies have every thread of the pool.
"""

from __future__ import annotations

from ostler import ServiceClient, Store
from ostler_volume.backends import BackendWork
from ostler_volume.errors import VolumeNotFound
from ostler_volume.other_hosts import OtherHosts, address_of, the_one
from ostler_volume.records import Records
from ostler_volume.wire import Snapshot, SnapshotListing, Volume, VolumeListing


class Listings:
    """Finds volumes and snapshots, wherever they are. On the loop.

    Args:
        client: Calls the services of other hosts.
        topic: The topic of all of them.
        host: This host.
        store: Where the records of this host are.
        records: These records.
        backends: Says which volumes have no backend any more.
    """

    def __init__(
        self, client: ServiceClient, topic: str, host: str, store: Store, records: Records, backends: BackendWork
    ) -> None:
        self._client = client
        self._topic = topic
        self._host = host
        self._store = store
        self._records = records
        self._backends = backends
        self._others = OtherHosts(client, topic, host)

    async def volumes(self, backend: str, on_host: str) -> VolumeListing:
        """Return the volumes of all hosts that can be asked, by name and host, and which hosts could not be asked.

        Args:
            backend: Only those of backends of this name; empty for all.
            on_host: Only those of this host; empty for all.
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
        return self._backends.annotated(listed)

    async def named(self, name: str) -> VolumeListing:
        """Return the volumes of a name on all hosts that can be asked."""
        answers = await self._others.ask("get_volume", Volume, name=name)
        here = await self._store.aread(lambda: self._records.select_volumes(name=name))
        here = self._backends.annotated(here)
        return VolumeListing(host=self._host, volumes=[*here, *answers.found.values()], unreachable=answers.unreachable)

    async def volume(self, name: str, on_host: str) -> Volume:
        """Return a volume, wherever it is.

        Args:
            name: Its name, or `NAME@HOST`.
            on_host: The only host that will do; empty for the one here, or else the one that has it.

        Raises:
            NotFound: There is none of that name on a host that could be asked.
            Conflict: Several other hosts have one of that name.
        """
        name, host = address_of(name, on_host)
        if host in ("", self._host):
            try:
                return self._backends.annotated([await self._store.aread(lambda: self._records.volume(name))])[0]
            except VolumeNotFound:
                if host:
                    raise
            answers = await self._others.ask("get_volume", Volume, name=name)
            found: Volume = answers.found[the_one(name, answers)]
            return found
        there: Volume = await self._client.on(host=host, type=Volume).acall(
            self._topic, "get_volume", name=name, on_host=host
        )
        return there

    async def snapshots(self, volume: str, on_host: str) -> SnapshotListing:
        """Return the snapshots of all hosts that can be asked, or those of a volume; see `volumes`.

        Args:
            volume: Only those of this volume, as for `volume`; empty for all.
            on_host: Only those of this host; empty for all.

        Raises:
            NotFound: There is no such volume.
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
