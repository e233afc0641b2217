"""Options that have an earlier name, at any depth of tables, lists and nested models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ostler.config.options import OptionsModel, option_metadata
from ostler.config.toml_positions import KeyPath
from ostler.config.type_descriptions import ConstrainedType, options_models_of, type_of_field, type_of_item

Models: TypeAlias = Sequence[type[OptionsModel]]
"""The models that a table may have: one, or those of a union."""


def earlier_names(models: Models) -> dict[str, str]:
    """Return the options that have an earlier name: earlier to present name.

    In a union, a name that one of the models has now is no earlier name.
    """
    present = {name for model in models for name in model.model_fields}
    found = {
        option_metadata(field).renamed_from: name for model in models for name, field in model.model_fields.items()
    }
    return {old: new for old, new in found.items() if old and old not in present}


def deprecation(models: Models, name: str) -> str:
    """Return what to use instead of an option that will be removed from all models that have it; else nothing."""
    fields = [model.model_fields[name] for model in models if name in model.model_fields]
    advice = [option_metadata(field).deprecated for field in fields]
    return advice[0] if advice and all(advice) else ""


def nested_models(models: Models, table: Mapping[str, Any]) -> Iterator[tuple[KeyPath, Models]]:
    """Yield the path below a table and the models of each nested table directly below it, in lists as well.

    Args:
        models: The models of the table; its keys have their present names.
        table: The table.
    """
    for name, value in table.items():
        for field in [model.model_fields[name] for model in models if name in model.model_fields]:
            yield from _models_in(type_of_field(field), value, (name,))


def _models_in(kind: ConstrainedType | None, value: object, path: KeyPath) -> Iterator[tuple[KeyPath, Models]]:
    if kind is None:
        return
    if isinstance(value, dict) and (models := options_models_of(kind)):
        yield path, models
        return
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _models_in(type_of_item(kind, key), item, (*path, key))


def spellings(tables: Mapping[tuple[str, ...], OptionsModel], path: KeyPath) -> list[KeyPath]:
    """Return the paths of an option, which may be given by an earlier name: the present one first.

    Args:
        tables: The valid tables of a configuration, by path.
        path: The option.
    """
    table = max((each for each in tables if path[: len(each)] == each), key=len, default=())
    if not table:
        return [path]
    found: list[KeyPath] = [table]
    kind: ConstrainedType | None = ConstrainedType(type(tables[table]))
    for part in path[len(table) :]:
        models = options_models_of(kind) if kind is not None else []
        present, names = part, [part]
        if models and isinstance(part, str):
            earlier = earlier_names(models)
            present = earlier.get(part, part)
            names = [present, *(old for old, new in earlier.items() if new == present)]
        kind = type_of_item(kind, present) if kind is not None else None
        found = [(*before, name) for before in found for name in names]
    return found
