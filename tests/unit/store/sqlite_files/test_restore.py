import stat

import pytest

from ostler.errors import NotFound, StoreCorrupt, StoreError, StoreInUse
from ostler.store import Store
from ostler.store.sqlite_files.restore import restore_database


@pytest.fixture
def backup(path, clock, tmp_path):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", "before")
    store.backup(tmp_path / "copy.db")
    store.kv("x").set("key", "after")
    store.close()
    return tmp_path / "copy.db"


def value(path, clock):
    store = Store.open(path, clock=clock)
    try:
        return store.kv("x").get("key")
    finally:
        store.close()


def test_a_backup_is_put_in_place_and_what_was_there_is_kept(path, clock, backup):
    moved = restore_database(path, backup)
    assert value(path, clock) == "before"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    restore_database(path, moved)
    assert value(path, clock) == "after"


def test_an_empty_database_is_one_way_to_begin_again(path, clock, backup):
    path.unlink()
    restore_database(path, None)
    assert value(path, clock) is None


def test_what_is_no_sound_backup_changes_nothing(path, clock, backup, tmp_path):
    (tmp_path / "text").write_text("no database")
    (tmp_path / "cut").write_bytes(backup.read_bytes()[:20_000])
    with pytest.raises(StoreCorrupt):
        restore_database(path, tmp_path / "text")
    with pytest.raises(StoreCorrupt):
        restore_database(path, tmp_path / "cut")
    with pytest.raises(NotFound):
        restore_database(path, tmp_path / "nothing")
    with pytest.raises(StoreError):
        restore_database(path, tmp_path)
    assert value(path, clock) == "after"
    assert not list(path.parent.glob(".ostler-*"))


def test_nothing_is_restored_under_a_running_daemon(path, store, tmp_path):
    with pytest.raises(StoreInUse):
        restore_database(path, None)
