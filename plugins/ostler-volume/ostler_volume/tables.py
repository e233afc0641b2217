"""The tables as peewee sees them; they are made by `migrations/`, and used by `records` alone."""

from __future__ import annotations

import peewee

from ostler import Record


class VolumeRow(Record):
    """A volume; `promised` is what its backend keeps room for, `fault` what it failed in or what was found wrong."""

    id = peewee.AutoField()
    topic = peewee.TextField()
    name = peewee.TextField()
    backend = peewee.TextField()
    size = peewee.BigIntegerField()
    promised = peewee.BigIntegerField()
    state = peewee.TextField()
    why = peewee.TextField(default="")
    since = peewee.FloatField()
    fault = peewee.TextField(default="")
    source = peewee.TextField(default="")
    created = peewee.FloatField()

    class Meta:
        """Where the table is."""

        table_name = "volume_volumes"


class SnapshotRow(Record):
    """A snapshot of a volume."""

    id = peewee.AutoField()
    volume = peewee.ForeignKeyField(VolumeRow, backref="snapshot_rows")
    name = peewee.TextField()
    size = peewee.BigIntegerField()
    state = peewee.TextField()
    why = peewee.TextField(default="")
    since = peewee.FloatField()
    fault = peewee.TextField(default="")
    created = peewee.FloatField()

    class Meta:
        """Where the table is."""

        table_name = "volume_snapshots"


class AttachmentRow(Record):
    """Where a volume is attached; there is one at most."""

    volume = peewee.ForeignKeyField(VolumeRow, primary_key=True, backref="attachment_rows")
    device = peewee.TextField()
    attached_at = peewee.FloatField()

    class Meta:
        """Where the table is."""

        table_name = "volume_attachments"


class BackendRow(Record):
    """A backend as it was seen last: its file system, the bytes that are written there, and files without a record."""

    id = peewee.AutoField()
    topic = peewee.TextField()
    name = peewee.TextField()
    filesystem = peewee.TextField(default="")
    oversubscription = peewee.FloatField(default=1.0)
    written = peewee.BigIntegerField(default=0)
    unrecorded = peewee.BigIntegerField(default=0)

    class Meta:
        """Where the table is."""

        table_name = "volume_backends"
