"""The tables of backups, and what is read from and written to them; `migrations` creates them.

Call these functions within `self.store.read` and `self.store.write` only.
"""

from __future__ import annotations

import peewee
from ostler import Record


class BackupRow(Record):
    """A backup."""

    archive = peewee.TextField(primary_key=True)
    source = peewee.TextField()
    target = peewee.TextField()
    size = peewee.BigIntegerField()
    at = peewee.FloatField()

    class Meta:
        """The name of the table."""

        table_name = "backup_backups"


class VolumeRow(Record):
    """A volume that exists."""

    name = peewee.TextField(primary_key=True)

    class Meta:
        """The name of the table."""

        table_name = "backup_volumes"


def add_backup(archive: str, source: str, target: str, size: int, at: float) -> None:
    """Record a backup, once."""
    BackupRow.insert(archive=archive, source=source, target=target, size=size, at=at).on_conflict_replace().execute()


def remove_backup(archive: str) -> None:
    """Remove the record of a backup."""
    BackupRow.delete().where(BackupRow.archive == archive).execute()


def known_backups(source: str) -> list[tuple[str, str, str, int, float]]:
    """Return the backups of a source, or of all, the last one first."""
    rows = BackupRow.select().order_by(BackupRow.at.desc())
    if source:
        rows = rows.where(BackupRow.source == source)
    return [(row.archive, row.source, row.target, row.size, row.at) for row in rows]


def note_volume(name: str, exists: bool) -> None:
    """Record that a volume exists, or does not any longer."""
    if exists:
        VolumeRow.insert(name=name).on_conflict_ignore().execute()
    else:
        VolumeRow.delete().where(VolumeRow.name == name).execute()


def replace_volumes(names: list[str]) -> None:
    """Record that these volumes exist, and no others."""
    VolumeRow.delete().execute()
    for name in names:
        note_volume(name, True)


def existing_volumes() -> list[str]:
    """Return the names of the volumes."""
    return [row.name for row in VolumeRow.select()]
