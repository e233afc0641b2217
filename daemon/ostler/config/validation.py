"""Validates a configuration: every table against its model, with all problems at once.

It has two steps, because the models of plugins are known only after `[plugins]`: `validate_core` never raises, so that
a problem in one section does not hide those in others, and `validate` reports all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import pydantic

from ostler.config.configuration import Configuration, CoreConfiguration, Tables
from ostler.config.core_sections import CORE_SECTIONS, DaemonSection
from ostler.config.layers import RawConfiguration, dotted, split_origin
from ostler.config.options import OptionsModel
from ostler.config.renamed_options import Models, deprecation, earlier_names, nested_models
from ostler.config.secret_references import SecretReader
from ostler.config.toml_positions import KeyPath, TextPosition
from ostler.config.type_descriptions import format_value
from ostler.config.validation_messages import error_messages, unknown_key_message
from ostler.errors import ConfigurationError, Problem, error_line
from ostler.spelling import nearest
from ostler.types import CONTROL_TOPIC

SectionModels = Mapping[tuple[str, ...], type[OptionsModel]]
"""The models of tables by path: `("services", "volume")`, `("services", "volume", "drivers", "local")`, `("lamp",)`."""

Fault: TypeAlias = tuple[KeyPath, str]
"""The path of a problem, and a sentence."""

M = TypeVar("M", bound=OptionsModel)
_NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_NAME_DESCRIPTION = "letters, digits, - and _"
MAX_PROBLEMS = 500
"""Maximum number of problems that are reported."""


def validate_core(raw: RawConfiguration) -> CoreConfiguration:
    """Return the core sections, which are needed to find plugins; the first of the two steps.

    An invalid option has its default here and is listed in `problems`; `validate` reports it again.
    """
    checker = _ConfigurationChecker(raw, SecretReader({}))
    built = {
        name: checker.check_section((name,), model) or _parse_valid_options(raw, name, model)
        for name, model in CORE_SECTIONS.items()
    }
    problems = raw.sort_problems([*raw.problems, *raw.conflicts, *checker.problems])
    return CoreConfiguration(**_core_fields(built), problems=problems)


def validate(  # noqa: PLR0913 - what a start, a reload and a check have to say of it
    raw: RawConfiguration,
    sections: SectionModels,
    environ: Mapping[str, str],
    *,
    partial: Collection[tuple[str, ...]] = (),
    problems: Sequence[Problem] = (),
    offline: bool = False,
    as_daemon: bool = False,
    extra_checks: Callable[[Tables], Iterable[Fault]] = lambda _tables: (),
    tolerated: Callable[[], Iterable[Problem]] = list,
) -> Configuration:
    """Return the whole configuration; the second of the two steps. Keeps the texts of `raw`.

    Args:
        raw: The merged files.
        sections: The model of each table that is not a core section.
        environ: The environment, for credentials.
        partial: Tables whose model is incomplete (the manager or driver could not be loaded): unknown keys in them are
            accepted.
        problems: Problems found by the caller; reported together with the rest.
        offline: Do not need credentials, which exist only inside the unit, nor secret files that only others can read.
        as_daemon: With `offline`: this user is the daemon's, and must be able to read all secret files.
        extra_checks: Further checks, called with the valid tables; they return faults.
        tolerated: Problems that are no reason to refuse the configuration; reported if there are others.

    Raises:
        ConfigurationError: With all problems, in the order of files and lines.
    """
    checker = _ConfigurationChecker(raw, SecretReader(environ, offline=offline, as_daemon=as_daemon))
    models: dict[tuple[str, ...], type[OptionsModel]] = {(name,): model for name, model in CORE_SECTIONS.items()}
    models.update(sections)
    built = {path: checker.check_section(path, model, partial=path in partial) for path, model in models.items()}
    checker.check_unknown_tables(models)
    right = {path: model for path, model in built.items() if model is not None and path not in partial}
    checker.add_faults([*_check_across_sections(raw, right), *extra_checks(right)])
    if found := [*raw.problems, *raw.conflicts, *checker.problems, *problems]:
        found = raw.sort_problems([*found, *tolerated()])
        raise ConfigurationError([_with_source(raw, problem, models) for problem in found])
    tables = {path: model for path, model in built.items() if model is not None}
    return Configuration(
        **_core_fields({name: tables[name,] for name in CORE_SECTIONS}),
        services={path[1]: model for path, model in tables.items() if len(path) == 2 and path[0] == "services"},
        drivers={(path[1], path[3]): model for path, model in tables.items() if _is_driver(path)},
        sections={path[0]: model for path, model in tables.items() if len(path) == 1 and path[0] not in CORE_SECTIONS},
        tables=tables,
        raw=raw,
    )


def _with_source(raw: RawConfiguration, problem: Problem, models: SectionModels) -> Problem:
    """Return a problem with the line that it is in, if it is known."""
    name, line, column = split_origin(problem.where)
    layout = raw.layout(name)
    if layout is None or not line or problem.source is not None:
        return problem
    from ostler.config.source_lines import may_quote_value, quote_value  # only when a configuration is refused

    position = TextPosition(line, column)
    return problem._replace(
        source=quote_value(raw.texts[name], layout, position, lambda path: may_quote_value(models, path))
    )


def _check_across_sections(raw: RawConfiguration, tables: Tables) -> Iterator[Fault]:
    """Yield faults in the combination of the core sections."""
    daemon = tables.get(("daemon",))
    if isinstance(daemon, DaemonSection) and daemon.host in raw.table(("network", "peers")):
        path = ("network", "peers", daemon.host)
        yield path, f"{dotted(path)} is this host itself (`host` in [daemon]); remove it, or use different host names"


def _is_driver(path: tuple[str, ...]) -> bool:
    return len(path) == 4 and path[0] == "services" and path[2] == "drivers"


def _core_fields(built: Mapping[str, OptionsModel]) -> dict[str, Any]:
    return dict(built)


def _parse_valid_options(raw: RawConfiguration, name: str, model: type[OptionsModel]) -> OptionsModel:
    # An invalid option must not affect others: which plugins are blocked is known even if `required` is invalid.
    table = raw.table((name,))
    good: dict[str, Any] = {}
    for key, value in table.items():
        try:
            _parse_options(model, {**good, key: value})
        except pydantic.ValidationError:
            continue
        good[key] = value
    return _parse_options(model, good)


def _parse_options(model: type[M], table: Mapping[str, Any]) -> M:
    # Strict, so that "8" is not accepted as a number nor 1 as true; by way of JSON, because strict Python would refuse
    # a text for a path or an enum, and TOML has no other way to write those.
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def _parse_without(model: type[M], table: Mapping[str, Any], wrong: Collection[str]) -> M | None:
    """Return the options that are valid by themselves; invalid ones have no value, not even their default."""
    try:
        options = _parse_options(model, {key: value for key, value in table.items() if key not in wrong})
    except (Exception, SystemExit):  # noqa: BLE001 - one is missing or invalid, or a validator of a plugin fails because of it
        return None
    for name in wrong:
        vars(options).pop(name, None)
    return options


def _validate_recursively(options: OptionsModel) -> Iterator[tuple[KeyPath, str]]:
    """Yield faults in the combination of options, including those of nested models, each with its path."""
    for cls in type(options).__mro__:
        if "validate_options" not in vars(cls):
            continue
        try:
            for name, what in vars(cls)["validate_options"](options) or ():
                yield (name,), what
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a plugin
            # It may have used an invalid option: that has been reported, and the error may be a consequence.
            if type(options).model_fields.keys() <= vars(options).keys():
                yield (), f"the validate_options of {cls.__qualname__} failed: {error_line(error)}"
    for name, value in vars(options).items():
        for path, what in _validate_nested(value):
            yield (name, *path), what


def _validate_nested(value: object) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, OptionsModel):
        yield from _validate_recursively(value)
        return
    items: Iterable[tuple[Any, Any]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        for path, what in _validate_nested(item):
            yield (key, *path), what


def _oversized_integers(path: KeyPath, node: object) -> Iterator[tuple[KeyPath, int]]:
    """Yield whole numbers of more than 64 bits, which databases, messages and libraries do not support."""
    if isinstance(node, int) and not -(2**63) <= node < 2**63:
        yield path, node
    items: Iterable[tuple[Any, Any]]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield from _oversized_integers((*path, key), item)


class _ConfigurationChecker:
    def __init__(self, raw: RawConfiguration, secrets: SecretReader) -> None:
        self._raw = raw
        self._secrets = secrets
        self.problems: list[Problem] = []

    def check_section(self, path: tuple[str, ...], model: type[M], *, partial: bool = False) -> M | None:
        """Return a table's options, None if they are invalid."""
        if not self._is_table(path):
            return None
        before = len(self.problems)
        self._accept_earlier_names(path, [model])
        table = self._raw.table(path)
        if partial:
            self._check_misspelt(path, model, table)
            table = {key: value for key, value in table.items() if key in model.model_fields}
        resolved = self._resolve_secrets(path, model, table)
        try:
            options = _parse_options(model, resolved)
        except pydantic.ValidationError as error:
            errors = [found for found in error.errors(include_url=False) if self._is_relevant(found["type"])]
            for place, what, of_key in error_messages(errors, model, resolved, path, self._secrets.placeholders):
                self._add_problem(place, what, key=of_key)
            self._check_numbers(path, table, {tuple(found["loc"]) for found in errors})
            wrong = {str(found["loc"][0]) for found in error.errors() if found["loc"]}
            self._validate_options(path, _parse_without(model, resolved, wrong))
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a validator of a plugin
            self._add_problem(path, f"{dotted(path)}: a check of {model.__qualname__} failed: {error_line(error)}")
            return None
        self._check_numbers(path, table)
        self._validate_options(path, options)
        return options if len(self.problems) == before else None

    def _accept_earlier_names(self, path: KeyPath, models: Models) -> None:
        """Rename options with an earlier name, at any depth, and warn of them and of those that will be removed."""
        table, renamed = self._raw.table(path), earlier_names(models)
        for key in list(table):
            if advice := deprecation(models, key):
                name = dotted((*path, key))
                self._warn((*path, key), f"{name} will be removed in the next minor version; {advice}")
            elif key in renamed:
                self._rename(path, key, renamed[key])
        for place, nested in list(nested_models(models, table)):
            self._accept_earlier_names((*path, *place), nested)

    def _rename(self, table: KeyPath, old: str, new: str) -> None:
        path, values = (*table, old), self._raw.table(table)
        if new in values:
            what = f"{dotted(path)} is now {new}, which is set as well; remove it"
            self._raw.conflicts.append(self._raw.problem_at(path, what, key=True))
            del values[old]
            return
        self._warn(path, f"{dotted(path)} is now {new}; the old name will not be accepted in the next minor version")
        self._raw.rename(table, old, new)

    def _warn(self, path: KeyPath, what: str) -> None:
        warning = f"{self._raw.nearest_origin(path)}: {what}"
        if warning not in self._raw.warnings:
            self._raw.warnings.append(warning)

    def _check_numbers(self, path: KeyPath, table: Mapping[str, Any], reported: Collection[KeyPath] = ()) -> None:
        for place, number in _oversized_integers((), table):
            if place not in reported:
                what = f"expected a number of at most 64 bits, got {format_value(number)}"
                self._add_problem((*path, *place), f"{dotted((*path, *place))}: {what}")

    def _check_misspelt(self, path: tuple[str, ...], model: type[OptionsModel], table: Mapping[str, Any]) -> None:
        """Note keys that resemble a required key that is missing, which determines the valid other keys."""
        missing = [name for name, field in model.model_fields.items() if field.is_required() and name not in table]
        for key in table.keys() - model.model_fields.keys():
            if nearest(key, missing):
                self._add_problem((*path, key), unknown_key_message(key, missing, f" in [{dotted(path)}]"), key=True)

    def _validate_options(self, path: tuple[str, ...], options: OptionsModel | None) -> None:
        for place, what in _validate_recursively(options) if options is not None else ():
            self._add_problem((*path, *place), f"{dotted((*path, *place))}: {what}")

    def check_unknown_tables(self, models: Collection[tuple[str, ...]]) -> None:
        """Note unknown tables, and invalid names of services and drivers."""
        known = {path[0] for path in models} | {"services"}
        for name, value in self._raw.data.items():
            if name not in known:
                what = "table" if isinstance(value, dict) else "key"
                self._add_problem((name,), unknown_key_message(name, known, " at the top level", what), key=True)
        services = self._valid_tables(("services",))
        for topic in services:
            self._check_name(("services", topic), "topic")
            if topic == CONTROL_TOPIC:
                self._add_problem(
                    ("services", topic),
                    f'the topic "{topic}" is reserved for the daemon; choose another name',
                    key=True,
                )
            for driver in self._valid_tables(("services", topic, "drivers")):
                self._check_name(("services", topic, "drivers", driver), "driver")

    def _valid_tables(self, path: tuple[str, ...]) -> dict[str, Any]:
        return (
            {name: None for name in self._raw.table(path) if self._is_table((*path, name))}
            if self._is_table(path)
            else {}
        )

    def _check_name(self, path: tuple[str, ...], what: str) -> None:
        if _NAME_PATTERN.fullmatch(path[-1]) is None:
            self._add_problem(
                path, f"{format_value(path[-1])} is not a valid name of a {what}; use {_NAME_DESCRIPTION}", key=True
            )

    def _is_table(self, path: tuple[str, ...]) -> bool:
        node: Any = self._raw.data
        for length, name in enumerate(path, 1):
            if not isinstance(node, dict) or name not in node:
                return True  # a missing table is an empty one
            node = node[name]
            if not isinstance(node, dict):
                self._add_problem(path[:length], f"{dotted(path[:length])}: expected a table, got {format_value(node)}")
                return False
        return True

    def _resolve_secrets(
        self, path: tuple[str, ...], model: type[OptionsModel], table: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._secrets.reset()
        resolved = self._secrets.resolve(table, model)
        for place, what in self._secrets.problems:
            self._add_problem((*path, *place), f"{dotted((*path, *place))}: {what}")
        return resolved

    def _is_relevant(self, kind: str) -> bool:
        # Missing keys may be in the file that could not be read.
        return kind != "missing" or not self._raw.problems

    def add_faults(self, faults: Iterable[Fault]) -> None:
        """Note problems found by others."""
        for path, what in faults:
            self._add_problem(path, what)

    def _add_problem(self, path: KeyPath, what: str, *, key: bool = False) -> None:
        if len(self.problems) == MAX_PROBLEMS:
            self.problems.append(Problem("", f"and more: only the first {MAX_PROBLEMS} problems are shown"))
        if len(self.problems) > MAX_PROBLEMS:
            return
        problem = self._raw.problem_at(path, what, key=key)
        if problem not in self.problems:
            self.problems.append(problem)
