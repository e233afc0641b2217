"""From a configuration and its plugins to services that can be started: everything checked, nothing begun."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ostler.config.configuration import Configuration, CoreConfiguration
from ostler.config.layers import RawConfiguration
from ostler.config.options import OptionsModel
from ostler.config.validation import validate, validate_core
from ostler.driver import Driver, DriverOptions, check_contract
from ostler.errors import PluginError, Problem, joined
from ostler.manager import Manager, ManagerOptions
from ostler.messaging.notify import OWN_SINKS, SINK_KIND, NotificationSink
from ostler.plugins import Found, Loaded, PluginHost, resolve
from ostler.service.order import DependencyCycle, start_order
from ostler.service.spec import ServiceSpec
from ostler.service.validation import ServiceChecks
from ostler.spelling import nearest

Path = tuple[str, ...]


class Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration that can be run.

    Args:
        configuration: All options, validated.
        plugins: The plugins that were found, with their records.
        specs: The enabled services.
        warnings: What an operator should know, though it keeps nothing from starting.
        sinks: The notification sinks that the configuration names and plugins bring.
    """

    configuration: Configuration
    plugins: PluginHost
    specs: list[ServiceSpec]
    warnings: list[str]
    sinks: Mapping[str, Any] = {}


def discover(
    core: CoreConfiguration, entry_points: list[Found] | None = None, step: Callable[[str], object] | None = None
) -> PluginHost:
    """Return the plugins that the configuration allows, loaded; `step` is told what is begun."""
    section = core.plugins
    plugins = PluginHost(entry_points, required=section.required, disabled=section.disabled, blocked=section.blocked)
    if step is not None:
        plugins.step = step
    plugins.discover()
    return plugins


def assemble(
    raw: RawConfiguration,
    environ: Mapping[str, str],
    *,
    plugins: PluginHost | None = None,
    entry_points: list[Found] | None = None,
    offline: bool = False,
    step: Callable[[str], object] = lambda _name: None,
) -> Assembly:
    """Return what a configuration makes, or say everything that is wrong with it at once.

    Imports managers and drivers, on the calling thread, and runs nothing else of them.

    Args:
        raw: What was read.
        environ: The environment, for credentials.
        plugins: Plugins that were discovered before (a reload does not load plugins anew).
        entry_points: What to discover plugins from; by default what is installed.
        offline: Do not look for credentials, which exist only inside the unit.
        step: Told what is begun, before something that may never come back.

    Raises:
        ConfigurationError: With all problems, in the order of the files and lines.
    """
    plugins = plugins or discover(validate_core(raw), entry_points, step)
    resolver = _Resolver(raw, plugins, step)
    resolver.run()
    step("checking options and reading secrets")
    configuration = validate(
        raw,
        resolver.models,
        environ,
        partial=resolver.partial,
        problems=[*_missing_plugins(raw, plugins), *resolver.problems],
        offline=offline,
        further=ServiceChecks(resolver.managers, resolver.drivers, resolver.extensions).faults,
    )
    specs = [resolver.spec(topic, configuration) for topic in resolver.managers]
    return Assembly(
        configuration=configuration,
        plugins=plugins,
        specs=[spec for spec in specs if spec.options.enabled],
        warnings=plugins.warnings(),
        sinks=resolver.sinks,
    )


def _missing_plugins(raw: RawConfiguration, plugins: PluginHost) -> Iterator[Problem]:
    required = raw.table(("plugins",)).get("required")
    for name, fault in plugins.missing().items():
        at = [required.index(name)] if isinstance(required, list) and name in required else []
        advice = "install or repair it, or take it out of `required`"
        yield raw.problem(("plugins", "required", *at), f"{fault}; {advice}")


def contract_faults(loaded: Loaded, contract: type, *, either: bool = False) -> list[str]:
    """Return in which points what a reference led to does not fulfil a contract; see `check_contract`.

    Of a factory that does not say what it returns nothing is known before it is called: its product is checked then.
    A class that is the contract itself is well when nothing in it is abstract.
    """
    is_class = loaded.kind == "class"
    if loaded.cls is contract and not (is_class and inspect.isabstract(contract)):
        return []
    return check_contract(loaded.cls, contract, either=either, constructed=is_class)


class _Resolver:
    """Finds the managers and drivers that a configuration names, and notes what is wrong with them."""

    def __init__(self, raw: RawConfiguration, plugins: PluginHost, step: Callable[[str], object]) -> None:
        self._raw = raw
        self._step = step
        self._plugins = plugins
        self._forbidden = plugins.forbidden()
        self.models: dict[Path, type[OptionsModel]] = {
            (name,): model for name, model in plugins.config_sections().items()
        }
        self.partial: set[Path] = set()
        self.problems: list[Problem] = []
        self.managers: dict[str, Loaded] = {}
        self.drivers: dict[str, dict[str, Loaded]] = {}
        self.extensions: dict[str, dict[str, dict[str, Any]]] = {}
        self.sinks: dict[str, Any] = {}

    def run(self) -> None:
        """Look at every service of the configuration, and at the sinks of notifications."""
        self._notification_sinks()
        for topic, table in self._raw.table(("services",)).items():
            if isinstance(table, dict):
                self._service(topic, table)
        self._order()

    def spec(self, topic: str, configuration: Configuration) -> ServiceSpec:
        """Return one service, with its validated options."""
        options = configuration.services[topic]
        assert isinstance(options, ManagerOptions)  # noqa: S101 - held by the check of the manager's `Options`
        return ServiceSpec(
            topic=topic,
            manager=self.managers[topic],
            options=options,
            drivers={
                name: (loaded, _driver_options(configuration, topic, name))
                for name, loaded in self.drivers.get(topic, {}).items()
            },
            extensions=self.extensions.get(topic, {}),
            sections=configuration.sections,
            namespaces=self._namespaces(topic),
        )

    def _namespaces(self, topic: str) -> list[str]:
        loaded = [self.managers[topic], *self.drivers.get(topic, {}).values()]
        found = [namespace for each in loaded for namespace in self._plugins.namespaces_of(each.cls)]
        return list(dict.fromkeys(found))

    # ---------------------------------------------------------------- one service

    def _service(self, topic: str, table: dict[str, Any]) -> None:
        path = ("services", topic)
        loaded = self._manager(path, table)
        self.models[path] = loaded.cls.Options if loaded is not None else ManagerOptions
        if loaded is None:
            self.partial.add(path)
        else:
            self.managers[topic] = loaded
            self.extensions[topic] = self._extensions(path, loaded.cls)
        drivers = table.get("drivers")
        for name, driver in drivers.items() if isinstance(drivers, dict) else ():
            if isinstance(driver, dict):
                self._driver((*path, "drivers", name), driver, table.get("manager"), loaded)

    def _manager(self, path: Path, table: dict[str, Any]) -> Loaded | None:
        reference = table.get("manager")
        if not isinstance(reference, str):
            return None  # missing or no text: the check of the options says so
        self._step(f"importing manager {reference} of service {path[1]}")
        try:
            loaded = resolve(reference, Manager, registered=self._plugins.managers(), forbidden=self._forbidden)
        except PluginError as error:
            self._note((*path, "manager"), f"{error}{self._failed_plugins()}")
            return None
        faults = [] if loaded.cls is Manager else contract_faults(loaded, Manager, either=True)
        if not faults and not _derives(getattr(loaded.cls, "Options", None), ManagerOptions):
            faults = ["its Options do not derive from ManagerOptions"]
        faults += _abstract(loaded)
        for fault in faults:
            self._note((*path, "manager"), f"manager {reference} is not as a manager has to be: {fault}")
        return None if faults else loaded

    def _driver(self, path: Path, table: dict[str, Any], manager: object, owner: Loaded | None) -> None:
        self.models[path] = DriverOptions
        self.partial.add(path)
        reference = table.get("driver")
        if not isinstance(reference, str) or owner is None:
            return
        contract = owner.cls.driver_type
        if contract is None:
            self._note(path, f"manager {manager} has no drivers; take this table out")
            return
        registered = {name: value for (of, name), value in self._plugins.drivers().items() if of == manager}
        loaded = self._resolved_driver(path, reference, contract, registered)
        if loaded is not None:
            self.models[path] = loaded.cls.Options
            self.partial.discard(path)
            self.drivers.setdefault(path[1], {})[path[3]] = loaded

    def _resolved_driver(
        self, path: Path, reference: str, contract: type[Driver], registered: Mapping[str, Any]
    ) -> Loaded | None:
        self._step(f"importing driver {reference} of service {path[1]}")
        try:
            loaded = resolve(reference, contract, registered=registered, forbidden=self._forbidden)
            faults = contract_faults(loaded, contract) or _abstract(loaded)
        except PluginError as error:
            faults = self._why_no_driver(reference, contract, registered)
            if not faults:
                self._note((*path, "driver"), f"{error}{self._failed_plugins()}")
            loaded = None
        if loaded is not None and not faults and not _derives(loaded.cls.Options, DriverOptions):
            faults = ["its Options do not derive from DriverOptions"]
        for fault in faults:
            self._note((*path, "driver"), f"driver {reference} is not as {contract.__name__} demands: {fault}")
        return None if faults else loaded

    def _why_no_driver(self, reference: str, contract: type[Driver], registered: Mapping[str, Any]) -> list[str]:
        """Return what a class misses that is no driver of this kind at all; empty when it is no class either."""
        try:
            loaded = resolve(reference, object, registered=registered, forbidden=self._forbidden)
        except PluginError:
            return []
        return check_contract(loaded.cls, contract) if loaded.kind == "class" else []

    def _extensions(self, path: Path, manager: type[Manager]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {kind: {} for kind in manager.extension_kinds}
        for (kind, name), value in self._plugins.extensions().items():
            if kind not in found:
                continue
            self._step(f"importing {kind} {name}")
            try:
                loaded = resolve(value, manager.extension_kinds[kind], forbidden=self._forbidden)
                _refuse_abstract(loaded)
            except PluginError as error:
                owner = self._plugins.owner("ostler_extensions", (kind, name))
                self._note((*path, "manager"), f"{kind} {name} of plugin {owner} cannot be used: {error}")
                continue
            found[kind][name] = loaded.value
        return found

    # ---------------------------------------------------------------- all of them

    def _notification_sinks(self) -> None:
        """Resolve the sinks that are named; those that nobody brings are mistakes."""
        brought = {name: value for (kind, name), value in self._plugins.extensions().items() if kind == SINK_KIND}
        for priority, names in self._raw.table(("notifications",)).items():
            for number, name in enumerate(names if isinstance(names, list) else []):
                if not isinstance(name, str) or name in OWN_SINKS or name in self.sinks:
                    continue
                path = ("notifications", priority, number)
                if name not in brought:
                    known = ", ".join(sorted([*OWN_SINKS, *brought]))
                    self._note(path, f"there is no notification sink {name}; there are {known}{self._failed_plugins()}")
                    continue
                self._step(f"importing notification sink {name}")
                try:
                    loaded = resolve(brought[name], NotificationSink, forbidden=self._forbidden)
                    _refuse_abstract(loaded)
                    self.sinks[name] = _sink(loaded)
                except PluginError as error:
                    owner = self._plugins.owner("ostler_extensions", (SINK_KIND, name))
                    self._note(path, f"notification sink {name} of plugin {owner} cannot be used: {error}")

    def _order(self) -> None:
        services = self._raw.table(("services",))
        needs = {
            topic: [needed for needed in table.get("depends_on", []) if isinstance(needed, str)]
            for topic, table in services.items()
            if isinstance(table, dict) and isinstance(table.get("depends_on", []), list)
        }
        for topic, needed in needs.items():
            for number, name in enumerate(needed):
                if name not in services:
                    what = (
                        f"service {topic} needs {name}, and there is no [services.{name}]; {_instead(name, services)}"
                    )
                    self._note(("services", topic, "depends_on", number), what)
        try:
            start_order(needs)
        except DependencyCycle as error:
            first = str(error.facts["cycle"][0]) if isinstance(error.facts["cycle"], list) else ""
            self._note(("services", first, "depends_on"), str(error))

    def _failed_plugins(self) -> str:
        failed = [
            f"plugin {row.name} {row.state}: {row.why}" for row in self._plugins.records() if row.state == "failed"
        ]
        return f" ({'; '.join(failed)})" if failed else ""

    def _note(self, path: tuple[str | int, ...], what: str) -> None:
        self.problems.append(self._raw.problem(path, what))


def _sink(loaded: Loaded) -> Any:
    """Return what makes a sink, called without arguments."""
    if loaded.kind == "object":
        return lambda: loaded.value
    return loaded.value.build if loaded.kind == "module" else loaded.value


def _abstract(loaded: Loaded) -> list[str]:
    """Return that a class cannot be made an object of, because methods of it are missing."""
    missing = sorted(getattr(loaded.cls, "__abstractmethods__", ())) if loaded.kind == "class" else []
    return [f"it is abstract, without {joined(f'`{name}`' for name in missing)}"] if missing else []


def _refuse_abstract(loaded: Loaded) -> None:
    if faults := _abstract(loaded):
        raise PluginError(faults[0])


def _driver_options(configuration: Configuration, topic: str, name: str) -> DriverOptions:
    options = configuration.drivers[topic, name]
    assert isinstance(options, DriverOptions)  # noqa: S101 - held by the check of the driver's `Options`
    return options


def _instead(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else "add it, or take it out of `depends_on`"


def _derives(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)
