import os
import sqlite3
from contextlib import closing

import pytest

from ostler.errors import Conflict, StoreCorrupt, StoreUnavailable
from ostler.store.sqlite_files.backup import BackupDirectory, copy_database


def content(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT key, value FROM key_value").fetchall()


def test_a_backup_is_whole_while_the_database_is_open(store, path, tmp_path):
    store.kv("x").set("a", 1)
    target = tmp_path / "copies" / "one.db"
    copy_database(path, target)
    assert content(target) == [("a", "1")]
    assert [found.name for found in target.parent.iterdir()] == ["one.db"]
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_backup_never_overwrites(store, path, tmp_path):
    target = tmp_path / "one.db"
    target.write_text("precious")
    with pytest.raises(Conflict, match="already exists"):
        store.backup(target)
    assert target.read_text() == "precious"


def test_a_backup_that_cannot_be_written_leaves_nothing(store, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.backup(tmp_path / "file" / "one.db")


def test_a_source_that_is_no_database_leaves_nothing(tmp_path):
    source = tmp_path / "source.db"
    source.write_bytes(b"nothing of the kind, whatever it is called" * 100)
    with pytest.raises(StoreCorrupt):
        copy_database(source, tmp_path / "copies" / "one.db")
    assert list((tmp_path / "copies").iterdir()) == []


def test_left_overs_of_a_backup_that_was_killed_are_replaced(store, path, tmp_path):
    (tmp_path / ".one.db.part").write_text("half a backup")
    copy_database(path, tmp_path / "one.db")
    assert content(tmp_path / "one.db") == []


def test_two_backups_in_one_second_have_two_names(store, path, clock):
    backups = BackupDirectory(path, 5, clock)
    assert backups.create("why") != backups.create("why")


def test_copies_from_a_time_when_the_clock_was_wrong_do_not_push_out_good_ones(store, path, clock):
    backups = BackupDirectory(path, 2, clock)
    ahead = [backups.create(f"before-ahead-{number}-to-{number + 1}") for number in range(2)]
    for each in ahead:
        os.utime(each, (4e9, 4e9))
    good = backups.create("before-good-1-to-2")
    assert good.exists()
    newer = backups.create("before-newer-2-to-3")
    assert sorted(backups.directory.iterdir()) == sorted([good, newer])


@pytest.mark.failure_mode("State", "starts that fail, and the backups of earlier ones")
@pytest.mark.parametrize("seconds", [0, 0.3, 60])
def test_twenty_starts_that_fail_leave_the_backup_of_an_earlier_migration(store, path, clock, seconds):
    backups = BackupDirectory(path, 3, clock)
    good = [backups.create_before_migration(f"before-ostler-000{number}-to-000{number + 1}") for number in (4, 5)]
    for _ in range(20):
        made = backups.create_before_migration("before-ostler-0006-to-0007")
        clock.advance(seconds)
    assert sorted(backups.directory.iterdir()) == sorted([*good, made])
