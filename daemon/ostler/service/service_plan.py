"""What a reload does with the services: steps as data, from what runs and what the configuration wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from ostler.config.configuration_diff import changed_options, effective_options
from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, option_metadata
from ostler.reload_types import ReloadStep
from ostler.service.start_order import start_order
from ostler.types import ServiceState

if TYPE_CHECKING:
    from ostler.driver import DriverOptions
    from ostler.manager import ManagerOptions
    from ostler.service.lifecycle import Service
    from ostler.service.service_spec import ServiceSpec


class Action(StrEnum):
    """What a step does, in the order in which the steps of a plan are carried out."""

    APPLY_OPTIONS = "apply options"
    ADD_DRIVER = "add driver"
    RENEW_DRIVER = "initialise driver"
    RESTART_SERVICE = "restart service"
    ADD_SERVICE = "add service"
    APPLY_DAEMON_OPTIONS = "apply daemon options"
    REMOVE_DRIVER = "remove driver"
    REMOVE_SERVICE = "remove service"


class RunningService(NamedTuple):
    """What runs now of one service.

    Args:
        spec: The specification that it was started with, or that the last reload has put in effect.
        options: The options in effect.
        drivers: Those of its drivers, by name.
        sections: The plugins' own sections that its manager goes by.
        state: Its state; of one that has ended, nothing runs.
    """

    spec: ServiceSpec
    options: ManagerOptions
    drivers: Mapping[str, DriverOptions]
    sections: Mapping[str, Any]
    state: ServiceState


class ServiceStep(NamedTuple):
    """One step for a service or one of its drivers.

    Args:
        action: What is done.
        topic: The service.
        driver: The driver, for steps of one.
        options: The paths of the options that the step applies.
        why: Why the step is needed, where its options do not say it.
    """

    action: Action
    topic: str
    driver: str = ""
    options: tuple[str, ...] = ()
    why: str = ""

    @property
    def subject(self) -> str:
        """What it concerns: `volume`, `volume/local`."""
        return f"{self.topic}/{self.driver}" if self.driver else self.topic

    def to_wire(self, outcome: str = "", why: str = "") -> ReloadStep:
        """Return the step as it is sent to the command."""
        return ReloadStep(
            action=str(self.action), subject=self.subject, options=[*self.options], outcome=outcome, why=why or self.why
        )


class ServicePlan(NamedTuple):
    """What a reload does with the services.

    Args:
        running: What runs now, by topic.
        specs: The runnable specifications of the new configuration, by topic.
        steps: The steps from one to the other, in their order.
    """

    running: Mapping[str, RunningService]
    specs: Mapping[str, ServiceSpec]
    steps: Sequence[ServiceStep]


def _table(topic: str, driver: str = "") -> str:
    return dotted(("services", topic, "drivers", driver) if driver else ("services", topic))


_ENDED = (ServiceState.STOPPED, ServiceState.FAILED)


def observe(services: Iterable[Service]) -> dict[str, RunningService]:
    """Return what runs now, by topic. On the loop."""
    return {
        service.topic: RunningService(
            spec=service.spec,
            options=service.options,
            drivers={name: service.driver_options(name) for name in service.drivers or service.spec.drivers},
            sections=service.sections,
            state=service.state_tracker.state,
        )
        for service in services
    }


def runnable_spec(spec: ServiceSpec, running: RunningService | None) -> ServiceSpec:
    """Return a specification as it can be run by this process: options that need a new one keep their values."""
    if running is None:
        return spec
    drivers = {
        name: (loaded, effective_options(running.drivers.get(name, wanted), wanted))
        for name, (loaded, wanted) in spec.drivers.items()
    }
    sections = {
        name: effective_options(running.sections.get(name, wanted), wanted) for name, wanted in spec.sections.items()
    }
    return replace(spec, options=effective_options(running.options, spec.options), drivers=drivers, sections=sections)


def make_plan(services: Iterable[Service], wanted: Iterable[ServiceSpec]) -> ServicePlan:
    """Return what a reload does with the services. On the loop.

    Args:
        services: What runs now.
        wanted: The specifications of the new configuration, enabled services only.
    """
    running = observe(services)
    specs = {spec.topic: runnable_spec(spec, running.get(spec.topic)) for spec in wanted}
    return ServicePlan(running, specs, plan_services(running, list(specs.values())))


def plan_services(running: Mapping[str, RunningService], wanted: Sequence[ServiceSpec]) -> list[ServiceStep]:
    """Return the steps that lead from what runs to what is wanted, in their order.

    A service that is restarted takes those that need it with it: they are stopped before, and started after it.
    Removals come last, when all else has worked: what was removed could not be relied upon to come back.

    Args:
        running: What runs now, by topic.
        wanted: The runnable specifications of all services.
    """
    specs = {spec.topic: spec for spec in wanted}
    both = {topic: spec for topic, spec in specs.items() if topic in running}
    changes = {topic: _ServiceChanges(running[topic], spec) for topic, spec in both.items()}
    restarted = {topic for topic, change in changes.items() if change.needs_restart}
    taken_along = _dependents(restarted, running) - restarted
    live = {topic: change for topic, change in changes.items() if topic not in restarted and not change.has_ended}
    steps = [change.options_step() for change in live.values()]
    steps += [step for topic, change in live.items() if topic not in taken_along for step in change.driver_steps()]
    order = start_order({topic: spec.options.depends_on for topic, spec in specs.items()})
    for topic in order:
        if topic in restarted:
            steps.append(ServiceStep(Action.RESTART_SERVICE, topic, options=changes[topic].all_options))
        elif topic in taken_along and not changes[topic].has_ended:
            steps.append(ServiceStep(Action.RESTART_SERVICE, topic, why=_why_taken_along(specs[topic], restarted)))
        elif topic not in running:
            steps.append(ServiceStep(Action.ADD_SERVICE, topic, options=(_table(topic),)))
    steps += _driver_removals(changes, restarted | taken_along)
    gone = [topic for topic in running if topic not in specs]
    steps += [ServiceStep(Action.REMOVE_SERVICE, topic, options=(_table(topic),)) for topic in reversed(gone)]
    return steps


def _driver_removals(changes: Mapping[str, _ServiceChanges], restarted: set[str]) -> list[ServiceStep]:
    return [
        ServiceStep(Action.REMOVE_DRIVER, topic, name, (_table(topic, name),))
        for topic, change in changes.items()
        if topic not in restarted and not change.has_ended
        for name in change.removed_drivers
    ]


def _dependents(topics: set[str], running: Mapping[str, RunningService]) -> set[str]:
    """Return the services that need one of `topics`, directly or not, and have not ended."""
    found = set(topics)
    while more := {
        topic
        for topic, each in running.items()
        if topic not in found and found & {*each.options.depends_on} and each.state not in _ENDED
    }:
        found |= more
    return found


def _why_taken_along(spec: ServiceSpec, restarted: set[str]) -> str:
    direct = [topic for topic in spec.options.depends_on if topic in restarted]
    return f"it needs {', '.join(direct) or 'a service that needs one of them'}"


class _ServiceChanges:
    """The differences between what runs of one service and what is wanted."""

    def __init__(self, running: RunningService, spec: ServiceSpec) -> None:
        self._running, self._spec = running, spec
        self._path = _table(spec.topic)
        self.has_ended = running.state in _ENDED
        self.own = _changed(self._path, running.options, spec.options)
        self.sections = {
            path: scope
            for name in {*running.sections, *spec.sections}
            for path, scope in _changed(name, running.sections.get(name), spec.sections.get(name)).items()
        }
        self.drivers = {
            name: _changed(_table(spec.topic, name), running.drivers[name], options)
            for name, (_, options) in spec.drivers.items()
            if name in running.drivers
        }
        self.added_drivers = [name for name in spec.drivers if name not in running.drivers]
        self.removed_drivers = [name for name in running.drivers if name not in spec.drivers]

    @property
    def needs_restart(self) -> bool:
        """Whether only another instance of the manager can go by the new options."""
        if self.has_ended:  # its next start goes by them
            return False
        own_sections = {path: scope for path, scope in self.sections.items() if self._owns(path)}
        scopes = {*self.own.values(), *(scope for each in self.drivers.values() for scope in each.values())}
        return (
            "service" in scopes
            or bool({"service", "driver"} & {*own_sections.values()})
            or self._running.spec.manager.cls is not self._spec.manager.cls
        )

    def _owns(self, path: str) -> bool:
        return path.partition(".")[0] in self._spec.own_sections

    @property
    def all_options(self) -> tuple[str, ...]:
        """The paths of all its changes."""
        tables = [_table(self._spec.topic, name) for name in (*self.added_drivers, *self.removed_drivers)]
        changed = [path for each in self.drivers.values() for path in each]
        return (*self.own, *self._own_section_paths(), *changed, *tables)

    def _own_section_paths(self) -> list[str]:
        return [path for path in self.sections if self._owns(path)]

    def options_step(self) -> ServiceStep:
        """Return the step for options that need nothing else; every service is reset, whether it has changed or not."""
        own = (*self.own, *self._own_section_paths())
        live_drivers = {name: each for name, each in self.drivers.items() if not self._needs_renewal(name)}
        own += tuple(path for each in live_drivers.values() for path in each)
        return ServiceStep(Action.APPLY_OPTIONS, self._spec.topic, options=own)

    def driver_steps(self) -> list[ServiceStep]:
        """Return the steps that add and renew drivers."""
        topic = self._spec.topic
        added = [ServiceStep(Action.ADD_DRIVER, topic, name, (_table(topic, name),)) for name in self.added_drivers]
        renewed = [name for name in self.drivers if self._needs_renewal(name)]
        return added + [ServiceStep(Action.RENEW_DRIVER, topic, name, tuple(self.drivers[name])) for name in renewed]

    def _needs_renewal(self, name: str) -> bool:
        before, after = self._running.spec.drivers.get(name), self._spec.drivers[name]
        return "driver" in self.drivers[name].values() or (before is not None and before[0].cls is not after[0].cls)


def _changed(path: str, before: OptionsModel | None, after: OptionsModel | None) -> dict[str, str]:
    """Return what has changed in a table: the path of each option to what its change needs."""
    if before is None or after is None:
        return {} if before is after else {path: "live"}
    found: dict[str, str] = {}
    for name in changed_options(before, after):
        if name == "drivers":
            continue  # tables of their own
        field = type(after).model_fields.get(name) or type(before).model_fields[name]
        found[f"{path}.{name}"] = option_metadata(field).reload
    return found
