"""From what was read to what is meant: every table against its model, and everything that is wrong at once.

It goes in two steps, because the models of plugins are known only when `[plugins]` is: `validate_core` never raises,
so that a mistake in one section does not hide those in others, and `validate` says it all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import pydantic

from ostler.config.configuration import Configuration, CoreConfiguration, Tables
from ostler.config.core import CORE_SECTIONS, DaemonSection
from ostler.config.expectations import shown
from ostler.config.layers import RawConfiguration, dotted
from ostler.config.options import OptionsModel
from ostler.config.positions import Path
from ostler.config.secrets import SecretReader
from ostler.config.wording import sentences, unknown_key
from ostler.errors import ConfigurationError, Problem, describe
from ostler.spelling import nearest
from ostler.types import CONTROL_TOPIC

Sections = Mapping[tuple[str, ...], type[OptionsModel]]
"""The models of tables by path: `("services", "volume")`, `("services", "volume", "drivers", "local")`, `("lamp",)`."""

Fault: TypeAlias = tuple[Path, str]
"""The path to point at, and a sentence."""

M = TypeVar("M", bound=OptionsModel)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NAME_WORDS = "letters, digits, - and _"
MOST_PROBLEMS = 500
"""Problems that are told of one configuration."""


def validate_core(raw: RawConfiguration) -> CoreConfiguration:
    """Return the core sections, so that plugins can be found; the first of the two steps.

    An option that is wrong has its default here and stands in `problems`; `validate` reports it again.
    """
    checker = _Checker(raw, SecretReader({}))
    built = {
        name: checker.section((name,), model) or _salvaged(raw, name, model) for name, model in CORE_SECTIONS.items()
    }
    return CoreConfiguration(**_core(built), problems=raw.sorted([*raw.problems, *checker.problems]))


def validate(
    raw: RawConfiguration,
    sections: Sections,
    environ: Mapping[str, str],
    *,
    partial: Collection[tuple[str, ...]] = (),
    problems: Sequence[Problem] = (),
    offline: bool = False,
    further: Callable[[Tables], Iterable[Fault]] = lambda _tables: (),
) -> Configuration:
    """Return the whole configuration; the second of the two steps.

    Args:
        raw: What was read.
        sections: The model of each table that is not the daemon's own.
        environ: The environment, for credentials.
        partial: Tables whose model is only a part of the real one (the manager or driver could not be loaded): unknown
            keys in them are no mistake.
        problems: What the caller has found by itself; reported together with the rest.
        offline: Do not look for credentials, which exist only inside the unit.
        further: Further checks, handed the tables that are right; they return what is wrong.

    Raises:
        ConfigurationError: With everything that is wrong, in the order of the files and lines.
    """
    checker = _Checker(raw, SecretReader(environ, offline=offline))
    models: dict[tuple[str, ...], type[OptionsModel]] = {(name,): model for name, model in CORE_SECTIONS.items()}
    models.update(sections)
    built = {path: checker.section(path, model, partial=path in partial) for path, model in models.items()}
    checker.strangers(models)
    right = {path: model for path, model in built.items() if model is not None and path not in partial}
    checker.note_all([*_between_sections(raw, right), *further(right)])
    found = raw.sorted([*raw.problems, *checker.problems, *problems])
    if found:
        raise ConfigurationError(found)
    tables = {path: model for path, model in built.items() if model is not None}
    return Configuration(
        **_core({name: tables[name,] for name in CORE_SECTIONS}),
        services={path[1]: model for path, model in tables.items() if len(path) == 2 and path[0] == "services"},
        drivers={(path[1], path[3]): model for path, model in tables.items() if _is_driver(path)},
        sections={path[0]: model for path, model in tables.items() if len(path) == 1 and path[0] not in CORE_SECTIONS},
        tables=tables,
        raw=raw,
    )


def _between_sections(raw: RawConfiguration, tables: Tables) -> Iterator[Fault]:
    """Yield what is wrong between the daemon's own sections."""
    daemon = tables.get(("daemon",))
    if isinstance(daemon, DaemonSection) and daemon.host in raw.table(("network", "peers")):
        path = ("network", "peers", daemon.host)
        yield path, f"{dotted(path)} is this host itself (`host` in [daemon]); take it out, or give the hosts two names"


def _is_driver(path: tuple[str, ...]) -> bool:
    return len(path) == 4 and path[0] == "services" and path[2] == "drivers"


def _core(built: Mapping[str, OptionsModel]) -> dict[str, Any]:
    return dict(built)


def _salvaged(raw: RawConfiguration, name: str, model: type[OptionsModel]) -> OptionsModel:
    # One wrong option must not undo its neighbours: which plugins are blocked is known even if `required` is misspelt.
    table = raw.table((name,))
    good: dict[str, Any] = {}
    for key, value in table.items():
        try:
            _parsed(model, {**good, key: value})
        except pydantic.ValidationError:
            continue
        good[key] = value
    return _parsed(model, good)


def _parsed(model: type[M], table: Mapping[str, Any]) -> M:
    # Strict, so that "8" is no number and 1 is not true; by way of JSON, because strict Python would refuse a text for
    # a path or an enum, and TOML cannot write those otherwise.
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def _without(model: type[M], table: Mapping[str, Any], wrong: Collection[str]) -> M | None:
    """Return the options that are right one by one; the wrong ones have no value, not even their default."""
    try:
        options = _parsed(model, {key: value for key, value in table.items() if key not in wrong})
    except (Exception, SystemExit):  # noqa: BLE001 - one is missing or wrong, or a validator of a plugin fails for that
        return None
    for name in wrong:
        vars(options).pop(name, None)
    return options


def _cross_checks(options: OptionsModel) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong between options, those of the models within them included, each with its path."""
    for cls in type(options).__mro__:
        if "cross_check" not in vars(cls):
            continue
        try:
            for name, what in vars(cls)["cross_check"](options) or ():
                yield (name,), what
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's own code; whatever it raises is its mistake
            # It may look at an option that is wrong: that has been said, and what follows from it is not known.
            if type(options).model_fields.keys() <= vars(options).keys():
                yield (), f"the cross_check of {cls.__qualname__} failed: {describe(error)}"
    for name, value in vars(options).items():
        for path, what in _nested_checks(value):
            yield (name, *path), what


def _nested_checks(value: object) -> Iterator[tuple[Path, str]]:
    if isinstance(value, OptionsModel):
        yield from _cross_checks(value)
        return
    items: Iterable[tuple[Any, Any]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        for path, what in _nested_checks(item):
            yield (key, *path), what


def _beyond_bounds(path: Path, node: object) -> Iterator[tuple[Path, int]]:
    """Yield whole numbers that no database, message or library below can hold, whatever a model says of them."""
    if isinstance(node, int) and not -(2**63) <= node < 2**63:
        yield path, node
    items: Iterable[tuple[Any, Any]]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield from _beyond_bounds((*path, key), item)


class _Checker:
    def __init__(self, raw: RawConfiguration, secrets: SecretReader) -> None:
        self._raw = raw
        self._secrets = secrets
        self.problems: list[Problem] = []

    def section(self, path: tuple[str, ...], model: type[M], *, partial: bool = False) -> M | None:
        """Return a table's options, None when something is wrong with them."""
        if not self._is_table(path):
            return None
        before = len(self.problems)
        table = self._raw.table(path)
        if partial:
            self._misspelt(path, model, table)
            table = {key: value for key, value in table.items() if key in model.model_fields}
        resolved = self._resolved(path, model, table)
        try:
            options = _parsed(model, resolved)
        except pydantic.ValidationError as error:
            errors = [found for found in error.errors(include_url=False) if self._counts(found["type"])]
            for place, what in sentences(errors, model, resolved, path, self._secrets.placeholders):
                self._note(place, what)
            self._check_numbers(path, table, {tuple(found["loc"]) for found in errors})
            wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
            self._cross_check(path, _without(model, resolved, wrong))
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a validator of a plugin; the same
            self._note(path, f"{dotted(path)}: a check of {model.__qualname__} failed: {describe(error)}")
            return None
        self._check_numbers(path, table)
        self._cross_check(path, options)
        return options if len(self.problems) == before else None

    def _check_numbers(self, path: Path, table: Mapping[str, Any], told: Collection[Path] = ()) -> None:
        for place, number in _beyond_bounds((), table):
            if place not in told:
                what = f"expected a number of at most 64 bits, got {shown(number)}"
                self._note((*path, *place), f"{dotted((*path, *place))}: {what}")

    def _misspelt(self, path: tuple[str, ...], model: type[OptionsModel], table: Mapping[str, Any]) -> None:
        """Note keys that look like a required one that is missing: that one decides what the others may be."""
        missing = [name for name, field in model.model_fields.items() if field.is_required() and name not in table]
        for key in table.keys() - model.model_fields.keys():
            if nearest(key, missing):
                self._note((*path, key), unknown_key(key, missing, f" in [{dotted(path)}]"))

    def _cross_check(self, path: tuple[str, ...], options: OptionsModel | None) -> None:
        for place, what in _cross_checks(options) if options is not None else ():
            self._note((*path, *place), f"{dotted((*path, *place))}: {what}")

    def strangers(self, models: Collection[tuple[str, ...]]) -> None:
        """Note tables that nobody knows, and names of services and drivers that cannot be."""
        known = {path[0] for path in models} | {"services"}
        for name, value in self._raw.data.items():
            if name not in known:
                what = "table" if isinstance(value, dict) else "key"
                self._note((name,), unknown_key(name, known, " at the top level", what))
        services = self._tables(("services",))
        for topic in services:
            self._check_name(("services", topic), "topic")
            if topic == CONTROL_TOPIC:
                self._note(("services", topic), f'the topic "{topic}" is the daemon\'s own; give the service another')
            for driver in self._tables(("services", topic, "drivers")):
                self._check_name(("services", topic, "drivers", driver), "driver")

    def _tables(self, path: tuple[str, ...]) -> dict[str, Any]:
        return (
            {name: None for name in self._raw.table(path) if self._is_table((*path, name))}
            if self._is_table(path)
            else {}
        )

    def _check_name(self, path: tuple[str, ...], what: str) -> None:
        if _NAME.fullmatch(path[-1]) is None:
            self._note(path, f"{shown(path[-1])} is no name for a {what}; use {_NAME_WORDS}")

    def _is_table(self, path: tuple[str, ...]) -> bool:
        node: Any = self._raw.data
        for length, name in enumerate(path, 1):
            if not isinstance(node, dict) or name not in node:
                return True  # nothing there is an empty table
            node = node[name]
            if not isinstance(node, dict):
                self._note(path[:length], f"{dotted(path[:length])}: expected a table, got {shown(node)}")
                return False
        return True

    def _resolved(self, path: tuple[str, ...], model: type[OptionsModel], table: Mapping[str, Any]) -> dict[str, Any]:
        self._secrets.begin()
        resolved = self._secrets.resolve(table, model)
        for place, what in self._secrets.problems:
            self._note((*path, *place), f"{dotted((*path, *place))}: {what}")
        return resolved

    def _counts(self, kind: str) -> bool:
        # What is missing may well stand in the file that could not be read.
        return kind != "missing" or not self._raw.problems

    def note_all(self, faults: Iterable[Fault]) -> None:
        """Note what was found by others."""
        for path, what in faults:
            self._note(path, what)

    def _note(self, path: Path, what: str) -> None:
        if len(self.problems) == MOST_PROBLEMS:
            self.problems.append(Problem("", f"and more: only the first {MOST_PROBLEMS} problems are told"))
        if len(self.problems) > MOST_PROBLEMS:
            return
        problem = self._raw.problem(path, what)
        if problem not in self.problems:
            self.problems.append(problem)
