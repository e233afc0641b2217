"""The documents that commands show for programs where no method of a daemon returns them."""

from __future__ import annotations

from typing import Any

import msgspec

from ostler.types import DriverStatus
from ostler.wall_time import WallTime


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """A cast that a service has accepted."""

    accepted: bool
    topic: str
    method: str


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """How many were removed."""

    removed: int


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of a service that was removed; `host` is empty for the local one."""

    topic: str
    host: str


class RemainingWork(msgspec.Struct, frozen=True, kw_only=True):
    """A service that was drained or stopped, and what is still running there, a line each."""

    topic: str
    still_running: list[str]


class TopicRow(msgspec.Struct, frozen=True, kw_only=True):
    """A topic that can be called, with the versions that are spoken on it and the hosts that have it."""

    topic: str
    version: str
    hosts: list[str]


class DriverRow(DriverStatus, frozen=True, kw_only=True):
    """A driver with its service and host; `subject` names it in arguments: `volume/local`."""

    subject: str
    service: str
    host: str


class DatabaseCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a database is intact, and what is wrong with it, a line each."""

    ok: bool
    problems: list[str]


class DatabaseCopy(msgspec.Struct, frozen=True, kw_only=True):
    """The copy of a database."""

    path: str


class DatabaseRestored(msgspec.Struct, frozen=True, kw_only=True):
    """The database that was restored, and where the previous one is; None if there was none."""

    path: str
    moved: str | None


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    """The steps that were applied (`dry_run`: would be), the backup from before (or empty), and problems."""

    steps: list[str]
    backup: str
    problems: list[str]
    dry_run: bool


class PluginHold(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that was enabled or disabled."""

    plugin: str
    state: str


class NewFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Files that were written."""

    files: list[str]


class AvailablePlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that could be installed; None if it is not installed, or nothing that fits was found."""

    package: str
    installed: str | None
    newest: str | None


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """A new pair of keys."""

    secret: str
    public: str


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file of a new secret key, and the public key."""

    file: str
    public: str


class PublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key."""

    public: str


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key that may connect, its highest role (or `none`), and the address of the peer (or empty)."""

    name: str
    role: str
    peer: str
    key: str


class MaskedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of the configuration that is not read, and the one that masks it."""

    file: str
    by: str


class DriverProbe(msgspec.Struct, frozen=True, kw_only=True):
    """What a driver has answered.

    Attributes:
        service: Its service.
        driver: Its name.
        state: `ok`, `failed`, or `unknown` if the driver has no `probe` or one of its secrets could not be read.
        reasons: Why it could not work, a line each; for `unknown` why it was not asked.
        seconds: How long it took.
    """

    service: str
    driver: str
    state: str
    reasons: list[str]
    seconds: float


class ConfigurationCheck(msgspec.Struct, frozen=True, kw_only=True):
    """A valid configuration: services, drivers (`SERVICE/NAME`), warnings and masked files.

    `probes` is what drivers have answered, None without `--probe`; `ok` is whether none has failed.
    """

    ok: bool
    services: list[str]
    drivers: list[str]
    warnings: list[str]
    masked: list[MaskedFile]
    probes: list[DriverProbe] | None


class OptionDifference(msgspec.Struct, frozen=True, kw_only=True, rename={"origin": "from"}):
    """An option whose value differs; None where it is not set. `from` is the place of the value in the files.

    `needs` is what the change needs: nothing (`live`), or a restart of the `driver`, the `service` or the `daemon`.
    `running_text` and `files_text` are how a size or time span is written (`500MB`), empty for any other value.
    """

    option: str
    running: Any
    files: Any
    origin: str
    needs: str
    running_text: str = ""
    files_text: str = ""


class OptionSet(msgspec.Struct, frozen=True, kw_only=True):
    """An option that was written: its value and file, the origin of the value that is in effect now, and notes."""

    option: str
    value: Any
    file: str
    origin: str
    notes: list[str] = []


class OptionUnset(msgspec.Struct, frozen=True, kw_only=True):
    """An option that was removed from a file, the origin of the value that is in effect now, and notes."""

    option: str
    file: str
    origin: str
    notes: list[str] = []


class SchemaWritten(msgspec.Struct, frozen=True, kw_only=True):
    """The schema that was written: its file, the files that got the line that names it, and notes on others."""

    file: str
    files: list[str]
    notes: list[str]


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """The versions of the command, of Python, and of the daemon; None if that is not known."""

    command: str
    daemon: str | None
    python: str


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event, by the names of its fields; see `ostler.Event`."""

    topic: str
    host: str
    name: str
    payload: Any
    sequence: int
    epoch: int
    at: WallTime
    request_id: str
    trace: str
    priority: str
    journaled: int


class MissedEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were missed: numbers `first` to `last`, 0 if nobody knows how many."""

    topic: str
    host: str
    first: int
    last: int
    journaled: bool


class EventGap(msgspec.Struct, frozen=True, kw_only=True):
    """A gap in the numbers of a publisher."""

    gap: MissedEvents
