"""`ostler config set`: one value into a file of its own, never into a file that a person wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ostler.cli import offline, session
from ostler.errors import InvalidInput

FILE = "90-set.toml"
_HEADER = "# Written by `ostler config set`; values here win over those of files before it.\n"


class Written(NamedTuple):
    """What was set: the option, its value, the file it went to, and the origin of the value that is in force now."""

    option: str
    value: Any
    file: str
    origin: str


def write(key: str, text: str) -> Written:
    """Check one value with all the rest of the configuration, and write it to `conf.d/90-set.toml`.

    Args:
        key: The option, `table.key`.
        text: Its value as TOML, or else as text.

    Raises:
        ConfigurationError: The configuration would be wrong with it; nothing was written.
        InvalidInput: The key is none.
        OSError: The file cannot be written.
    """
    path = _path_of(key)
    checked = offline.read([f"{key}={text}"]).configuration
    value: Any = checked.raw.data
    for name in path:
        value = value[name]
    paths = session.current().paths()
    file = paths.config_file.parent / "conf.d" / FILE
    tables = _read(file)
    node = tables
    for name in path[:-1]:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise InvalidInput(f"{name} in {key} is a value in {file}, not a table", hint="edit that file")
    node[path[-1]] = value
    _replace(file, tables)
    return Written(key, value, str(file), offline.read().configuration.raw.origin(path))


def _path_of(key: str) -> list[str]:
    from ostler.config.layers import key_names
    from ostler.config.parsing import Unreadable

    try:
        names = key_names(key)
    except Unreadable:
        names = []
    if len(names) < 2:
        raise InvalidInput(
            f"{key} is no option", hint="write table.key, for instance log.level; see `ostler config cat`"
        )
    return names


def _read(file: Path) -> dict[str, Any]:
    from ostler.config.parsing import MAX_SIZE, parse
    from ostler.files import read_regular

    try:
        return parse(read_regular(file, MAX_SIZE, follow=False).data.decode("utf-8-sig"))[0]
    except FileNotFoundError:
        return {}


def _replace(file: Path, tables: Mapping[str, Any]) -> None:
    from ostler.config.reference import toml_value
    from ostler.files import make_directory, replace_file

    lines = [f"{_dotted(path)} = {toml_value(value)}\n" for path, value in _leaves((), tables)]
    make_directory(file.parent, 0o755)
    replace_file(file, (_HEADER + "".join(lines)).encode(), mode=0o644)


def _leaves(path: tuple[str, ...], node: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves((*path, name), value)
        else:
            yield (*path, name), value


def _dotted(path: tuple[str, ...]) -> str:
    from ostler.config.layers import dotted

    return dotted(path)
