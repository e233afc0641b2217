"""Checks the results of declaration hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

RESERVED_SECTIONS = frozenset({
    "access", "audit", "daemon", "events", "log", "messaging", "network", "notifications", "operations", "plugins",
    "services", "store", "telemetry",
})  # fmt: skip
"""The daemon's own sections. A separate list, as the command does not load pydantic; a test compares the two."""
RESERVED_NAMESPACES = frozenset({"ostler"})

ResultCheck = tuple[Callable[[Any], str], Callable[[Any], str]]


def result_faults(hook: str, result: Any) -> list[str]:
    """Return the faults of a declaration hook's result, as sentences; empty without faults."""
    if not isinstance(result, Mapping):
        return [f"{hook} returned {_format_value(result)}, not a mapping"]
    check_key, check_value = RESULT_CHECKS[hook]
    points = [f"{hook}: {fault}" for key in result if (fault := check_key(key))]
    points += [
        f"{hook}: {format_key(key)} is {fault}" for key, value in result.items() if (fault := check_value(value))
    ]
    return points


def format_key(key: Any) -> str:
    """Format a key for messages: `lamp`, or `lamp/gpio` for a pair."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _format_value(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"


def _check_name(key: Any) -> str:
    if isinstance(key, str) and key and key.strip() == key and not set(key) & set(":./\\ \t\n"):
        return ""
    return f"{_format_value(key)} is not a valid name (a string without spaces, dots, colons and slashes)"


def _check_section(key: Any) -> str:
    if key in RESERVED_SECTIONS:
        return f"the section [{key}] is reserved for Ostler"
    return _check_name(key)


def _check_namespace(key: Any) -> str:
    if key in RESERVED_NAMESPACES:
        return f"the namespace {key} is reserved for Ostler"
    return (
        ""
        if isinstance(key, str) and key.isidentifier()
        else f"{_format_value(key)} is not a valid namespace (an identifier)"
    )


def _check_manager_and_driver(key: Any) -> str:
    if not isinstance(key, tuple) or len(key) != 2:
        return f"{_format_value(key)} is not a pair (manager name, driver name)"
    return _check_name(key[0]) or _check_name(key[1])


def _check_kind_and_name(key: Any) -> str:
    if not isinstance(key, tuple) or len(key) != 2 or not isinstance(key[0], str) or not key[0]:
        return f"{_format_value(key)} is not a pair (kind, name)"
    return _check_name(key[1])


def _check_class_or_path(value: Any) -> str:
    return (
        ""
        if isinstance(value, type) or _is_text(value)
        else f"{_format_value(value)}, neither a class nor an import path"
    )


def _accept_anything(value: Any) -> str:
    return "nothing" if value is None else ""


def _check_options_model(value: Any) -> str:
    # By its attributes: the model's base class would import pydantic, which the command does not load.
    is_model = isinstance(value, type) and hasattr(value, "model_fields")
    return "" if is_model else f"{_format_value(value)}, not a class that derives from OptionsModel"


def _check_package(value: Any) -> str:
    is_package = isinstance(value, ModuleType) or _is_text(value)
    return "" if is_package else f"{_format_value(value)}, neither a package nor an import path"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


RESULT_CHECKS: Mapping[str, ResultCheck] = {
    "ostler_managers": (_check_name, _check_class_or_path),
    "ostler_drivers": (_check_manager_and_driver, _check_class_or_path),
    "ostler_extensions": (_check_kind_and_name, _accept_anything),
    "ostler_config_sections": (_check_section, _check_options_model),
    "ostler_migrations": (_check_namespace, _check_package),
}
"""The declaration hooks, each with the check of its keys and the check of its values."""
