"""What the declaration hooks may return, and what is wrong with it when they return something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

RESERVED_SECTIONS = frozenset({
    "access", "audit", "daemon", "events", "log", "messaging", "network", "notifications", "plugins", "services",
    "store", "telemetry",
})  # fmt: skip
"""The daemon's own sections. A list of its own, for the command does without pydantic; a test compares the two."""
RESERVED_NAMESPACES = frozenset({"ostler"})

Shape = tuple[Callable[[Any], str], Callable[[Any], str]]


def faults(hook: str, result: Any) -> list[str]:
    """Return what is wrong with the result of a declaration hook, as sentences; empty when nothing is."""
    if not isinstance(result, Mapping):
        return [f"{hook} returned {_shown(result)}, not a mapping"]
    check_key, check_value = SHAPES[hook]
    points = [f"{hook}: {fault}" for key in result if (fault := check_key(key))]
    points += [f"{hook}: {label(key)} is {fault}" for key, value in result.items() if (fault := check_value(value))]
    return points


def label(key: Any) -> str:
    """Return a key as people read it: `lamp`, or `lamp/gpio` for a pair."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _name(key: Any) -> str:
    if isinstance(key, str) and key and key.strip() == key and not set(key) & set(":./\\ \t\n"):
        return ""
    return f"{_shown(key)} is no name (a text without spaces, dots, colons and slashes)"


def _section(key: Any) -> str:
    if key in RESERVED_SECTIONS:
        return f"the section [{key}] is Ostler's own"
    return _name(key)


def _namespace(key: Any) -> str:
    if key in RESERVED_NAMESPACES:
        return f"the namespace {key} is Ostler's own"
    return "" if isinstance(key, str) and key.isidentifier() else f"{_shown(key)} is no namespace (an identifier)"


def _manager_and_driver(key: Any) -> str:
    if not isinstance(key, tuple) or len(key) != 2:
        return f"{_shown(key)} is no pair (manager's name, driver's name)"
    return _name(key[0]) or _name(key[1])


def _kind_and_name(key: Any) -> str:
    if not isinstance(key, tuple) or len(key) != 2 or not isinstance(key[0], str) or not key[0]:
        return f"{_shown(key)} is no pair (kind, name)"
    return _name(key[1])


def _class_or_path(value: Any) -> str:
    return "" if isinstance(value, type) or _is_text(value) else f"{_shown(value)}, neither a class nor an import path"


def _anything(value: Any) -> str:
    return "nothing" if value is None else ""


def _options(value: Any) -> str:
    # By its looks: the model's base class would bring pydantic along, and the command does without.
    is_model = isinstance(value, type) and hasattr(value, "model_fields")
    return "" if is_model else f"{_shown(value)}, not a class that derives from OptionsModel"


def _package(value: Any) -> str:
    is_package = isinstance(value, ModuleType) or _is_text(value)
    return "" if is_package else f"{_shown(value)}, neither a package nor an import path"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


SHAPES: Mapping[str, Shape] = {
    "ostler_managers": (_name, _class_or_path),
    "ostler_drivers": (_manager_and_driver, _class_or_path),
    "ostler_extensions": (_kind_and_name, _anything),
    "ostler_config_sections": (_section, _options),
    "ostler_migrations": (_namespace, _package),
}
"""The declaration hooks: each with the check of its keys and the check of its values."""
