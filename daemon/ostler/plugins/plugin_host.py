"""The plugin host: loads plugins in guarded steps, one at a time, and keeps a record of every one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from importlib import invalidate_caches
from pathlib import PurePath
from typing import Any, TypeVar

import msgspec
import pluggy

from ostler import fork, hookspecs
from ostler.clock import Clock, SystemClock
from ostler.errors import PluginError, Problem, error_line, is_expected, join_words
from ostler.plugins import discovery, hook_implementations, hook_results
from ostler.plugins.discovery import DiscoveredPlugin
from ostler.plugins.plugin_directory import active_plugins
from ostler.plugins.plugin_records import PluginRecords
from ostler.plugins.requirements import LoadedPlugins, Requirements, missing_here, read_requirements, unmet_plugins
from ostler.spelling import nearest
from ostler.types import PluginState, PluginStatus
from ostler.version_numbers import is_compatible, parse_version

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _PluginRecord(msgspec.Struct):
    found: DiscoveredPlugin
    state: PluginState = PluginState.FOUND
    why: str = ""
    api: str = ""
    hooks: list[str] = []
    seconds: float = 0.0
    plugin: Any = None
    provides: dict[str, Mapping[Any, Any]] = {}
    needs: Requirements | None = None
    since: float = 0.0
    errors: int = 0
    last_error: str = ""
    last_error_at: float = 0.0

    def count_error(self, text: str, now: float) -> None:
        """Count a hook that failed."""
        self.errors, self.last_error, self.last_error_at = self.errors + 1, text, now

    def count_errors_of(self, other: _PluginRecord) -> None:
        """Take over what was counted in another record of the same plugin."""
        self.errors, self.last_error, self.last_error_at = other.errors, other.last_error, other.last_error_at


_KEPT_STATES = (PluginState.LOADED, PluginState.BLOCKED)
"""The states of plugins that a refresh keeps although they are no longer installed: what is imported goes on."""


class PluginHost:
    """Discovers plugins, loads them, and collects what they declare. Load on the main thread.

    The steps for each plugin, in the order of names: found, disabled or blocked by the configuration, imported, a
    compatible version of the hooks, hooks that exist and match, declarations that are valid and not taken. A failure in
    a step, including SystemExit, affects only that plugin: it is recorded as failed with the reason, contributes
    nothing, and loading continues with the next one.

    Args:
        entry_points: What to load; by default the installed ones of the group `ostler`.
        required: Names of plugins that must load; see `problems`.
        disabled: Names of plugins that are found and listed but not loaded.
        blocked: Names of plugins that must not be imported at all; see `blocked_packages`.
        api_version: The version of the hooks, `MAJOR.MINOR`.
        clock: The source of time, to measure how long each plugin takes.
        on_step: Called with each step before code of a plugin runs, which may never return.
        records: Which plugins somebody has disabled, and in whose code the daemon has crashed.
        is_safe: Whether only bundled plugins are loaded.
    """

    def __init__(  # noqa: PLR0913 - all that decides what is loaded
        self,
        entry_points: Iterable[DiscoveredPlugin] | None = None,
        *,
        required: Collection[str] = (),
        disabled: Collection[str] = (),
        blocked: Collection[str] = (),
        api_version: str = hookspecs.API_VERSION,
        clock: Clock | None = None,
        on_step: Callable[[str], object] = lambda _name: None,
        records: PluginRecords | None = None,
        is_safe: bool = False,
    ) -> None:
        self._plugin_records = records or PluginRecords()
        self.is_safe = is_safe
        """Whether only bundled plugins are loaded."""
        self._entry_points = entry_points
        self._required = list(dict.fromkeys(required))
        self._disabled = list(dict.fromkeys(disabled))
        self._blocked = list(dict.fromkeys(blocked))
        self._api_version = api_version
        self._clock = clock or SystemClock()
        self._plugin_manager = _make_plugin_manager()
        self._specs = {name: getattr(hookspecs, name) for name in vars(self._plugin_manager.hook) if name[0] != "_"}
        self._records: list[_PluginRecord] = []
        self._imported_versions: dict[str, str] = {}
        """The version of each distribution of which something may have been imported."""
        self._is_discovered = False
        self._on_step = on_step

    def discover(self) -> None:
        """Find and load every plugin. Raises nothing; failures are in `records`, `problems` and `warnings`."""
        if self._is_discovered:
            return
        self._is_discovered = True
        entry_points = discovery.installed_plugins() if self._entry_points is None else self._entry_points
        for found in sorted(entry_points, key=lambda each: (each.name, each.distribution)):
            record = _PluginRecord(found)
            self._records.append(record)
            begun = self._clock.monotonic()
            self._load_plugin(record)
            record.since = record.since or self._clock.wall()
            if record.state in (PluginState.LOADED, PluginState.FAILED):
                record.seconds = self._clock.monotonic() - begun
        self._fail_unmet()

    def __copy__(self) -> PluginHost:
        """Return a host with the same plugins; what is loaded into it, or fails there, does not change this one."""
        made = object.__new__(type(self))
        manager = _make_plugin_manager()
        for record in self._records:
            if record.state is PluginState.LOADED:
                manager.register(record.plugin, record.found.name)
        records = [copy(record) for record in self._records]
        vars(made).update(vars(self), _records=records, _plugin_manager=manager)
        return made

    def refresh(
        self, required: Collection[str], disabled: Collection[str], records: PluginRecords | None = None
    ) -> None:
        """Load what was installed since, and what had failed or was disabled; unload what is disabled now.

        For a reload, on its thread, and on a copy: a reload may be refused, undone, or abandoned while this still
        runs; see `adopt`. Code that has been imported stays as it is: another version of it needs a new process.
        Raises nothing; see `discover`.

        Args:
            required: Names of plugins that must load.
            disabled: Names of plugins that are listed but not loaded.
            records: Which plugins somebody has disabled; None for those that are known.
        """
        invalidate_caches()
        self._plugin_records = records or self._plugin_records
        self._required, self._disabled = list(dict.fromkeys(required)), list(dict.fromkeys(disabled))
        for record in self._records:
            if record.state is PluginState.LOADED and not self._is_wanted(record):
                self._unload(record)
        entry_points = discovery.installed_plugins() if self._entry_points is None else self._entry_points
        installed = {(found.name, found.distribution): found for found in entry_points}
        self._records = [
            record
            for record in self._records
            if record.state in _KEPT_STATES or (record.found.name, record.found.distribution) in installed
        ]
        for key, found in sorted(installed.items()):
            before = next((each for each in self._records if (each.found.name, each.found.distribution) == key), None)
            if before is None or before.state is PluginState.FAILED or self._is_enabled_again(before):
                self._load_again(found, before)
        self._fail_unmet()

    def adopt(self, other: PluginHost) -> None:
        """Become what a copy of this host is after its `refresh`. On the loop."""
        earlier = self._records
        vars(self).update(vars(other))
        for record in self._records:
            before = next((each for each in earlier if each.plugin is not None and each.plugin is record.plugin), None)
            if before is not None and before.errors > record.errors:  # hooks that failed meanwhile
                record.count_errors_of(before)

    def _is_wanted(self, record: _PluginRecord) -> bool:
        hold = self._plugin_records.hold_of(record.found.name, record.found.version)
        return record.found.name not in self._disabled and hold is None

    def _is_enabled_again(self, record: _PluginRecord) -> bool:
        is_left_out = record.state in (PluginState.DISABLED, PluginState.QUARANTINED)
        return is_left_out and self._is_wanted(record) and (record.found.is_bundled or not self.is_safe)

    def _unload(self, record: _PluginRecord) -> None:
        self._plugin_manager.unregister(record.plugin)
        record.state, record.why, record.since = PluginState.DISABLED, "disabled in [plugins]", self._clock.wall()
        record.plugin, record.provides = None, {}
        self._hold_back(record)

    def _load_again(self, found: DiscoveredPlugin, before: _PluginRecord | None) -> None:
        record = _PluginRecord(found)
        others = [each for each in self._records if each is not before]
        self._records = sorted([*others, record], key=lambda each: (each.found.name, each.found.distribution))
        imported = self._imported_versions.get(found.distribution, found.version)
        if imported != found.version:
            what = f"version {imported} of {found.distribution} was imported before, {found.version} is installed now"
            self._fail(record, PluginError(what, hint="restart the daemon to use it"))
            return
        begun = self._clock.monotonic()
        self._load_plugin(record)
        record.seconds = self._clock.monotonic() - begun
        record.since = record.since or self._clock.wall()

    def statuses(self) -> list[PluginStatus]:
        """Return the status of every plugin that was found, sorted by name."""
        now = self._clock.wall()
        return [
            PluginStatus(
                name=record.found.name,
                state=record.state,
                why=record.why,
                distribution=record.found.distribution,
                version=record.found.version,
                module=record.found.value,
                api=record.api,
                required=record.found.name in self._required,
                hooks=record.hooks,
                seconds=record.seconds,
                bundled=record.found.is_bundled,
                since=record.since,
                errors=record.errors,
                last_error=record.last_error,
                last_error_at=record.last_error_at,
                crashes=len(self._plugin_records.recent_crashes(record.found.name, record.found.version, now)),
            )
            for record in self._records
        ]

    def left_out(self) -> dict[str, str]:
        """Return the installed plugins that are not loaded on purpose, but for those of the configuration: name to why.

        They were disabled by a command, quarantined, or left out by the safe mode.
        """
        return {
            record.found.name: f"{record.state}: {record.why}"
            for record in self._records
            if record.state is PluginState.QUARANTINED
            or (record.state is PluginState.DISABLED and record.found.name not in self._disabled)
        }

    def left_out_packages(self) -> dict[str, str]:
        """Return the top package of each plugin of `left_out`, and the name of the plugin."""
        names = self.left_out()
        return {
            record.found.module.partition(".")[0]: record.found.name
            for record in self._records
            if record.found.name in names
        }

    def failed(self) -> dict[str, str]:
        """Return the plugins that could not be loaded: name to why."""
        return {record.found.name: record.why for record in self._records if record.state is PluginState.FAILED}

    def failed_packages(self) -> set[str]:
        """Return the top packages of the plugins that could not be loaded."""
        failed = [record for record in self._records if record.state is PluginState.FAILED]
        return {record.found.module.partition(".")[0] for record in failed}

    def packages(self) -> list[str]:
        """Return the top packages of the plugins that have loaded."""
        loaded = [record for record in self._records if record.state is PluginState.LOADED]
        return [record.found.module.partition(".")[0] for record in loaded]

    def newer_on_disk(self) -> list[str]:
        """Return a line for each loaded plugin whose installed version has changed. Reads directories."""
        lines = []
        for record in self._records:
            found = record.found
            if record.state is not PluginState.LOADED or not found.distribution:
                continue
            version = discovery.version_on_disk(found.distribution)
            if version != found.version:
                now = f"{version} is installed" if version else "it is no longer installed"
                lines.append(f"plugin {found.name} {found.version} is running, {now}: restart the daemon to apply that")
        return lines

    def problems(self) -> list[Problem]:
        """Return what prevents the start: each required plugin that is missing or failed to load.

        Also a plugin that comes with Ostler and is quarantined: the host would lack what it is there for.
        """
        return [Problem("", fault) for fault in self.missing_required().values()]

    def missing_required(self) -> dict[str, str]:
        """Return the required plugins that are missing or failed to load: name to the reason."""
        missing = {name: fault for name in self._required if (fault := self._required_problem(name))}
        for record in self._records:
            if record.state is PluginState.QUARANTINED and record.found.is_bundled:
                missing.setdefault(
                    record.found.name, f"the bundled plugin {record.found.name} is quarantined: {record.why}"
                )
        return missing

    def warnings(self) -> list[str]:
        """Return warnings: installed plugins that cannot be used, names in `[plugins]` that are not installed."""
        known = {record.found.name for record in self._records}
        unusable = [str(active_plugins.problem)] if active_plugins.problem is not None else []
        return unusable + [
            f"[plugins] {option}: plugin {name} is not installed{_meant(name, known)}"
            for option, names in (("disabled", self._disabled), ("blocked", self._blocked))
            for name in names
            if name not in known
        ]

    def managers(self) -> dict[str, Any]:
        """Return the managers of the plugins: registered name to class or import path."""
        return self._merge_results("ostler_managers")

    def drivers(self) -> dict[tuple[str, str], Any]:
        """Return the drivers of the plugins: (manager name, driver name) to class or import path."""
        return self._merge_results("ostler_drivers")

    def extensions(self) -> dict[tuple[str, str], Any]:
        """Return the extensions for other plugins' managers: (kind, name) to the object."""
        return self._merge_results("ostler_extensions")

    def config_sections(self) -> dict[str, Any]:
        """Return the plugins' configuration sections: name of the table to its model."""
        return self._merge_results("ostler_config_sections")

    def migrations(self) -> dict[str, Any]:
        """Return the plugins' database migrations: namespace to package."""
        return self._merge_results("ostler_migrations")

    def namespaces_of(self, cls: type) -> list[str]:
        """Return the table namespaces of the plugins that define a class or a base of it."""
        return self._declared_by_plugins_of(cls, "ostler_migrations")

    def sections_of(self, cls: type) -> list[str]:
        """Return the configuration sections of the plugins that define a class or a base of it."""
        return self._declared_by_plugins_of(cls, "ostler_config_sections")

    def _declared_by_plugins_of(self, cls: type, hook: str) -> list[str]:
        packages = {base.__module__.partition(".")[0] for base in getattr(cls, "__mro__", ())}
        return [
            name
            for record in self._records
            if record.found.module.partition(".")[0] in packages
            for name in record.provides.get(hook, {})
        ]

    def owner(self, hook: str, key: Any) -> str:
        """Return the name of the plugin that declared `key` in a hook, empty when none did."""
        for record in self._records:
            if key in record.provides.get(hook, {}):
                return record.found.name
        return ""

    def blocked_packages(self) -> dict[str, str]:
        """Return what must not be imported: top package of each blocked plugin to the plugin's name."""
        return {
            record.found.module.partition(".")[0]: record.found.name
            for record in self._records
            if record.state is PluginState.BLOCKED
        }

    def call_hooks(self, hook: str, /, **facts: Any) -> list[str]:
        """Call a notification hook of every plugin, one at a time; return and log the failures.

        Args:
            hook: `ostler_started` or `ostler_stopping`.
            facts: The arguments of the hook.
        """
        problems = []
        for record in self._records:
            for function in self._hook_functions(record, hook):
                self._on_step(f"{hook} of plugin {record.found.name}")
                try:
                    self._call_hook(function, facts)
                except PluginError as error:
                    record.count_error(f"{hook}: {error.message}", self._clock.wall())
                    problem = f"plugin {record.found.name}: {hook} failed: {error.message}"
                    _log.error("%s", problem, exc_info=_unexpected_error(error))
                    problems.append(problem)
        return problems

    # The guarded steps ----------------------------------------------------------------------------------------------

    def _load_plugin(self, record: _PluginRecord) -> None:
        name = record.found.name
        if name in self._blocked:
            record.state, record.why = PluginState.BLOCKED, "blocked in [plugins]"
            return
        if name in self._disabled:
            record.state, record.why = PluginState.DISABLED, "disabled in [plugins]"
            return
        if self._hold_back(record):
            return
        try:
            self._raise_if_duplicate(record)
            self._on_step(f"importing plugin {name} ({record.found.value})")
            self._imported_versions.setdefault(record.found.distribution, record.found.version)
            record.plugin = self._import(record)
            self._check_version(record)
            self._check_environment(record)
            self._register(record)
            self._collect_declarations(record)
        except PluginError as error:
            self._fail(record, error)
            return
        record.state = PluginState.LOADED
        record.why = "" if record.hooks else "it has no hooks"

    def _import(self, record: _PluginRecord) -> Any:
        try:
            return _run_guarded(record.found.load, f"{record.found.value} cannot be imported")
        except PluginError as error:
            cause = error.__cause__
            missing = getattr(cause, "name", None) if type(cause) is ModuleNotFoundError else None
            if missing and missing.partition(".")[0] != record.found.module.partition(".")[0]:
                hint = f"install the package that provides {missing} into the environment of Ostler"
                raise PluginError(error.message, hint=hint) from cause
            raise

    def _hold_back(self, record: _PluginRecord) -> bool:
        """Leave out a plugin that was disabled by a command or is quarantined, or that the safe mode does not load."""
        hold = self._plugin_records.hold_of(record.found.name, record.found.version)
        if hold is not None:
            record.state = PluginState.QUARANTINED if hold.is_quarantine else PluginState.DISABLED
            record.why, record.since = hold.why, hold.since
        elif self.is_safe and not record.found.is_bundled:
            record.state = PluginState.DISABLED
            record.why = "safe mode: `ostler run --safe` loads only plugins that come with Ostler"
        else:
            return False
        return True

    def _fail(self, record: _PluginRecord, error: PluginError) -> None:
        record.state, record.why = PluginState.FAILED, error_line(error)
        record.count_error(record.why, self._clock.wall())
        record.provides = {}
        if record.plugin is not None and self._plugin_manager.get_plugin(record.found.name) is record.plugin:
            self._plugin_manager.unregister(record.plugin)
        _log.error("plugin %s: %s", record.found.name, error_line(error), exc_info=_unexpected_error(error))

    def _raise_if_duplicate(self, record: _PluginRecord) -> None:
        for other in self._records:
            if other is not record and other.found.name == record.found.name:
                raise PluginError(
                    f"two plugins are named {record.found.name}: {_format_origin(other.found)} and "
                    f"{_format_origin(record.found)}",
                    hint="uninstall one of them",
                )

    def _check_version(self, record: _PluginRecord) -> None:
        record.api = wanted = getattr(record.plugin, "ostler_api", self._api_version)
        numbers = parse_version(wanted)
        if numbers is None:
            raise PluginError(f"its `ostler_api` is {wanted!r}, it must be a string like {self._api_version!r}")
        if is_compatible(self._api_version, wanted):
            return
        older = numbers < (parse_version(self._api_version) or numbers)
        raise PluginError(
            f"it requires version {wanted} of the hooks, this Ostler has {self._api_version}",
            hint="install a newer version of the plugin" if older else "install a newer Ostler",
        )

    def _check_environment(self, record: _PluginRecord) -> None:
        needs = _run_guarded(lambda: read_requirements(record.plugin), "")
        if needs == Requirements():
            return
        record.needs = needs
        if missing := list(missing_here(needs, self._api_version)):
            raise PluginError(f"it needs {join_words(what for what, _ in missing)}", hint=missing[0][1])

    def _fail_unmet(self) -> None:
        """Have each plugin fail that needs another one which has not loaded, and those that need it as well."""
        while any(record.needs for record in self._records if record.state is PluginState.LOADED):
            unmet = unmet_plugins(self._loaded_plugins())
            for record in self._records:
                if record.state is PluginState.LOADED and record.found.name in unmet:
                    what, hint = unmet[record.found.name]
                    self._fail(record, PluginError(f"it needs {what}", hint=hint))
            if not unmet:
                return

    def _loaded_plugins(self) -> LoadedPlugins:
        loaded = [record for record in self._records if record.state is PluginState.LOADED]
        names = {record.found.name for record in loaded}
        return LoadedPlugins(
            needs={record.found.name: record.needs for record in loaded if record.needs is not None},
            versions={record.found.name: record.found.version for record in loaded},
            managers=self.managers().keys(),
            others={
                record.found.name: f"{record.state}: {record.why}"
                for record in self._records
                if record.found.name not in names
            },
        )

    def _register(self, record: _PluginRecord) -> None:
        plugin = record.plugin
        faults = _run_guarded(
            lambda: list(hook_implementations.hook_faults(self._plugin_manager, plugin, self._specs)),
            "its hooks cannot be read",
        )
        if faults:
            raise PluginError("; ".join(faults))
        for other in self._records:
            if other is not record and other.plugin is plugin:
                raise PluginError(f"{record.found.value} is already loaded as plugin {other.found.name}")
        try:
            self._plugin_manager.register(plugin, record.found.name)
            self._plugin_manager.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(
                f"its hooks do not match the hook specifications: {' '.join(str(error).split())}"
            ) from None
        record.hooks = sorted(
            {each.hook for each in hook_implementations.implementations(self._plugin_manager, plugin)}
        )

    def _collect_declarations(self, record: _PluginRecord) -> None:
        for hook in hook_results.RESULT_CHECKS:
            for function in self._hook_functions(record, hook):
                self._on_step(f"{hook} of plugin {record.found.name}")
                try:
                    result = self._call_hook(function, {})
                except PluginError as error:
                    raise PluginError(f"{hook} failed: {error.message}") from error.__cause__
                if faults := hook_results.result_faults(hook, result):
                    raise PluginError("; ".join(faults))
                self._raise_if_taken(record, hook, result)
                record.provides[hook] = {**record.provides.get(hook, {}), **result}

    def _raise_if_taken(self, record: _PluginRecord, hook: str, result: Mapping[Any, Any]) -> None:
        what = hook.removeprefix("ostler_").replace("_", " ").removesuffix("s")
        for key in result:
            if owner := self.owner(hook, key):
                raise PluginError(
                    f"two plugins provide the {what} {hook_results.format_key(key)}: {owner} and {record.found.name}",
                    hint=f"disable one of them in [plugins]; {owner} is used, {record.found.name} is ignored",
                )

    def _hook_functions(self, record: _PluginRecord, hook: str) -> list[Callable[..., Any]]:
        if record.plugin is None or record.state not in (PluginState.FOUND, PluginState.LOADED):
            return []
        caller = getattr(self._plugin_manager.hook, hook)
        return [each.function for each in caller.get_hookimpls() if each.plugin is record.plugin]

    def _call_hook(self, function: Callable[..., Any], facts: Mapping[str, Any]) -> Any:
        taken = inspect.signature(function).parameters
        result = _run_guarded(lambda: function(**{name: facts[name] for name in facts if name in taken}), "")
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise PluginError("it returned a coroutine; hooks must be `def`, move work that waits to a manager")
        return result

    def _merge_results(self, hook: str) -> dict[Any, Any]:
        return {
            key: value
            for record in self._records
            if record.state is PluginState.LOADED
            for key, value in record.provides.get(hook, {}).items()
        }

    def _required_problem(self, name: str) -> str:
        found = [record for record in self._records if record.found.name == name]
        if any(record.state is PluginState.LOADED for record in found):
            return ""
        if not found:
            known = {record.found.name for record in self._records}
            return f"the required plugin {name} is not installed{_meant(name, known)}"
        return f"the required plugin {name} is {found[0].state}: {found[0].why}"


def _make_plugin_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _run_guarded(step: Callable[[], T], what: str) -> T:
    """Run code of the plugin; any exception becomes the cause of a PluginError."""
    try:
        result = step()
    except BaseException as error:
        fork.exit_if_child(error)
        said = f"{error_line(error)}{_error_location(error)}"
        raise PluginError(f"{what}: {said}" if what else said) from error
    fork.exit_if_child()
    return result


def _unexpected_error(error: PluginError) -> BaseException | None:
    """Return the exception of a plugin, for its traceback; None for an expected one."""
    cause = error.__cause__
    return None if cause is None or is_expected(cause) else cause


def _error_location(error: BaseException) -> str:
    """Return where an error was raised, ` (plugin.py:12)`, for one-line messages as in the status."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""


def _format_origin(found: DiscoveredPlugin) -> str:
    return f"{found.distribution} {found.version} ({found.value})" if found.distribution else found.value


def _meant(name: str, known: Collection[str]) -> str:
    if near := nearest(name, known):
        return f", did you mean {near}?"
    return f"; available: {join_words(sorted(known))}" if known else ""
