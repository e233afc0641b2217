import fcntl
import os
import shutil
from pathlib import Path

import pytest

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable
from ostler.store import Store
from ostler.store.sqlite_files.file_identity import HeaderFile, IdentityFile, wal_path
from ostler.store.sqlite_files.restore import restore_database


def crashed(path, clock, copy=None):
    """Leave a database as a killed daemon does, with its log; a backup of before is made at `copy`."""
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", "before")
    if copy:
        store.backup(copy)
    store.kv("x").set("key", "after")
    files = [path, wal_path(path), IdentityFile(path).path]
    kept = {each: each.read_bytes() for each in files}
    store.close()
    for each, data in kept.items():
        each.write_bytes(data)


def value(path, clock):
    store = Store.open(path, clock=clock)
    try:
        return store.kv("x").get("key")
    finally:
        store.close()


def test_the_log_of_a_killed_daemon_is_used(path, clock):
    crashed(path, clock)
    assert value(path, clock) == "after"


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_backup_copied_beside_the_log_of_another_database_is_what_runs(path, clock, tmp_path, caplog):
    crashed(path, clock, tmp_path / "copy.db")
    shutil.copy(tmp_path / "copy.db", path)
    assert value(path, clock) == "before"
    assert "belongs to another database" in caplog.text
    assert list(path.parent.glob("ostler.db-wal.foreign-*"))


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_plain_copy_of_an_earlier_run_is_told_from_the_present_one(path, clock, tmp_path):
    Store.open(path, clock=clock).close()
    shutil.copy(path, tmp_path / "copy.db")
    crashed(path, clock)
    shutil.copy(tmp_path / "copy.db", path)
    assert value(path, clock) is None


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_log_that_does_not_fit_harms_no_sound_file(path, clock, tmp_path):
    crashed(path, clock)
    IdentityFile(path).path.unlink()
    other = tmp_path / "other" / "ostler.db"
    store = Store.open(other, clock=clock)
    store.write(lambda: [store.kv("x").set(str(number), "y" * 900) for number in range(300)])
    store.close()
    shutil.copy(other, path)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match=r"\(WAL\).*db restore"):
        Store.open(path, clock=clock)
    assert path.read_bytes() == before


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
@pytest.mark.parametrize("left", ["missing", "empty"])
def test_a_state_directory_that_lost_its_database_is_no_fresh_start(path, clock, left):
    Store.open(path, clock=clock).close()
    path.unlink()
    if left == "empty":
        path.touch()
    with pytest.raises(StoreError, match="db restore"):
        Store.open(path, clock=clock)


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_an_empty_file_beside_a_log_is_refused_and_the_log_kept(path, clock):
    crashed(path, clock)
    os.truncate(path, 0)
    with pytest.raises(StoreError, match="is empty, but one existed"):
        Store.open(path, clock=clock)
    assert wal_path(path).stat().st_size > 0


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_database_removed_while_it_is_open_is_written_again(path, clock, caplog):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", 1)
    for each in path.parent.glob("ostler.db*"):
        each.unlink()
    store.kv("x").set("other", 2)
    assert store.kv("x").get("key") == 1
    store.close()
    assert "was removed while the daemon was running; it has been recreated" in caplog.text
    again = Store.open(path, clock=clock)
    assert again.kv("x").items() == {"key": 1, "other": 2}
    again.close()


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_state_directory_removed_while_open_is_made_again_with_its_lock(path, clock):
    store = Store.open(path, clock=clock)
    shutil.rmtree(path.parent)
    store.kv("x").set("key", 1)
    with pytest.raises(StoreError, match="in use"):
        Store.open(path, clock=clock)
    store.close()
    assert Store.open(path, clock=clock).kv("x").get("key") == 1


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_log_removed_while_it_is_open_is_not_lost(path, clock):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", 1)
    wal_path(path).unlink()
    store.kv("x").set("other", 2)
    assert store.kv("x").items() == {"key": 1, "other": 2}
    kept = path.read_bytes(), wal_path(path).read_bytes()
    store.close()
    path.write_bytes(kept[0])
    wal_path(path).write_bytes(kept[1])
    assert value(path, clock) == 1


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_nothing_is_acknowledged_beside_a_database_that_was_replaced(path, clock, tmp_path):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", "before")
    store.backup(tmp_path / "copy.db")
    store.kv("x").set("key", "after")
    (tmp_path / "copy.db").rename(path)
    with pytest.raises(StoreUnavailable, match="was replaced by another file"):
        store.kv("x").set("key", "lost")
    assert "replaced" in store.problems()[0]
    store.close()
    assert value(path, clock) == "before"
    [saved] = (path.parent / "backups").glob("*before-it-was-replaced.db")
    restore_database(path, saved)
    assert value(path, clock) == "after"


def test_writing_goes_on_when_the_right_file_is_back(path, clock, tmp_path):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", 1)
    path.rename(tmp_path / "kept.db")
    path.write_bytes(b"something else")
    with pytest.raises(StoreUnavailable):
        store.kv("x").set("key", 2)
    (tmp_path / "kept.db").rename(path)
    store.kv("x").set("key", 3)
    store.close()
    assert value(path, clock) == 3


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_backup_copied_over_the_open_database_is_not_destroyed(path, clock, tmp_path):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", "before")
    store.backup(tmp_path / "copy.db")
    store.kv("x").set("key", "after")
    shutil.copy(tmp_path / "copy.db", path)
    with pytest.raises(StoreUnavailable, match="was overwritten"):
        store.kv("x").set("key", "lost")
    store.close()
    assert path.read_bytes() == (tmp_path / "copy.db").read_bytes()
    assert value(path, clock) == "before"


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_a_database_that_cannot_be_looked_at_is_left_alone_until_it_can(tmp_path, clock, caplog):
    path = tmp_path / "state" / "ostler.db"
    path.parent.mkdir()
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", 1)
    path.parent.rename(tmp_path / "kept")
    path.parent.symlink_to("state")  # a loop; a mount that is away or a directory that was closed do the same
    with pytest.raises(StoreUnavailable, match="became inaccessible"):
        store.kv("x").set("key", 2)
    path.parent.unlink()
    (tmp_path / "kept").rename(path.parent)
    store.kv("x").set("key", 3)
    store.close()
    assert value(path, clock) == 3
    assert "written again" not in caplog.text
    assert not (path.parent / "backups").exists()


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_reading_the_header_drops_no_lock_that_this_process_has_on_the_database(tmp_path):
    path, header = tmp_path / "ostler.db", HeaderFile(tmp_path / "ostler.db")
    path.write_bytes(bytes(60) + b"\0\0\0\x07" + bytes(36))

    def is_locked():
        inode = f":{path.stat().st_ino} "
        lines = Path("/proc/locks").read_text("ascii").splitlines()
        return any(inode in line and f" {os.getpid()} " in line for line in lines)

    with path.open("r+b") as connection:
        fcntl.lockf(connection, fcntl.LOCK_EX)
        assert [header.read_id(), header.read_id()] == [7, 7]
        assert is_locked()
    other = tmp_path / "other"
    other.write_bytes(bytes(60) + b"\0\0\0\x08" + bytes(36))
    other.replace(path)
    assert header.read_id() == 8
    header.close()
    header.close()
