"""`VolumeManager`: volumes on the backends of one host."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from ostler import (
    Context,
    DriverNotReady,
    Field,
    InvalidInput,
    Json,
    Manager,
    ManagerEnvironment,
    ManagerOptions,
    OstlerError,
    Seconds,
    Size,
    StoreError,
    exposed,
    periodic,
)
from ostler_volume.backends import BackendWork
from ostler_volume.claims import Claims
from ostler_volume.door import Origin, label_of, name_of, origin_of, size_of
from ostler_volume.driver import IMAGE, UPLOAD, VolumeDriver
from ostler_volume.errors import AlreadyExists, SnapshotNotFound, VolumeNotFound
from ostler_volume.placement import Placement
from ostler_volume.reconcile import Reconciler
from ostler_volume.records import Records
from ostler_volume.room import Rooms
from ostler_volume.snapshots import SnapshotWork
from ostler_volume.uploads import Uploads
from ostler_volume.volumes import Plan, VolumeWork
from ostler_volume.wire import Snapshot, Upload, Volume
from ostler_volume.workshop import Workshop

_UNKNOWN_SHOWN = 20


class VolumeOptions(ManagerOptions):
    """The options of a volume service."""

    check_interval: Seconds = Field(
        60, gt=0, help="How often records are compared with what is on the backends", reload="live"
    )
    scheduler: str = Field(
        "scheduler",
        help="Topic of the service that chooses a backend for a volume that names none; empty: choose by room",
        reload="live",
    )
    state_reserve: Size = Field(
        "32MiB",
        help="Room that is kept for the database on the file system that it shares with a backend",
        reload="live",
    )
    upload_timeout: Seconds = Field(
        60, gt=0, help="After how long without a further piece an upload is given up", reload="live"
    )


class VolumeManager(Manager):
    """Owns the volumes of a host: their names, records and states, on several named backends.

    Names are 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit. Sizes are bytes, or text as people
    write it (`10GiB`), rounded up to whole sectors of 512 bytes.
    """

    Options = VolumeOptions
    rpc_version = "1.1"
    driver_type = VolumeDriver
    journal_events = True

    def __init__(self, environment: ManagerEnvironment) -> None:
        super().__init__(environment)
        self.records = Records(self.store, self.topic, self.host, self.clock.wall)
        unknown: dict[str, dict[str, int]] = {}
        self._shop = Workshop(
            topic=self.topic,
            host=self.host,
            records=self.records,
            drivers=self.drivers,
            claims=Claims(),
            log=self.log,
            tell=self.notifier.info,
            unknown=unknown,
            rooms=Rooms(self.records, self.store, lambda: int(self.options.state_reserve), unknown, self.log),
        )
        self.reconciler = Reconciler(self._shop)
        self._placement = Placement(self._shop, self.client)
        self._volumes = VolumeWork(self._shop, self.reconciler)
        self._snapshots = SnapshotWork(self._shop, self.reconciler)
        self._backends = BackendWork(self._shop, self.reconciler)
        self._uploads = Uploads(self._shop, self._volumes, self.reconciler, self.clock.monotonic)

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Take note of backends that are used, and of those that are not in the configuration any more."""
        try:
            self.records.mark_backends()
            self.records.backends.keep_only(self.drivers)
        except StoreError as error:  # no reason not to start: what gives room back must go on a full disk
            self.log.warning("which backends are used cannot be noted now: %s", error)

    def driver_ready(self, name: str) -> None:
        """Finish or undo what a crash left on a backend, and find out what is attached."""
        self.reconciler.backend(name)

    def is_working(self) -> bool:
        """Return True while a backend is ready."""
        if not self.drivers:
            hint = f"add a table [services.{self.topic}.drivers.NAME]"
            raise DriverNotReady(f"the service {self.topic} has no backend", hint=hint)
        if not self.drivers.ready():
            states = "; ".join(f"{one.name} is {one.state}" for one in self.drivers.statuses())
            raise DriverNotReady(f"no backend is ready: {states}")
        return True

    def problems(self) -> list[str]:
        """Return how many volumes are in error and why, and which have no backend, and which files no record."""
        return [*self._backends.problems(), *self.records.problems()]

    def capabilities(self) -> Mapping[str, Mapping[str, Json]]:
        """Return what each ready backend offers, has, and has promised."""
        found: dict[str, Mapping[str, Json]] = {}
        for name in self.drivers.ready():
            try:
                found[name] = self._facts(name)
            except OstlerError as error:  # one backend that cannot say hides no other
                self.log.warning("the backend %s cannot say what it can do: %s", name, error)
        return found

    def _facts(self, name: str) -> dict[str, Json]:
        unknown = self._shop.unknown.get(name, {})
        volumes = self.records.volumes(name)
        return {
            **self._shop.rooms.facts(name, self.drivers[name]),
            "volumes": len(volumes),
            "snapshots": sum(one.snapshots for one in volumes),
            "unknown_files": len(unknown),
            "unknown": [*islice(unknown, _UNKNOWN_SHOWN)],
        }

    @periodic(spacing="check_interval", jitter=0.1)
    def check(self, ctx: Context) -> None:
        """Compare records with what is on the backends, so that a file that is gone is known before it is missed."""
        for name in self.drivers.ready():
            ctx.check()
            try:
                self.reconciler.backend(name)
            except OstlerError as error:
                self.log.warning("the backend %s cannot be checked: %s", name, error)

    @periodic(spacing=10)
    def expire_uploads(self, ctx: Context) -> None:
        """Give up uploads whose callers have left."""
        self._uploads.expire(self.options.upload_timeout)

    def cleanup_host(self) -> None:
        """Give up uploads under way."""
        self._uploads.close()

    @exposed(role="operator")
    def create_volume(
        self,
        ctx: Context,
        name: str,
        size: int | str = "",
        backend: str = "",
        image: str = "",
        source: str = "",
        snapshot: str = "",
    ) -> Volume:
        """Make a volume; of zeros, or from one of an image, a volume or a snapshot.

        Args:
            ctx: The request. Long copies report progress in bytes and can be cancelled.
            name: Its name.
            size: Bytes, or text as people write it; empty for as large as what it is made from.
            backend: Where; empty to have the scheduler choose.
            image: Absolute path of a raw image in one of the `image_directories` of the backend. Any other file is
                handed over by whoever may read it, with `begin_upload`.
            source: A volume to clone; the clone is on the same backend.
            snapshot: A snapshot to make it from, on the same backend: `VOLUME@NAME`, or NAME when one volume has it.

        Raises:
            InvalidInput: A name, size, image or backend that can never be right.
            NotFound: The source or snapshot is not there.
            Conflict: The name is taken, or the state of the source forbids it.
            NoCapacity: There is not enough room.
            DriverNotReady: The backend is not ready.
        """
        origin = origin_of(image, source, self._full_name(snapshot))
        plan = Plan(name_of(name), size_of(size) if size != "" or not any(origin) else 0, backend, origin)
        self._check_new(plan.name)
        if not backend and not (source or snapshot):
            chosen = self._placement.choose(
                self.options.scheduler, plan.size, [IMAGE] if image else [], here=bool(image)
            )
            if chosen.host != self.host:
                return self._pass_on(chosen.host, name=name, size=plan.size, backend=chosen.backend, image=image)
            plan = plan._replace(backend=chosen.backend)
        return self._volumes.create(ctx, plan)

    @exposed(role="operator", changes=False)
    def image_directories(self, ctx: Context, backend: str = "") -> list[str]:
        """Return the directories on this host that images may be taken from by their path.

        Args:
            ctx: The request.
            backend: Those of this backend; empty for all that are ready.
        """
        chosen = [backend] if backend else self.drivers.ready()
        drivers = [self._shop.backend(name) for name in chosen]
        found = [path for driver in drivers if IMAGE in driver.features for path in driver.image_directories()]
        return list(dict.fromkeys(found))

    @exposed(role="operator")
    def begin_upload(
        self, ctx: Context, name: str, length: int, size: int | str = "", backend: str = "", label: str = ""
    ) -> Upload:
        """Begin a volume whose content the caller hands over; see `ostler_volume.uploading`, which does all of it.

        Args:
            ctx: The request.
            name: The name of the volume.
            length: Bytes of content.
            size: Bytes, or text as people write it; empty for as large as the content.
            backend: Where; empty to have the scheduler choose one of this host.
            label: What the content is called, for its record.

        Raises:
            InvalidInput: A name, size or backend that can never be right.
            Conflict: The name is taken.
            NoCapacity: There is not enough room.
            DriverNotReady: The backend is not ready.
            Busy: There are too many uploads.
        """
        wanted = size_of(size) if size != "" else size_of(length, "image")
        plan = Plan(name_of(name), wanted, backend, Origin(upload=label_of(label)), length)
        self._check_new(plan.name)
        if not backend:
            chosen = self._placement.choose(self.options.scheduler, plan.size, [UPLOAD], here=True)
            plan = plan._replace(backend=chosen.backend)
        return self._uploads.begin(ctx, plan)

    @exposed(role="operator", changes=False)
    def upload_piece(self, ctx: Context, upload: str, offset: int, data: bytes) -> None:
        """Hand over a piece of the content; pieces may come in any order, and again. What never comes is zeros.

        Audited are the begin and the end of an upload, not each piece.

        Raises:
            NotFound: There is no such upload of this caller.
            InvalidInput: It is not a piece of the content, or the content is in another format than raw.
        """
        self._uploads.write(ctx, upload, offset, data)

    @exposed(role="operator")
    def finish_upload(self, ctx: Context, upload: str) -> Volume:
        """Make the volume of what was handed over.

        Raises:
            NotFound: There is no such upload of this caller.
        """
        return self._uploads.finish(ctx, upload)

    @exposed(role="operator")
    def cancel_upload(self, ctx: Context, upload: str) -> None:
        """Give an upload up; nothing is left of it.

        Raises:
            NotFound: There is no such upload of this caller.
        """
        self._uploads.cancel(ctx, upload)

    def _full_name(self, snapshot: str) -> str:
        if not snapshot or "@" in snapshot:
            return snapshot
        found = [f"{one.volume}@{one.name}" for one in self.records.snapshots() if one.name == snapshot]
        if not found:
            hint = "`ostler volume snapshot list` shows them"
            raise SnapshotNotFound(f"there is no snapshot {snapshot}", hint=hint, name=snapshot)
        if len(found) > 1:
            raise InvalidInput(f"{snapshot} may be {' or '.join(found)}", hint="say which, as VOLUME@NAME")
        return found[0]

    def _check_new(self, name: str) -> None:
        try:
            self.records.volume(name)
        except VolumeNotFound:
            return
        raise AlreadyExists(f"there is a volume {name} already", hint="take another name", name=name)

    def _pass_on(self, host: str, **arguments: Any) -> Volume:
        made: Volume = self.client.call(self.topic, "create_volume", host=host, type=Volume, **arguments)
        return made

    # Reading is done on the store's threads, so that it is answered while long copies have every thread of the pool.

    @exposed(role="viewer", changes=False)
    async def list_volumes(self, ctx: Context, backend: str = "") -> list[Volume]:
        """Return all volumes, or those of a backend, by name."""
        listed = await self.store.aread(lambda: self.records.volumes(backend))
        return self._backends.annotated(listed)

    @exposed(role="viewer", changes=False)
    async def get_volume(self, ctx: Context, name: str) -> Volume:
        """Return a volume.

        Raises:
            NotFound: There is none of that name.
        """
        return self._backends.annotated([await self.store.aread(lambda: self.records.volume(name))])[0]

    @exposed(role="operator")
    def extend_volume(self, ctx: Context, name: str, size: int | str) -> Volume:
        """Make a volume larger; it must be available.

        Args:
            ctx: The request.
            name: The volume.
            size: Its new size: bytes, or text as people write it.

        Raises:
            InvalidInput: The size can never be right, or is not more than now.
            NotFound: There is none of that name.
            Conflict: Its state forbids it.
            NoCapacity: There is not enough room.
        """
        return self._volumes.extend(ctx, name_of(name), size_of(size))

    @exposed(role="operator")
    def delete_volume(self, ctx: Context, name: str) -> None:
        """Delete a volume that is available or in error, and has no snapshots.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is in use, has snapshots, or its state forbids it.
        """
        self._volumes.delete(ctx, name_of(name))

    @exposed(role="operator")
    def attach_volume(self, ctx: Context, name: str) -> Volume:
        """Make a volume a block device of this machine; `device` of the result is its path.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is in use, or its state forbids it.
            NotSupported: The backend cannot, or the daemon has not the privileges.
        """
        return self._volumes.attach(ctx, name_of(name))

    @exposed(role="operator")
    def detach_volume(self, ctx: Context, name: str) -> Volume:
        """Take the block device of a volume away.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is not in use, or its device is mounted or open.
        """
        return self._volumes.detach(ctx, name_of(name))

    @exposed(role="operator")
    def create_snapshot(self, ctx: Context, volume: str, name: str) -> Snapshot:
        """Keep the content of a volume as it is now; the volume must be available.

        Raises:
            InvalidInput: A name that can never be right.
            NotFound: There is no such volume.
            Conflict: It has a snapshot of that name, or its state forbids it.
            NoCapacity: There is not enough room.
        """
        return self._snapshots.create(ctx, name_of(volume), name_of(name, "snapshot"))

    @exposed(role="viewer", changes=False)
    async def list_snapshots(self, ctx: Context, volume: str = "") -> list[Snapshot]:
        """Return all snapshots, or those of a volume.

        Raises:
            NotFound: There is no such volume.
        """
        return await self.store.aread(lambda: self._list_snapshots(volume))

    def _list_snapshots(self, volume: str) -> list[Snapshot]:
        if volume:
            self.records.volume(volume)
        return self.records.snapshots(volume)

    @exposed(role="operator")
    def delete_snapshot(self, ctx: Context, volume: str, name: str) -> None:
        """Delete a snapshot.

        Raises:
            NotFound: There is no such volume or snapshot.
            Conflict: It is being copied, or its state forbids it.
        """
        self._snapshots.delete(ctx, name_of(volume), name_of(name, "snapshot"))

    @exposed(role="operator", version="1.1")
    def manage_volume(self, ctx: Context, name: str, backend: str = "") -> Volume:
        """Take over a file without a record: it becomes a volume, with the snapshots that are there of it.

        Args:
            ctx: The request.
            name: The name of the file, and of the volume.
            backend: Where it is; empty to look on all that are ready.

        Raises:
            NotFound: There is no such file.
            Conflict: There is a volume of that name already.
            InvalidInput: Several backends have one; say which.
            DriverNotReady: The backend is not ready.
        """
        return self._backends.manage(ctx, name, backend)

    @exposed(role="operator", version="1.1")
    def forget_volume(self, ctx: Context, name: str) -> None:
        """Drop the record of a volume and those of its snapshots; what is on the backend is left as it is.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is being worked on, or attached.
        """
        self._backends.forget(ctx, name)

    @exposed(role="operator", version="1.1")
    def move_backend(self, ctx: Context, old: str, new: str, force: bool = False) -> int:
        """Have the records of a backend follow it to another name; return how many volumes there are.

        Args:
            ctx: The request.
            old: The name in the records; a backend that is not in the configuration any more, or has failed.
            new: The backend that has the files now.
            force: Move the records also if it has not all of the files.

        Raises:
            InvalidInput: Nothing is recorded on the old one, or the new one is not in the configuration.
            Conflict: The old one is ready, or the new one has not the files.
            DriverNotReady: The new one is not ready.
        """
        return self._backends.move(old, new, force=force)

    @exposed(role="operator", version="1.1")
    def accept_backend(self, ctx: Context, name: str) -> None:
        """Let a backend that is not the one it was take its directory as it is, at its next try.

        Its records are compared with what is there then: a volume whose file is not there is in error.

        Raises:
            InvalidInput: It is not in the configuration.
            Conflict: It is ready.
        """
        self._backends.accept(name)
