import math
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from ostler.errors import StoreError, StoreInUse, StoreUnavailable
from ostler.store import Store
from ostler.store.sqlite_files.sqlite_connection import (
    OwnerLock,
    check_integrity,
    connect,
    limit_lock_wait,
    read_findings,
)


def test_the_file_is_for_its_owner_alone(store, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_suffix(".lock").stat().st_mode) == 0o600


def test_connections_have_what_the_design_asks_for(store, path):
    with closing(connect(path)) as database:
        assert (database.journal_mode, database.foreign_keys, database.synchronous) == ("wal", 1, 2)
    with closing(connect(path, synchronous="NORMAL", read_only=True)) as database:
        assert (database.synchronous, database.pragma("query_only")) == (1, 1)


def test_a_broken_reference_is_found(store, path):
    with closing(sqlite3.connect(path)) as stranger:
        stranger.executescript("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a (id));")
        stranger.execute("INSERT INTO b VALUES (7)")
        stranger.commit()
    with closing(connect(path)) as database:
        assert check_integrity(database, path) == ["row 1 of b refers to a row of a that does not exist"]


@pytest.mark.failure_mode("State", "two daemons on one host and name")
def test_two_daemons_on_one_host_and_name(store, path, clock):
    with pytest.raises(StoreInUse, match=rf"in use by another daemon \(process {os.getpid()}\).*--root") as caught:
        Store.open(path, clock=clock)
    assert caught.value.details["pid"] == os.getpid()
    script = f"from ostler.store import Store; from pathlib import Path; Store.open(Path({str(path)!r}))"
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"StoreInUse: the state in {path.parent} is in use by another daemon" in second.stderr
    store.close()
    Store.open(path, clock=clock).close()


def test_the_lock_of_a_daemon_that_was_killed_is_free(path, clock):
    path.parent.mkdir()
    script = (
        "import sys, os, signal; from pathlib import Path; from ostler.store.sqlite_files.sqlite_connection "
        "import OwnerLock;"
        "OwnerLock(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    lock = path.with_suffix(".lock")
    subprocess.run([sys.executable, "-c", script, str(lock)], check=False)
    assert lock.read_text().strip().isdigit()
    Store.open(path, clock=clock).close()


def test_a_lock_can_be_released_twice(tmp_path):
    lock, other = OwnerLock(tmp_path / "lock"), OwnerLock(tmp_path / "lock")
    lock.release()
    lock.acquire()
    with pytest.raises(StoreInUse):
        other.acquire()
    lock.release()
    lock.release()
    other.acquire()
    # Not the lock of who has it now.
    lock.release()
    with pytest.raises(StoreInUse):
        lock.acquire()
    other.release()


def test_a_strangers_database_is_not_touched(path, clock):
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as stranger:
        stranger.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match="another program"):
        Store.open(path, clock=clock)
    with closing(sqlite3.connect(path)) as stranger:
        assert stranger.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


def test_a_folder_that_cannot_be_made_is_said(tmp_path, clock):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=r"cannot be opened: (File exists|Not a directory); a file has"):
        Store.open(tmp_path / "file" / "state" / "ostler.db", clock=clock)


def test_a_database_that_vanished_is_not_made_anew_in_silence(path):
    path.parent.mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        connect(path)
    assert not path.exists()


@pytest.mark.failure_mode("State", "database read-only")
def test_database_read_only_at_start(store, path, clock):
    """As an ordinary user, for whom modes hold: the daemon's folder was given to somebody else."""
    store.kv("x").set("a", 1)
    store.close()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = Path(folder, "ostler.db")
        copy.write_bytes(path.read_bytes())
        Path(folder, "ostler.lock").touch()
        Path(folder, "ostler.lock").chmod(0o666)
        copy.chmod(0o444)
        Path(folder).chmod(0o555)
        # Root gives up being root after the imports: the interpreter may lie where nobody else can read it.
        drop = "os.setgid(65534); os.setuid(65534);" if os.getuid() == 0 else ""
        script = (
            "import os; from pathlib import Path; import ostler.store.migrations.m0001_core;"
            f"from ostler.store import Store; {drop} Store.open(Path({str(copy)!r}))"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        Path(folder).chmod(0o755)
        assert "StoreUnavailable: the database" in done.stderr, done.stderr
        assert "check the owner and mode" in done.stderr


@pytest.mark.parametrize("name", ["ostler.lock", "ostler.db", "ostler.db-wal", "ostler.db-shm"])
def test_no_file_of_the_state_is_opened_through_a_link(tmp_path, name):
    """Was: the lock was written into whatever a link in its place led to."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / name).symlink_to(tmp_path / "victim")
    with pytest.raises(StoreUnavailable, match=name):
        Store.open(tmp_path / "state" / "ostler.db")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_pipe_in_the_place_of_the_lock_is_refused(tmp_path):
    os.mkfifo(tmp_path / "ostler.lock")
    with pytest.raises(StoreUnavailable, match="is not a regular file"):
        Store.open(tmp_path / "ostler.db")


def test_modes_do_not_come_from_the_umask_and_what_is_too_open_is_closed(tmp_path, caplog):
    before = os.umask(0)
    try:
        store = Store.open(tmp_path / "state" / "ostler.db")
        store.backup(tmp_path / "copies" / "copy.db")
        store.close()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes.pop("ostler.identity") == 0o600
    assert modes == {
        "state": 0o700,
        "copies": 0o700,
        "ostler.db": 0o600,
        "ostler.lock": 0o600,
        "copy.db": 0o600,
    }
    (tmp_path / "state" / "ostler.db").chmod(0o644)
    Store.open(tmp_path / "state" / "ostler.db").close()
    assert stat.S_IMODE((tmp_path / "state" / "ostler.db").stat().st_mode) == 0o600
    assert "(mode 0644)" in caplog.text


def test_what_a_copy_that_was_cut_off_has_left_is_removed_at_the_next_start(tmp_path):
    Store.open(tmp_path / "ostler.db").close()
    (tmp_path / ".ostler-0011.part").touch()
    Store.open(tmp_path / "ostler.db").close()
    assert not (tmp_path / ".ostler-0011.part").exists()


def test_what_a_check_finds_is_a_line_each():
    assert read_findings([("ok",)]) == []
    found = read_findings([("*** in database main ***\nPage 8: error 11\nPage 31 is never used",), ("row 1 missing",)])
    assert found == ["Page 8: error 11", "Page 31 is never used", "row 1 missing"]


def test_a_wait_for_locks_can_be_made_shorter_and_never_longer(store, path):
    connection = connect(path, busy_timeout=2.0)
    for seconds, inside in ((0.5, 500), (60.0, 2000), (math.inf, 2000)):
        with limit_lock_wait(connection, seconds):
            assert connection.pragma("busy_timeout") == inside
        assert connection.pragma("busy_timeout") == 2000
    connection.close()
