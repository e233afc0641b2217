"""What changed between two configurations, what each change needs, and what is in force without that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

from ostler.config.configuration import Configuration, Tables, entries, own_options, shown_option
from ostler.config.layers import dotted
from ostler.config.options import OptionsModel, Secret, facts_of
from ostler.redaction import SECRETS
from ostler.types import Change, Json, OptionValue

_ABSENT = object()
_WITH_A_RESTART = ("service", "daemon")
O = TypeVar("O", bound=OptionsModel)  # noqa: E741 - a type's name


def in_force(running: O, wanted: O) -> O:
    """Return the new options as far as they can be in force without a restart; the rest stays as it runs.

    A reload says which options wait for a restart. Nobody may see half of them before it.
    """
    if type(wanted) is not type(running):  # another manager or driver: comes with the restart
        return running
    fields = type(wanted).model_fields
    kept = {name: getattr(running, name) for name, field in fields.items() if facts_of(field).reload in _WITH_A_RESTART}
    return wanted.model_copy(update=kept)


def running_values(
    started: Configuration, latest: Configuration, actual: Mapping[tuple[str, ...], OptionsModel]
) -> list[OptionValue]:
    """Return every option with the value that is in force and where that was read, secrets masked.

    Args:
        started: What the daemon was started with.
        latest: What was read last.
        actual: Tables of which it is known what they run with.
    """
    values = []
    for path, before in started.tables.items():
        wanted = latest.tables.get(path)
        model = actual.get(path) or in_force(before, wanted or before)
        for name in own_options(started.tables, path, model):
            new = wanted is not None and getattr(wanted, name, _ABSENT) == getattr(model, name)
            raw = latest.raw if new else started.raw
            values += [
                OptionValue(path=dotted(place), value=value, origin=raw.origin(place))
                for place, value in entries((*path, name), shown_option(model, name))
            ]
    return values


def note_secrets_in_use(started: Configuration) -> None:
    """Keep redacting the secret values that the daemon runs with until a restart, although the files have new ones.

    Args:
        started: What the daemon was started with.
    """
    for model in started.tables.values():
        for name, field in type(model).model_fields.items():
            if facts_of(field).reload in _WITH_A_RESTART:
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


def diff(old: Configuration, new: Configuration) -> list[Change]:
    """Return every option that differs, with what a change of it needs, secrets masked.

    A table that is new or gone (a service, a driver, a plugin's section) is one change, and needs a new daemon.

    Args:
        old: The configuration that is in force.
        new: The one that is to come.
    """
    changes = [*_options(old.tables, new.tables), *_tables(old.tables, new.tables)]
    return sorted(changes, key=lambda change: change.path)


def _tables(old: Tables, new: Tables) -> Iterator[Change]:
    both = old.keys() & new.keys()
    for path in (old.keys() | new.keys()) - both:
        if any(path[:length] in (old.keys() ^ new.keys()) for length in range(1, len(path))):
            continue  # the table around it is new or gone, which says enough
        yield Change(path=dotted(path), old=_shown(old.get(path)), new=_shown(new.get(path)), needs="daemon")


def _shown(model: OptionsModel | None) -> Json:
    return None if model is None else {name: shown_option(model, name) for name in type(model).model_fields}


def _options(old: Tables, new: Tables) -> Iterator[Change]:
    for path in new:
        if path not in old:
            continue
        before, after = old[path], new[path]
        names = {**dict.fromkeys(own_options(new, path, after)), **dict.fromkeys(own_options(old, path, before))}
        for name in names:
            if getattr(before, name, _ABSENT) != getattr(after, name, _ABSENT):
                yield _change((*path, name), before, after)


def _change(path: tuple[str, ...], before: OptionsModel, after: OptionsModel) -> Change:
    name = path[-1]
    field = type(after).model_fields.get(name) or type(before).model_fields[name]
    old = shown_option(before, name) if name in type(before).model_fields else None
    new = shown_option(after, name) if name in type(after).model_fields else None
    return Change(path=dotted(path), old=old, new=new, needs=facts_of(field).reload)
