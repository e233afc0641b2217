"""The levels of `ostler plugin check --level`: how well a plugin is made, each level on top of those before it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.cli.plugin_check import PluginCheckResult
from ostler.config.toml_parser import TomlError, parse_toml
from ostler.errors import InvalidInput, join_words
from ostler.manager import Manager
from ostler.messaging.interface.introspection import list_exposed
from ostler.plugins import resolve_object
from ostler.testing.conformance import driver_problems, fault_problems, manager_problems
from ostler.types import PluginState

if TYPE_CHECKING:
    from ostler.plugins import PluginHost

LEVELS = ("loads", "contract", "conformance", "faults", "docs", "typed")
"""`loads`: it can be imported, and its hooks work. `contract`: its classes are what Ostler requires. `conformance`: its
managers and drivers start, report, reload, restart and stop. `faults`: its managers survive drivers that fail, crash
and hang. `docs`: classes and methods are described. `typed`: it has annotations, and `py.typed`."""


class LevelResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one level.

    Attributes:
        level: Its name.
        problems: What is wrong, a sentence each.
        skipped: Why something could not be checked, a sentence each.
    """

    level: str
    problems: list[str] = []
    skipped: list[str] = []


class LevelChecks:
    """Checks one plugin, level by level.

    Args:
        host: The plugin host, after its discovery.
        found: What `check_plugins` says of the plugin.
        configuration: A configuration with services of it, as TOML, for managers and drivers that need options.
    """

    def __init__(self, host: PluginHost, found: PluginCheckResult, configuration: str = "") -> None:
        self._host = host
        self._found = found
        self._module = next(record.module for record in host.statuses() if record.name == found.plugin)
        self._services: Mapping[str, Any] = {}
        if configuration:
            self._services = _parse(configuration).get("services", {})

    def run(self, last: str) -> list[LevelResult]:
        """Return the results of the levels up to one; after a level with problems nothing that builds on it is run.

        Args:
            last: The last level.

        Raises:
            InvalidInput: There is no such level.
        """
        if last not in LEVELS:
            raise InvalidInput(f"level {last} not found", hint=f"levels: {join_words(LEVELS)}")
        results: list[LevelResult] = []
        for level in LEVELS[: LEVELS.index(last) + 1]:
            broken = any(result.problems for result in results if result.level in ("loads", "contract"))
            if broken:
                results.append(LevelResult(level=level, skipped=["the levels before it have problems"]))
            else:
                results.append(getattr(self, f"_check_{level}")())
        return results

    def _check_loads(self) -> LevelResult:
        is_loaded = self._found.state is not PluginState.FAILED
        return LevelResult(level="loads", problems=[] if is_loaded else self._found.faults)

    def _check_contract(self) -> LevelResult:
        return LevelResult(level="contract", problems=self._found.faults)

    def _check_conformance(self) -> LevelResult:
        problems, skipped = [], []
        for name, manager in self._managers():
            options, drivers, missing = self._setup(name, manager)
            if missing:
                skipped.append(f"manager {name}: {missing}")
                continue
            found = manager_problems(manager, options, drivers, self._plugins())
            problems += [f"manager {name}: {problem}" for problem in found]
            for driver, (cls, own) in drivers.items():
                found = driver_problems(cls, own, contract=manager.driver_type)
                problems += [f"driver {name}/{driver}: {problem}" for problem in found]
        return LevelResult(level="conformance", problems=problems, skipped=skipped)

    def _check_faults(self) -> LevelResult:
        problems, skipped = [], []
        for name, manager in self._managers():
            options, drivers, missing = self._setup(name, manager)
            if missing:
                skipped.append(f"manager {name}: {missing}")
            elif drivers:
                found = fault_problems(manager, options, drivers, self._plugins())
                problems += [f"manager {name}: {problem}" for problem in found]
        return LevelResult(level="faults", problems=problems, skipped=skipped)

    def _check_docs(self) -> LevelResult:
        problems = []
        for label, cls in self._classes():
            if not vars(cls).get("__doc__"):
                problems.append(f"{label} has no docstring")
        for name, manager in self._managers():
            problems += [f"{name}.{each.name} has no docstring" for each in list_exposed(name, manager) if not each.doc]
        return LevelResult(level="docs", problems=problems)

    def _check_typed(self) -> LevelResult:
        problems = []
        package = self._module.partition(".")[0]
        spec = find_spec(package)
        places = list(spec.submodule_search_locations or []) if spec is not None else []
        if not any((Path(place) / "py.typed").is_file() for place in places):
            problems.append(f"{package} has no file py.typed, so that type checkers ignore its annotations")
        for label, cls in self._classes():
            problems += [f"{label}: `{name}` is not annotated" for name in _unannotated(cls)]
        return LevelResult(level="typed", problems=problems)

    def _plugins(self) -> list[object]:
        return [self._module]

    def _managers(self) -> Iterator[tuple[str, type[Manager]]]:
        for name, value in self._host.managers().items():
            if self._host.owner("ostler_managers", name) == self._found.plugin:
                yield name, resolve_object(value, Manager).cls

    def _drivers(self, manager: str) -> dict[str, Any]:
        return {
            name: resolve_object(value, object).cls
            for (owner, name), value in self._host.drivers().items()
            if owner == manager
        }

    def _classes(self) -> Iterator[tuple[str, Any]]:
        for name, manager in self._managers():
            yield f"manager {name}", manager
        for (manager_name, name), value in self._host.drivers().items():
            if self._host.owner("ostler_drivers", (manager_name, name)) == self._found.plugin:
                yield f"driver {manager_name}/{name}", resolve_object(value, object).cls

    def _setup(self, name: str, manager: type[Manager]) -> tuple[dict[str, Any], dict[str, Any], str]:
        """Return options and drivers to run a manager with, from the configuration or defaults; and what is missing."""
        for table in self._services.values():
            if isinstance(table, dict) and table.get("manager") == name:
                return self._configured(name, table)
        needed = _required(manager.Options)
        if needed:
            return {}, {}, f"needs {join_words(needed)}; give a configuration with --config"
        usable = {key: cls for key, cls in self._drivers(name).items() if not _required(cls.Options)}
        if self._drivers(name) and not usable:
            return {}, {}, "each of its drivers needs options; give a configuration with --config"
        return {}, {key: (cls, {}) for key, cls in usable.items()}, ""

    def _configured(self, name: str, table: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
        options = {key: value for key, value in table.items() if key not in ("manager", "drivers")}
        drivers, known = {}, self._drivers(name)
        for key, own in table.get("drivers", {}).items():
            cls = known.get(own.get("driver"))
            if cls is None:
                return {}, {}, f"its driver {own.get('driver')} is not registered"
            drivers[key] = cls, {option: value for option, value in own.items() if option != "driver"}
        return options, drivers, ""


def _parse(text: str) -> dict[str, Any]:
    try:
        return parse_toml(text)[0]
    except TomlError as error:
        raise InvalidInput(f"the configuration is not valid TOML: {error}") from None


def _required(model: Any) -> list[str]:
    return [
        name for name, info in model.model_fields.items() if info.is_required() and name not in ("manager", "driver")
    ]


def _unannotated(cls: type) -> Iterator[str]:
    for name, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        wanted = [p for p in inspect.signature(function).parameters.values() if p.name not in ("self", "cls")]
        missing = any(p.annotation is p.empty for p in wanted)
        if missing or "return" not in function.__annotations__:
            yield name
