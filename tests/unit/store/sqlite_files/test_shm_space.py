import pytest

from ostler.errors import StoreUnavailable
from ostler.store import Store
from ostler.store.sqlite_errors import is_disk_full, is_transient
from ostler.store.sqlite_files import shm_space
from ostler.store.sqlite_files.shm_space import ShmSpace

SMALL_BLOCKS = 2**30
"""A size of pages beside which the blocks of every file system are small."""


class Status:
    f_frsize, f_bavail = 1024, 100


def test_the_index_gets_room_where_blocks_are_small_and_its_descriptor_stays_open(store, path):
    store.kv("x").set("a", 1)
    space, shm = ShmSpace(path, SMALL_BLOCKS), path.with_name("ostler.db-shm")
    space.require()
    space.allocate()
    assert shm.stat().st_size == shm.stat().st_blocks * 512 == 192 * 1024
    space.allocate()
    store.kv("x").set("b", 2)
    assert store.check() == []
    space.close()
    space.close()


def test_where_blocks_are_large_nothing_is_done(store, path):
    store.kv("x").set("a", 1)
    before = path.with_name("ostler.db-shm").stat().st_size
    ShmSpace(path, 512).allocate()
    assert path.with_name("ostler.db-shm").stat().st_size == before


@pytest.mark.failure_mode("State", "disk full and then not")
def test_a_database_on_a_full_disk_with_small_blocks_is_not_opened(path, clock, monkeypatch):
    Store.open(path, clock=clock).close()
    # What the file system says: small ones that are full need root, and are tried in tests/faults.
    monkeypatch.setattr(shm_space.os, "statvfs", lambda _path: Status)
    with pytest.raises(StoreUnavailable, match=r"no space left on the device; free 256 KiB") as caught:
        ShmSpace(path).require()
    assert is_disk_full(caught.value)
    assert is_transient(caught.value)


def test_an_index_that_is_not_there_is_no_error(tmp_path):
    ShmSpace(tmp_path / "ostler.db", SMALL_BLOCKS).allocate()
