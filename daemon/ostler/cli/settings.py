"""`ostler config set`: one value into a file of its own, never into one that a person or a package brought."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.cli import offline, session
from ostler.errors import Busy, ConfigurationError, InvalidInput, OstlerError

if TYPE_CHECKING:
    from ostler.config.layers import RawConfiguration

FILE = "90-set.toml"
_HEADER = b"# Written by `ostler config set`; values here win over those of files before it.\n"
_BOM = b"\xef\xbb\xbf"
_LOCK_TIMEOUT = 60.0
_LOCK_RETRY = 0.02


class Overridden(OstlerError):
    """Raised when a value would have no effect, because a file that is read later sets the same option."""


class Written(NamedTuple):
    """What was set: the option, its value, the file it went to, and the origin of the value that is in force now."""

    option: str
    value: Any
    file: str
    origin: str


def write(key: str, text: str) -> Written:
    """Check one value with all the rest of the configuration, and write it to `conf.d/90-set.toml`.

    A lock is held from the first look at the file until it is replaced, so that of several at once none is lost. The
    file is replaced whole: whatever interrupts this, there is the old one or the new one.

    Args:
        key: The option, `table.key`.
        text: Its value as TOML, or else as text.

    Raises:
        Busy: Somebody else holds the lock and does not let go of it.
        ConfigurationError: The configuration would be wrong with it; nothing was written.
        InvalidInput: The key is none, or the file is written so that it cannot be put in.
        Overridden: A file that is read later sets the option; nothing was written.
        OSError: The file cannot be written.
    """
    from ostler.config.layers import value_of

    path, value = _path_of(key), value_of(text)
    directory = session.current().paths().config_file.parent
    file = directory / "conf.d" / FILE
    with _locked(directory):
        content = _with_value(file, path, value)
        try:
            raw = offline.read(given={file: content}).configuration.raw
        except ConfigurationError as error:
            error.hint = f"nothing was written. {error.hint}".rstrip()
            raise
        _check_effective(raw, path, value, file)
        _replace(file, content)
    return Written(key, value, str(file), raw.origin(path))


def _path_of(key: str) -> tuple[str, ...]:
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
    return tuple(names)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a directory with configuration; it is the directory's own, so that no file is left behind."""
    from ostler.files import make_directory

    make_directory(directory, 0o755)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise Busy(f"{directory} is locked by another `ostler config set`", hint="see `lsof` for which process")
            time.sleep(_LOCK_RETRY)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _with_value(file: Path, path: tuple[str, ...], value: Any) -> bytes:
    from ostler.config.edit import CannotEdit, with_value
    from ostler.config.parsing import Unreadable

    before = _read(file)
    try:
        text = before.removeprefix(_BOM).decode()
        edited = with_value(text, path, value)
    except (CannotEdit, Unreadable, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be edited: {error}", hint="edit that file by hand") from None
    return (_BOM if before.startswith(_BOM) else b"") + edited.encode()


def _read(file: Path) -> bytes:
    from ostler.config.parsing import MAX_SIZE
    from ostler.files import read_regular

    try:
        return read_regular(file, MAX_SIZE, follow=False).data or _HEADER
    except FileNotFoundError:
        return _HEADER


def _check_effective(raw: RawConfiguration, path: tuple[str, ...], value: Any, file: Path) -> None:
    from ostler.config.layers import dotted

    for leaf in _leaves(path, value):
        origin = raw.origin(leaf)
        if not origin.startswith(f"{file}:"):
            raise Overridden(
                f"{dotted(leaf)} is set at {origin}, which is read after {file} and wins; nothing was written",
                hint="change it there, or take it out there and set it again",
            )


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves((*path, name), item)
    else:
        yield path


def _replace(file: Path, content: bytes) -> None:
    from ostler.files import make_directory, replace_file

    make_directory(file.parent, 0o755)
    replace_file(file, content, mode=0o644)
