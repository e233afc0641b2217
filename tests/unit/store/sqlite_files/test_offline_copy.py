"""Databases of daemons that are down, also those that somebody has made up."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing

import pytest

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable
from ostler.store import AuditRecords, Store
from ostler.store.records.audit_records import read_offline
from ostler.store.sqlite_files import offline_copy
from ostler.store.sqlite_files.sqlite_connection import APPLICATION_ID
from ostler.types import AuditEntry

ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n number, 'x' text FROM r"
COLUMNS = ", ".join(AuditEntry.__struct_fields__)


@pytest.fixture
def forged(tmp_path):
    """Return a function that makes a database of some SQL, as somebody who can write the state directory would."""

    def make(sql, path=tmp_path / "ostler.db", application=APPLICATION_ID):
        with closing(sqlite3.connect(path)) as database:
            database.executescript(f"{sql}; PRAGMA application_id = {application}")
        return path

    return make


def listed(path, **wanted):
    return AuditRecords(read_offline(path)).list(**wanted)


@pytest.mark.parametrize(
    "sql",
    [
        f"CREATE VIEW audit AS {ENDLESS}",
        "CREATE VIRTUAL TABLE audit USING fts5(number, text)",
        "CREATE TABLE audit (number, text GENERATED ALWAYS AS (hex(zeroblob(100000000))))",
    ],
)
def test_what_calculates_its_rows_is_no_audit_log(forged, sql):
    with pytest.raises(StoreCorrupt, match=r"audit in the database .* is not a plain table"):
        listed(forged(sql))


def test_a_database_of_another_program_or_without_the_table_is_refused(forged, tmp_path):
    with pytest.raises(StoreError, match="another program"):
        listed(forged("CREATE TABLE audit (number)", application=1))
    with pytest.raises(StoreCorrupt, match="no table audit"):
        listed(forged("CREATE TABLE other (number)", tmp_path / "other.db"))


def test_reading_ends_after_its_time(forged):
    path = forged("CREATE TABLE audit (number)")
    began = time.monotonic()
    with (
        pytest.raises(StoreUnavailable, match=r"took longer than 200ms"),
        offline_copy.open_offline_copy(path, ("audit",), timeout=0.2) as database,
    ):
        database.execute_sql(f"SELECT count(*) FROM ({ENDLESS})").fetchall()
    assert time.monotonic() - began < 10


def test_rows_that_no_daemon_writes_are_refused_by_name(forged, tmp_path):
    huge = f"CREATE TABLE audit ({COLUMNS}); INSERT INTO audit (number, last, text) VALUES (1, 1, zeroblob(2000000))"
    with pytest.raises(StoreCorrupt, match="contains invalid rows"):
        listed(forged(huge))
    wrong = f"CREATE TABLE audit ({COLUMNS}); INSERT INTO audit (number, last, at) VALUES (1, 1, 'noon')"
    with pytest.raises(StoreCorrupt, match="entry 1 of the audit log is damaged"):
        listed(forged(wrong, tmp_path / "wrong.db"))


def test_what_is_no_file_and_what_is_too_large_is_refused_by_name(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.db")
    with pytest.raises(StoreUnavailable, match="is not a regular file"):
        listed(tmp_path / "pipe.db")
    with (tmp_path / "sparse.db").open("wb") as file:
        file.truncate(40 * 2**30)
    with pytest.raises(StoreUnavailable, match="is larger than 2GiB"):
        listed(tmp_path / "sparse.db")
    (tmp_path / "link.db").symlink_to("sparse.db")
    with pytest.raises(StoreUnavailable, match="is a symbolic link"):
        listed(tmp_path / "link.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 100)
    with pytest.raises(StoreCorrupt, match="not a database"):
        listed(tmp_path / "text.db")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_a_file_that_is_not_of_the_owner_of_its_directory_is_not_read(forged, tmp_path):
    (tmp_path / "theirs").mkdir()
    path = forged("CREATE TABLE audit (number)", tmp_path / "theirs" / "ostler.db")
    os.chown(tmp_path / "theirs", 60_001, 60_001)
    with pytest.raises(StoreUnavailable, match=r"belongs to root \(uid 0\), its directory to uid 60001"):
        listed(path)
    os.chown(path, 60_001, 60_001)
    with pytest.raises(Exception, match="no such column"):
        listed(path)


def state_of(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_what_a_killed_daemon_left_is_read_with_its_write_ahead_log_and_not_changed(tmp_path):
    """Was: the log was brought into the database, and the log's own files vanished."""
    store = Store.open(tmp_path / "state" / "ostler.db")
    entry = AuditEntry(at=1.0, who="x", topic="t", method="m", last=1.0)
    store.write(lambda: AuditRecords(store).save([entry]))
    shutil.copytree(tmp_path / "state", tmp_path / "killed")  # as SIGKILL leaves it
    store.close()
    before = state_of(tmp_path / "killed")
    assert before["ostler.db-wal"][0]
    assert [row.method for row in listed(tmp_path / "killed" / "ostler.db")] == ["m"]
    assert state_of(tmp_path / "killed") == before


def test_no_copy_is_left_behind(forged, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    # What `tempfile` knows of an earlier TMPDIR is state of the process.
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "temporary").mkdir()
    with pytest.raises(StoreCorrupt):
        listed(forged(f"CREATE VIEW audit AS {ENDLESS}"))
    assert not list((tmp_path / "temporary").iterdir())
