"""The plugin host: loads plugins in guarded steps, one at a time, and keeps a record of every one."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

import msgspec
import pluggy

from ostler import fork, hookspecs
from ostler.clock import Clock, SystemClock
from ostler.errors import PluginError, Problem, describe, is_expected, joined
from ostler.plugins import declared, discovery, hooks
from ostler.plugins.discovery import Found
from ostler.spelling import nearest
from ostler.types import PluginState, PluginStatus
from ostler.version_numbers import is_compatible, parse_version

_log = logging.getLogger(__name__)
T = TypeVar("T")


class _Record(msgspec.Struct):
    found: Found
    state: PluginState = PluginState.FOUND
    why: str = ""
    api: str = ""
    hooks: list[str] = []
    seconds: float = 0.0
    plugin: Any = None
    brings: dict[str, Mapping[Any, Any]] = {}


class PluginHost:
    """Discovers plugins, loads them, and gathers what they declare. Loading is for the main thread.

    The steps for each plugin, in the order of names: found, disabled or blocked by the configuration, imported, written
    for this version of the hooks, hooks that exist and fit, declarations that fit and are nobody else's. Whatever goes
    wrong in a step, SystemExit included, is that plugin's alone: it is recorded as failed with the reason, contributes
    nothing, and the next one has its turn.

    Args:
        entry_points: What to load; by default what is installed in the group `ostler`.
        required: Names of plugins that must load; see `problems`.
        disabled: Names of plugins that are found and listed but not loaded.
        blocked: Names of plugins that may not be imported by anybody; see `forbidden`.
        api_version: The version of the hooks that is offered, `MAJOR.MINOR`.
        clock: The source of time, for how long each plugin takes.
    """

    def __init__(
        self,
        entry_points: Iterable[Found] | None = None,
        *,
        required: Collection[str] = (),
        disabled: Collection[str] = (),
        blocked: Collection[str] = (),
        api_version: str = hookspecs.API_VERSION,
        clock: Clock | None = None,
    ) -> None:
        self._entry_points = entry_points
        self._required = list(dict.fromkeys(required))
        self._disabled = list(dict.fromkeys(disabled))
        self._blocked = list(dict.fromkeys(blocked))
        self._api_version = api_version
        self._clock = clock or SystemClock()
        self._host = pluggy.PluginManager(hookspecs.PROJECT)
        self._host.add_hookspecs(hookspecs)
        self._specs = {name: getattr(hookspecs, name) for name in vars(self._host.hook) if name[0] != "_"}
        self._records: list[_Record] = []
        self._discovered = False
        self.step: Callable[[str], object] = _no_step
        """Told what is begun, before code of a plugin runs that may never come back."""

    def discover(self) -> None:
        """Find and load every plugin. Raises nothing; what went wrong is in `records`, `problems` and `warnings`."""
        if self._discovered:
            return
        self._discovered = True
        entry_points = discovery.installed() if self._entry_points is None else self._entry_points
        for found in sorted(entry_points, key=lambda each: (each.name, each.distribution)):
            record = _Record(found)
            self._records.append(record)
            begun = self._clock.monotonic()
            self._load(record)
            record.seconds = self._clock.monotonic() - begun

    def records(self) -> list[PluginStatus]:
        """Return every plugin that was found, as an operator sees it, sorted by name."""
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
            )
            for record in self._records
        ]

    def packages(self) -> list[str]:
        """Return the top packages of the plugins that have loaded."""
        loaded = [record for record in self._records if record.state is PluginState.LOADED]
        return [record.found.module.partition(".")[0] for record in loaded]

    def newer_on_disk(self) -> list[str]:
        """Return a line for each loaded plugin that is installed in another version by now. Reads directories."""
        lines = []
        for record in self._records:
            found = record.found
            if record.state is not PluginState.LOADED or not found.distribution:
                continue
            version = discovery.version_on_disk(found.distribution)
            if version != found.version:
                now = f"{version} is on disk" if version else "it is not installed any more"
                lines.append(
                    f"plugin {found.name} runs {found.version}, {now}: restart the daemon to use what is there"
                )
        return lines

    def problems(self) -> list[Problem]:
        """Return what keeps the daemon from starting: each required plugin that is missing or has not loaded."""
        return [Problem("", fault) for fault in self.missing().values()]

    def missing(self) -> dict[str, str]:
        """Return the required plugins that are missing or have not loaded: name to a sentence that says why."""
        return {name: fault for name in self._required if (fault := self._fault_of_required(name))}

    def warnings(self) -> list[str]:
        """Return what an operator should know and nothing depends on: names in `[plugins]` that nobody has."""
        known = {record.found.name for record in self._records}
        return [
            f"[plugins] {option}: no plugin {name} is installed{_meant(name, known)}"
            for option, names in (("disabled", self._disabled), ("blocked", self._blocked))
            for name in names
            if name not in known
        ]

    def managers(self) -> dict[str, Any]:
        """Return the managers that plugins brought: registered name to class or import path."""
        return self._merged("ostler_managers")

    def drivers(self) -> dict[tuple[str, str], Any]:
        """Return the drivers that plugins brought: (manager's name, driver's name) to class or import path."""
        return self._merged("ostler_drivers")

    def extensions(self) -> dict[tuple[str, str], Any]:
        """Return the parts for other plugins' managers: (kind, name) to whatever it is."""
        return self._merged("ostler_extensions")

    def config_sections(self) -> dict[str, Any]:
        """Return the plugins' own configuration sections: name of the table to its model."""
        return self._merged("ostler_config_sections")

    def migrations(self) -> dict[str, Any]:
        """Return the plugins' database migrations: namespace to package."""
        return self._merged("ostler_migrations")

    def namespaces_of(self, cls: type) -> list[str]:
        """Return the namespaces of tables that the plugins have in which a class, or a base of it, is defined."""
        packages = {base.__module__.partition(".")[0] for base in getattr(cls, "__mro__", ())}
        return [
            namespace
            for record in self._records
            if record.found.module.partition(".")[0] in packages
            for namespace in record.brings.get("ostler_migrations", {})
        ]

    def owner(self, hook: str, key: Any) -> str:
        """Return the name of the plugin that declared `key` in a hook, empty when nobody did."""
        for record in self._records:
            if key in record.brings.get(hook, {}):
                return record.found.name
        return ""

    def forbidden(self) -> dict[str, str]:
        """Return what may not be imported: top package of each blocked plugin to the plugin's name."""
        return {
            record.found.module.partition(".")[0]: record.found.name
            for record in self._records
            if record.state is PluginState.BLOCKED
        }

    def notify(self, hook: str, /, **facts: Any) -> list[str]:
        """Call a notification hook of every plugin, one at a time; return, and log, what went wrong.

        Args:
            hook: `ostler_started` or `ostler_stopping`.
            facts: What the hook takes.
        """
        problems = []
        for record in self._records:
            for function in self._functions(record, hook):
                self.step(f"{hook} of plugin {record.found.name}")
                try:
                    self._call(function, facts)
                except PluginError as error:
                    problem = f"plugin {record.found.name}: {hook} failed: {error.message}"
                    _log.error("%s", problem, exc_info=_unexpected(error))
                    problems.append(problem)
        return problems

    # The guarded steps ----------------------------------------------------------------------------------------------

    def _load(self, record: _Record) -> None:
        name = record.found.name
        if name in self._blocked:
            record.state, record.why = PluginState.BLOCKED, "blocked in [plugins]"
            return
        if name in self._disabled:
            record.state, record.why = PluginState.DISABLED, "disabled in [plugins]"
            return
        try:
            self._refuse_second(record)
            self.step(f"importing plugin {name} ({record.found.value})")
            record.plugin = _guarded(record.found.load, f"{record.found.value} cannot be imported")
            self._check_version(record)
            self._register(record)
            self._ask(record)
        except PluginError as error:
            self._fail(record, error)
            return
        record.state = PluginState.LOADED
        record.why = "" if record.hooks else "it has no hooks"

    def _fail(self, record: _Record, error: PluginError) -> None:
        record.state, record.why = PluginState.FAILED, describe(error)
        record.brings = {}
        if record.plugin is not None and self._host.get_plugin(record.found.name) is record.plugin:
            self._host.unregister(record.plugin)
        _log.error("plugin %s: %s", record.found.name, describe(error), exc_info=_unexpected(error))

    def _refuse_second(self, record: _Record) -> None:
        for other in self._records:
            if other is not record and other.found.name == record.found.name:
                raise PluginError(
                    f"two plugins are named {record.found.name}: {_origin(other.found)} and {_origin(record.found)}",
                    hint="uninstall one of them",
                )

    def _check_version(self, record: _Record) -> None:
        record.api = wanted = getattr(record.plugin, "ostler_api", self._api_version)
        numbers = parse_version(wanted)
        if numbers is None:
            raise PluginError(f"its `ostler_api` is {wanted!r}, not a text like {self._api_version!r}")
        if is_compatible(self._api_version, wanted):
            return
        older = numbers < (parse_version(self._api_version) or numbers)
        raise PluginError(
            f"it is written for version {wanted} of the hooks, this Ostler has {self._api_version}",
            hint="install a newer version of the plugin" if older else "install a newer Ostler",
        )

    def _register(self, record: _Record) -> None:
        plugin = record.plugin
        faults = _guarded(lambda: list(hooks.faults(self._host, plugin, self._specs)), "its hooks cannot be read")
        if faults:
            raise PluginError("; ".join(faults))
        for other in self._records:
            if other is not record and other.plugin is plugin:
                raise PluginError(f"{record.found.value} is loaded already, as plugin {other.found.name}")
        try:
            self._host.register(plugin, record.found.name)
            self._host.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"its hooks do not fit: {' '.join(str(error).split())}") from None
        record.hooks = sorted({each.hook for each in hooks.implementations(self._host, plugin)})

    def _ask(self, record: _Record) -> None:
        for hook in declared.SHAPES:
            for function in self._functions(record, hook):
                self.step(f"{hook} of plugin {record.found.name}")
                try:
                    result = self._call(function, {})
                except PluginError as error:
                    raise PluginError(f"{hook} failed: {error.message}") from error.__cause__
                if faults := declared.faults(hook, result):
                    raise PluginError("; ".join(faults))
                self._refuse_taken(record, hook, result)
                record.brings[hook] = {**record.brings.get(hook, {}), **result}

    def _refuse_taken(self, record: _Record, hook: str, result: Mapping[Any, Any]) -> None:
        what = hook.removeprefix("ostler_").replace("_", " ").removesuffix("s")
        for key in result:
            if owner := self.owner(hook, key):
                raise PluginError(
                    f"two plugins bring the {what} {declared.label(key)}: {owner} and {record.found.name}",
                    hint=f"disable one of them in [plugins]; {owner} stays, {record.found.name} is left out",
                )

    def _functions(self, record: _Record, hook: str) -> list[Callable[..., Any]]:
        if record.plugin is None or record.state not in (PluginState.FOUND, PluginState.LOADED):
            return []
        caller = getattr(self._host.hook, hook)
        return [each.function for each in caller.get_hookimpls() if each.plugin is record.plugin]

    def _call(self, function: Callable[..., Any], facts: Mapping[str, Any]) -> Any:
        taken = inspect.signature(function).parameters
        result = _guarded(lambda: function(**{name: facts[name] for name in facts if name in taken}), "")
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise PluginError("it returned a coroutine; hooks are `def`, work that waits belongs into a manager")
        return result

    def _merged(self, hook: str) -> dict[Any, Any]:
        return {
            key: value
            for record in self._records
            if record.state is PluginState.LOADED
            for key, value in record.brings.get(hook, {}).items()
        }

    def _fault_of_required(self, name: str) -> str:
        found = [record for record in self._records if record.found.name == name]
        if any(record.state is PluginState.LOADED for record in found):
            return ""
        if not found:
            known = {record.found.name for record in self._records}
            return f"the required plugin {name} is not installed{_meant(name, known)}"
        return f"the required plugin {name} is {found[0].state}: {found[0].why}"


def _no_step(_name: str) -> None:
    """Nobody wants to know."""


def _guarded(step: Callable[[], T], what: str) -> T:
    """Run a step that is the plugin's own code; whatever it raises becomes a PluginError with that as its cause."""
    try:
        result = step()
    except BaseException as error:
        fork.leave_if_child(error)
        said = f"{describe(error)}{_place(error)}"
        raise PluginError(f"{what}: {said}" if what else said) from error
    fork.leave_if_child()
    return result


def _unexpected(error: PluginError) -> BaseException | None:
    """Return what a plugin raised, for its traceback; None for what is expected."""
    cause = error.__cause__
    return None if cause is None or is_expected(cause) else cause


def _place(error: BaseException) -> str:
    """Return where an error was raised, ` (plugin.py:12)`: for where there is one line alone, as in the status."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""


def _origin(found: Found) -> str:
    return f"{found.distribution} {found.version} ({found.value})" if found.distribution else found.value


def _meant(name: str, known: Collection[str]) -> str:
    if near := nearest(name, known):
        return f", did you mean {near}?"
    return f"; there are {joined(sorted(known))}" if known else ""
