"""What is remembered of plugins over restarts: those that are not to be loaded, and crashes in their code.

Kept in `plugins.json` in the state directory, so that it can be read and changed without a daemon.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ostler.errors import PluginError, error_line
from ostler.files import make_directory, read_regular, replace_file

_log = logging.getLogger(__name__)
FILE_NAME = "plugins.json"
CRASH_LIMIT = 3
"""Crashes in the code of a plugin within `CRASH_PERIOD` for which it is quarantined."""
CRASH_PERIOD = 86400.0
"""Seconds for which a crash is held against a plugin."""
_MAX_CRASHES = 100
_MAX_FILE_SIZE = 1 << 20
_FILE_MODE = 0o644
_DIRECTORY_MODE = 0o700


class PluginHold(msgspec.Struct, frozen=True, kw_only=True):
    """Why a plugin is not loaded.

    Attributes:
        why: The reason, as a sentence.
        since: Wall time.
        version: The version of the plugin that is quarantined: another one is loaded. Empty for one that somebody has
            disabled, whatever its version.
    """

    why: str
    since: float
    version: str = ""
    is_quarantine: bool = False


class PluginCrash(msgspec.Struct, frozen=True, kw_only=True):
    """A crash of the daemon in the code of a plugin: when, of which version, how and where."""

    plugin: str
    at: float
    version: str = ""
    what: str = ""


class PluginRecords(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of plugins: those that are not to be loaded by name, and crashes, the oldest first."""

    holds: dict[str, PluginHold] = {}
    crashes: list[PluginCrash] = []

    def hold_of(self, name: str, version: str) -> PluginHold | None:
        """Return why a plugin of that version is not to be loaded; None when it is."""
        hold = self.holds.get(name)
        return None if hold is None or (hold.is_quarantine and hold.version != version) else hold

    def recent_crashes(self, name: str, version: str, now: float) -> list[PluginCrash]:
        """Return the crashes that are held against a plugin of that version."""
        return [
            crash
            for crash in self.crashes
            if crash.plugin == name and crash.version == version and abs(now - crash.at) < CRASH_PERIOD
        ]


def read_records(state_dir: Path) -> PluginRecords:
    """Return what is remembered; nothing when there is no file or it cannot be used, which is logged. Blocks."""
    path = state_dir / FILE_NAME
    try:
        return msgspec.json.decode(read_regular(path, _MAX_FILE_SIZE).data, type=PluginRecords)
    except (FileNotFoundError, NotADirectoryError):
        return PluginRecords()
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        _log.warning("%s cannot be read, no plugin counts as disabled or quarantined: %s", path, error_line(error))
        return PluginRecords()


def disable(state_dir: Path, name: str, why: str, now: float) -> None:
    """Have the next start of the daemon not load a plugin; one that is quarantined stays so. Blocks.

    Raises:
        PluginError: It cannot be written.
    """
    with _changing(state_dir) as records:
        if name not in records.holds:
            records.holds[name] = PluginHold(why=why, since=now)


def enable(state_dir: Path, name: str) -> PluginHold | None:
    """Have the next start of the daemon load a plugin again, and forget its crashes; return why it was not. Blocks.

    Raises:
        PluginError: It cannot be written.
    """
    with _changing(state_dir) as records:
        records.crashes[:] = [crash for crash in records.crashes if crash.plugin != name]
        return records.holds.pop(name, None)


def add_crash(state_dir: Path, crash: PluginCrash, now: float) -> bool:
    """Record a crash; quarantine the plugin when there were too many, and return whether it is. Blocks.

    Raises:
        PluginError: It cannot be written.
    """
    with _changing(state_dir) as records:
        records.crashes.append(crash)
        del records.crashes[:-_MAX_CRASHES]
        recent = records.recent_crashes(crash.plugin, crash.version, now)
        if len(recent) < CRASH_LIMIT:
            return False
        why = f"the daemon crashed {len(recent)} times in its code within a day; the last time: {crash.what}"
        records.holds[crash.plugin] = PluginHold(why=why, since=now, version=crash.version, is_quarantine=True)
        return True


@contextmanager
def _changing(state_dir: Path) -> Iterator[PluginRecords]:
    """Yield what is remembered, and write it when the block has ended; others wait."""
    try:
        make_directory(state_dir, _DIRECTORY_MODE)
        descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            records = read_records(state_dir)
            yield records
            content = msgspec.json.format(msgspec.json.encode(records), indent=2)
            replace_file(state_dir / FILE_NAME, content + b"\n", mode=_FILE_MODE)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PluginError(
            f"{state_dir / FILE_NAME} cannot be written: {error.strerror or error_line(error)}",
            hint="run the command as the user of the daemon",
        ) from None
