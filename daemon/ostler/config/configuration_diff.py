"""The changes between two configurations, what each needs, and which are effective without a restart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

import msgspec

from ostler.config.configuration import Configuration, Tables, masked_option, option_values, own_option_names
from ostler.config.layers import dotted, split_key
from ostler.config.options import OptionsModel, Secret, option_metadata
from ostler.config.toml_parser import TomlError
from ostler.redaction import SECRETS
from ostler.reload_types import OptionChange
from ostler.types import Json, OptionValue

_MISSING = object()
_SERVICE_DEPTH = 2
"""The length of the path of a service; that of a driver is longer."""
RESTART_LEVEL = "daemon"
"""What a change of an option needs that a running daemon cannot adopt: a new process."""
O = TypeVar("O", bound=OptionsModel)  # noqa: E741 - the name of a type


def effective_options(running: O, requested: O) -> O:
    """Return the new options as this process can adopt them: those that need a new process keep their values.

    A reload reports which options wait for a restart. No part of them must be visible before it.
    """
    if type(requested) is not type(running):  # of another manager or driver, which begins with what is requested
        return requested
    fields = type(requested).model_fields
    kept = {
        name: getattr(running, name) for name, field in fields.items() if option_metadata(field).reload == RESTART_LEVEL
    }
    if all(getattr(requested, name) == value for name, value in kept.items()):
        return requested
    return requested.model_copy(update=kept)


def effective_values(
    started: Configuration, latest: Configuration, actual: Mapping[tuple[str, ...], OptionsModel]
) -> list[OptionValue]:
    """Return every option with the value that is in effect and its origin, secrets masked.

    Args:
        started: The configuration at the start of the daemon.
        latest: The configuration that was read last.
        actual: Tables whose running values are known.
    """
    values: list[OptionValue] = []
    for path, before in started.tables.items():
        wanted = latest.tables.get(path)
        model = actual.get(path) or effective_options(before, wanted or before)
        for name in own_option_names(started.tables, path, model):
            new = wanted is not None and getattr(wanted, name, _MISSING) == getattr(model, name)
            raw = latest.raw if new else started.raw
            values += option_values(path, model, name, raw)
    return values


def note_secrets_in_use(started: Configuration) -> None:
    """Continue to redact the secrets that the daemon uses until a restart, although the files have new ones.

    Args:
        started: The configuration at the start of the daemon.
    """
    for model in started.tables.values():
        for name, field in type(model).model_fields.items():
            if option_metadata(field).reload == RESTART_LEVEL:
                _note_secrets(getattr(model, name))


def _note_secrets(value: object) -> None:
    if isinstance(value, Secret):
        SECRETS.add(value.get_secret_value())
    elif isinstance(value, OptionsModel):
        _note_secrets([getattr(value, name) for name in type(value).model_fields])
    elif isinstance(value, Mapping):
        _note_secrets(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            _note_secrets(item)


def diff(old: Configuration, new: Configuration) -> list[OptionChange]:
    """Return every option that differs, with what its change needs, secrets masked.

    A table that was added or removed (a service, a driver, a plugin's section) is one change.

    Args:
        old: The current configuration.
        new: The new configuration.
    """
    changes = [*_option_changes(old, new), *_table_changes(old.tables, new.tables)]
    return sorted(changes, key=lambda change: change.path)


def change_level(tables: Tables, path: str, running: Collection[str]) -> str:
    """Return what the change of an option to the value in the files needs, by its path alone.

    Args:
        tables: The tables of the files.
        path: The option.
        running: The paths of all options of the daemon.
    """
    parts = _parts_of(path)
    if parts[:1] == ("services",):
        for length, level in ((_SERVICE_DEPTH, "service"), (_SERVICE_DEPTH + 2, "driver")):
            table = parts[:length]
            is_part = length == _SERVICE_DEPTH or "drivers" in parts[_SERVICE_DEPTH : _SERVICE_DEPTH + 1]
            if is_part and not (table in tables and any(each.startswith(f"{dotted(table)}.") for each in running)):
                return level  # the whole table is added or removed
    table = max((each for each in tables if parts[: len(each)] == each), key=len, default=())
    name = parts[len(table)] if table and len(parts) > len(table) else ""
    field = type(tables[table]).model_fields.get(name) if name else None
    return option_metadata(field).reload if field is not None else "live"


def _parts_of(path: str) -> tuple[str, ...]:
    """Return the parts of a path; none of one that a daemon should not have sent."""
    try:
        return tuple(split_key(path))
    except TomlError:
        return ()


def _table_changes(old: Tables, new: Tables) -> Iterator[OptionChange]:
    both = old.keys() & new.keys()
    for path in (old.keys() | new.keys()) - both:
        if any(path[:length] in (old.keys() ^ new.keys()) for length in range(1, len(path))):
            continue  # covered by the change of the table around it
        needs = "driver" if len(path) > _SERVICE_DEPTH else "service" if path[0] == "services" else "live"
        yield OptionChange(
            path=dotted(path), old=_masked_table(old.get(path)), new=_masked_table(new.get(path)), needs=needs
        )


def _masked_table(model: OptionsModel | None) -> Json:
    """Return the options that are set in a table; the others have their defaults."""
    if model is None:
        return None
    return {name: masked_option(model, name) for name in type(model).model_fields if name in model.model_fields_set}


def _option_changes(earlier: Configuration, later: Configuration) -> Iterator[OptionChange]:
    old, new = earlier.tables, later.tables
    for path in new:
        if path not in old:
            continue
        before, after = old[path], new[path]
        # Not those that are tables of their own in one of the two: a service's drivers.
        own_new, own_old = {*own_option_names(new, path, after)}, {*own_option_names(old, path, before)}
        only_there = ({*own_new} ^ {*own_old}) & {*type(after).model_fields} & {*type(before).model_fields}
        names = (own_new | own_old) - only_there
        for name in changed_options(before, after):
            if name in names:
                change = _option_change((*path, name), before, after)
                yield msgspec.structs.replace(
                    change,
                    old_text=_text(before, path, name, change.old, earlier),
                    new_text=_text(after, path, name, change.new, later),
                )


def _text(model: OptionsModel, table: tuple[str, ...], name: str, value: Json, files: Configuration) -> str:
    from ostler.config.written_values import raw_value, written_text  # 5 ms: not for a start

    return written_text(type(model), (name,), value, raw_value(files.raw.data, (*table, name)))


def changed_options(before: OptionsModel, after: OptionsModel) -> list[str]:
    """Return the names of the options that differ between two tables."""
    names = dict.fromkeys([*type(after).model_fields, *type(before).model_fields])
    return [name for name in names if getattr(before, name, _MISSING) != getattr(after, name, _MISSING)]


def _option_change(path: tuple[str, ...], before: OptionsModel, after: OptionsModel) -> OptionChange:
    name = path[-1]
    field = type(after).model_fields.get(name) or type(before).model_fields[name]
    old = masked_option(before, name) if name in type(before).model_fields else None
    new = masked_option(after, name) if name in type(after).model_fields else None
    return OptionChange(path=dotted(path), old=old, new=new, needs=option_metadata(field).reload)
