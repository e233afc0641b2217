"""`VolumeManager`: volumes on the backends of one host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from ostler import (
    CallCancelled,
    ConnectionLost,
    Context,
    DeadlineExceeded,
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
    TargetNotFound,
    ValidationContext,
    exposed,
    nearest,
    periodic,
)
from ostler_volume.backends import BackendWork
from ostler_volume.claims import Claims
from ostler_volume.door import SECTOR, Origin, label_of, name_of, origin_of, size_of, split_snapshot
from ostler_volume.driver import IMAGE, UPLOAD, VolumeDriver
from ostler_volume.errors import AlreadyExists, SnapshotNotFound, VolumeNotFound
from ostler_volume.image_places import places_of
from ostler_volume.listing import Listings
from ostler_volume.other_hosts import Answers, address_of, not_asked, the_one
from ostler_volume.placement import Placement, Wish, not_taken
from ostler_volume.reconcile import Reconciler
from ostler_volume.records import Records
from ostler_volume.room import Rooms
from ostler_volume.snapshots import SnapshotWork
from ostler_volume.uploads import Uploads
from ostler_volume.volumes import Plan, VolumeWork, name_is_taken
from ostler_volume.wire import Selection, Snapshot, SnapshotListing, Upload, Volume, VolumeListing, with_note
from ostler_volume.workshop import Workshop

T = TypeVar("T")
_MAYBE_BEGUN = (ConnectionLost, DeadlineExceeded, CallCancelled)
"""Errors of a call to another host after which the work there may go on."""


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
    placement_attempts: int = Field(
        3,
        ge=1,
        le=20,
        help="How many backends are tried for a volume that names none, when those that were chosen refuse it",
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

    Names are those of all hosts together: a volume is found, used and deleted from every host that has such a service
    and reaches the other. `NAME@HOST` says which one is meant, as `on_host` does; of a name alone the one here is meant
    first.

    Names are 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit. Sizes are bytes, or text as people
    write it (`10GiB`), rounded up to whole sectors of 512 bytes.
    """

    Options = VolumeOptions
    rpc_version = "1.1"
    driver_type = VolumeDriver
    journal_events = True

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[str, str]]:
        """Find a scheduler that no service here is, and that one may have been meant for; see `Manager.validate`.

        One that is just not here may be on another host, or come later.
        """
        topic = options.scheduler
        if not topic or topic in others.services:
            return
        if near := nearest(topic, others.services):
            yield "scheduler", f'no service here has the topic "{topic}"; did you mean "{near}"?'

    def __init__(self, environment: ManagerEnvironment) -> None:
        super().__init__(environment)
        self.records = Records(self.store, self.topic, self.host, self.clock.wall, self.capabilities_changed)
        unknown: dict[str, dict[str, int]] = {}
        self._shop = Workshop(
            topic=self.topic,
            host=self.host,
            records=self.records,
            drivers=self.drivers,
            claims=Claims(),
            log=self.log,
            tell=self.notifier.info,
            changed=self.environment.report_change,
            unknown=unknown,
            rooms=Rooms(self.records, self.store, lambda: int(self.options.state_reserve), unknown, self.log),
        )
        self.reconciler = Reconciler(self._shop)
        self._placement = Placement(self._shop, self.client)
        self._volumes = VolumeWork(self._shop, self.reconciler, self._taken_elsewhere)
        self._snapshots = SnapshotWork(self._shop, self.reconciler)
        self._backends = BackendWork(self._shop, self.reconciler)
        self._listings = Listings(self.client, self.topic, self.host, self.store, self.records, self._backends)
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
        self.reconciler.backend(name, self.environment.report_progress)

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

    def backend_capabilities(self, name: str) -> Mapping[str, Json]:
        """Return what a backend offers, has, and has promised."""
        return self._shop.rooms.facts(name, self.drivers[name])

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
    def create_volume(  # noqa: PLR0913 - each is a word of its own
        self,
        ctx: Context,
        name: str,
        size: int | str = "",
        backend: str = "",
        image: str = "",
        source: str = "",
        snapshot: str = "",
        *,
        on_host: str = "",
        by_choice: bool = False,
        lease: str = "",
    ) -> Volume:
        """Make a volume; of zeros, or from one of an image, a volume or a snapshot.

        When the backend that was chosen refuses and nothing was begun there, another one is tried, up to
        `placement_attempts`; `note` of the result says so.

        Args:
            ctx: The request. Long copies report progress in bytes and can be cancelled.
            name: Its name.
            size: Bytes, or text as people write it; empty for as large as what it is made from.
            backend: Where; empty to have the scheduler choose.
            image: Absolute path of a raw image in one of the `image_directories` of the backend. Any other file is
                handed over by whoever may read it, with `begin_upload`.
            source: A volume to clone; the clone is on the same host and backend.
            snapshot: A snapshot to make it from, on the same host and backend: `VOLUME@NAME`, or NAME when one volume
                has it.
            on_host: The host it is to be on; empty for the one that is chosen, or for this one when a backend is named.
            by_choice: Whether the backend was chosen, and not named by whoever asked: a service that is disabled
                refuses it then.
            lease: The id in the selection of a scheduler that was asked for the backend: its promise of room.

        Raises:
            InvalidInput: A name, size, image or backend that can never be right.
            NotFound: The source or snapshot is not there.
            Conflict: The name is taken, on this host or another, or the state of the source forbids it.
            NoCapacity: There is not enough room.
            DriverNotReady: The backend is not ready.
            ServiceDisabled: An operator has disabled this service, and no other was to be had.
        """
        source, on_host = address_of(source, on_host) if source else ("", on_host)
        snapshot, on_host = self._full_name(snapshot, on_host)
        origin = origin_of(image, source, snapshot)
        wanted = size_of(size) if size != "" or not any(origin) else 0
        plan = Plan(name_of(name), wanted, backend, origin, lease=lease)
        on_host = on_host or self._host_of_origin(origin)
        if on_host not in ("", self.host):
            more = {"backend": backend, "image": image, "source": source, "snapshot": snapshot, "by_choice": by_choice}
            return self._forward(on_host, "create_volume", Volume, name=plan.name, size=size, lease=lease, **more)
        with self._volumes.leased(plan):
            note = self._check_new(plan.name)
            if by_choice:
                self._placement.check_enabled()
            if backend or source or snapshot:
                return with_note(self._volumes.create(ctx, plan), note)
        made, told = self._place(ctx, plan, on_host)
        return with_note(made, note, told)

    def _place(self, ctx: Context, plan: Plan, on_host: str) -> tuple[Volume, str]:
        image = plan.origin.image
        wish = Wish(plan.size, (), on_host)
        if image:  # its size decides where it fits
            places = places_of(self._shop, image)
            wish = Wish(plan.size or -(-places.size // SECTOR) * SECTOR, (IMAGE,), self.host, places.exclude)

        def make(chosen: Selection) -> Volume:
            if chosen.host != self.host:
                return self._pass_on(chosen, "create_volume", Volume, name=plan.name, size=plan.size)
            leased = plan._replace(backend=chosen.backend, lease=chosen.lease)
            with self._volumes.leased(leased):
                self._placement.check_enabled()
                return self._volumes.create(ctx, leased)

        options = self.options
        return self._placement.place(ctx, options.scheduler, wish, make, attempts=options.placement_attempts)

    @exposed(role="operator", changes=False, short=True)
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
    def begin_upload(  # noqa: PLR0913 - each is a word of its own
        self,
        ctx: Context,
        name: str,
        length: int,
        size: int | str = "",
        backend: str = "",
        label: str = "",
        *,
        on_host: str = "",
        anywhere: bool = False,
        by_choice: bool = False,
        lease: str = "",
    ) -> Upload:
        """Begin a volume whose content the caller hands over; see `ostler_volume.uploading`, which does all of it.

        Args:
            ctx: The request.
            name: The name of the volume.
            length: Bytes of content.
            size: Bytes, or text as people write it; empty for as large as the content.
            backend: Where; empty to have the scheduler choose.
            label: What the content is called, for its record.
            on_host: The host it is to be on; empty for this one, or any.
            anywhere: Whether the scheduler may choose another host, to which the caller then hands the content over.
            by_choice: See `create_volume`.
            lease: See `create_volume`.

        Raises:
            InvalidInput: A name, size or backend that can never be right.
            Conflict: The name is taken.
            NoCapacity: There is not enough room.
            DriverNotReady: The backend is not ready.
            Busy: There are too many uploads.
        """
        wanted = size_of(size) if size != "" else size_of(length, "image")
        plan = Plan(name_of(name), wanted, backend, Origin(upload=label_of(label)), length, lease=lease)
        if on_host not in ("", self.host):
            more = {"length": length, "size": plan.size, "backend": backend, "label": label, "by_choice": by_choice}
            return self._forward(on_host, "begin_upload", Upload, name=plan.name, lease=lease, **more)
        with self._volumes.leased(plan):
            note = self._check_new(plan.name)
            if by_choice:
                self._placement.check_enabled()
            if backend:
                return with_note(self._uploads.begin(ctx, plan), note)
        # On another host all that is relayed comes by the key of this daemon; what a caller sends by a key of its own
        # is not relayed, and would not find its upload there.
        begun, told = self._place_upload(ctx, plan, "" if anywhere and not (on_host or ctx.peer.key) else self.host)
        return with_note(begun, note, told)

    def _place_upload(self, ctx: Context, plan: Plan, on_host: str) -> tuple[Upload, str]:
        def begin(chosen: Selection) -> Upload:
            if chosen.host != self.host:
                wanted = {"name": plan.name, "length": plan.length, "size": plan.size, "label": plan.origin.upload}
                return self._pass_on(chosen, "begin_upload", Upload, **wanted)
            leased = plan._replace(backend=chosen.backend, lease=chosen.lease)
            with self._volumes.leased(leased):
                self._placement.check_enabled()
                return self._uploads.begin(ctx, leased)

        wish, options = Wish(plan.size, (UPLOAD,), on_host), self.options
        return self._placement.place(ctx, options.scheduler, wish, begin, attempts=options.placement_attempts)

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

    @exposed(role="operator", short=True)
    def cancel_upload(self, ctx: Context, upload: str) -> None:
        """Give an upload up; nothing is left of it.

        Raises:
            NotFound: There is no such upload of this caller.
        """
        self._uploads.cancel(ctx, upload)

    # ---------------------------------------------------------------- where things are

    def _full_name(self, snapshot: str, on_host: str) -> tuple[str, str]:
        """Return a snapshot as `VOLUME@NAME`, and its host where that had to be looked for."""
        if not snapshot or "@" in snapshot or on_host not in ("", self.host):
            return snapshot, on_host
        found = [one for one in self.records.snapshots() if one.name == snapshot]
        if not found and not on_host:
            listing: SnapshotListing = self._ask_all("snapshot_listing", SnapshotListing)
            found = [one for one in listing.snapshots if one.name == snapshot]
        if not found:
            hint = "`ostler volume snapshot list` shows them"
            raise SnapshotNotFound(f"there is no snapshot {snapshot}", hint=hint, name=snapshot)
        if len(found) > 1:
            listed = " or ".join(f"{one.volume}@{one.name} on {one.host}" for one in found)
            raise InvalidInput(f"{snapshot} may be {listed}", hint="say which, as VOLUME@NAME")
        return f"{found[0].volume}@{snapshot}", found[0].host

    def _host_of_origin(self, origin: Origin) -> str:
        """Return the host that a copy has to be made on, empty when that is open."""
        if origin.snapshot:
            return self._host_of(split_snapshot(origin.snapshot)[0])
        return self._host_of(origin.source) if origin.source else ""

    def _check_new(self, name: str) -> str:
        """Refuse a name that is taken; return which hosts could not be asked for it, empty when all were."""
        try:
            self.records.volume(name)
        except VolumeNotFound:
            answers = self._ask_for(name)
        else:
            raise AlreadyExists(f"there is a volume {name} already", hint="take another name", name=name)
        for host in answers.found:
            raise name_is_taken(name, host)
        if not answers.unreachable:
            return ""
        return f"could not be asked whether they have a volume {name} as well: {not_asked(answers.unreachable)}"

    def _taken_elsewhere(self, name: str) -> str:
        return next(iter(self._ask_for(name).found), "")

    def _host_of(self, name: str) -> str:
        """Return the host that has a volume: this one, if it has one of that name."""
        try:
            self.records.volume(name)
        except VolumeNotFound:
            return the_one(name, self._ask_for(name))
        return self.host

    def _locate(self, name: str, on_host: str) -> tuple[str, str]:
        """Return name and host of the volume that is meant."""
        name, host = address_of(name, on_host)
        return name, host or self._host_of(name)

    def _ask_for(self, name: str) -> Answers:
        """Ask the other hosts for a volume, from a thread of the pool."""
        try:
            listing: VolumeListing = self._ask_all("find_volume", VolumeListing, name=name)
        except TargetNotFound:  # this topic is not open yet, or not any more: nobody asks from outside
            return Answers({}, {})
        return Answers({one.host: one for one in listing.volumes if one.host != self.host}, listing.unreachable)

    def _ask_all(self, method: str, kind: Any, **arguments: Any) -> Any:
        # By a method of our own, which asks all at once on the loop: a thread could ask only one after the other.
        return self.client.on(host=self.host, type=kind).call(self.topic, method, **arguments)

    def _on(self, host: str, here: Callable[[], T], method: str, kind: type[T], **arguments: Any) -> T:
        """Do what was asked for where it belongs: here, or by the service on another host."""
        return here() if host in ("", self.host) else self._forward(host, method, kind, **arguments)

    def _forward(self, host: str, method: str, kind: type[T], **arguments: Any) -> T:
        """Have the service on another host do what was asked for here."""
        done: T = self.client.on(host=host, type=kind).call(self.topic, method, on_host=host, **arguments)
        return done

    def _pass_on(self, chosen: Selection, method: str, kind: type[T], **wanted: Any) -> T:
        """Have a volume made on the host that was chosen; its lease is given back when nothing was begun there."""
        wanted |= {"backend": chosen.backend, "by_choice": True, "lease": chosen.lease}
        try:
            with not_taken():
                return self._forward(chosen.host, method, kind, **wanted)
        except OstlerError as error:
            # Where it may have begun, that host says what became of it, or the lease runs out.
            if chosen.lease and not isinstance(error, _MAYBE_BEGUN):
                self.capabilities_changed(lease=chosen.lease, released=True)
            raise

    @exposed(role="viewer", changes=False)
    async def list_volumes(self, ctx: Context, backend: str = "", on_host: str = "") -> list[Volume]:
        """Return the volumes of all hosts that can be asked, by name and host; see `volume_listing`.

        Args:
            ctx: The request.
            backend: Only those of backends of this name.
            on_host: Only those of this host.
        """
        return (await self._listings.volumes(backend, on_host)).volumes

    @exposed(role="viewer", changes=False, version="1.1")
    async def volume_listing(self, ctx: Context, backend: str = "", on_host: str = "") -> VolumeListing:
        """Return what `list_volumes` returns, and which hosts could not be asked."""
        return await self._listings.volumes(backend, on_host)

    @exposed(role="viewer", changes=False, version="1.1")
    async def find_volume(self, ctx: Context, name: str) -> VolumeListing:
        """Return the volumes of a name on all hosts that can be asked: one at most, unless hosts were apart."""
        return await self._listings.named(name)

    @exposed(role="viewer", changes=False)
    async def get_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Return a volume, wherever it is.

        Args:
            ctx: The request.
            name: Its name, or `NAME@HOST`.
            on_host: The only host that will do; empty for the one here, or else the one that has it.

        Raises:
            NotFound: There is none of that name on a host that could be asked.
            Conflict: Several other hosts have one of that name.
        """
        return await self._listings.volume(name, on_host)

    @exposed(role="operator")
    def extend_volume(self, ctx: Context, name: str, size: int | str, on_host: str = "") -> Volume:
        """Make a volume larger; it must be available.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            size: Its new size: bytes, or text as people write it.
            on_host: See `get_volume`.

        Raises:
            InvalidInput: The size can never be right, or is not more than now.
            NotFound: There is none of that name.
            Conflict: Its state forbids it.
            NoCapacity: There is not enough room.
        """
        wanted = size_of(size)
        name, host = self._locate(name, on_host)
        here = partial(self._volumes.extend, ctx, name, wanted)
        return self._on(host, here, "extend_volume", Volume, name=name, size=wanted)

    @exposed(role="operator", short=True)
    def delete_volume(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Delete a volume that is available or in error, and has no snapshots.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is in use, has snapshots, or its state forbids it.
        """
        name, host = self._locate(name, on_host)
        self._on(host, partial(self._volumes.delete, ctx, name), "delete_volume", type(None), name=name)

    @exposed(role="operator", short=True)
    def attach_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Make a volume a block device of its host; `device` of the result is its path there.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is in use, or its state forbids it.
            NotSupported: The backend cannot, or the daemon has not the privileges.
        """
        name, host = self._locate(name, on_host)
        return self._on(host, partial(self._volumes.attach, ctx, name), "attach_volume", Volume, name=name)

    @exposed(role="operator", short=True)
    def detach_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Take the block device of a volume away.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is not in use, or its device is mounted or open.
        """
        name, host = self._locate(name, on_host)
        return self._on(host, partial(self._volumes.detach, ctx, name), "detach_volume", Volume, name=name)

    @exposed(role="operator")
    def create_snapshot(self, ctx: Context, volume: str, name: str, on_host: str = "") -> Snapshot:
        """Keep the content of a volume as it is now; the volume must be available.

        Args:
            ctx: The request.
            volume: The volume, as for `get_volume`.
            name: The name of the snapshot.
            on_host: See `get_volume`.

        Raises:
            InvalidInput: A name that can never be right.
            NotFound: There is no such volume.
            Conflict: It has a snapshot of that name, or its state forbids it.
            NoCapacity: There is not enough room.
        """
        name_of(name, "snapshot")
        volume, host = self._locate(volume, on_host)
        here = partial(self._snapshots.create, ctx, volume, name)
        return self._on(host, here, "create_snapshot", Snapshot, volume=volume, name=name)

    @exposed(role="viewer", changes=False)
    async def list_snapshots(self, ctx: Context, volume: str = "", on_host: str = "") -> list[Snapshot]:
        """Return the snapshots of all hosts that can be asked, or those of a volume; see `snapshot_listing`.

        Args:
            ctx: The request.
            volume: Only those of this volume, as for `get_volume`.
            on_host: Only those of this host.

        Raises:
            NotFound: There is no such volume.
        """
        return (await self._listings.snapshots(volume, on_host)).snapshots

    @exposed(role="viewer", changes=False, version="1.1")
    async def snapshot_listing(self, ctx: Context, volume: str = "", on_host: str = "") -> SnapshotListing:
        """Return what `list_snapshots` returns, and which hosts could not be asked."""
        return await self._listings.snapshots(volume, on_host)

    @exposed(role="operator", short=True)
    def delete_snapshot(self, ctx: Context, volume: str, name: str, on_host: str = "") -> None:
        """Delete a snapshot.

        Args:
            ctx: The request.
            volume: Its volume, as for `get_volume`.
            name: Its name.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is no such volume or snapshot.
            Conflict: It is being copied, or its state forbids it.
        """
        name_of(name, "snapshot")
        volume, host = self._locate(volume, on_host)
        here = partial(self._snapshots.delete, ctx, volume, name)
        self._on(host, here, "delete_snapshot", type(None), volume=volume, name=name)

    # ---------------------------------------------------------------- records and backends

    @exposed(role="operator", version="1.1")
    def manage_volume(self, ctx: Context, name: str, backend: str = "", on_host: str = "") -> Volume:
        """Take over a file without a record: it becomes a volume, with the snapshots that are there of it.

        Args:
            ctx: The request.
            name: The name of the file, and of the volume.
            backend: Where it is; empty to look on all that are ready.
            on_host: The host that it is on; empty for the one that is asked.

        Raises:
            NotFound: There is no such file.
            Conflict: There is a volume of that name already.
            InvalidInput: Several backends have one; say which.
            DriverNotReady: The backend is not ready.
        """
        here = partial(self._backends.manage, ctx, name, backend)
        return self._on(on_host, here, "manage_volume", Volume, name=name, backend=backend)

    @exposed(role="operator", version="1.1")
    def forget_volume(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Drop the record of a volume and those of its snapshots; what is on the backend is left as it is.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is being worked on, or attached.
        """
        name, host = self._locate(name, on_host)
        self._on(host, partial(self._backends.forget, ctx, name), "forget_volume", type(None), name=name)

    @exposed(role="operator", version="1.1")
    def move_backend(self, ctx: Context, old: str, new: str, force: bool = False, on_host: str = "") -> int:
        """Have the records of a backend follow it to another name; return how many volumes there are.

        Args:
            ctx: The request.
            old: The name in the records; a backend that is not in the configuration any more, or has failed.
            new: The backend that has the files now.
            force: Move the records also if it has not all of the files.
            on_host: The host of both; empty for the one that is asked.

        Raises:
            InvalidInput: Nothing is recorded on the old one, or the new one is not in the configuration.
            Conflict: The old one is ready, or the new one has not the files.
            DriverNotReady: The new one is not ready.
        """
        here = partial(self._backends.move, old, new, force=force)
        return self._on(on_host, here, "move_backend", int, old=old, new=new, force=force)

    @exposed(role="operator", version="1.1")
    def accept_backend(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Let a backend that is not the one it was take its directory as it is, at its next try.

        Its records are compared with what is there then: a volume whose file is not there is in error.

        Args:
            ctx: The request.
            name: The backend.
            on_host: Its host; empty for the one that is asked.

        Raises:
            InvalidInput: It is not in the configuration.
            Conflict: It is ready.
        """
        self._on(on_host, partial(self._backends.accept, name), "accept_backend", type(None), name=name)
