"""The files of the database: opening and locking, WAL, backups, restore, reserved space.

Not here: what the tables mean.
"""
