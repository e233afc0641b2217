"""The manager of backups: which sources there are, when each is backed up, and what was stored."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec
from ostler import (
    Context,
    DriverCrashed,
    DriverError,
    Durable,
    Event,
    Field,
    Gap,
    Manager,
    ManagerOptions,
    NotFound,
    OptionsModel,
    WallTime,
    exposed,
    on_event,
)

from ostler_backup.driver import BackupDriver
from ostler_backup.tables import (
    add_backup,
    existing_volumes,
    known_backups,
    note_volume,
    remove_backup,
    replace_volumes,
)


class Backup(msgspec.Struct):
    """A backup; `size` in bytes."""

    archive: str
    source: str
    target: str
    size: int
    at: WallTime


class Source(OptionsModel):
    """A directory that is backed up."""

    path: Path = Field(help="The directory")
    cron: str = Field("0 3 * * *", help="When it is backed up")
    target: str = Field(help="The driver that stores its archives")
    keep: int = Field(7, ge=1, help="How many backups are kept; older ones are removed")


class BackupOptions(ManagerOptions):
    """Options of `manager = "backup"`."""

    sources: dict[str, Source] = Field({}, help="What is backed up, by name", reload="service")
    volumes: list[str] = Field([], help="Volumes whose content is in one of the sources")

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """Refuse sources whose driver is not configured."""
        for name, source in self.sources.items():
            if source.target not in self.drivers:
                yield "sources", f"the target {source.target} of source {name} is not one of this service's drivers"


class BackupManager(Manager[BackupOptions, BackupDriver]):
    """Backs up each source at its own time, and lists volumes that no source covers."""

    rpc_version = "1.0"

    def post_start_hook(self) -> None:
        """Plan each source at its own time; a time that passed while the daemon was down is made up for."""
        for name, source in self.options.sources.items():
            self.periodic.add(f"back up {name}", partial(self._submit, name), cron=source.cron, missed="run once")

    @exposed(role="operator", durable=Durable(on_restart="retry", attempts=10))
    def back_up(self, ctx: Context, source: str) -> Backup:
        """Back up a source now; the result is the new backup.

        It may be repeated, as a new backup: so it is, when the daemon ended while it ran, when its driver is not ready,
        and when the process of its driver has crashed.
        """
        return self._back_up(source, ctx)

    @exposed(role="viewer", changes=False)
    def backups(self, ctx: Context, source: str = "") -> list[Backup]:
        """Return all backups, or those of a source, the last one first."""
        return [Backup(*row) for row in self.store.read(lambda: known_backups(source))]

    @exposed(role="operator", changes=False)
    def verify(self, ctx: Context, archive: str) -> Backup:
        """Check that an archive is as it was stored."""
        for backup in self.backups(ctx):
            if backup.archive == archive:
                self._verify(backup)
                return backup
        raise NotFound(f"archive {archive} not found", hint="`ostler backup list` shows all")

    @on_event("volume.*.created", "volume.*.deleted")
    def on_volume(self, ctx: Context, event: Event | Gap) -> None:
        """Remember which volumes there are; an event may come twice, and after a gap all are asked for."""
        if isinstance(event, Gap):
            names = [str(volume["name"]) for volume in self.client.call("volume", "list_volumes")]
            self.store.write(lambda: replace_volumes(names))
            return
        name, exists = str(event.payload["name"]), event.name == "created"
        self.store.write(lambda: note_volume(name, exists))

    def problems(self) -> list[str]:
        """Name the volumes that nothing backs up."""
        uncovered = set(self.store.read(existing_volumes)) - set(self.options.volumes)
        return [f"volume {name} is in no source" for name in sorted(uncovered)]

    def _submit(self, name: str, ctx: Context) -> None:
        """Have a source backed up by an operation, which is listed, tried again, and survives the daemon."""
        self.client.submit(self.topic, "back_up", source=name)

    def _verify(self, backup: Backup) -> None:
        try:
            self.drivers[backup.target].verify(backup.archive)
        except DriverCrashed as error:  # only of one with `isolation = "process"`; the daemon starts it again
            what = f"archive {backup.archive} is damaged: driver {backup.target} crashed over it"
            raise DriverError(what, hint="do not restore it; back up its source again") from error

    def _back_up(self, name: str, ctx: Context) -> Backup:
        source = self.options.sources.get(name)
        if source is None:
            known = ", ".join(sorted(self.options.sources)) or "none"
            raise NotFound(f"source {name} not found", hint=f"available: {known}")
        with self.locks.hold("source-{name}", name=name):
            at = self.clock.wall()
            archive = f"{name}-{at:.0f}.tar"
            size = self.drivers[source.target].store(archive, source.path)
            backup = Backup(archive, name, source.target, size, at)
            self.store.write(lambda: add_backup(*msgspec.structs.astuple(backup)))
            self._remove_old(name, source.keep)
        self.client.publish("stored", {"source": name, "archive": archive, "size": size})
        return backup

    def _remove_old(self, name: str, keep: int) -> None:
        for archive, _, target, _, _ in self.store.read(lambda: known_backups(name))[keep:]:
            self.drivers[target].remove(archive)
            self.store.write(partial(remove_backup, archive))
