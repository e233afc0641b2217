"""The operations on volumes: each records its begin, does the work, and records the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from ostler import Conflict, Context, DriverError, InvalidInput, OstlerError, StoreError, error_line, format_size
from ostler_volume.api_types import Volume
from ostler_volume.argument_validation import SECTOR_SIZE, Origin, split_snapshot_name
from ostler_volume.driver import ATTACH, CLONE, IMAGE, SNAPSHOT, UPLOAD
from ostler_volume.durable_steps import BEGUN, DONE, RunChange, as_step, recorded, run_directly
from ostler_volume.errors import AlreadyExists, BadImage, BadSize, VolumeNotFound, WrongState
from ostler_volume.images import Image
from ostler_volume.placement import mark_undone
from ostler_volume.reconciler import Reconciler
from ostler_volume.records import check_grows
from ostler_volume.volume_context import VolumeContext
from ostler_volume.volume_states import VolumeState

_INTERRUPTED_STATES = (VolumeState.CREATING, VolumeState.EXTENDING, VolumeState.ERROR)
"""The states in which an interrupted creation or extension may have left a volume."""


class VolumePlan(NamedTuple):
    """A volume to be created.

    `size` is 0 for the size of the origin, `length` the length of an upload's content, `lease` the id of the
    scheduler's promise of space.
    """

    name: str
    size: int
    backend: str
    origin: Origin
    length: int = 0
    lease: str = ""


def name_taken_error(name: str, host: str) -> AlreadyExists:
    """Return the error for a name that is taken on another host."""
    return AlreadyExists(
        f"volume {name} already exists on {host}",
        hint="choose another name; names are shared by all hosts",
        name=name, host=host,
    )  # fmt: skip


class VolumeOperations:
    """Creates, extends, deletes, attaches and detaches volumes. All methods block.

    Args:
        context: Records and drivers.
        reconciler: Cleans up after failures.
        other_host_with: Returns another host that has a volume of a name, empty if none is known.
    """

    def __init__(
        self, context: VolumeContext, reconciler: Reconciler, other_host_with: Callable[[str], str] = lambda _name: ""
    ) -> None:
        self._context = context
        self._reconciler = reconciler
        self._other_host_with = other_host_with

    def create(self, ctx: Context, plan: VolumePlan, attempt: str = "") -> Volume:
        """Create a volume on a backend of this host, or continue its creation after a restart.

        Args:
            ctx: The request.
            plan: The volume.
            attempt: Distinguishes the steps of several attempts of one operation.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
            Cancelled: The caller cancelled it, and nothing is left.
        """
        name, origin = plan.name, plan.origin
        held = [name, *([origin.source] if origin.source else [])]
        held += [split_snapshot_name(origin.snapshot)[0]] if origin.snapshot else []
        begun, done = f"{BEGUN}{attempt}", f"{DONE}{attempt}"
        with self._context.locks.lock_shared(ctx, *held):
            before = recorded(ctx, begun, Volume)
            if (made := recorded(ctx, done, Volume) or self._resumed(name, before)) is not None:
                self._notify_created(made)
                return made
            run = as_step(ctx, begun, Volume) if before is None else run_directly
            with self._open_image(plan) as image:
                driver, plan = self.begin(plan, image, created=before.created if before else 0.0, run=run)
                with self.undo_on_error(name, driver):
                    self._create_content(ctx, driver, plan, image)
                return self.finish(name, as_step(ctx, done, Volume))

    def _resumed(self, name: str, before: Volume | None) -> Volume | None:
        """Return the volume that an interrupted attempt has created; None if it has to be created.

        Args:
            name: Its name; the caller holds it.
            before: What the attempt recorded when it began; None if none has begun.

        Raises:
            AlreadyExists: The name belongs to another volume meanwhile.
            WrongState: It is in error.
            DriverNotReady: Its backend is not ready yet.
        """
        try:
            found = self._own_volume(name, before)
        except VolumeNotFound:
            return None
        if found is not None and found.state == VolumeState.ERROR:
            raise WrongState(f"volume {name} is in error: {found.why}", hint="delete it", name=name)
        return found

    def _own_volume(self, name: str, before: Volume | None) -> Volume | None:
        """Return the volume that an interrupted attempt worked on, after its record was corrected.

        Args:
            name: Its name; the caller holds it.
            before: What the attempt recorded when it began; None if none has begun.

        Returns:
            The volume; None if no attempt has begun.

        Raises:
            VolumeNotFound: It does not exist any more.
            AlreadyExists: The name belongs to another volume meanwhile.
            DriverNotReady: Its backend is not ready yet.
        """
        if before is None:
            return None
        found = self._context.records.volume(name)
        if found.created != before.created:
            raise AlreadyExists(f"volume {name} is another one now", hint="choose another name", name=name)
        if found.state in _INTERRUPTED_STATES:
            self._reconciler.resume(name, self._context.ready_driver(found.backend))
            found = self._context.records.volume(name)
        return found

    def begin(
        self, plan: VolumePlan, image: Image | None = None, *, created: float = 0.0, run: RunChange = run_directly
    ) -> tuple[Any, VolumePlan]:
        """Record that a volume is being created; return the driver, and the plan with backend and size.

        Args:
            plan: The volume; the caller holds its name.
            image: The image to copy.
            created: See `Records.add_volume`.
            run: Runs the change of the records.

        Raises:
            RequestError: It was refused, and nothing has changed.
        """
        with mark_undone():
            driver, plan = self._resolve_plan(plan, image)
            limit = self._limit(plan.backend, driver)
            records = self._context.records
            records.add_volume(plan.name, plan.backend, plan.size, plan.origin, limit, created=created, run=run)
        if plan.lease:  # the record counts instead from now on
            self._context.report_change(plan.backend, plan.lease, False)
        self._check_other_hosts(plan.name)
        return driver, plan

    def _limit(self, backend: str, driver: Any) -> int:
        """Return what a backend may promise; a failure counts as its refusal."""
        try:
            return self._context.limit(backend, driver)
        except OstlerError:
            raise
        except Exception as error:
            raise DriverError(f"cannot read the free space of backend {backend}: {error_line(error)}") from error

    def _check_other_hosts(self, name: str) -> None:
        """Refuse a name that another host has or is taking; after it was taken here, so that both notice."""
        host = self._other_host_with(name)
        if host:
            self._context.records.delete_volume(name)
            raise name_taken_error(name, host)

    @contextmanager
    def release_lease_on_error(self, plan: VolumePlan) -> Iterator[None]:
        """Release the scheduler's promise of space if the block, which creates or begins a volume, fails.

        Its backend is then queried again, because the cause may affect the next request as well.
        """
        try:
            yield
        except BaseException:
            if plan.lease:
                self._context.report_change("", plan.lease, True)
            if plan.backend:
                self._context.report_change(plan.backend, "", False)
            raise

    @contextmanager
    def undo_on_error(self, name: str, driver: Any) -> Iterator[None]:
        """Undo the record of `begin` if the block, which creates the volume, fails."""
        try:
            yield
        except AlreadyExists:
            self._context.records.delete_volume(name)  # the existing file is not ours
            raise
        except Exception as error:
            self._reconciler.recover(name, driver, error)
            with mark_undone() if self._is_gone(name) else nullcontext():
                raise

    def _is_gone(self, name: str) -> bool:
        """Return whether a volume that could not be created is known to have left nothing."""
        try:
            self._context.records.volume(name)
        except VolumeNotFound:
            return True
        except StoreError:
            return False
        return False

    def finish(self, name: str, run: RunChange = run_directly) -> Volume:
        """Record that a volume was created; `run` runs the change of the record."""
        made = self._context.records.end_transition(name, VolumeState.AVAILABLE, run=run)
        self._notify_created(made)
        return made

    def _notify_created(self, made: Volume) -> None:
        self._context.log.info("created volume %s (%s) on %s", made.name, format_size(made.size), made.backend)
        self._context.notify("created", {"name": made.name, "backend": made.backend, "size": made.size})

    @contextmanager
    def _open_image(self, plan: VolumePlan) -> Iterator[Image | None]:
        if not plan.origin.image:
            yield None
            return
        with mark_undone():
            opened = self._context.ready_driver(plan.backend, IMAGE).open_image(plan.origin.image)
        with opened as image:
            yield image

    def extend(self, ctx: Context, name: str, size: int) -> Volume:
        """Extend a volume.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._context.locks.lock_shared(ctx, name):
            before = recorded(ctx, BEGUN, Volume)
            done = recorded(ctx, DONE, Volume)
            if done is None and (own := self._own_volume(name, before)) is not None and own.size >= size:
                done = own
            if done is None:
                run = as_step(ctx, BEGUN, Volume) if before is None else run_directly
                done = self._extend(ctx, name, size, run)
        self._context.notify("extended", {"name": name, "size": size})
        return done

    def _extend(self, ctx: Context, name: str, size: int, run: RunChange) -> Volume:
        volume = self._context.records.volume(name)
        check_grows(volume, size)
        driver = self._context.ready_driver(volume.backend)
        limit = self._context.limit(volume.backend, driver)
        self._context.records.begin_transition(name, VolumeState.EXTENDING, size=size, limit=limit, run=run)
        self._run_or_recover(name, driver, lambda: driver.extend(ctx, name, size))
        end = as_step(ctx, DONE, Volume)
        return self._context.records.end_transition(name, VolumeState.AVAILABLE, size=size, run=end)

    def delete(self, ctx: Context, name: str) -> None:
        """Delete a volume.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._context.locks.lock_shared(ctx, name):
            before = recorded(ctx, BEGUN, Volume)
            if (volume := self._volume_to_delete(name, before)) is not None:
                self._delete(ctx, volume, before)
        self._context.log.info("deleted volume %s", name)
        self._context.notify("deleted", {"name": name})

    def _volume_to_delete(self, name: str, before: Volume | None) -> Volume | None:
        """Return the volume; None if an interrupted attempt, which has recorded `before`, had deleted it."""
        try:
            found = self._context.records.volume(name)
        except VolumeNotFound:
            if before is None:
                raise
            return None
        return None if before is not None and found.created != before.created else found

    def _delete(self, ctx: Context, volume: Volume, before: Volume | None) -> None:
        name, records = volume.name, self._context.records
        driver = self._context.present_driver(volume.backend)
        if before is None:
            before = records.begin_deleting(name, as_step(ctx, BEGUN, Volume))
        elif volume.state != VolumeState.DELETING:
            before = records.begin_deleting(name)
        try:
            driver.discard(name)
            driver.delete(name)
        except Conflict:
            if before.state == VolumeState.AVAILABLE:
                records.end_transition(name, VolumeState.AVAILABLE)
            else:
                records.end_transition(name, VolumeState.ERROR, why=before.why, fault=before.fault)
            raise
        except Exception as error:
            self._reconciler.fail(name, error_line(error))
            raise
        records.delete_volume(name)

    def attach(self, ctx: Context, name: str) -> Volume:
        """Attach a volume as a block device of this machine.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._context.locks.lock_shared(ctx, name):
            driver = self._context.present_driver(self._context.records.volume(name).backend, ATTACH)
            driver.check_attach()
            self._context.records.begin_transition(name, VolumeState.ATTACHING)
            device = self._run_or_recover(name, driver, lambda: driver.attach(ctx, name))
            done = self._context.records.end_transition(name, VolumeState.IN_USE, device=device)
        self._context.notify("attached", {"name": name, "device": device})
        return done

    def detach(self, ctx: Context, name: str) -> Volume:
        """Detach a volume: remove its block device.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._context.locks.lock_shared(ctx, name):
            driver = self._context.present_driver(self._context.records.volume(name).backend, ATTACH)
            before = self._context.records.begin_transition(name, VolumeState.DETACHING)
            self._run_or_recover(name, driver, lambda: driver.detach(ctx, name))
            done = self._context.records.end_transition(name, VolumeState.AVAILABLE)
        self._context.notify("detached", {"name": name, "device": before.device})
        return done

    def _run_or_recover(self, name: str, driver: Any, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._reconciler.recover(name, driver, error)
            raise

    def _resolve_plan(self, plan: VolumePlan, image: Image | None) -> tuple[Any, VolumePlan]:
        """Return the driver and the plan with backend and size; refuse invalid requests before anything is begun."""
        origin = plan.origin
        if image is not None:
            driver, least, what = self._context.ready_driver(plan.backend, IMAGE), image.size, f"the image {image.path}"
        elif origin.upload:
            driver, least = self._context.ready_driver(plan.backend, UPLOAD), plan.length
            what = f"the image {origin.upload}"
        elif origin.source or origin.snapshot:
            backend, least, what = self._origin_details(origin)
            if plan.backend not in {"", backend}:
                raise InvalidInput(
                    f"{what} is on the backend {backend}", hint="a copy must be on the backend of its source"
                )
            plan = plan._replace(backend=backend)
            driver = self._context.ready_driver(backend, CLONE if origin.source else SNAPSHOT)
        else:
            driver, least, what = self._context.ready_driver(plan.backend), 0, ""
        if plan.name in self._context.unrecorded.get(plan.backend, {}):
            raise AlreadyExists(f"a file {plan.name} without a record exists", hint="choose another name")
        size = plan.size or -(-least // SECTOR_SIZE) * SECTOR_SIZE
        if not size:
            raise BadSize(f"the size of volume {plan.name} is missing", hint="give a size, such as 10GiB")
        if size < least:
            kind = BadImage if origin.image or origin.upload else BadSize
            raise kind(
                f"{what} has {format_size(least)}, which is larger than {format_size(size)}",
                hint="use a larger size",
            )
        return driver, plan._replace(size=size)

    def _origin_details(self, origin: Origin) -> tuple[str, int, str]:
        if origin.source:
            source = self._context.records.volume(origin.source)
            return source.backend, source.size, f"volume {source.name}"
        snapshot = self._context.records.snapshot(*split_snapshot_name(origin.snapshot))
        return snapshot.backend, snapshot.size, f"snapshot {origin.snapshot}"

    @staticmethod
    def _create_content(ctx: Context, driver: Any, plan: VolumePlan, image: Image | None) -> None:
        name, size, origin = plan.name, plan.size, plan.origin
        if image is not None:
            driver.create_from_image(ctx, name, size, image)
        elif origin.source:
            driver.clone(ctx, name, size, origin.source)
        elif origin.snapshot:
            driver.create_from_snapshot(ctx, name, size, *split_snapshot_name(origin.snapshot))
        else:
            driver.create(ctx, name, size)
