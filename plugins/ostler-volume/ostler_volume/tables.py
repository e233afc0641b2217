"""The peewee models of the tables, which `migrations/` creates; only `records` uses them."""

from __future__ import annotations

import peewee

from ostler import Record


class VolumeRow(Record):
    """A volume; `promised` is the space its backend reserves for it, `fault` the kind of its error."""

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
        """The name of the table."""

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
        """The name of the table."""

        table_name = "volume_snapshots"


class AttachmentRow(Record):
    """The attachment of a volume; at most one."""

    volume = peewee.ForeignKeyField(VolumeRow, primary_key=True, backref="attachment_rows")
    device = peewee.TextField()
    attached_at = peewee.FloatField()

    class Meta:
        """The name of the table."""

        table_name = "volume_attachments"


class BackendRow(Record):
    """The last measurement of a backend: its file system, the bytes written there, and files without a record."""

    id = peewee.AutoField()
    topic = peewee.TextField()
    name = peewee.TextField()
    filesystem = peewee.TextField(default="")
    oversubscription = peewee.FloatField(default=1.0)
    written = peewee.BigIntegerField(default=0)
    unrecorded = peewee.BigIntegerField(default=0)

    class Meta:
        """The name of the table."""

        table_name = "volume_backends"
