"""Reads and merges the layers of a configuration, and records the origin of each value.

Tables are merged, other values are replaced by the later layer. As in systemd, a file of a directory masks the files of
the same name in earlier directories, also when it is empty or a link to /dev/null. A file that cannot be read is a
problem with its location; the other files are read nevertheless, so that all problems are reported at once.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import msgspec

from ostler.config.paths import Paths
from ostler.config.toml_parser import MAX_FILE_SIZE, MAX_FILES, TomlError, parse_toml
from ostler.config.toml_positions import KeyPath, TextPosition, TomlLayout, text_position, toml_layout
from ostler.errors import Problem
from ostler.files import Trust, UnreadableFile, check_trusted, distrust_reason, read_regular
from ostler.files.ownership import untrusted_owner_error

OVERRIDE_ORIGIN = "--set"
"""The origin of values from the command line."""
DEFAULT_ORIGIN = "default"
"""The origin of values that are not set."""

OriginOf: TypeAlias = Callable[[KeyPath], str]

_NULL_DEVICE = os.makedev(1, 3)


class RawConfiguration(msgspec.Struct, frozen=True):
    """The merged layers, not yet validated.

    Attributes:
        data: The merged tables.
        files: The files that were read, first to last.
        problems: Errors of reading and parsing.
        origins: The location of each value, by its path.
        layers: The layers that existed.
        empty_files: The files of size 0.
        masked: The files that were not read, each with the file of the same name in a later directory.
        warnings: What is accepted now and will not be: options by their earlier names.
        conflicts: Options that are set by their present and by their earlier name; found when they are validated.
        texts: The content of the files that parsed, until the configuration has been found valid.
    """

    data: dict[str, Any] = {}
    files: list[str] = []
    problems: list[Problem] = []
    origins: dict[KeyPath, str] = {}
    layers: list[str] = []
    empty_files: list[str] = []
    masked: dict[str, str] = {}
    warnings: list[str] = []
    conflicts: list[Problem] = []
    texts: dict[str, str] = {}
    _layouts: dict[str, TomlLayout] = {}
    _written: dict[KeyPath, KeyPath] = {}  # the path in the file of each value that was renamed

    def origin(self, path: Sequence[str | int]) -> str:
        """Return the origin of a value: `file:line:column`, `--set`, or `default` if it is not set."""
        return self.origins.get(tuple(path), DEFAULT_ORIGIN)

    def nearest_origin(self, path: Sequence[str | int]) -> str:
        """Return the location of a path, else that of the nearest enclosing table, else an empty text."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(tuple(path[:length]))
            if found is not None:
                return found
        return self.files[-1] if self.files else ""

    def nearest_value(self, path: Sequence[str | int]) -> str:
        """Return the location of the value at a path, else what `nearest_origin` returns."""
        for length in range(len(path), 0, -1):
            place = tuple(path[:length])
            found = self.origins.get(place)
            if found is None:
                continue
            name = split_origin(found)[0]
            layout = self.layout(name)
            span = layout.values.get(self._written.get(place, place)) if layout is not None else None
            return "{}:{}:{}".format(name, *text_position(self.texts[name], span[0])) if span else found
        return self.nearest_origin(path)

    def layout(self, name: str) -> TomlLayout | None:
        """Return the layout of a file whose text is known; parsed at the first problem in it."""
        if name not in self.texts:
            return None
        if name not in self._layouts:
            self._layouts[name] = toml_layout(self.texts[name])
        return self._layouts[name]

    def discard_texts(self) -> None:
        """Discard what is needed only to describe problems: the configuration is valid."""
        self.texts.clear()
        self._layouts.clear()

    def problem_at(self, path: Sequence[str | int], what: str, *, key: bool = False) -> Problem:
        """Return a problem at the location of the value at a path, or of its key."""
        return Problem(self.nearest_origin(path) if key else self.nearest_value(path), what)

    def rename(self, table: KeyPath, old: str, new: str) -> None:
        """Give the value of a key another name in its table, and keep its location."""
        values = self.table(table)
        values[new] = values.pop(old)
        length = len(table)
        for path in [path for path in self.origins if path[: length + 1] == (*table, old)]:
            renamed = (*table, new, *path[length + 1 :])
            self.origins[renamed] = self.origins.pop(path)
            self._written[renamed] = self._written.pop(path, path)

    def table(self, path: Sequence[str | int]) -> dict[str, Any]:
        """Return the table at a path, which may lead through lists; empty when there is none."""
        node: Any = self.data
        for name in path:
            if isinstance(node, dict):
                node = node.get(str(name))
            else:
                is_item = isinstance(node, list) and isinstance(name, int) and name < len(node)
                node = node[name] if is_item else None
        return node if isinstance(node, dict) else {}

    def sort_problems(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems in the order of files and lines, without duplicates."""
        order = {name: number for number, name in enumerate(self.files)}

        def key(problem: Problem) -> tuple[int, str, int, int, str]:
            name, line, column = split_origin(problem.where)
            return order.get(name, len(order)), name, line, column, problem.what

        return sorted(set(problems), key=key)


def split_origin(where: str) -> tuple[str, int, int]:
    """Return the file, line and column of a location; both are 0 if it has none."""
    name, _, rest = where.rpartition(":")
    head, _, line = name.rpartition(":")
    if head and line.isdigit() and rest.isdigit():
        return head, int(line), int(rest)
    return where, 0, 0


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as in TOML, items of lists with their index: `access.viewer[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part != "" and part.isascii() and part.replace("-", "").replace("_", "a").isalnum()
        text += ("." if text else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return text


def load(
    paths: Paths, *, overrides: Sequence[str] = (), replacements: Mapping[FilePath, bytes] | None = None
) -> RawConfiguration:
    """Read and merge all layers that exist.

    Files of other users are refused: a configuration names code that is run.

    Args:
        paths: The paths of the daemon.
        overrides: Values of the command line, each `dotted.key=VALUE`; a value that is not TOML is taken as text.
        replacements: Content of files of layers that replaces their current content; the files need not exist.

    Returns:
        The merged layers; other errors are in its `problems`.

    Raises:
        UntrustedOwner: Users other than root and the user of this process own or can write a file or a directory that
            contains it, and `paths.trust_owner` is false.
    """
    raw = RawConfiguration()
    trust = Trust.of_process(all=paths.trust_owner)
    check_trusted([*([paths.root] if paths.root else []), paths.config_file.parent], trust)
    for name, content in list(_read_layers(paths, raw, trust, replacements or {})):
        text = _decode(content, FilePath(name), raw)
        if text is not None:
            _merge_text(raw, name, text)
    for override in overrides:
        _merge_override(raw, override)
    return raw


def check_not_removed(before: RawConfiguration, now: RawConfiguration) -> None:
    """Add problems to `now` for files that were read before and are unlikely to have been removed on purpose.

    A missing layer may be a file system that is not mounted or a file that is being replaced, and an empty file may be
    one that is being written, or a full disk: treating them as an empty configuration would remove roles and services.
    A single file of a directory may be removed: that is the way to undo its settings. An empty file that masks another
    one counts as that one emptied; a link to /dev/null is meant.

    Args:
        before: The layers that were read before.
        now: The layers that were read now.
    """
    for layer in before.layers:
        if layer not in now.layers:
            now.problems.append(
                Problem(
                    layer,
                    "existed when the configuration was last read, and is missing; restore it, or restart the daemon",
                )
            )
    for file in now.empty_files:
        if file in before.files and file not in before.empty_files:
            now.problems.append(
                Problem(
                    file, "was not empty when it was last read, and is empty now; write a # into it if this is intended"
                )
            )

    for file, mask in now.masked.items():
        if file in before.files and file not in before.empty_files and mask in now.empty_files:
            what = f"is empty, and masks {file}, which was read before; write a # into it if this is intended"
            now.problems.append(Problem(mask, what))


def load_text(text: str, name: str = "ostler.toml") -> RawConfiguration:
    """Parse a TOML text as if it were the only file; for tests and for checks of a text."""
    raw = RawConfiguration(files=[name])
    _merge_text(raw, name, text)
    return raw


def _read_layers(
    paths: Paths, raw: RawConfiguration, trust: Trust, replacements: Mapping[FilePath, bytes]
) -> Iterator[tuple[str, bytes]]:
    """Yield the content of the files; at the end raise an error with all files that are not trusted."""
    strange: list[Problem] = []
    masks = _file_names(paths, replacements)
    for layer in paths.config_layers:
        new = {file for file in replacements if layer in (file, file.parent)}
        masks.pop(layer, None)
        for file, directory in _list_layer(paths, layer, raw, strange, trust, new):
            mask = next((str(later / file.name) for later, names in masks.items() if file.name in names), None)
            if mask is not None and file != paths.config_file:
                raw.masked[str(file)] = mask
                continue
            content = replacements.get(file)
            if content is None:
                content = _read_file(file, directory, raw, strange, trust)
            else:
                raw.files.append(str(file))
            if content is not None:
                if not content:
                    raw.empty_files.append(str(file))
                yield str(file), content
    if strange:
        raise untrusted_owner_error(strange)


def _file_names(paths: Paths, replacements: Mapping[FilePath, bytes]) -> dict[FilePath, set[str]]:
    """Return the names of the files of each directory; a directory that cannot be read is reported when it is read."""
    found: dict[FilePath, set[str]] = {}
    for layer in paths.config_layers:
        if layer == paths.config_file:
            continue
        new = {file.name for file in replacements if file.parent == layer}
        try:
            found[layer] = new | {name for name in os.listdir(layer) if _is_file_name(name)}  # noqa: PTH208 - names only
        except OSError:
            found[layer] = new
    return found


def _is_file_name(name: str) -> bool:
    """Return whether a file of a directory is read: hidden ones are leftovers of editors and package tools."""
    return name.endswith(".toml") and not name.startswith(".")


def _list_layer(
    paths: Paths, layer: FilePath, raw: RawConfiguration, untrusted: list[Problem], trust: Trust, new: set[FilePath]
) -> Iterator[tuple[FilePath, int | None]]:
    """Yield the files of a layer, including `new` ones, each with the descriptor of its directory."""
    try:
        mode = layer.stat().st_mode
        raw.layers.append(str(layer))
        if layer == paths.config_file or not stat.S_ISDIR(mode):
            yield layer, None
            return
        directory = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        if layer.is_symlink():
            raw.problems.append(Problem(str(layer), "is a dangling symbolic link"))
        yield from ((file, None) for file in sorted(new))
        return  # all layers are optional
    except OSError as error:
        raw.problems.append(Problem(str(layer), f"cannot be read: {error.strerror}"))
        return
    try:
        # Check the directory that is read, even if its name has been taken by another one meanwhile.
        if why := distrust_reason(os.fstat(directory), trust):
            untrusted.append(Problem(str(layer), why))
            return
        try:
            listed = os.listdir(directory)  # noqa: PTH208 - a descriptor, not a path
        except OSError as error:  # out of descriptors, or the disk fails
            raw.problems.append(Problem(str(layer), f"cannot be read: {error.strerror}"))
            return
        names = sorted({name for name in listed if _is_file_name(name)} | {file.name for file in new})
        if len(names) > MAX_FILES:
            raw.problems.append(Problem(str(layer), f"more than {MAX_FILES} files in this directory"))
        yield from ((layer / name, directory) for name in names[:MAX_FILES])
    finally:
        os.close(directory)


def _read_file(
    file: FilePath, directory: int | None, raw: RawConfiguration, untrusted: list[Problem], trust: Trust
) -> bytes | None:
    raw.files.append(str(file))
    try:
        found = read_regular(file if directory is None else file.name, MAX_FILE_SIZE, dir_fd=directory)
    except UnreadableFile as error:
        if error.status is not None and error.status.st_rdev == _NULL_DEVICE:
            return b"#"  # a link to /dev/null masks a file, as in the directories of systemd
        raw.problems.append(Problem(str(file), error.strerror or "cannot be read"))
        return None
    except OSError as error:
        raw.problems.append(Problem(str(file), f"cannot be read: {error.strerror}"))
        return None
    if why := distrust_reason(found.status, trust):
        untrusted.append(Problem(str(file), why))
        return None
    return found.data


def _decode(content: bytes, file: FilePath, raw: RawConfiguration) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        byte = content[error.start]
        raw.problems.append(
            Problem(f"{file}:{line}:{column}", f"byte 0x{byte:02x} is not valid UTF-8; save the file as UTF-8")
        )
        return None


def _merge_text(raw: RawConfiguration, name: str, text: str) -> None:
    try:
        data, positions = parse_toml(text)
    except TomlError as error:
        if not error.line:
            raw.problems.append(Problem(name, error.what))
            return
        from ostler.config.source_lines import quote_syntax  # only when a configuration is refused

        source = quote_syntax(text, TextPosition(error.line, error.column))
        raw.problems.append(Problem(f"{name}:{error.line}:{error.column}", error.what, source))
        return
    raw.texts[name] = text
    _merge_tables(raw, raw.data, data, (), lambda path: _format_origin(name, positions, path))


def _format_origin(name: str, positions: dict[KeyPath, TextPosition], path: KeyPath) -> str:
    position = positions.get(path)
    return f"{name}:{position.line}:{position.column}" if position else name


def _merge_override(raw: RawConfiguration, override: str) -> None:
    key, equals, value = override.partition("=")
    try:
        names = split_key(key) if equals else []
    except TomlError:
        names = []
    if not names:
        what = f'"{override}" is not a valid override; write table.key=VALUE'
        raw.problems.append(Problem(OVERRIDE_ORIGIN, what))
        return
    nested: Any = parse_value(value)
    for name in reversed(names):
        nested = {name: nested}
    _merge_tables(raw, raw.data, nested, (), lambda _path: OVERRIDE_ORIGIN)


def split_key(key: str) -> list[str]:
    """Return the parts of a dotted key; empty if it has more than one line.

    Raises:
        Unreadable: The key is not valid.
    """
    if "\n" in key:
        return []
    names: list[str] = []
    node: Any = parse_toml(f"{key} = 0")[0]
    while isinstance(node, dict) and len(node) == 1:
        name, node = next(iter(node.items()))
        names.append(name)
    return names


def parse_value(value: str) -> Any:
    """Parse a value of the command line as TOML, or else return it as text."""
    try:
        parsed = parse_toml(f"value = {value}")[0]
    except TomlError:
        return value
    return parsed["value"] if len(parsed) == 1 else value


def _merge_tables(
    raw: RawConfiguration, into: dict[str, Any], new: dict[str, Any], path: KeyPath, origin_of: OriginOf
) -> None:
    for key, value in new.items():
        here = (*path, key)
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge_tables(raw, old, value, here, origin_of)
            continue
        if key in into:
            _remove_origins(raw, here, old)
        into[key] = {} if isinstance(value, dict) else value
        raw.origins[here] = origin_of(here)
        if isinstance(value, dict):
            _merge_tables(raw, into[key], value, here, origin_of)
        elif isinstance(value, list):
            _record_item_origins(raw, value, here, origin_of)


def _record_item_origins(raw: RawConfiguration, node: Any, path: KeyPath, origin_of: OriginOf) -> None:
    items: Iterable[tuple[str | int, Any]]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        here = (*path, key)
        raw.origins[here] = origin_of(here)
        _record_item_origins(raw, value, here, origin_of)


def _remove_origins(raw: RawConfiguration, path: KeyPath, value: Any) -> None:
    raw.origins.pop(path, None)
    items: Iterable[tuple[str | int, Any]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _remove_origins(raw, (*path, key), item)
