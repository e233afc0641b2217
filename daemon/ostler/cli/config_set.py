"""`ostler config set` and `unset`: edit the file that sets an option; write only what is valid and has an effect."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ostler.cli import invocation, without_daemon
from ostler.cli.config_files import BOM, EditedFile, lock_directory, read_editable, replace_edited, schema_line
from ostler.cli.results import OptionSet, OptionUnset
from ostler.config import load
from ostler.config.layers import dotted, parse_value, split_key, split_origin
from ostler.config.renamed_options import spellings
from ostler.config.secret_references import MASK
from ostler.config.toml_edit import EditError, ValueNotInFile, remove_value, set_value
from ostler.config.toml_parser import TomlError
from ostler.config.toml_positions import KeyPath
from ostler.errors import ConfigurationError, InvalidInput, OstlerError
from ostler.service.left_out import part_of

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.plugins import PluginHost

SET_FILE_NAME = "90-set.toml"
_HEADER = b"# Written by `ostler config set`; values here override those of earlier files.\n"
_VOLATILE_DIRECTORY = Path("/run")
_KEY_PART = re.compile(
    r"""[ \t]*("(?:\\.|[^"\\])*"|'[^']*'|[A-Za-z0-9_-]+)[ \t]*"""  # a name
    r"""((?:\[\d{1,6}\])*)[ \t]*(?:\.(?=.)|\Z)"""  # indexes, and the dot before the next name
)


class ValueOverridden(OstlerError):
    """Raised if a value would have no effect, because a file that is read later sets the same option."""


def set_option(key: str, text: str, file: str = "") -> OptionSet:
    """Check a value together with the rest of the configuration, and write it to the file that sets the option now.

    If none does, or one of a package, it is written to `conf.d/90-set.toml`. A lock is held from reading the file until
    it is replaced, so that concurrent writers lose nothing. The file is replaced atomically, and not through a link.
    Blocks; any thread.

    Args:
        key: The option, `table.key`; an earlier name is replaced by the present one.
        text: Its value as TOML; anything else is taken as text.
        file: The file to write to instead: a path, or a name in `conf.d`.

    Returns:
        What was written; a secret is masked.

    Raises:
        Busy: Another process holds the lock.
        ConfigurationError: The configuration would be invalid with the value; nothing was written.
        FileNotEditable: The file is a link, or this user may not write it.
        InvalidInput: The key is not valid, the file is not read, or the value cannot be set in it.
        ValueOverridden: A file that is read later sets the option; nothing was written.
        OSError: The file cannot be written.
    """
    value = parse_value(text)
    with lock_directory(_directory()):
        option = _Option(key)
        target = option.file(file)
        earlier = option.earlier_in(target)

        def edit(before: str) -> str:
            return set_value(remove_value(before, earlier) if earlier else before, option.path, value)

        edited = _edit_file(target, edit)
        found = option.resolve_with(target, edited.content)
        _check_effective(found, option.path, value, target)
        replace_edited(target, edited)
    if earlier is not None:
        option.note_name(earlier)
    option.note_others(found, target)
    shown = value if _may_show(found, option.path) else MASK
    return OptionSet(
        option=dotted(option.path),
        value=shown,
        file=str(target),
        origin=found.raw.origin(option.path),
        notes=option.notes,
    )


def unset_option(key: str, file: str = "") -> OptionUnset:
    """Remove a value from the file that sets it now, if the configuration is valid without it; as `set_option`.

    Args:
        key: The option, `table.key`, also by an earlier name.
        file: The file to remove it from instead: a path, or a name in `conf.d`.

    Returns:
        The file, and the origin of the value that is in effect without it: `default` if no file sets it.

    Raises:
        Busy: Another process holds the lock.
        ConfigurationError: The configuration would be invalid without the value; nothing was written.
        FileNotEditable: The file is a link, or this user may not write it.
        InvalidInput: The key is not valid, or is not set in the file.
        OSError: The file cannot be written.
    """
    with lock_directory(_directory()):
        option = _Option(key)
        target = option.file(file)
        path = option.earlier_in(target) or option.path
        edited = _edit_file(target, lambda before: remove_value(before, path))
        found = option.resolve_with(target, edited.content)
        replace_edited(target, edited)
    return OptionUnset(
        option=dotted(option.path), file=str(target), origin=found.raw.origin(option.path), notes=option.notes
    )


class _Option:
    """An option of the files as they are now.

    Args:
        key: The option as the user has written it.
    """

    def __init__(self, key: str) -> None:
        self.notes: list[str] = []
        self.path = given = _parse_key(key)
        self._paths = invocation.current_invocation().paths()
        self._raw = load(self._paths)
        self._plugins: PluginHost | None = None
        self._spellings: list[KeyPath] = [given]
        self._left_out: set[str] = set()
        try:
            found = without_daemon.resolve_configuration()
        except ConfigurationError:  # this may be what fixes it; earlier names are unknown, and reported as before
            return
        self._plugins = found.plugins
        self._left_out = {part_of(line) for line in found.broken}
        self._spellings = spellings(found.configuration.tables, given)
        self.path = self._spellings[0]
        if self.path != given:
            self.note_name(given)

    def file(self, name: str) -> Path:
        """Return the file to edit: the given one, the last one that sets the option, or that of `config set`."""
        if name:
            return self._given_file(name)
        own = [file for file in self._files() if file.parent not in self._package_layers()]
        found = own[-1] if own else _directory() / "conf.d" / SET_FILE_NAME
        if found.is_relative_to(_VOLATILE_DIRECTORY) and not _directory().is_relative_to(_VOLATILE_DIRECTORY):
            self.notes.append(f"{found} is lost when the machine restarts; choose another file with --file")
        return found

    def _files(self) -> list[Path]:
        """Return the files that set the option or an entry of it, first to last; files that are overridden do not."""
        origins = {
            split_origin(origin)[0]
            for path, origin in self._raw.origins.items()
            if any(path[: len(each)] == each for each in self._spellings)
        }
        return [Path(name) for name in self._raw.files if name in origins]

    def _package_layers(self) -> tuple[Path, ...]:
        """Return the directories of packages: an upgrade would replace what is written there."""
        layers = self._paths.config_layers
        return layers[: layers.index(self._paths.config_file)]

    def _given_file(self, name: str) -> Path:
        file = Path(os.path.normpath(Path.cwd() / name)) if "/" in name else _directory() / "conf.d" / name
        if name == self._paths.config_file.name:
            file = self._paths.config_file
        is_layer = file.parent in self._paths.config_layers and file.suffix == ".toml" and not file.name.startswith(".")
        if file != self._paths.config_file and not is_layer:
            layers = ", ".join(str(layer) for layer in self._paths.config_layers if layer != self._paths.config_file)
            raise InvalidInput(
                f"{file} is not read as a part of the configuration; nothing was written",
                hint=f"name {self._paths.config_file}, or a file with the suffix .toml in {layers}",
            )
        if file.parent in self._package_layers():
            self.notes.append(f"{file.parent} belongs to packages; an upgrade may replace the file")
        return file

    def earlier_in(self, file: Path) -> KeyPath | None:
        """Return the earlier name under which a file sets the option, None if it does not."""
        for path in self._spellings[1:]:
            if split_origin(self._raw.origin(path))[0] == str(file):
                return path
        return None

    def resolve_with(self, file: Path, content: bytes) -> Configuration:
        """Return the configuration with the new content of a file, when all of it is valid then.

        What a broken plugin is to blame for, and was before, does not count.
        """
        try:
            found = without_daemon.resolve_configuration(
                given={file: content}, plugins=self._plugins, may_leave_out=self._left_out.__contains__
            )
        except ConfigurationError as error:
            error.hint = f"nothing was written. {error.hint}".rstrip()
            raise
        raw = found.configuration.raw
        masked = [name for name, mask in raw.masked.items() if mask == str(file) and name not in self._raw.masked]
        if masked:
            raise InvalidInput(
                f"{file} would mask {masked[0]}, all of whose values would be lost; nothing was written",
                hint="choose another name with --file",
            )
        return found.configuration

    def note_name(self, earlier: KeyPath) -> None:
        """Note, once, that the option had an earlier name."""
        note = f"{dotted(earlier)} is now {dotted(self.path)}"
        self.notes += [] if note in self.notes else [note]

    def note_others(self, found: Configuration, file: Path) -> None:
        """Note entries of a table that was set which come from other files, and stay."""
        others = {
            split_origin(origin)[0]: dotted(path)
            for path, origin in found.raw.origins.items()
            if len(path) > len(self.path) and path[: len(self.path)] == self.path
        }
        others.pop(str(file), None)
        self.notes += [f"{name} sets {path} as well, which stays" for name, path in others.items()]


def _directory() -> Path:
    return invocation.current_invocation().paths().config_file.parent


def _may_show(found: Configuration, path: KeyPath) -> bool:
    from ostler.config.source_lines import may_quote_value  # only when something was written

    return may_quote_value({table: type(model) for table, model in found.tables.items()}, path)


def _parse_key(key: str) -> KeyPath:
    """Return the path of a key: as in TOML, items of lists with their index as in messages (`hooks[2].name`)."""
    path: list[str | int] = []
    place = 0
    while place < len(key) and (part := _KEY_PART.match(key, place)) is not None:
        try:
            path += split_key(part[1])
        except TomlError:
            break
        path += [int(number) for number in re.findall(r"\d+", part[2])]
        place = part.end()
    if place < len(key) or len(path) < 2:
        raise InvalidInput(
            f"{key} is not a valid option", hint="write table.key, such as log.level; see `ostler config cat`"
        )
    return tuple(path)


def _edit_file(file: Path, edit: Callable[[str], str]) -> EditedFile:
    before = read_editable(file)
    bom = BOM if before is not None and before.startswith(BOM) else b""
    try:
        edited = edit((before or schema_line(file) + _HEADER).removeprefix(BOM).decode())
    except ValueNotInFile as error:
        hint = "`ostler config cat` shows in which file an option is set"
        raise InvalidInput(f"{error} is not set in {file}", hint=hint) from None
    except (EditError, TomlError) as error:
        raise InvalidInput(f"cannot edit {file}: {error}", hint="edit the file by hand") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what = f"cannot edit {file}: line {line} is not valid UTF-8"
        raise InvalidInput(what, hint="save the file as UTF-8") from None
    # A reload takes a file that was emptied for one that is being written.
    return EditedFile(before, bom + (edited.encode() or b"#\n"))


def _check_effective(found: Configuration, path: KeyPath, value: Any, file: Path) -> None:
    raw = found.raw
    if str(file) in raw.masked:
        raise ValueOverridden(
            f"{file} is masked by {raw.masked[str(file)]}, so that its values have no effect; nothing was written",
            hint="remove or rename the file that masks it",
        )
    for leaf in _leaf_paths(path, value):
        origin = raw.origin(leaf)
        if not origin.startswith(f"{file}:"):
            raise ValueOverridden(
                f"{dotted(leaf)} is set at {origin}, which is read after {file} and overrides it; nothing was written",
                hint="change it there, or remove it there and set it again",
            )


def _leaf_paths(path: KeyPath, value: Any) -> Iterator[KeyPath]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaf_paths((*path, name), item)
    else:
        yield path
