"""From a configuration and its plugins to services that can be started: everything is checked, nothing started."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from typing import Any, cast

import msgspec

from ostler import fork
from ostler.config.configuration import Configuration, CoreConfiguration
from ostler.config.layers import RawConfiguration
from ostler.config.options import OptionsModel
from ostler.config.validation import validate, validate_core
from ostler.driver import Driver, DriverOptions, check_contract
from ostler.errors import PluginError, Problem, error_line, join_words
from ostler.manager import Manager, ManagerOptions
from ostler.messaging.events.notifications import BUILTIN_SINKS, SINK_KIND, NotificationSink
from ostler.plugins import DiscoveredPlugin, PluginHost, ResolvedObject, resolve_object
from ostler.plugins.plugin_records import PluginRecords
from ostler.service.left_out import BrokenParts, MissingExtensions, leave_out, leave_out_broken_sections
from ostler.service.service_checks import ServiceChecks
from ostler.service.service_spec import ServiceSpec
from ostler.service.start_order import DependencyCycle, start_order
from ostler.spelling import nearest

OptionPath = tuple[str, ...]


class ResolvedConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """A validated configuration, ready to run.

    Args:
        configuration: All options, validated.
        plugins: The plugins that were found, with their records.
        specs: The enabled services.
        warnings: Problems that do not prevent the start.
        left_out: What is left out of the configuration, because plugins cannot be used or are not loaded on purpose: a
            line each.
        broken: Those of them that are left out because their code cannot be used.
        sinks: The notification sinks that the configuration names and plugins provide.
    """

    configuration: Configuration
    plugins: PluginHost
    specs: list[ServiceSpec]
    warnings: list[str]
    sinks: Mapping[str, Any] = {}
    left_out: list[str] = []
    broken: list[str] = []

    def journaled_topics(self) -> set[str]:
        """Return the topics whose managers request that their events are stored."""
        return {spec.topic for spec in self.specs if spec.manager.cls.journal_events}


def discover_plugins(
    core: CoreConfiguration,
    entry_points: list[DiscoveredPlugin] | None = None,
    on_step: Callable[[str], object] = lambda _name: None,
    *,
    records: PluginRecords | None = None,
    is_safe: bool = False,
) -> PluginHost:
    """Return the plugins that the configuration allows, loaded; `on_step` is called with each step.

    `records` and `is_safe` say which others are left out; see `PluginHost`.
    """
    section = core.plugins
    plugins = PluginHost(
        entry_points,
        required=section.required,
        disabled=section.disabled,
        blocked=section.blocked,
        on_step=on_step,
        records=records,
        is_safe=is_safe,
    )
    plugins.discover()
    return plugins


def resolve_configuration(  # noqa: PLR0913 - what a start, a reload and a check have to say of it
    raw: RawConfiguration,
    environ: Mapping[str, str],
    *,
    plugins: PluginHost | None = None,
    entry_points: list[DiscoveredPlugin] | None = None,
    offline: bool = False,
    as_daemon: bool = False,
    on_step: Callable[[str], object] = lambda _name: None,
    records: PluginRecords | None = None,
    is_safe: bool = False,
    may_leave_out: Callable[[str], bool] = lambda _part: False,
) -> ResolvedConfiguration:
    """Resolve and validate a configuration, or raise with all of its problems at once.

    Imports managers and drivers on the calling thread, and runs none of their code besides.

    Args:
        raw: What was read.
        environ: The environment, for credentials.
        plugins: Plugins that were discovered before; what was installed since is loaded into a copy, see
            `PluginHost.refresh`.
        entry_points: What to discover plugins from; by default what is installed.
        offline: Do not need credentials, which exist only inside the unit, nor secret files that only others can read.
        as_daemon: With `offline`: this user is the daemon's, and must be able to read all secret files.
        on_step: Called with each step before it starts, as it may never return.
        records: What is remembered of plugins.
        is_safe: Whether only plugins that come with Ostler are loaded.
        may_leave_out: Whether a part whose code cannot be used is left out instead of being an error; see
            `BrokenParts`.

    Raises:
        ConfigurationError: With all problems, in the order of the files and lines.
    """
    if plugins is None:
        plugins = discover_plugins(validate_core(raw), entry_points, on_step, records=records, is_safe=is_safe)
    else:
        section = validate_core(raw).plugins
        plugins = copy(plugins)
        plugins.refresh(section.required, section.disabled, records)
    left_out, broken = leave_out(raw, plugins), BrokenParts(may_leave_out)
    leave_out_broken_sections(raw, plugins, broken)
    missing = MissingExtensions(raw, plugins, broken)

    def check(resolver: _Resolver) -> Configuration:
        checks = ServiceChecks(resolver.managers, resolver.drivers, resolver.extensions)
        return validate(
            raw,
            resolver.models,
            environ,
            partial=resolver.partial_paths,
            problems=[*_missing_plugins(raw, plugins), *resolver.problems, *broken.unmet, *missing.unmet],
            offline=offline,
            as_daemon=as_daemon,
            extra_checks=lambda tables: missing.without(checks.faults(tables)),
            tolerated=lambda: broken.problems,
        )

    while True:
        resolver = _resolve_usable(raw, plugins, on_step, broken)
        on_step("checking options and reading secrets")
        configuration = check(resolver)
        if not missing.remove_from(raw):
            break
    raw.discard_texts()
    specs = [resolver.service_spec(topic, configuration) for topic in resolver.managers]
    left_out += missing.lines
    return ResolvedConfiguration(
        configuration=configuration,
        plugins=plugins,
        specs=[spec for spec in specs if spec.options.enabled],
        warnings=[*raw.warnings, *plugins.warnings(), *left_out, *broken.lines],
        left_out=[*left_out, *broken.lines],
        broken=broken.lines,
        sinks=resolver.sinks,
    )


def _resolve_usable(
    raw: RawConfiguration, plugins: PluginHost, on_step: Callable[[str], object], broken: BrokenParts
) -> _Resolver:
    """Return everything resolved, after what cannot be used was left out."""
    while True:
        resolver = _Resolver(raw, plugins, on_step, broken)
        resolver.resolve_all()
        if not broken.remove_from(raw):
            return resolver


def _missing_plugins(raw: RawConfiguration, plugins: PluginHost) -> Iterator[Problem]:
    required = raw.table(("plugins",)).get("required")
    for name, fault in plugins.missing_required().items():
        at = [required.index(name)] if isinstance(required, list) and name in required else []
        advice = "install or fix it, or remove it from `required`"
        yield raw.problem_at(("plugins", "required", *at), f"{fault}; {advice}")


def contract_problems(loaded: ResolvedObject, contract: type, *, either: bool = False) -> list[str]:
    """Return the points in which a resolved reference violates a contract; see `check_contract`.

    A factory without a return annotation can only be checked when it has been called: its product is checked then.
    A class that is the contract itself is valid when nothing in it is abstract.
    """
    is_class = loaded.kind == "class"
    if loaded.cls is contract and not (is_class and inspect.isabstract(contract)):
        return []
    return check_contract(loaded.cls, contract, either=either, constructed=is_class)


class _Resolver:
    """Resolves the managers and drivers that a configuration names, and records what is wrong with them."""

    def __init__(
        self, raw: RawConfiguration, plugins: PluginHost, on_step: Callable[[str], object], broken: BrokenParts
    ) -> None:
        self._raw = raw
        self._broken = broken
        self._on_step = on_step
        self._plugins = plugins
        self._forbidden = plugins.blocked_packages()
        self.models: dict[OptionPath, type[OptionsModel]] = {
            (name,): model for name, model in plugins.config_sections().items()
        }
        self.partial_paths: set[OptionPath] = set()
        self.problems: list[Problem] = []
        self.managers: dict[str, ResolvedObject] = {}
        self.drivers: dict[str, dict[str, ResolvedObject]] = {}
        self.extensions: dict[str, dict[str, dict[str, Any]]] = {}
        self.sinks: dict[str, Any] = {}

    def resolve_all(self) -> None:
        """Resolve every service of the configuration, and the notification sinks."""
        self._resolve_sinks()
        for topic, table in self._raw.table(("services",)).items():
            if isinstance(table, dict):
                self._resolve_service(topic, table)
        self._check_order()

    def service_spec(self, topic: str, configuration: Configuration) -> ServiceSpec:
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
            namespaces=self._declared(topic, self._plugins.namespaces_of),
            own_sections=self._declared(topic, self._plugins.sections_of),
        )

    def _declared(self, topic: str, declared_of: Callable[[type], list[str]]) -> list[str]:
        """Return what the plugins of the manager and the drivers of a service declare."""
        loaded = [self.managers[topic], *self.drivers.get(topic, {}).values()]
        return list(dict.fromkeys(name for each in loaded for name in declared_of(each.cls)))

    # ---------------------------------------------------------------- one service

    def _resolve_service(self, topic: str, table: dict[str, Any]) -> None:
        path = ("services", topic)
        loaded = self._resolve_manager(path, table)
        self.models[path] = loaded.cls.Options if loaded is not None else ManagerOptions
        if loaded is None:
            self.partial_paths.add(path)
        else:
            self.managers[topic] = loaded
            self.extensions[topic] = self._resolve_extensions(path, loaded.cls)
            self.models[path] = self._options_model(path, loaded, table)
        drivers = table.get("drivers")
        for name, driver in drivers.items() if isinstance(drivers, dict) else ():
            if isinstance(driver, dict):
                self._resolve_driver((*path, "drivers", name), driver, table.get("manager"), loaded)

    def _resolve_manager(self, path: OptionPath, table: dict[str, Any]) -> ResolvedObject | None:
        reference = table.get("manager")
        if not isinstance(reference, str):
            return None  # missing or not a string: reported by the check of the options
        self._on_step(f"importing manager {reference} of service {path[1]}")
        try:
            loaded = resolve_object(reference, Manager, registered=self._plugins.managers(), forbidden=self._forbidden)
        except PluginError as error:
            owner = self._plugins.owner("ostler_managers", reference)
            self._add_broken(path, "manager", reference, self._unusable("manager", reference, owner, error))
            return None
        faults = [] if loaded.cls is Manager else contract_problems(loaded, Manager, either=True)
        if not faults and not _is_subclass(getattr(loaded.cls, "Options", None), ManagerOptions):
            faults = ["its `Options` class does not derive from ManagerOptions"]
        faults += _abstract_problems(loaded)
        for fault in faults:
            self._add_broken(path, "manager", reference, f"manager {reference} violates the manager contract: {fault}")
        return None if faults else loaded

    def _options_model(self, path: OptionPath, loaded: ResolvedObject, table: dict[str, Any]) -> type[OptionsModel]:
        """Return the model for this very table; what the manager's code raises is a fault of it."""
        general: type[OptionsModel] = loaded.cls.Options
        try:
            model: Any = loaded.cls.options_model(table, self.extensions[path[1]])
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's own code
            fork.exit_if_child(error)
            fault = f"its `options_model` failed: {error_line(error)}"
        else:
            if _is_subclass(model, general):
                return cast("type[OptionsModel]", model)
            fault = "its `options_model` returned no class that derives from its `Options`"
        self._add_problem((*path, "manager"), f"manager {loaded.reference} violates the manager contract: {fault}")
        return general

    def _resolve_driver(
        self, path: OptionPath, table: dict[str, Any], manager: object, owner: ResolvedObject | None
    ) -> None:
        self.models[path] = DriverOptions
        self.partial_paths.add(path)
        reference = table.get("driver")
        if not isinstance(reference, str) or owner is None:
            return
        contract = owner.cls.driver_type
        if contract is None:
            self._add_problem(path, f"manager {manager} does not support drivers; remove this table")
            return
        registered = {name: value for (of, name), value in self._plugins.drivers().items() if of == manager}
        loaded = self._load_driver(path, reference, contract, registered)
        if loaded is not None:
            self.models[path] = loaded.cls.Options
            self.partial_paths.discard(path)
            self.drivers.setdefault(path[1], {})[path[3]] = loaded

    def _load_driver(
        self, path: OptionPath, reference: str, contract: type[Driver], registered: Mapping[str, Any]
    ) -> ResolvedObject | None:
        self._on_step(f"importing driver {reference} of service {path[1]}")
        try:
            loaded = resolve_object(reference, contract, registered=registered, forbidden=self._forbidden)
            faults = contract_problems(loaded, contract) or _abstract_problems(loaded)
        except PluginError as error:
            faults = self._driver_problems(reference, contract, registered)
            if not faults:
                owner = self._plugins.owner("ostler_drivers", (self._manager_name(path), reference))
                self._add_broken(path, "driver", reference, self._unusable("driver", reference, owner, error))
            loaded = None
        if loaded is not None and not faults and not _is_subclass(loaded.cls.Options, DriverOptions):
            faults = ["its `Options` class does not derive from DriverOptions"]
        for fault in faults:
            self._add_broken(
                path, "driver", reference, f"driver {reference} violates the contract {contract.__name__}: {fault}"
            )
        return None if faults else loaded

    def _driver_problems(self, reference: str, contract: type[Driver], registered: Mapping[str, Any]) -> list[str]:
        """Return what a class lacks that is not a driver of this kind; empty when it is not a class."""
        try:
            loaded = resolve_object(reference, object, registered=registered, forbidden=self._forbidden)
        except PluginError:
            return []
        return check_contract(loaded.cls, contract) if loaded.kind == "class" else []

    def _resolve_extensions(self, path: OptionPath, manager: type[Manager]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {kind: {} for kind in manager.extension_kinds}
        for (kind, name), value in self._plugins.extensions().items():
            if kind not in found:
                continue
            self._on_step(f"importing {kind} {name}")
            try:
                loaded = resolve_object(value, manager.extension_kinds[kind], forbidden=self._forbidden)
                _raise_if_abstract(loaded)
            except PluginError as error:
                owner = self._plugins.owner("ostler_extensions", (kind, name))
                what = f"{kind} {name} of plugin {owner} cannot be used: {error}"
                problem = self._raw.problem_at((*path, "manager"), what)
                if not self._broken.leave_out(f"{kind} {name}", what, problem, user=f"service {path[1]}"):
                    self.problems.append(problem)
                continue
            found[kind][name] = loaded.value
        return found

    # ---------------------------------------------------------------- all of them

    def _resolve_sinks(self) -> None:
        """Resolve the named sinks; a sink that no plugin provides is an error."""
        brought = {name: value for (kind, name), value in self._plugins.extensions().items() if kind == SINK_KIND}
        for priority, names in self._raw.table(("notifications",)).items():
            wanted = list(enumerate(names)) if isinstance(names, list) else []
            for number, name in wanted:
                if not isinstance(name, str) or name in BUILTIN_SINKS or name in self.sinks:
                    continue
                if not (what := self._sink_fault(name, brought)):
                    continue
                is_plugins = name in brought or bool(self._plugins.failed())
                problem = self._raw.problem_at(("notifications", priority, number), what)
                if is_plugins and self._broken.leave_out(f"notification sink {name}", what, problem):
                    names.remove(name)
                else:
                    self.problems.append(problem)

    def _sink_fault(self, name: str, brought: Mapping[str, Any]) -> str:
        """Import a sink; return why it cannot be used, empty when it can."""
        if name not in brought:
            known = ", ".join(sorted([*BUILTIN_SINKS, *brought]))
            return f"notification sink {name} not found; available: {known}{self._failed_plugins_hint()}"
        self._on_step(f"importing notification sink {name}")
        try:
            loaded = resolve_object(brought[name], NotificationSink, forbidden=self._forbidden)
            _raise_if_abstract(loaded)
            self.sinks[name] = _sink_factory(loaded)
        except PluginError as error:
            owner = self._plugins.owner("ostler_extensions", (SINK_KIND, name))
            return f"notification sink {name} of plugin {owner} cannot be used: {error}"
        return ""

    def _check_order(self) -> None:
        services = self._raw.table(("services",))
        needs = {
            topic: [needed for needed in table.get("depends_on", []) if isinstance(needed, str)]
            for topic, table in services.items()
            if isinstance(table, dict) and isinstance(table.get("depends_on", []), list)
        }
        for topic, needed in needs.items():
            for number, name in enumerate(needed):
                if name not in services and f"service {name}" not in self._broken.parts:
                    what = (
                        f"service {topic} needs {name}, but there is no [services.{name}]; "
                        f"{_suggestion(name, services)}"
                    )
                    self._add_problem(("services", topic, "depends_on", number), what)
        try:
            start_order(needs)
        except DependencyCycle as error:
            first = str(error.details["cycle"][0]) if isinstance(error.details["cycle"], list) else ""
            self._add_problem(("services", first, "depends_on"), str(error))

    def _manager_name(self, path: OptionPath) -> object:
        return self._raw.table(path[:2]).get("manager")

    def _unusable(self, kind: str, reference: str, owner: str, error: PluginError) -> str:
        """Return why a manager or driver cannot be used: because of the plugin that has it, or of its name."""
        if owner:
            return f"{kind} {reference} of plugin {owner} cannot be used: {error.message}"
        return f"{error}{self._failed_plugins_hint()}"

    def _failed_plugins_hint(self) -> str:
        failed = [
            f"plugin {row.name} {row.state}: {row.why}" for row in self._plugins.statuses() if row.state == "failed"
        ]
        return f" ({'; '.join(failed)})" if failed else ""

    def _add_broken(self, path: OptionPath, key: str, reference: str, what: str) -> None:
        """Leave a service or driver out whose plugin is broken; if that may not be, it is a problem."""
        _, topic, *rest = path
        part = f"driver {rest[-1]} of service {topic}" if rest else f"service {topic}"
        is_needed = self._raw.table(("services", topic)).get("required") is True
        problem = self._raw.problem_at((*path, key), what)
        if is_needed or not self._is_plugins(reference) or not self._broken.leave_out(part, what, problem, path):
            self.problems.append(problem)

    def _is_plugins(self, reference: str) -> bool:
        """Return whether a manager or driver is, or may be, one of an installed plugin: else its name is wrong."""
        if reference in {*self._plugins.managers(), *(name for _, name in self._plugins.drivers())}:
            return True
        if ":" in reference or "." in reference:
            return reference.partition(":")[0].partition(".")[0] in self._plugins.failed_packages()
        return bool(self._plugins.failed())

    def _add_problem(self, path: tuple[str | int, ...], what: str) -> None:
        self.problems.append(self._raw.problem_at(path, what))


def _sink_factory(loaded: ResolvedObject) -> Any:
    """Return the factory of a sink, called without arguments."""
    if loaded.kind == "object":
        return lambda: loaded.value
    return loaded.value.build if loaded.kind == "module" else loaded.value


def _abstract_problems(loaded: ResolvedObject) -> list[str]:
    """Return a fault for a class that cannot be instantiated because abstract methods are left."""
    missing = sorted(getattr(loaded.cls, "__abstractmethods__", ())) if loaded.kind == "class" else []
    return [f"it is abstract, it does not implement {join_words(f'`{name}`' for name in missing)}"] if missing else []


def _raise_if_abstract(loaded: ResolvedObject) -> None:
    if faults := _abstract_problems(loaded):
        raise PluginError(faults[0])


def _driver_options(configuration: Configuration, topic: str, name: str) -> DriverOptions:
    options = configuration.drivers[topic, name]
    assert isinstance(options, DriverOptions)  # noqa: S101 - held by the check of the driver's `Options`
    return options


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else "add it, or remove it from `depends_on`"


def _is_subclass(cls: Any, base: type) -> bool:
    return isinstance(cls, type) and issubclass(cls, base)
