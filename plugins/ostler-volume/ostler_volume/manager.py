"""`VolumeManager`: the volumes on the backends of one host."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from ostler import (
    Context,
    DriverNotReady,
    Durable,
    InvalidInput,
    Json,
    Manager,
    ManagerEnvironment,
    OstlerError,
    ServiceNotFound,
    StoreError,
    ValidationContext,
    exposed,
    nearest,
    periodic,
)
from ostler_volume.api_types import (
    SchedulerSelection,
    Snapshot,
    SnapshotListing,
    Upload,
    Volume,
    VolumeListing,
    with_note,
)
from ostler_volume.argument_validation import (
    SECTOR_SIZE,
    Origin,
    clean_label,
    parse_name,
    parse_origin,
    parse_volume_size,
    split_snapshot_name,
)
from ostler_volume.backend_capacity import BackendCapacity
from ostler_volume.backend_operations import BackendOperations
from ostler_volume.driver import IMAGE, UPLOAD, VolumeDriver
from ostler_volume.durable_steps import BEGUN
from ostler_volume.errors import AlreadyExists, SnapshotNotFound, VolumeNotFound
from ostler_volume.forwarding import Forwarder
from ostler_volume.image_lookup import look_up_image
from ostler_volume.listing import Listings
from ostler_volume.other_hosts import HostAnswers, describe_unreachable, only_host_with, parse_volume_address
from ostler_volume.placement import Placement, PlacementRequest, choice_step
from ostler_volume.reconciler import Reconciler
from ostler_volume.records import Records
from ostler_volume.snapshot_operations import SnapshotOperations
from ostler_volume.uploads import Uploads
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_locks import VolumeLocks
from ostler_volume.volume_operations import VolumeOperations, VolumePlan, name_taken_error
from ostler_volume.volume_options import VolumeOptions

T = TypeVar("T")
_RESUMED = Durable(on_restart="resume")
_DELETION = Durable(on_restart="resume", runs_unstored=True)
_ORIGIN_STEP, _HOST_STEP = "origin", "host"
"""The steps that record where an operation does its work; what it has done may change the answer."""


class VolumeManager(Manager):
    """Owns the volumes of a host: their names, records and states, on several named backends.

    Names are shared by all hosts: a volume can be found, used and deleted from every host that has such a service and
    can reach the other. `NAME@HOST` or `on_host` selects the host; a name alone means the local volume first.

    Names are 1 to 63 letters, digits, `.`, `_` and `-`, the first a letter or digit. Sizes are bytes, or text such as
    `10GiB`, rounded up to whole sectors of 512 bytes.
    """

    Options = VolumeOptions
    rpc_version = "1.1"
    driver_type = VolumeDriver
    journal_events = True

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[str, str]]:
        """Find a misspelt name of the scheduler; see `Manager.validate`.

        A scheduler that is not on this host may be on another one, or be added later.
        """
        topic = options.scheduler
        if not topic or topic in others.services:
            return
        if near := nearest(topic, others.services):
            yield "scheduler", f'no service on this host has the topic "{topic}"; did you mean "{near}"?'

    def __init__(self, environment: ManagerEnvironment) -> None:
        super().__init__(environment)
        self.records = Records(self.store, self.topic, self.host, self.clock.wall, self.capabilities_changed)
        unknown: dict[str, dict[str, int]] = {}
        self._context = VolumeContext(
            topic=self.topic,
            host=self.host,
            records=self.records,
            drivers=self.drivers,
            locks=VolumeLocks(),
            log=self.log,
            notify=self.notifier.info,
            report_change=self.environment.report_change,
            unrecorded=unknown,
            capacity=BackendCapacity(
                self.records, self.store, lambda: int(self.options.state_reserve), unknown, self.log
            ),
        )
        self.reconciler = Reconciler(self._context)
        self._placement = Placement(self._context, self.client)
        self._forwarder = Forwarder(self.client, self.topic, self.capabilities_changed)
        self._volumes = VolumeOperations(self._context, self.reconciler, self._other_host_with)
        self._snapshots = SnapshotOperations(self._context, self.reconciler)
        self._backends = BackendOperations(self._context, self.reconciler)
        self._listings = Listings(self.client, self.topic, self.host, self.store, self.records, self._backends)
        self._uploads = Uploads(self._context, self._volumes, self.reconciler, self.clock.monotonic)

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Record which backends are used, and which are no longer in the configuration."""
        try:
            self.records.update_record_marks()
            self.records.backends.clear_unconfigured(self.drivers)
        except StoreError as error:  # no reason not to start: deletions must work on a full disk
            self.log.warning("cannot record which backends are used: %s", error)

    def driver_ready(self, name: str) -> None:
        """Complete or undo unfinished work on a backend, and find attached volumes."""
        self.reconciler.reconcile_backend(name, self.environment.report_progress)

    def is_working(self) -> bool:
        """Return True while a backend is ready."""
        if not self.drivers:
            hint = f"add a table [services.{self.topic}.drivers.NAME]"
            raise DriverNotReady(f"the service {self.topic} has no backend", hint=hint)
        if not self.drivers.ready():
            states = ", ".join(f"{one.name} is {one.state}" for one in self.drivers.statuses())
            raise DriverNotReady(f"no backend is ready: {states}")
        return True

    def problems(self) -> list[str]:
        """Return volumes in error with reasons, volumes without a backend, and files without a record."""
        return [*self._backends.problems(), *self.records.problems()]

    def backend_capabilities(self, name: str) -> Mapping[str, Json]:
        """Return the features, the space and the promises of a backend."""
        return self._context.capacity.capabilities(name, self.drivers[name])

    @periodic(spacing="check_interval", jitter=0.1)
    def check(self, ctx: Context) -> None:
        """Compare records with the files on the backends, so that a missing file is detected early."""
        for name in self.drivers.ready():
            ctx.check()
            try:
                self.reconciler.reconcile_backend(name)
            except OstlerError as error:
                self.log.warning("cannot check the backend %s: %s", name, error)

    @periodic(spacing=10)
    def expire_uploads(self, ctx: Context) -> None:
        """Cancel uploads whose callers are gone."""
        self._uploads.expire(self.options.upload_timeout)

    def cleanup_host(self) -> None:
        """Cancel uploads in progress."""
        self._uploads.close()

    @exposed(role="operator", durable=_RESUMED)
    def create_volume(  # noqa: PLR0913 - all are options of the request
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
        """Create a volume: of zeros, or from an image, a volume or a snapshot.

        If a chosen backend refuses before it has begun, another one is tried, up to `placement_attempts`; `note` of the
        result reports that.

        Args:
            ctx: The request. Long copies report progress in bytes and can be cancelled.
            name: Its name.
            size: Bytes, or text such as `10GiB`; empty for the size of the origin.
            backend: Its backend; empty to let the scheduler choose.
            image: Absolute path of a raw image in one of the `image_directories` of the backend. Other files are
                uploaded with `begin_upload` by a caller who can read them.
            source: A volume to clone; the clone is on the same host and backend.
            snapshot: A snapshot to copy, on the same host and backend: `VOLUME@NAME`, or NAME if only one volume has
                it.
            on_host: Its host; empty for the chosen one, or the local one if `backend` is given.
            by_choice: Whether the backend was chosen automatically, and not by the user: a disabled service then
                refuses it.
            lease: The id of the scheduler's promise of space, from its selection.

        Raises:
            InvalidInput: A name, size, image or backend is not valid.
            NotFound: The source or snapshot was not found.
            Conflict: The name is taken, on this host or another, or the state of the source forbids it.
            NoCapacity: There is not enough space.
            DriverNotReady: The backend is not ready.
            ServiceDisabled: An operator has disabled this service, and no other is available.
        """
        source, on_host = parse_volume_address(source, on_host) if source else ("", on_host)
        name = parse_name(name)
        if source or snapshot:
            parse_origin(image, source, snapshot if "@" in snapshot else "")  # before anything is looked for
            find = partial(self._find_origin, source, snapshot, on_host)
            snapshot, on_host = ctx.step(_ORIGIN_STEP, find, type=tuple[str, str])
        origin = parse_origin(image, source, snapshot)
        wanted = parse_volume_size(size) if size != "" or not any(origin) else 0
        plan = VolumePlan(name, wanted, backend, origin, lease=lease)
        if on_host not in ("", self.host):
            more: dict[str, Any] = {"image": image, "source": source, "snapshot": snapshot, "by_choice": by_choice}
            more |= {"name": plan.name, "size": size, "backend": backend, "lease": lease}
            return self._forwarder.forward(ctx, on_host, "create_volume", Volume, more)
        with self._volumes.release_lease_on_error(plan):
            note = self._check_before_creation(ctx, plan, by_choice=by_choice)
            if backend or source or snapshot:
                return with_note(self._volumes.create(ctx, plan), note)
        made, told = self._place(ctx, plan, on_host)
        return with_note(made, note, told)

    def _find_origin(self, source: str, snapshot: str, on_host: str) -> tuple[str, str]:
        """Return the full name of a snapshot, and the host on which a copy must be created, empty for any."""
        snapshot, on_host = self._full_snapshot_name(snapshot, on_host)
        return snapshot, on_host or self._host_of_origin(parse_origin("", source, snapshot))

    def _check_before_creation(self, ctx: Context, plan: VolumePlan, *, by_choice: bool) -> str:
        """Refuse a name that is taken, and work that is placed on a disabled service; return a note, empty for none."""
        if ctx.is_recorded(BEGUN) or ctx.is_recorded(choice_step(1)):  # by this operation, before a restart
            return ""
        note = self._check_name_is_free(plan.name)
        if by_choice:
            self._placement.check_enabled()
        return note

    def _place(self, ctx: Context, plan: VolumePlan, on_host: str) -> tuple[Volume, str]:
        image = plan.origin.image
        wish = PlacementRequest(plan.size, (), on_host)
        if image:  # its size limits the choice
            places = look_up_image(self._context, image)
            wish = PlacementRequest(
                plan.size or -(-places.size // SECTOR_SIZE) * SECTOR_SIZE, (IMAGE,), self.host, places.exclude
            )

        def make(chosen: SchedulerSelection, number: int) -> Volume:
            if chosen.host != self.host:
                wanted = {"name": plan.name, "size": plan.size}
                return self._forwarder.forward_to_chosen(ctx, chosen, number, "create_volume", Volume, wanted)
            leased = plan._replace(backend=chosen.backend, lease=chosen.lease)
            with self._volumes.release_lease_on_error(leased):
                if not ctx.is_recorded(f"{BEGUN} {number}"):
                    self._placement.check_enabled()
                return self._volumes.create(ctx, leased, f" {number}")

        options = self.options
        return self._placement.place(ctx, options.scheduler, wish, make, attempts=options.placement_attempts)

    @exposed(role="operator", changes=False, short=True)
    def image_directories(self, ctx: Context, backend: str = "") -> list[str]:
        """Return the directories on this host from which images can be used by their path.

        Args:
            ctx: The request.
            backend: The backend; empty for all that are ready.
        """
        chosen = [backend] if backend else self.drivers.ready()
        drivers = [self._context.ready_driver(name) for name in chosen]
        found = [path for driver in drivers if IMAGE in driver.features for path in driver.image_directories()]
        return list(dict.fromkeys(found))

    @exposed(role="operator")
    def begin_upload(  # noqa: PLR0913 - all are options of the request
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
        """Begin a volume whose content the caller uploads; see `ostler_volume.upload_client`, which does all of it.

        Args:
            ctx: The request.
            name: The name of the volume.
            length: Size of the content in bytes.
            size: Bytes, or text such as `10GiB`; empty for the size of the content.
            backend: Its backend; empty to let the scheduler choose.
            label: The label of the content, for its record.
            on_host: Its host; empty for this one, or any.
            anywhere: Whether the scheduler may choose another host, to which the caller then uploads the content.
            by_choice: See `create_volume`.
            lease: See `create_volume`.

        Raises:
            InvalidInput: A name, size or backend is not valid.
            Conflict: The name is taken.
            NoCapacity: There is not enough space.
            DriverNotReady: The backend is not ready.
            Busy: There are too many uploads.
        """
        wanted = parse_volume_size(size) if size != "" else parse_volume_size(length, "image")
        plan = VolumePlan(parse_name(name), wanted, backend, Origin(upload=clean_label(label)), length, lease=lease)
        if on_host not in ("", self.host):
            more: dict[str, Any] = {"length": length, "size": plan.size, "label": label, "by_choice": by_choice}
            more |= {"name": plan.name, "backend": backend, "lease": lease}
            return self._forwarder.forward(ctx, on_host, "begin_upload", Upload, more)
        with self._volumes.release_lease_on_error(plan):
            note = self._check_name_is_free(plan.name)
            if by_choice:
                self._placement.check_enabled()
            if backend:
                return with_note(self._uploads.begin(ctx, plan), note)
        # Requests that this daemon relays reach another host with the daemon's key; those of callers with their own key
        # are not relayed, and would not find the upload there.
        begun, told = self._place_upload(ctx, plan, "" if anywhere and not (on_host or ctx.peer.key) else self.host)
        return with_note(begun, note, told)

    def _place_upload(self, ctx: Context, plan: VolumePlan, on_host: str) -> tuple[Upload, str]:
        def begin(chosen: SchedulerSelection, number: int) -> Upload:
            if chosen.host != self.host:
                wanted = {"name": plan.name, "length": plan.length, "size": plan.size, "label": plan.origin.upload}
                return self._forwarder.forward_to_chosen(ctx, chosen, number, "begin_upload", Upload, wanted)
            leased = plan._replace(backend=chosen.backend, lease=chosen.lease)
            with self._volumes.release_lease_on_error(leased):
                self._placement.check_enabled()
                return self._uploads.begin(ctx, leased)

        wish, options = PlacementRequest(plan.size, (UPLOAD,), on_host), self.options
        return self._placement.place(ctx, options.scheduler, wish, begin, attempts=options.placement_attempts)

    @exposed(role="operator", changes=False)
    def upload_piece(self, ctx: Context, upload: str, offset: int, data: bytes) -> None:
        """Upload a piece of the content, in any order, also repeatedly. Parts that are never uploaded are zeros.

        The begin and the end of an upload are audited, not each piece.

        Raises:
            NotFound: The caller has no such upload.
            InvalidInput: It is not a piece of the content, or the content is not raw.
        """
        self._uploads.write(ctx, upload, offset, data)

    @exposed(role="operator")
    def finish_upload(self, ctx: Context, upload: str) -> Volume:
        """Complete the volume from the uploaded content.

        Raises:
            NotFound: The caller has no such upload.
        """
        return self._uploads.finish(ctx, upload)

    @exposed(role="operator", short=True)
    def cancel_upload(self, ctx: Context, upload: str) -> None:
        """Cancel an upload and remove its content.

        Raises:
            NotFound: The caller has no such upload.
        """
        self._uploads.cancel(ctx, upload)

    # ---------------------------------------------------------------- location of volumes

    def _full_snapshot_name(self, snapshot: str, on_host: str) -> tuple[str, str]:
        """Return a snapshot as `VOLUME@NAME`, and its host if it had to be searched for."""
        if not snapshot or "@" in snapshot or on_host not in ("", self.host):
            return snapshot, on_host
        found = [one for one in self.records.snapshots() if one.name == snapshot]
        if not found and not on_host:
            listing: SnapshotListing = self._call_own_method("snapshot_listing", SnapshotListing)
            found = [one for one in listing.snapshots if one.name == snapshot]
        if not found:
            hint = "`ostler volume snapshot list` shows all snapshots"
            raise SnapshotNotFound(f"snapshot {snapshot} not found", hint=hint, name=snapshot)
        if len(found) > 1:
            listed = " or ".join(f"{one.volume}@{one.name} on {one.host}" for one in found)
            raise InvalidInput(f"the snapshot name {snapshot} is ambiguous: {listed}", hint="give VOLUME@NAME")
        return f"{found[0].volume}@{snapshot}", found[0].host

    def _host_of_origin(self, origin: Origin) -> str:
        """Return the host on which a copy must be created, empty for any."""
        if origin.snapshot:
            return self._host_of(split_snapshot_name(origin.snapshot)[0])
        return self._host_of(origin.source) if origin.source else ""

    def _check_name_is_free(self, name: str) -> str:
        """Refuse a name that is taken; return a note about unreachable hosts, empty if all were reached."""
        try:
            self.records.volume(name)
        except VolumeNotFound:
            answers = self._find_on_other_hosts(name)
        else:
            raise AlreadyExists(f"volume {name} already exists", hint="choose another name", name=name)
        for host in answers.found:
            raise name_taken_error(name, host)
        if not answers.unreachable:
            return ""
        return f"unreachable, and may also have a volume {name}: {describe_unreachable(answers.unreachable)}"

    def _other_host_with(self, name: str) -> str:
        return next(iter(self._find_on_other_hosts(name).found), "")

    def _host_of(self, name: str) -> str:
        """Return the host of a volume; the local one has precedence."""
        try:
            self.records.volume(name)
        except VolumeNotFound:
            return only_host_with(name, self._find_on_other_hosts(name))
        return self.host

    def _locate(self, ctx: Context, name: str, on_host: str) -> tuple[str, str]:
        """Return name and host of a volume; an operation that has begun on it does not look again."""
        name, host = parse_volume_address(name, on_host)
        if ctx.is_recorded(BEGUN):
            return name, self.host
        if not ctx.is_recorded(_HOST_STEP) and (host := host or self._host_of(name)) == self.host:
            return name, host
        return name, ctx.step(_HOST_STEP, lambda: host, type=str)

    def _find_on_other_hosts(self, name: str) -> HostAnswers:
        """Query the other hosts for a volume, from a thread of the pool."""
        try:
            listing: VolumeListing = self._call_own_method("find_volume", VolumeListing, name=name)
        except ServiceNotFound:  # this topic is not served yet, or no longer: no caller can have sent this
            return HostAnswers({}, {})
        return HostAnswers({one.host: one for one in listing.volumes if one.host != self.host}, listing.unreachable)

    def _call_own_method(self, method: str, kind: Any, **arguments: Any) -> Any:
        # By a method of this service, which queries all hosts concurrently on the loop; a thread could not.
        return self.client.on(host=self.host, type=kind).call(self.topic, method, **arguments)

    def _on(self, ctx: Context, host: str, here: Callable[[], T], method: str, kind: type[T], **arguments: Any) -> T:
        """Run a request here, or forward it to the service on the host of the volume."""
        return here() if host in ("", self.host) else self._forwarder.forward(ctx, host, method, kind, arguments)

    @exposed(role="viewer", changes=False)
    async def list_volumes(self, ctx: Context, backend: str = "", on_host: str = "") -> list[Volume]:
        """Return the volumes of all reachable hosts, by name and host; see `volume_listing`.

        Args:
            ctx: The request.
            backend: Only those of backends with this name.
            on_host: Only those on this host.
        """
        return (await self._listings.volumes(backend, on_host)).volumes

    @exposed(role="viewer", changes=False, version="1.1")
    async def volume_listing(self, ctx: Context, backend: str = "", on_host: str = "") -> VolumeListing:
        """Return the result of `list_volumes`, and the unreachable hosts."""
        return await self._listings.volumes(backend, on_host)

    @exposed(role="viewer", changes=False, version="1.1")
    async def find_volume(self, ctx: Context, name: str) -> VolumeListing:
        """Return the volumes of a name on all reachable hosts: at most one, unless hosts were disconnected."""
        return await self._listings.named(name)

    @exposed(role="viewer", changes=False)
    async def get_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Return a volume on any host.

        Args:
            ctx: The request.
            name: Its name, or `NAME@HOST`.
            on_host: Its host; empty for the local host, or else the one that has it.

        Raises:
            NotFound: No reachable host has a volume of that name.
            Conflict: Several other hosts have one of that name.
        """
        return await self._listings.volume(name, on_host)

    @exposed(role="operator", durable=_RESUMED)
    def extend_volume(self, ctx: Context, name: str, size: int | str, on_host: str = "") -> Volume:
        """Extend a volume; it must be available.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            size: Its new size: bytes, or text such as `10GiB`.
            on_host: See `get_volume`.

        Raises:
            InvalidInput: The size is not valid, or not larger than before.
            NotFound: The volume was not found.
            Conflict: Its state forbids it.
            NoCapacity: There is not enough space.
        """
        wanted = parse_volume_size(size)
        name, host = self._locate(ctx, name, on_host)
        here = partial(self._volumes.extend, ctx, name, wanted)
        return self._on(ctx, host, here, "extend_volume", Volume, name=name, size=wanted)

    @exposed(role="operator", short=True, durable=_DELETION)
    def delete_volume(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Delete a volume that is available or in error, and has no snapshots.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: The volume was not found.
            Conflict: It is in use, has snapshots, or its state forbids it.
        """
        name, host = self._locate(ctx, name, on_host)
        self._on(ctx, host, partial(self._volumes.delete, ctx, name), "delete_volume", type(None), name=name)

    @exposed(role="operator", short=True)
    def attach_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Attach a volume as a block device of its host; `device` of the result is its path there.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: The volume was not found.
            Conflict: It is in use, or its state forbids it.
            NotSupported: The backend does not support it, or the daemon does not have the privileges.
        """
        name, host = self._locate(ctx, name, on_host)
        return self._on(ctx, host, partial(self._volumes.attach, ctx, name), "attach_volume", Volume, name=name)

    @exposed(role="operator", short=True)
    def detach_volume(self, ctx: Context, name: str, on_host: str = "") -> Volume:
        """Detach a volume: remove its block device.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: The volume was not found.
            Conflict: It is not in use, or its device is mounted or open.
        """
        name, host = self._locate(ctx, name, on_host)
        return self._on(ctx, host, partial(self._volumes.detach, ctx, name), "detach_volume", Volume, name=name)

    @exposed(role="operator", durable=_RESUMED)
    def create_snapshot(self, ctx: Context, volume: str, name: str, on_host: str = "") -> Snapshot:
        """Create a snapshot of a volume; the volume must be available.

        Args:
            ctx: The request.
            volume: The volume, as for `get_volume`.
            name: The name of the snapshot.
            on_host: See `get_volume`.

        Raises:
            InvalidInput: A name is not valid.
            NotFound: The volume was not found.
            Conflict: It has a snapshot of that name, or its state forbids it.
            NoCapacity: There is not enough space.
        """
        parse_name(name, "snapshot")
        volume, host = self._locate(ctx, volume, on_host)
        here = partial(self._snapshots.create, ctx, volume, name)
        return self._on(ctx, host, here, "create_snapshot", Snapshot, volume=volume, name=name)

    @exposed(role="viewer", changes=False)
    async def list_snapshots(self, ctx: Context, volume: str = "", on_host: str = "") -> list[Snapshot]:
        """Return the snapshots of all reachable hosts, or those of a volume; see `snapshot_listing`.

        Args:
            ctx: The request.
            volume: Only those of this volume, as for `get_volume`.
            on_host: Only those of this host.

        Raises:
            NotFound: The volume was not found.
        """
        return (await self._listings.snapshots(volume, on_host)).snapshots

    @exposed(role="viewer", changes=False, version="1.1")
    async def snapshot_listing(self, ctx: Context, volume: str = "", on_host: str = "") -> SnapshotListing:
        """Return the result of `list_snapshots`, and the unreachable hosts."""
        return await self._listings.snapshots(volume, on_host)

    @exposed(role="operator", short=True, durable=_DELETION)
    def delete_snapshot(self, ctx: Context, volume: str, name: str, on_host: str = "") -> None:
        """Delete a snapshot.

        Args:
            ctx: The request.
            volume: Its volume, as for `get_volume`.
            name: Its name.
            on_host: See `get_volume`.

        Raises:
            NotFound: The volume or snapshot was not found.
            Conflict: It is being copied, or its state forbids it.
        """
        parse_name(name, "snapshot")
        volume, host = self._locate(ctx, volume, on_host)
        here = partial(self._snapshots.delete, ctx, volume, name)
        self._on(ctx, host, here, "delete_snapshot", type(None), volume=volume, name=name)

    # ---------------------------------------------------------------- records and backends

    @exposed(role="operator", version="1.1")
    def manage_volume(self, ctx: Context, name: str, backend: str = "", on_host: str = "") -> Volume:
        """Manage a file without a record: it becomes a volume, together with its snapshots.

        Args:
            ctx: The request.
            name: The name of the file, and of the volume.
            backend: Its backend; empty to search all that are ready.
            on_host: Its host; empty for the local one.

        Raises:
            NotFound: The file was not found.
            Conflict: A volume of that name exists.
            InvalidInput: Several backends have such a file, and none was given.
            DriverNotReady: The backend is not ready.
        """
        here = partial(self._backends.manage, ctx, name, backend)
        return self._on(ctx, on_host, here, "manage_volume", Volume, name=name, backend=backend)

    @exposed(role="operator", version="1.1")
    def forget_volume(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Drop the records of a volume and its snapshots; the files on the backend do not change.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: The volume was not found.
            Conflict: It is being worked on, or attached.
        """
        name, host = self._locate(ctx, name, on_host)
        self._on(ctx, host, partial(self._backends.forget, ctx, name), "forget_volume", type(None), name=name)

    @exposed(role="operator", version="1.1")
    def move_backend(self, ctx: Context, old: str, new: str, force: bool = False, on_host: str = "") -> int:
        """Move the records of a backend to another backend name; return the number of volumes.

        Args:
            ctx: The request.
            old: The name in the records, of a backend that is no longer in the configuration, or has failed.
            new: The backend that has the files now.
            force: Move the records even if files are missing on the new backend.
            on_host: The host of both; empty for the local one.

        Raises:
            InvalidInput: Nothing is recorded on the old one, or the new one is not in the configuration.
            Conflict: The old one is ready, or the new one does not have the files.
            DriverNotReady: The new one is not ready.
        """
        here = partial(self._backends.move, old, new, force=force)
        return self._on(ctx, on_host, here, "move_backend", int, old=old, new=new, force=force)

    @exposed(role="operator", version="1.1")
    def accept_backend(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Accept the current directory of a backend whose identity does not match, at its next initialisation.

        Its records are then compared with the files there: a volume whose file is missing is in error.

        Args:
            ctx: The request.
            name: The backend.
            on_host: Its host; empty for the local one.

        Raises:
            InvalidInput: It is not in the configuration.
            Conflict: It is ready.
        """
        self._on(ctx, on_host, partial(self._backends.accept, name), "accept_backend", type(None), name=name)
