"""What is done with volumes: each operation writes down what it begins, does it, and writes down what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from ostler import (
    Conflict,
    Context,
    DriverError,
    InvalidInput,
    OstlerError,
    StoreError,
    describe,
    format_size,
)
from ostler_volume.door import SECTOR, Origin, split_snapshot
from ostler_volume.driver import ATTACH, CLONE, IMAGE, SNAPSHOT, UPLOAD
from ostler_volume.errors import AlreadyExists, BadImage, BadSize, VolumeNotFound
from ostler_volume.images import Image
from ostler_volume.placement import undone
from ostler_volume.reconcile import Reconciler
from ostler_volume.records import check_grows
from ostler_volume.states import VolumeState
from ostler_volume.wire import Volume
from ostler_volume.workshop import Workshop


class Plan(NamedTuple):
    """A volume that is to be made.

    `size` is 0 for as large as its origin, `length` that of an upload's content, `lease` the id of the scheduler's
    promise of room for it.
    """

    name: str
    size: int
    backend: str
    origin: Origin
    length: int = 0
    lease: str = ""


def name_is_taken(name: str, host: str) -> AlreadyExists:
    """Return the refusal of a name that another host has a volume of."""
    return AlreadyExists(
        f"there is a volume {name} on {host} already",
        hint="take another name: names are those of all hosts together",
        name=name, host=host,
    )  # fmt: skip


class VolumeWork:
    """Creates, extends, deletes, attaches and detaches volumes. Everything blocks.

    Args:
        workshop: Records and drivers.
        reconciler: Clears up after what failed.
        taken_elsewhere: Returns the other host that has a volume of a name, empty when none is known.
    """

    def __init__(
        self, workshop: Workshop, reconciler: Reconciler, taken_elsewhere: Callable[[str], str] = lambda _name: ""
    ) -> None:
        self._shop = workshop
        self._reconciler = reconciler
        self._taken_elsewhere = taken_elsewhere

    def create(self, ctx: Context, plan: Plan) -> Volume:
        """Make a volume on a backend of this host.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
            CallCancelled: The caller took it back, and nothing is left of it.
        """
        name, origin = plan.name, plan.origin
        held = [name, *([origin.source] if origin.source else [])]
        held += [split_snapshot(origin.snapshot)[0]] if origin.snapshot else []
        with self._shop.claims.hold(ctx, *held), self._image(plan) as image:
            driver, plan = self.begin(plan, image)
            with self.undone(name, driver):
                self._fill(ctx, driver, plan, image)
            return self.finish(name)

    def begin(self, plan: Plan, image: Image | None = None) -> tuple[Any, Plan]:
        """Write down that a volume is being made; return the driver, and the plan with backend and size.

        Args:
            plan: What is to be made; its name is held by the caller.
            image: The image that it is made from.

        Raises:
            RequestError: It was refused, and nothing has changed.
        """
        with undone():
            driver, plan = self._checked(plan, image)
            limit = self._limit(plan.backend, driver)
            self._shop.records.add_volume(plan.name, plan.backend, plan.size, plan.origin, limit)
        if plan.lease:  # the record counts from now on
            self._shop.changed(plan.backend, plan.lease, False)
        self._check_elsewhere(plan.name)
        return driver, plan

    def _limit(self, backend: str, driver: Any) -> int:
        """Return what a backend may promise; one that cannot say has refused."""
        try:
            return self._shop.limit(backend, driver)
        except OstlerError:
            raise
        except Exception as error:
            raise DriverError(f"the backend {backend} cannot say what room it has: {describe(error)}") from error

    def _check_elsewhere(self, name: str) -> None:
        """Refuse a name that another host has, or is just taking: after it was taken here, so that both see it."""
        host = self._taken_elsewhere(name)
        if host:
            self._shop.records.remove(name)
            raise name_is_taken(name, host)

    @contextmanager
    def leased(self, plan: Plan) -> Iterator[None]:
        """Give the scheduler's promise of room back when the block, which makes a volume or begins one, fails.

        Its backend is asked anew then: it may be in the way of the next request as well.
        """
        try:
            yield
        except BaseException:
            if plan.lease:
                self._shop.changed("", plan.lease, True)
            if plan.backend:
                self._shop.changed(plan.backend, "", False)
            raise

    @contextmanager
    def undone(self, name: str, driver: Any) -> Iterator[None]:
        """Undo what `begin` wrote down when the block, which makes the volume, fails."""
        try:
            yield
        except AlreadyExists:
            self._shop.records.remove(name)  # the file that is in the way is not ours
            raise
        except Exception as error:
            self._reconciler.recover(name, driver, error)
            with undone() if self._is_gone(name) else nullcontext():
                raise

    def _is_gone(self, name: str) -> bool:
        """Return whether nothing is left of a volume that could not be made, as far as is known."""
        try:
            self._shop.records.volume(name)
        except VolumeNotFound:
            return True
        except StoreError:
            return False
        return False

    def finish(self, name: str) -> Volume:
        """Write down that a volume is made."""
        made = self._shop.records.settle(name, VolumeState.AVAILABLE)
        self._shop.log.info("volume %s (%s) is made on %s", name, format_size(made.size), made.backend)
        self._shop.tell("created", {"name": name, "backend": made.backend, "size": made.size})
        return made

    @contextmanager
    def _image(self, plan: Plan) -> Iterator[Image | None]:
        if not plan.origin.image:
            yield None
            return
        with undone():
            opened = self._shop.backend(plan.backend, IMAGE).open_image(plan.origin.image)
        with opened as image:
            yield image

    def extend(self, ctx: Context, name: str, size: int) -> Volume:
        """Make a volume larger.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._shop.claims.hold(ctx, name):
            volume = self._shop.records.volume(name)
            check_grows(volume, size)
            driver = self._shop.backend(volume.backend)
            self._shop.records.begin(
                name, VolumeState.EXTENDING, size=size, limit=self._shop.limit(volume.backend, driver)
            )
            self._do(name, driver, lambda: driver.extend(ctx, name, size))
            done = self._shop.records.settle(name, VolumeState.AVAILABLE, size=size)
        self._shop.tell("extended", {"name": name, "size": size})
        return done

    def delete(self, ctx: Context, name: str) -> None:
        """Delete a volume.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._shop.claims.hold(ctx, name):
            driver = self._shop.working(self._shop.records.volume(name).backend)
            before = self._shop.records.begin_deleting(name)
            try:
                driver.discard(name)
                driver.delete(name)
            except Conflict:
                if before.state == VolumeState.AVAILABLE:
                    self._shop.records.settle(name, VolumeState.AVAILABLE)
                else:
                    self._shop.records.settle(name, VolumeState.ERROR, why=before.why, fault=before.fault)
                raise
            except Exception as error:
                self._reconciler.fail(name, describe(error))
                raise
            self._shop.records.remove(name)
        self._shop.log.info("volume %s is deleted", name)
        self._shop.tell("deleted", {"name": name})

    def attach(self, ctx: Context, name: str) -> Volume:
        """Make a volume a block device of this machine.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._shop.claims.hold(ctx, name):
            driver = self._shop.working(self._shop.records.volume(name).backend, ATTACH)
            driver.check_attach()
            self._shop.records.begin(name, VolumeState.ATTACHING)
            device = self._do(name, driver, lambda: driver.attach(ctx, name))
            done = self._shop.records.settle(name, VolumeState.IN_USE, device=device)
        self._shop.tell("attached", {"name": name, "device": device})
        return done

    def detach(self, ctx: Context, name: str) -> Volume:
        """Take the block device of a volume away.

        Raises:
            RequestError: It was refused, and nothing has changed; each reason has its own class.
        """
        with self._shop.claims.hold(ctx, name):
            driver = self._shop.working(self._shop.records.volume(name).backend, ATTACH)
            before = self._shop.records.begin(name, VolumeState.DETACHING)
            self._do(name, driver, lambda: driver.detach(ctx, name))
            done = self._shop.records.settle(name, VolumeState.AVAILABLE)
        self._shop.tell("detached", {"name": name, "device": before.device})
        return done

    def _do(self, name: str, driver: Any, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self._reconciler.recover(name, driver, error)
            raise

    def _checked(self, plan: Plan, image: Image | None) -> tuple[Any, Plan]:
        """Return the driver and the plan with backend and size known; refuse what can be refused before it is begun."""
        origin = plan.origin
        if image is not None:
            driver, least, what = self._shop.backend(plan.backend, IMAGE), image.size, f"the image {image.path}"
        elif origin.upload:
            driver, least = self._shop.backend(plan.backend, UPLOAD), plan.length
            what = f"the image {origin.upload}"
        elif origin.source or origin.snapshot:
            backend, least, what = self._origin_facts(origin)
            if plan.backend not in {"", backend}:
                raise InvalidInput(
                    f"{what} is on the backend {backend}", hint="a copy stays on the backend of its source"
                )
            plan = plan._replace(backend=backend)
            driver = self._shop.backend(backend, CLONE if origin.source else SNAPSHOT)
        else:
            driver, least, what = self._shop.backend(plan.backend), 0, ""
        if plan.name in self._shop.unknown.get(plan.backend, {}):
            raise AlreadyExists(f"there is a file {plan.name} without a record", hint="take another name")
        size = plan.size or -(-least // SECTOR) * SECTOR
        if not size:
            raise BadSize(f"volume {plan.name} needs a size", hint="for instance 10GiB")
        if size < least:
            kind = BadImage if origin.image or origin.upload else BadSize
            raise kind(
                f"{what} has {format_size(least)}, which is more than {format_size(size)}",
                hint="ask for a larger volume",
            )
        return driver, plan._replace(size=size)

    def _origin_facts(self, origin: Origin) -> tuple[str, int, str]:
        if origin.source:
            source = self._shop.records.volume(origin.source)
            return source.backend, source.size, f"volume {source.name}"
        snapshot = self._shop.records.snapshot(*split_snapshot(origin.snapshot))
        return snapshot.backend, snapshot.size, f"snapshot {origin.snapshot}"

    @staticmethod
    def _fill(ctx: Context, driver: Any, plan: Plan, image: Image | None) -> None:
        name, size, origin = plan.name, plan.size, plan.origin
        if image is not None:
            driver.create_from_image(ctx, name, size, image)
        elif origin.source:
            driver.clone(ctx, name, size, origin.source)
        elif origin.snapshot:
            driver.create_from_snapshot(ctx, name, size, *split_snapshot(origin.snapshot))
        else:
            driver.create(ctx, name, size)
