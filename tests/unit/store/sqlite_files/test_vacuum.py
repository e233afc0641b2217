import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ostler.errors import Conflict, StoreUnavailable
from ostler.store import Store
from ostler.store.session import current_session
from ostler.store.sqlite_files import vacuum as vacuum_module
from ostler.store.sqlite_files.sqlite_connection import connect
from ostler.store.sqlite_files.vacuum import vacuum

# private: _readers: a connection that reads for long


def execute(sql, *values):
    return current_session().database.execute_sql(sql, values)


@pytest.fixture
def emptied(store):
    """A database that once had 4 MiB more."""
    store.write(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB)"))
    store.write(lambda: [execute("INSERT INTO t (v) VALUES (zeroblob(65536))") for _ in range(64)])
    store.write(lambda: execute("DELETE FROM t WHERE n > 2"))
    return store


def test_the_room_of_removed_rows_is_given_back_and_writing_goes_on(emptied, path):
    result = emptied.vacuum()
    assert result.before > 4 * 2**20 > 2**20 > result.after == path.stat().st_size
    emptied.write(lambda: execute("INSERT INTO t (v) VALUES (x'01')"))
    assert emptied.read(lambda: execute("SELECT count(*) FROM t").fetchone()) == (3,)
    assert emptied.check() == []
    assert not emptied.outage.is_active


def test_writes_wait_for_it_and_are_done_afterwards(emptied):
    results = []
    writers = [
        threading.Thread(target=lambda: results.append(emptied.write(lambda: execute("DELETE FROM t").rowcount)))
        for _ in range(3)
    ]
    for writer in writers:
        writer.start()
    emptied.vacuum()
    for writer in writers:
        writer.join()
    assert sorted(results) == [0, 0, 2]


def test_a_reader_does_not_prevent_it(emptied):
    with emptied._readers.borrow():  # a read that lasts
        emptied.vacuum()
    emptied.write(lambda: execute("DELETE FROM t"))
    assert emptied.check() == []


def test_without_twice_the_room_nothing_is_changed(emptied, path, tmp_path, monkeypatch):
    # A full disk of a machine cannot be had in a test; a small one is in tests/unit/store/test_real_disks.py.
    monkeypatch.setattr(vacuum_module.os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=1024))
    before = path.stat().st_size
    with pytest.raises(StoreUnavailable, match=r"not enough room to vacuum .* has 0 MiB free, and 1 MiB are needed"):
        emptied.vacuum()
    assert path.stat().st_size <= before
    emptied.write(lambda: execute("DELETE FROM t"))
    assert not emptied.outage.is_active


def test_the_temporary_file_counts_where_it_is(path, emptied, tmp_path, monkeypatch):
    asked = []
    # The sizes of two file systems are what is told apart.
    monkeypatch.setattr(
        vacuum_module.os, "statvfs", lambda name: asked.append(name) or SimpleNamespace(f_bavail=2**20, f_frsize=4096)
    )
    emptied.close()
    database = connect(path)
    vacuum(database, path, temporary=Path("/dev/shm"))
    database.close()
    assert asked[0] == path.parent
    assert (Path("/dev/shm") in asked) is (Path("/dev/shm").stat().st_dev != path.stat().st_dev)


def test_a_large_database_is_vacuumed_while_the_daemon_is_stopped(emptied):
    with pytest.raises(Conflict, match=r"stop the daemon, and run `ostler db vacuum` again"):
        emptied.vacuum(limit=1000)


def test_a_closed_store_refuses(path, clock):
    closed = Store.open(path, clock=clock)
    closed.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        closed.vacuum()
