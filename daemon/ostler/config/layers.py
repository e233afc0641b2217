"""The layers of a configuration read and merged; each value remembers where it was written.

Tables merge, anything else is replaced by the later layer. Whatever cannot be read is a problem with its place, and the
other files are read all the same, so that everything is said at once.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import msgspec

from ostler.config.parsing import MAX_FILES, MAX_SIZE, Unreadable, parse
from ostler.config.paths import Paths
from ostler.config.positions import Path, Position
from ostler.errors import Problem
from ostler.files import FileRefused, Trust, check_trusted, distrusted, read_regular
from ostler.files.ownership import refusal

OVERRIDE = "--set"
"""The origin of values that the command line gave."""
DEFAULT = "default"
"""The origin of values that nothing gave."""

Placer: TypeAlias = Callable[[Path], str]

_NULL_DEVICE = os.makedev(1, 3)


class RawConfiguration(msgspec.Struct, frozen=True):
    """All layers merged, not yet checked against any model.

    Attributes:
        data: The merged tables.
        files: The files that were read, first to last.
        problems: What could not be read or parsed.
        origins: Where each value stands, by its path.
        layers: The layers that were there.
        blank: The files that held nothing at all.
    """

    data: dict[str, Any] = {}
    files: list[str] = []
    problems: list[Problem] = []
    origins: dict[Path, str] = {}
    layers: list[str] = []
    blank: list[str] = []

    def origin(self, path: Sequence[str | int]) -> str:
        """Return where a value comes from: `file:line:column`, `--set`, or `default` when nothing gives it."""
        return self.origins.get(tuple(path), DEFAULT)

    def place(self, path: Sequence[str | int]) -> str:
        """Return the place to point at for a path: its own, else that of the nearest table around it, else none."""
        for length in range(len(path), 0, -1):
            found = self.origins.get(tuple(path[:length]))
            if found is not None:
                return found
        return self.files[-1] if self.files else ""

    def problem(self, path: Sequence[str | int], what: str) -> Problem:
        """Return a problem with the place of a path, for findings of callers."""
        return Problem(self.place(path), what)

    def table(self, path: Sequence[str]) -> dict[str, Any]:
        """Return the table at a path; empty when there is none."""
        node: Any = self.data
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        return node if isinstance(node, dict) else {}

    def sorted(self, problems: Iterable[Problem]) -> list[Problem]:
        """Return problems in the order of the files and of the lines in them, each once."""
        order = {name: number for number, name in enumerate(self.files)}

        def key(problem: Problem) -> tuple[int, str, int, int, str]:
            name, line, column = _split_place(problem.where)
            return order.get(name, len(order)), name, line, column, problem.what

        return sorted(set(problems), key=key)


def _split_place(where: str) -> tuple[str, int, int]:
    name, _, rest = where.rpartition(":")
    head, _, line = name.rpartition(":")
    if head and line.isdigit() and rest.isdigit():
        return head, int(line), int(rest)
    return where, 0, 0


def dotted(path: Sequence[str | int]) -> str:
    """Return a path as it would be written in TOML, items of lists with their number: `access.viewer[2]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        bare = part != "" and part.isascii() and part.replace("-", "").replace("_", "a").isalnum()
        text += ("." if text else "") + (part if bare else json.dumps(part, ensure_ascii=False))
    return text


def load(
    paths: Paths, *, overrides: Sequence[str] = (), given: Mapping[FilePath, bytes] | None = None
) -> RawConfiguration:
    """Read every layer that is there, and merge them.

    What belongs to somebody else is not read: a configuration names code that is run.

    Args:
        paths: Whose configuration.
        overrides: Values of the command line, each `dotted.key=VALUE`; the value is TOML, or else taken as text.
        given: What files of directories are to hold, instead of what they hold now; they need not be there.

    Returns:
        What was read; whatever else went wrong is in its `problems`.

    Raises:
        UntrustedOwner: A file, or a directory that it lies in, belongs to, or can be written by, neither root nor the
            user of this process, and `paths` does not say to go on.
    """
    raw = RawConfiguration()
    trust = Trust.of_process(all=paths.trust_owner)
    check_trusted([*([paths.root] if paths.root else []), paths.config_file.parent], trust)
    for name, content in list(_contents(paths, raw, trust, given or {})):
        text = _decoded(content, FilePath(name), raw)
        if text is not None:
            _merge_text(raw, name, text)
    for override in overrides:
        _merge_override(raw, override)
    return raw


def check_still_there(before: RawConfiguration, now: RawConfiguration) -> None:
    """Note as problems of `now` what was read before and cannot have been taken away on purpose.

    A layer that is gone is a file system that is not mounted or a file that is just being replaced, and a file without
    a byte is one that is being written or found no room: to take either for an empty configuration would take roles
    and services away. One file of a directory may go: that is how what it said is taken back.

    Args:
        before: What was read before.
        now: What was read now.
    """
    for layer in before.layers:
        if layer not in now.layers:
            now.problems.append(
                Problem(layer, "was there when the configuration was read before, and is gone; put it back, or restart")
            )
    for file in now.blank:
        if file in before.files and file not in before.blank:
            now.problems.append(
                Problem(
                    file, "held something when it was read before, and is empty; write a # into it if that is meant"
                )
            )


def load_text(text: str, name: str = "ostler.toml") -> RawConfiguration:
    """Return what one TOML text says, as if it were the only file; for tests and for checks of a text."""
    raw = RawConfiguration(files=[name])
    _merge_text(raw, name, text)
    return raw


def _contents(
    paths: Paths, raw: RawConfiguration, trust: Trust, given: Mapping[FilePath, bytes]
) -> Iterator[tuple[str, bytes]]:
    """Yield what the files hold; at the end say all of them that are not to be believed."""
    strange: list[Problem] = []
    for layer in paths.config_dirs:
        new = {file.name for file in given if file.parent == layer}
        for file, directory in _files(paths, layer, raw, strange, trust, new):
            content = given.get(file)
            if content is None:
                content = _content(file, directory, raw, strange, trust)
            else:
                raw.files.append(str(file))
            if content is not None:
                if not content:
                    raw.blank.append(str(file))
                yield str(file), content
    if strange:
        raise refusal(strange)


def _files(
    paths: Paths, layer: FilePath, raw: RawConfiguration, strange: list[Problem], trust: Trust, new: set[str]
) -> Iterator[tuple[FilePath, int | None]]:
    """Yield the files of a layer, `new` ones included, each with the descriptor of the directory it is read from."""
    try:
        mode = layer.stat().st_mode
        raw.layers.append(str(layer))
        if layer == paths.config_file or not stat.S_ISDIR(mode):
            yield layer, None
            return
        directory = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        if layer.is_symlink():
            raw.problems.append(Problem(str(layer), "is a symbolic link that leads nowhere"))
        yield from ((layer / name, None) for name in sorted(new))
        return  # no layer has to be there
    except OSError as error:
        raw.problems.append(Problem(str(layer), f"cannot be read: {error.strerror}"))
        return
    try:
        # What is judged is what is read from, even if another directory has its name by now.
        if why := distrusted(os.fstat(directory), trust):
            strange.append(Problem(str(layer), why))
            return
        # Hidden names are what editors and package tools leave lying about.
        try:
            listed = os.listdir(directory)  # noqa: PTH208 - a descriptor, not a path
        except OSError as error:  # no descriptor is left, or the disk fails
            raw.problems.append(Problem(str(layer), f"cannot be read: {error.strerror}"))
            return
        names = sorted({name for name in listed if name.endswith(".toml") and not name.startswith(".")} | new)
        if len(names) > MAX_FILES:
            raw.problems.append(Problem(str(layer), f"there are more than {MAX_FILES} files in this directory"))
        yield from ((layer / name, directory) for name in names[:MAX_FILES])
    finally:
        os.close(directory)


def _content(
    file: FilePath, directory: int | None, raw: RawConfiguration, strange: list[Problem], trust: Trust
) -> bytes | None:
    raw.files.append(str(file))
    try:
        found = read_regular(file if directory is None else file.name, MAX_SIZE, dir_fd=directory)
    except FileRefused as error:
        if error.status is not None and error.status.st_rdev == _NULL_DEVICE:
            return b"#"  # a link to /dev/null masks a file, as in systemd's own folders
        raw.problems.append(Problem(str(file), error.strerror or "cannot be read"))
        return None
    except OSError as error:
        raw.problems.append(Problem(str(file), f"cannot be read: {error.strerror}"))
        return None
    if why := distrusted(found.status, trust):
        strange.append(Problem(str(file), why))
        return None
    return found.data


def _decoded(content: bytes, file: FilePath, raw: RawConfiguration) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        byte = content[error.start]
        raw.problems.append(
            Problem(f"{file}:{line}:{column}", f"byte 0x{byte:02x} is no UTF-8; save the file as UTF-8")
        )
        return None


def _merge_text(raw: RawConfiguration, name: str, text: str) -> None:
    try:
        data, positions = parse(text)
    except Unreadable as error:
        raw.problems.append(Problem(f"{name}:{error.line}:{error.column}" if error.line else name, error.what))
        return
    _merge(raw, raw.data, data, (), lambda path: _place(name, positions, path))


def _place(name: str, positions: dict[Path, Position], path: Path) -> str:
    position = positions.get(path)
    return f"{name}:{position.line}:{position.column}" if position else name


def _merge_override(raw: RawConfiguration, override: str) -> None:
    key, equals, value = override.partition("=")
    try:
        names = key_names(key) if equals else []
    except Unreadable:
        names = []
    if not names:
        what = f'"{override}" is no `table.key=VALUE`'
        raw.problems.append(Problem(OVERRIDE, what))
        return
    nested: Any = value_of(value)
    for name in reversed(names):
        nested = {name: nested}
    _merge(raw, raw.data, nested, (), lambda _path: OVERRIDE)


def key_names(key: str) -> list[str]:
    """Return the parts of a dotted key; empty when there is more than one line.

    Raises:
        Unreadable: It is none.
    """
    if "\n" in key:
        return []
    names: list[str] = []
    node: Any = parse(f"{key} = 0")[0]
    while isinstance(node, dict) and len(node) == 1:
        name, node = next(iter(node.items()))
        names.append(name)
    return names


def value_of(value: str) -> Any:
    """Return what a value on the command line means: TOML, or else text."""
    try:
        parsed = parse(f"value = {value}")[0]
    except Unreadable:
        return value
    return parsed["value"] if len(parsed) == 1 else value


def _merge(raw: RawConfiguration, into: dict[str, Any], new: dict[str, Any], path: Path, place: Placer) -> None:
    for key, value in new.items():
        here = (*path, key)
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(raw, old, value, here, place)
            continue
        if key in into:
            _forget(raw, here, old)
        into[key] = {} if isinstance(value, dict) else value
        raw.origins[here] = place(here)
        if isinstance(value, dict):
            _merge(raw, into[key], value, here, place)
        elif isinstance(value, list):
            _note_items(raw, value, here, place)


def _note_items(raw: RawConfiguration, node: Any, path: Path, place: Placer) -> None:
    items: Iterable[tuple[str | int, Any]]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        here = (*path, key)
        raw.origins[here] = place(here)
        _note_items(raw, value, here, place)


def _forget(raw: RawConfiguration, path: Path, value: Any) -> None:
    raw.origins.pop(path, None)
    items: Iterable[tuple[str | int, Any]]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _forget(raw, (*path, key), item)
