"""The files of a new plugin, which passes its tests and checks as it is; their texts are in `plugin_template`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from ostler.cli.command_tree import COMMANDS
from ostler.errors import Conflict, InvalidInput
from ostler.files import create_file, make_directory
from ostler.messaging.apicheck.interface_diff import format_interface
from ostler.types import CONTROL_TOPIC

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_NAME_LENGTH = 24
"""Longer names would break lines of the files, which their formatter then changes."""
_CLASHING_NAMES = frozenset({"driver", "manager", "rpc", CONTROL_TOPIC})
"""Classes of these names, as `RpcApi`, are those of Ostler; the topic is the daemon's own."""

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    ".github/workflows/test.yml": "workflow.yml",
    "$package/__init__.py": "package/__init__.py",
    "$package/py.typed": "package/py.typed",
    "$package/plugin.py": "package/plugin.py",
    "$package/manager.py": "package/manager.py",
    "$package/api.py": "package/api.py",
    "tests/test_$name.py": "tests/test_plugin.py",
}
_OPTIONAL_FILES = {
    "drivers": {"$package/driver.py": "package/driver.py", "$package/memory.py": "package/memory.py"},
    "tables": {
        "$package/tables.py": "package/tables.py",
        "$package/migrations/__init__.py": "package/migrations/__init__.py",
        "$package/migrations/m0001_switches.py": "package/migrations/m0001_switches.py",
    },
    "commands": {"$package/commands.py": "package/commands.py"},
}
"""Path, with placeholders, to the template."""


class PluginParts(NamedTuple):
    """What a new plugin has besides its manager.

    Attributes:
        drivers: A contract of drivers, and a driver.
        tables: A table, with its migration.
        commands: Sub-commands of `ostler`.
    """

    drivers: bool = True
    tables: bool = False
    commands: bool = True


DEFAULT_PARTS = PluginParts()


def write_plugin(name: str, parent: Path, parts: PluginParts = DEFAULT_PARTS) -> list[Path]:
    """Write a new plugin to a new directory `ostler-NAME`, and return the files.

    Args:
        name: The plugin's name, which is also that of its manager and topic.
        parent: The directory in which the new one is created.
        parts: What it has.

    Raises:
        InvalidInput: The name cannot be that of a Python package, or is taken by Ostler.
        Conflict: The directory already exists.
    """
    _check_name(name, parts)
    words = {
        "name": name,
        "dist": f"ostler-{name.replace('_', '-')}",
        "verb": name.replace("_", "-"),
        "package": f"ostler_{name}",
        "cls": "".join(part.capitalize() for part in name.split("_")),
    }
    folder = parent / words["dist"]
    if folder.exists() or folder.is_symlink():
        raise Conflict(f"{folder} already exists", hint="choose another name, or another directory with --into")
    texts = {Template(path).substitute(words): text for path, text in _render(words, parts)}
    texts[f"tests/api/{name}-1.0.json"] = format_interface(_interface(name, parts))
    for path, text in texts.items():
        make_directory((folder / path).parent, 0o755)
        create_file(folder / path, text.encode())
    return [folder / path for path in texts]


def _check_name(name: str, parts: PluginParts) -> None:
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH:
        raise InvalidInput(
            f"{name} is not a valid name of a plugin",
            hint=f"use up to {_MAX_NAME_LENGTH} lower-case letters, digits and _, for example lamp",
        )
    if name in _CLASHING_NAMES:
        raise InvalidInput(f"the name {name} is reserved by Ostler", hint="choose another name")
    if parts.commands and name.replace("_", "-") in COMMANDS:
        raise InvalidInput(
            f"`ostler {name.replace('_', '-')}` is a command of Ostler", hint="choose another name, or --no-commands"
        )


def _render(words: dict[str, str], parts: PluginParts) -> Iterator[tuple[str, str]]:
    wanted = parts._asdict()
    files = dict(_FILES)
    for part, more in _OPTIONAL_FILES.items():
        files |= more if wanted[part] else {}
    templates = resources.files("ostler.cli") / "plugin_template"
    for path, template in files.items():
        text = (templates / f"{template}.tmpl").read_text(encoding="utf-8")
        yield path, Template(select_lines(text, wanted)).substitute(words)


def select_lines(text: str, parts: dict[str, bool]) -> str:
    """Return the lines of a template that are for the wanted parts.

    A line `%if drivers` or `%if drivers or tables` begins lines for any of these parts, `%else` those for none of them;
    `%end` ends them. Not nested.

    Args:
        text: The template.
        parts: Part to whether it is wanted.
    """
    kept = []
    is_wanted = True
    for line in text.splitlines(keepends=True):
        if line.startswith("%if "):
            is_wanted = any(parts[part] for part in line[4:].split() if part != "or")
        elif line == "%else\n":
            is_wanted = not is_wanted
        elif line == "%end\n":
            is_wanted = True
        elif is_wanted:
            kept.append(line)
    return "".join(kept)


def _interface(name: str, parts: PluginParts) -> dict[str, Any]:
    """Return what `ostler plugin api` says of the new manager."""
    text = {"required": True, "type": "str"}
    is_on = text | {"type": "bool"}
    method = {"role": "viewer", "version": "1.0", "changes": False, "streams": False, "arguments": {}}
    switch = {"item": text, "on": {"default": True, "required": False, "type": "bool"}}
    methods = {
        "items": method | {"result": {"kind": "list", "items": {"ref": "Item"}}},
        "switch": method | {"role": "operator", "changes": True, "arguments": switch, "result": {"ref": "Item"}},
    }
    fields = {"name": text, "on": is_on} | ({"driver": text} if parts.drivers else {})
    types: dict[str, Any] = {"Item": {"kind": "struct", "fields": fields}}
    if parts.tables:
        limit = {"limit": {"default": 20, "required": False, "type": "int"}}
        methods["history"] = method | {"arguments": limit, "result": {"kind": "list", "items": {"ref": "Switch"}}}
        row = {"item": text, "on": is_on, "at": text | {"type": "float"}}
        types["Switch"] = {"kind": "struct", "fields": row}
    return {
        "format": 1,
        "manager": name,
        "namespaces": {"": {"rpc_version": "1.0", "methods": methods}},
        "types": types,
    }
