"""`ostler config set` and `unset`: write to a file of their own, never to one of an administrator or a package."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.cli import invocation, without_daemon
from ostler.config.layers import dotted, parse_value, split_key
from ostler.config.toml_edit import EditError, ValueNotInFile, remove_value, set_value
from ostler.config.toml_parser import MAX_FILE_SIZE, TomlError
from ostler.errors import Busy, ConfigurationError, InvalidInput, OstlerError
from ostler.files import make_directory, read_regular, replace_file

if TYPE_CHECKING:
    from ostler.config.layers import RawConfiguration

SET_FILE_NAME = "90-set.toml"
_HEADER = b"# Written by `ostler config set`; values here override those of earlier files.\n"
_BOM = b"\xef\xbb\xbf"
_LOCK_TIMEOUT = 60.0
_LOCK_RETRY_DELAY = 0.02


class ValueOverridden(OstlerError):
    """Raised if a value would have no effect, because a file that is read later sets the same option."""


class SetResult(NamedTuple):
    """The result: the option, its value, its file, and the origin of the value that is in effect now."""

    option: str
    value: Any
    file: str
    origin: str


class UnsetResult(NamedTuple):
    """The result: the option, the file it was removed from, and the origin of the value that is in effect now."""

    option: str
    file: str
    origin: str


def set_option(key: str, text: str) -> SetResult:
    """Check a value together with the rest of the configuration, and write it to `conf.d/90-set.toml`.

    A lock is held from reading the file until it is replaced, so that concurrent writers lose nothing. The file is
    replaced atomically.

    Args:
        key: The option, `table.key`.
        text: Its value as TOML; anything else is taken as text.

    Raises:
        Busy: Another process holds the lock.
        ConfigurationError: The configuration would be invalid with the value; nothing was written.
        InvalidInput: The key is not valid, or the value cannot be inserted into the file.
        Overridden: A file that is read later sets the option; nothing was written.
        OSError: The file cannot be written.
    """
    path, value = _parse_key(key), parse_value(text)
    directory = invocation.current_invocation().paths().config_file.parent
    file = directory / "conf.d" / SET_FILE_NAME
    with _lock_directory(directory):
        content = _edit_file(file, lambda text: set_value(text, path, value))
        raw = _resolve_with(file, content)
        _check_effective(raw, path, value, file)
        _replace_file(file, content)
    return SetResult(key, value, str(file), raw.origin(path))


def unset_option(key: str) -> UnsetResult:
    """Remove a value from `conf.d/90-set.toml`, if the configuration is valid without it; locks as `set_option` does.

    Args:
        key: The option, `table.key`.

    Returns:
        The file, and the origin of the value that is in effect without it: `default` if no file sets it.

    Raises:
        Busy: Another process holds the lock.
        ConfigurationError: The configuration would be invalid without the value; nothing was written.
        InvalidInput: The key is not valid, or is not set in the file.
        OSError: The file cannot be written.
    """
    path = _parse_key(key)
    directory = invocation.current_invocation().paths().config_file.parent
    file = directory / "conf.d" / SET_FILE_NAME
    with _lock_directory(directory):
        content = _edit_file(file, lambda text: remove_value(text, path))
        raw = _resolve_with(file, content)
        _replace_file(file, content)
    return UnsetResult(key, str(file), raw.origin(path))


def _resolve_with(file: Path, content: bytes) -> RawConfiguration:
    try:
        return without_daemon.resolve_configuration(given={file: content}).configuration.raw
    except ConfigurationError as error:
        error.hint = f"nothing was written. {error.hint}".rstrip()
        raise


def _parse_key(key: str) -> tuple[str, ...]:
    try:
        names = split_key(key)
    except TomlError:
        names = []
    if len(names) < 2:
        raise InvalidInput(
            f"{key} is not a valid option", hint="write table.key, such as log.level; see `ostler config cat`"
        )
    return tuple(names)


@contextmanager
def _lock_directory(directory: Path) -> Iterator[None]:
    """Hold the lock of a configuration directory; the directory itself is locked, so that no lock file is left."""
    make_directory(directory, 0o755)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(f"{directory} is locked by another `ostler config set`", hint="`lsof` shows the process")
            time.sleep(_LOCK_RETRY_DELAY)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _edit_file(file: Path, edit: Callable[[str], str]) -> bytes:
    before = _read_file(file)
    try:
        text = before.removeprefix(_BOM).decode()
        edited = edit(text)
    except ValueNotInFile as error:
        hint = "`ostler config cat` shows in which file an option is set; other files are edited by hand"
        raise InvalidInput(f"{error} is not set in {file}", hint=hint) from None
    except (EditError, TomlError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot edit {file}: {error}", hint="edit the file by hand") from None
    return (_BOM if before.startswith(_BOM) else b"") + edited.encode()


def _read_file(file: Path) -> bytes:
    try:
        return read_regular(file, MAX_FILE_SIZE, follow=False).data or _HEADER
    except FileNotFoundError:
        return _HEADER


def _check_effective(raw: RawConfiguration, path: tuple[str, ...], value: Any, file: Path) -> None:
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


def _leaf_paths(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaf_paths((*path, name), item)
    else:
        yield path


def _replace_file(file: Path, content: bytes) -> None:
    make_directory(file.parent, 0o755)
    replace_file(file, content, mode=0o644)
