"""Carries out the steps of a reload that concern services and drivers, each with the way back."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.aio import WorkerPool
from ostler.aio.transaction import Transaction
from ostler.driver import DriverSpec
from ostler.errors import DriverError, NotFound, ServiceError, error_line, is_expected, join_words
from ostler.reload_types import ReloadStep
from ostler.service.service_actions import RETURN_DELAY
from ostler.service.service_plan import Action, ServicePlan, ServiceStep
from ostler.types import DriverState, ServiceState

if TYPE_CHECKING:
    from ostler.service.lifecycle import Service
    from ostler.service.service_actions import ServiceActions
    from ostler.service.service_drivers import ServiceDrivers
    from ostler.service.service_group import ServiceGroup
    from ostler.service.service_spec import ServiceSpec
    from ostler.store import Store

_log = logging.getLogger(__name__)
Work = Callable[[], Awaitable[None]]
_DRAIN_AGAIN_TIME = 0.1
_CONCURRENT = {Action.ADD_DRIVER: 1, Action.RENEW_DRIVER: 1, Action.REMOVE_DRIVER: 2}
"""Steps that are carried out together with those beside them of the same number."""
_DONE, _FAILED, _UNDONE, _NOT_UNDONE, _NOT_BEGUN = "done", "failed", "undone", "not undone", "not begun"


class ReversibleStep(NamedTuple):
    """One step that can be carried out.

    Args:
        step: What it is.
        work: Does it.
        undo: Establishes what was there before, also when `work` was done in part or not at all.
    """

    step: ServiceStep
    work: Work
    undo: Work


class ReloadOptions(NamedTuple):
    """How a reload is carried out.

    Args:
        timeout: Seconds that the `reset` of one manager may take.
        migrations: Namespace to package: the tables of all plugins.
        keep_failed: Whether drivers that do not work with what is new keep it, and are tried again.
    """

    timeout: float = math.inf
    migrations: Mapping[str, Any] = {}
    keep_failed: bool = False


class ServiceChanges:
    """Turns the steps of a plan into work, for one reload. On the loop.

    Args:
        group: The services.
        actions: Stops and starts them.
        store: The database, for the tables of services that are added.
        plan: What runs before the reload, what is wanted, and the steps from one to the other.
        options: How the reload is carried out.
        on_removed: Called with the topic of each service that was removed.
        on_options: Called with each service whose options may have changed.
    """

    def __init__(
        self,
        group: ServiceGroup,
        actions: ServiceActions,
        store: Store,
        plan: ServicePlan,
        options: ReloadOptions,
        *,
        on_removed: Callable[[str], object],
        on_options: Callable[[Service], object],
    ) -> None:
        self._group, self._actions, self._store = group, actions, store
        self._running, self._specs, self._steps = plan.running, plan.specs, plan.steps
        self._timeout, self._migrations, self._keep_failed = options
        self._on_removed, self._on_options = on_removed, on_options
        self._renewed = {(step.topic, step.driver) for step in plan.steps if step.action is Action.RENEW_DRIVER}
        self._restarting: set[str] = set()
        self.problems: list[str] = []
        """What went wrong without being a reason to go back, a line each."""

    def parts(self) -> list[ReversibleStep]:
        """Return the parts of all steps in their order: all services that are restarted stop before the first starts.

        One that needs another is stopped before it, and started after it.
        """
        make: Mapping[Action, Callable[[ServiceStep], tuple[Work, Work]]] = {
            Action.APPLY_OPTIONS: self._apply_options,
            Action.ADD_DRIVER: self._add_driver,
            Action.RENEW_DRIVER: self._renew_driver,
            Action.RESTART_SERVICE: self._start_again,
            Action.ADD_SERVICE: self._add_service,
            Action.REMOVE_DRIVER: self._remove_driver,
            Action.REMOVE_SERVICE: self._remove_service,
        }
        parts = [ReversibleStep(step, *make[step.action](step)) for step in self._steps]
        first = next((n for n, step in enumerate(self._steps) if step.action is Action.RESTART_SERVICE), 0)
        position = {topic: number for number, topic in enumerate(self._group.services)}
        restarts = [step for step in self._steps if step.action is Action.RESTART_SERVICE]
        restarts.sort(key=lambda step: -position[step.topic])
        return [
            *parts[:first],
            *(ReversibleStep(step, *self._stop_to_restart(step)) for step in restarts),
            *parts[first:],
        ]

    def commit(self) -> None:
        """Record in each service that runs by which specification it does now; nothing can be undone any more."""
        for topic, spec in self._specs.items():
            service = self._group.services.get(topic)
            if service is not None and not service.has_ended:
                service.spec = spec
        self._group.set_dependencies(
            {topic: spec.options.depends_on for topic, spec in self._specs.items() if topic in self._group.services}
        )

    def end(self) -> None:
        """Tell the callers of what was restarted what is so, whether it was carried out or undone."""
        for topic in self._restarting:
            self._group.end_restart(topic)

    # ---------------------------------------------------------------- options

    def _apply_options(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, spec, before = step.topic, self._specs[step.topic], self._running[step.topic]
        has_changes = bool(step.options)

        async def work() -> None:
            service = self._service(topic)
            self._apply_live(service, spec.options, spec.sections, spec)
            try:
                await service.reset(self._timeout)
            except ServiceError as error:
                if has_changes:
                    raise
                self.problems.append(error_line(error))  # nothing has changed for it, and nothing can be undone

        async def undo() -> None:
            if not has_changes:
                return
            service = self._service(topic)
            self._apply_live(service, before.options, before.sections, before.spec)
            await service.reset(self._timeout)

        return work, undo

    def _apply_live(self, service: Service, options: Any, sections: Mapping[str, Any], spec: ServiceSpec) -> None:
        """Put options of a service, and those of its drivers that need nothing else, in effect."""
        before = self._running[service.topic]
        service.apply_options(options, sections)
        for name, (_, new) in spec.drivers.items():
            drivers = service.drivers
            if drivers is None or name not in drivers or (service.topic, name) in self._renewed:
                continue
            wanted = before.drivers.get(name, new) if spec is before.spec else new
            drivers.discard_pending_options(name)
            if drivers.options(name) != wanted:
                drivers.apply_options(name, wanted)
        self._on_options(service)

    # ---------------------------------------------------------------- drivers

    def _add_driver(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, name, spec = step.topic, step.driver, self._specs[step.topic]

        async def work() -> None:
            await self._migrate(spec)
            drivers = self._drivers(topic)
            try:
                await drivers.add(drivers.driver_spec(spec, name))
            except DriverError as error:
                self._raise_unless_kept(error)
            finally:
                self._service(topic).update_backend_count()

        async def undo() -> None:
            service = self._service(topic)
            if service.drivers is not None and name in service.drivers:
                self._note(await self._drivers(topic).remove(name, service.options.drain_timeout))
                await service.on_driver_removed(name)

        return work, undo

    def _renew_driver(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, name, spec = step.topic, step.driver, self._specs[step.topic]
        before: list[DriverSpec] = []

        async def work() -> None:
            await self._migrate(spec)
            drivers = self._drivers(topic)
            before.append(drivers.drivers.spec(name))
            try:
                problem = await drivers.renew(drivers.driver_spec(spec, name), goes_back=not self._keep_failed)
            except DriverError as error:
                self._raise_unless_kept(error)
                return
            if problem:
                self.problems.append(problem)

        async def undo() -> None:
            drivers = self._drivers(topic)
            drivers.drivers.discard_pending_options(name)
            if before and drivers.drivers.spec(name) is not before[0]:
                await drivers.restore(before[0])

        return work, undo

    def _raise_unless_kept(self, error: DriverError) -> None:
        if not self._keep_failed:
            raise error
        self.problems.append(error_line(error))

    def _remove_driver(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, name = step.topic, step.driver
        before: list[DriverSpec] = []

        async def work() -> None:
            service, drivers = self._service(topic), self._drivers(topic)
            before.append(drivers.drivers.spec(name))
            self._note(await drivers.remove(name, service.options.drain_timeout))
            await service.on_driver_removed(name)

        async def undo() -> None:
            if before and name not in self._drivers(topic).drivers:
                await self._drivers(topic).add(before[0])

        return work, undo

    # ---------------------------------------------------------------- services

    def _stop_to_restart(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, before = step.topic, self._running[step.topic]

        async def work() -> None:
            # Its next start may fail, and take a moment to be undone: it is back in any case, and callers wait for it.
            self._restarting.add(topic)
            self._group.begin_restart(topic, "it is restarted by a reload", RETURN_DELAY)
            await self._actions.stop_to_replace(topic, "it is restarted by a reload", returns=True)

        async def undo() -> None:
            if self._service(topic).has_ended:
                await self._actions.start(topic, before.spec)

        return work, undo

    def _start_again(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, spec, before = step.topic, self._specs[step.topic], self._running[step.topic]
        ready_before = {name for name in before.drivers if self._is_ready(topic, name)}

        async def work() -> None:
            await self._migrate(spec)
            with _hint_of_reload():
                await self._actions.start(topic, spec)
            self._raise_if_drivers_lost(topic, ready_before)
            if before.state is ServiceState.DRAINING:  # an operator has said so, and not that it is to end
                await self._actions.drain(topic, _DRAIN_AGAIN_TIME, "it was draining before the reload")

        async def undo() -> None:
            service = self._group.services.get(topic)
            if service is not None and service.spec is spec and not service.has_ended:
                await self._actions.stop_to_replace(topic, "its new options are undone", returns=True)

        return work, undo

    def _is_ready(self, topic: str, name: str) -> bool:
        drivers = self._service(topic).drivers
        return drivers is not None and name in drivers and drivers.status(name).state is DriverState.READY

    def _raise_if_drivers_lost(self, topic: str, ready_before: set[str]) -> None:
        """Refuse a restart after which a driver fails that has worked before."""
        drivers = self._service(topic).drivers
        for status in drivers.statuses() if drivers is not None else ():
            if status.name in ready_before and status.state in (DriverState.FAILED, DriverState.STUCK):
                what = f"driver {status.name} of service {topic} is {status.state}: {status.why}"
                self._raise_unless_kept(DriverError(what, driver=status.name))

    def _add_service(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, spec = step.topic, self._specs[step.topic]

        async def work() -> None:
            await self._migrate(spec)
            with _hint_of_reload():
                await self._actions.start_new(spec)
            self._raise_if_drivers_lost(topic, {*spec.drivers})

        async def undo() -> None:
            await self._take_away(topic, "it is undone")

        return work, undo

    def _remove_service(self, step: ServiceStep) -> tuple[Work, Work]:
        topic, before = step.topic, self._running[step.topic]

        async def work() -> None:
            await self._take_away(topic, "it was removed from the configuration")

        async def undo() -> None:
            if topic not in self._group.services:
                await self._actions.start_new(before.spec)

        return work, undo

    async def _take_away(self, topic: str, why: str) -> None:
        service = self._group.services.get(topic)
        if service is None:
            return
        if not service.has_ended:
            await self._actions.stop_to_replace(topic, why, returns=False)
        self._note([f"service {topic} hangs: {line}" for line in service.leftover_work()])
        self._group.remove(topic)
        self._on_removed(topic)

    async def _migrate(self, spec: ServiceSpec) -> None:
        """Bring the tables of a service's plugins up to date: forward only, and harmless without the service."""
        pool = WorkerPool("ostler-migrate", 1)
        try:
            for name in spec.namespaces:
                if (package := self._migrations.get(name)) is not None:
                    add = partial(self._store.add_tables, name, package)
                    await pool.run(add, label=f"migrate {name}")
        finally:
            pool.close()

    def _note(self, lines: list[str]) -> None:
        self.problems += lines

    def _service(self, topic: str) -> Service:
        service = self._group.services.get(topic)
        if service is None:
            raise NotFound(f"service {topic} is not running on this host", topic=topic)
        return service

    def _drivers(self, topic: str) -> ServiceDrivers:
        drivers = self._service(topic).service_drivers
        if drivers is None:
            raise ServiceError(f"service {topic} is starting, its drivers cannot be changed now", topic=topic)
        return drivers


def daemon_step_position(steps: Sequence[ServiceStep]) -> int:
    """Return where the daemon's own step belongs: after all that may fail, and before anything is removed."""
    removals = (Action.REMOVE_DRIVER, Action.REMOVE_SERVICE)
    return next((number for number, step in enumerate(steps) if step.action in removals), len(steps))


class ReloadOutcome(NamedTuple):
    """What became of the steps of a reload.

    Args:
        steps: Each step with its outcome.
        failure: Why the reload failed and was undone; empty when it was carried out.
        not_undone: What could not be undone, a line each.
        was_stopped: Whether it was cut off because the daemon stops; then nothing was undone.
    """

    steps: list[ReloadStep]
    failure: str = ""
    not_undone: Sequence[str] = ()
    was_stopped: bool = False


class _Progress:
    """Carries out the parts of a reload, and knows what became of each step.

    Args:
        parts: The parts; several may belong to one step.
        should_continue: Returns False when the daemon is stopping.
        on_step: Called with each step before it starts, as it may never return.
    """

    def __init__(
        self, parts: Sequence[ReversibleStep], should_continue: Callable[[], bool], on_step: Callable[[str], object]
    ) -> None:
        self._should_continue, self._on_step = should_continue, on_step
        self._transaction = Transaction(_log)
        self._outcomes = dict.fromkeys((part.step for part in parts), _NOT_BEGUN)
        self._why: dict[ServiceStep, str] = {}
        self.was_stopped = False

    async def run_batch(self, batch: Sequence[ReversibleStep]) -> bool:
        """Carry out parts that do not wait for each other; return whether to go on. On the loop."""
        if not self._should_continue():
            self.was_stopped = True
            return False
        self._on_step(join_words(describe(part.step) for part in batch))
        errors = await asyncio.gather(*(self._run(part) for part in batch))
        self.was_stopped = any(errors) and not self._should_continue()
        return not any(errors)

    async def _run(self, part: ReversibleStep) -> Exception | None:
        name = describe(part.step)
        try:
            await self._transaction.run(name, part.work, part.undo)
        except Exception as error:  # noqa: BLE001 - whatever it is, what was done before it is undone
            self._outcomes[part.step], self._why[part.step] = _FAILED, error_line(error)
            if self._should_continue():
                cause = None if is_expected(error) else error
                _log.error("%s failed, the reload is undone: %s", name, error_line(error), exc_info=cause)
            return error
        self._outcomes[part.step] = _DONE
        return None

    async def roll_back(self) -> ReloadOutcome:
        """Take everything back, after a part has failed."""
        failures = [f"{describe(step)}: {why}" for step, why in self._why.items()]
        self._on_step("taking the reload back")
        left = await self._transaction.roll_back()
        for step, outcome in self._outcomes.items():
            name = describe(step)
            if outcome == _DONE:
                self._outcomes[step] = _NOT_UNDONE if name in left else _UNDONE
            if name in left:
                self._why.setdefault(step, left[name])
        lines = [f"{name} could not be undone: {reason}" for name, reason in left.items()]
        return self.outcome("; ".join(failures), lines)

    def outcome(self, failure: str = "", not_undone: Sequence[str] = ()) -> ReloadOutcome:
        """Return what became of the reload."""
        steps = [step.to_wire(outcome, self._why.get(step, "")) for step, outcome in self._outcomes.items()]
        return ReloadOutcome(steps, failure, not_undone, self.was_stopped)


async def carry_out(
    parts: Sequence[ReversibleStep], should_continue: Callable[[], bool], on_step: Callable[[str], object]
) -> ReloadOutcome:
    """Carry out all parts of a reload in order, or take back what was done. On the loop.

    Steps of drivers that follow each other are carried out concurrently: a busy or hanging backend delays no other.

    Args:
        parts: The parts; several may belong to one step.
        should_continue: Called before each part; False when the daemon is stopping.
        on_step: Called with each step before it starts, as it may never return.
    """
    progress = _Progress(parts, should_continue, on_step)
    for batch in _batches(parts):
        if await progress.run_batch(batch):
            continue
        return progress.outcome() if progress.was_stopped else await progress.roll_back()
    return progress.outcome()


def _batches(parts: Sequence[ReversibleStep]) -> Iterator[list[ReversibleStep]]:
    for together, group in groupby(parts, lambda part: _CONCURRENT.get(part.step.action)):
        if together is None:
            yield from ([part] for part in group)
        else:
            yield list(group)


def describe(step: ServiceStep) -> str:
    """Return a step for people: `add driver volume/second`."""
    return f"{step.action} {step.subject}".rstrip()


@contextmanager
def _hint_of_reload() -> Iterator[None]:
    """Name what helps after a reload that is undone: what it has tried to start is as it was before."""
    try:
        yield
    except ServiceError as error:
        if "`ostler service start" in error.hint:
            error.hint = "fix that, then `ostler reload`"
        raise
