"""What others do to the database: locks, endless reads, damage, removal, replacement, and tables that do not fit."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from daemon_process import wait_for
from machine_daemon import FaultyDaemon, Machine

from ostler import Client, StoreCorrupt, StoreUnavailable

pytest_plugins = ["machine_fixtures"]
QUICK_LOCKS = '[store]\nbusy_timeout = "0.3s"\n'
LOCKED = "is locked by another program; another program holds the database open for writing"
DAMAGED = "is (damaged|not a database, or is damaged).*restore the newest good backup with `ostler db restore FILE`"


def database(daemon: FaultyDaemon) -> Path:
    return daemon.root / "state" / "ostler.db"


@contextmanager
def connected(daemon: FaultyDaemon) -> Iterator[sqlite3.Connection]:
    """Be another program, in this process, which has the database open."""
    with closing(sqlite3.connect(database(daemon), isolation_level=None)) as other:
        yield other


def refused_start(daemon: FaultyDaemon) -> str:
    """Start it, which fails; return the line that says why."""
    before = len(daemon.log)
    daemon.start(wait=False)
    assert daemon.wait_end() == 1
    said = daemon.log[before:]
    assert "Traceback" not in said
    (why,) = [line for line in said.splitlines() if " CRITICAL " in line]
    return why


# ------------------------------------------------------------------------------------------------- locks and reads


@pytest.mark.failure_mode("State", "database locked for a minute")
def test_a_database_that_another_process_locks_while_the_daemon_runs(machine: Machine) -> None:
    daemon = machine.daemon(QUICK_LOCKS).start()
    with Client(root=str(daemon.root)) as client:
        operation = client.submit("records", "work", name="door", steps=6, seconds=0.2)
        daemon.keep("before")
        with connected(daemon) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
            daemon.wait_problem(LOCKED)
            assert daemon.records()["state"] == "up"
            assert "before" in daemon.call("records", "kept")
            other.execute("ROLLBACK")
        assert operation.result(timeout=30) == "DOOR"
    assert daemon.count_acts() == {f"door {number}": 1 for number in range(6)}
    daemon.wait_well()
    daemon.keep("after")
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "database locked for a minute")
def test_a_stop_and_a_start_while_another_process_locks_the_database(machine: Machine) -> None:
    daemon = machine.daemon(QUICK_LOCKS).start()
    daemon.keep("before")
    with connected(daemon) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert daemon.stop() == 0
        daemon.start()
        daemon.wait_problem(LOCKED)
        assert daemon.call("records", "echo", text="still") == "still"
        other.execute("ROLLBACK")
        daemon.wait_well()
        daemon.keep("with the other")
    # The other program was not the last one that had the database open: the log is still there.
    daemon.assert_nothing_lost()
    assert database(daemon).with_name("ostler.db-wal").exists()
    daemon.keep("after")
    assert "was removed while the daemon was running" not in daemon.log


@pytest.mark.failure_mode("State", "a read that never ends")
def test_a_reader_that_never_ends_is_named_while_the_log_grows(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("before")
    wal = database(daemon).with_name("ostler.db-wal")
    with connected(daemon) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM key_value").fetchone()
        with Client(root=str(daemon.root)) as client:
            for number in range(70):
                client.call("records", "keep", key=f"big {number}", size=1_000_000)
        daemon.acknowledged |= {f"big {number}" for number in range(70)}
        found = daemon.wait_problem("write-ahead log of .* cannot be checkpointed")
        assert f"(process {os.getpid()}) holds it open; end that read" in found
        other.execute("ROLLBACK")
    daemon.wait_well()
    assert wal.stat().st_size <= 64 * 2**20
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "a read that never ends")
def test_a_reader_that_never_ends_holds_up_a_start_for_a_second_only(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("before")
    with connected(daemon) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM key_value").fetchone()
        daemon.keep("later")
        daemon.signal(signal.SIGKILL)
        daemon.wait_end()
        began = time.monotonic()
        daemon.start()
        assert time.monotonic() - began < 15  # `busy_timeout` is a minute
        daemon.keep("after")
        daemon.assert_nothing_lost()


# ---------------------------------------------------------------------------------------------------------- damage


def damage(daemon: FaultyDaemon, what: str) -> None:
    """Overwrite the header, or the root page of a table or an index, where the file has it."""
    path = database(daemon)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = dict(other.execute("SELECT name, rootpage FROM sqlite_master"))
    with path.open("r+b") as file:
        file.seek(0 if what == "header" else (pages[what] - 1) * 4096)
        file.write(b"\xee" * (16 if what == "header" else 4096))


@pytest.mark.failure_mode("State", "database corrupt")
@pytest.mark.parametrize("what", ["header", "key_value", "sqlite_autoindex_services_1", "short"])
def test_a_start_with_damaged_pages_says_the_way_out_and_changes_nothing(machine: Machine, what: str) -> None:
    daemon = machine.daemon().start()
    for number in range(20):
        daemon.keep(str(number), 3000)
    daemon.command("db", "backup", str(machine.folder / "backup.db"))
    daemon.stop()
    if what == "short":
        os.truncate(database(daemon), 3 * 4096)
    else:
        damage(daemon, what)
    before = database(daemon).read_bytes()
    why = refused_start(daemon)
    assert "damaged" in why
    assert "`ostler db restore FILE`" in why
    assert database(daemon).read_bytes() == before
    daemon.command("db", "restore", str(machine.folder / "backup.db"))
    daemon.start()
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "database corrupt")
@pytest.mark.parametrize("what", ["header", "key_value"])
def test_pages_damaged_while_the_daemon_runs_are_a_problem_until_they_are_not(machine: Machine, what: str) -> None:
    daemon = machine.daemon().start()
    for number in range(100):
        daemon.keep(str(number), 3000)
    good = machine.folder / "backup.db"
    daemon.command("db", "backup", str(good))
    damage(daemon, what)
    refusal = daemon.keep_until_refused()
    assert isinstance(refusal, StoreCorrupt)
    daemon.wait_problem(DAMAGED)
    beats = daemon.records()["beat"]
    if what == "key_value":  # heartbeats go to another table, and do not hide it
        wait_for(lambda: daemon.records()["beat"] > beats, "a heartbeat", 20, lambda: daemon.log)
        daemon.wait_problem(DAMAGED)
    assert daemon.call("records", "echo", text="still") == "still"
    assert daemon.command("db", "check", check=1)
    assert daemon.stop() == 0
    daemon.command("db", "restore", str(good))
    daemon.start()
    assert daemon.problems() == ""
    daemon.assert_nothing_lost()


# ----------------------------------------------------------------------------------------------- files of the state


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_files_of_the_state_removed_and_replaced_under_the_daemon(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("one")
    for path in (daemon.root / "state").glob("ostler.*"):
        path.unlink()
    daemon.keep("two")
    daemon.assert_nothing_lost()
    shutil.rmtree(daemon.root / "state")
    daemon.keep("three")
    daemon.assert_nothing_lost()
    other = machine.folder / "other.db"
    daemon.command("db", "backup", str(other))
    right = machine.folder / "right.db"
    database(daemon).rename(right)
    shutil.copy(other, database(daemon))
    assert isinstance(daemon.keep_until_refused(), StoreUnavailable)
    daemon.wait_problem("was replaced by another file while the daemon was running; stop the daemon, and restore")
    assert daemon.call("records", "echo", text="still") == "still"
    right.replace(database(daemon))
    daemon.wait_well()
    daemon.keep("four")
    daemon.assert_nothing_lost()
    daemon.signal(signal.SIGKILL)
    daemon.wait_end()
    daemon.start()
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "database files removed, replaced or copied while in use")
def test_starts_without_what_was_there_before(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("one")
    daemon.stop()
    kept = database(daemon).read_bytes()
    database(daemon).unlink()
    why = refused_start(daemon)
    assert "is missing, but one existed" in why
    assert "`ostler db restore FILE` restores a backup" in why
    database(daemon).write_bytes(kept)
    daemon.start()
    daemon.assert_nothing_lost()
    daemon.stop()
    shutil.rmtree(daemon.root / "state")  # nothing is left that tells it from a new one
    before = len(daemon.log)
    daemon.start()
    created = f"created the database {database(daemon)}"
    wait_for(lambda: created in daemon.log[before:], "the line of the log", more=lambda: daemon.log[before:])
    daemon.stop()
    shutil.rmtree(daemon.root / "state")
    (daemon.root / "state").write_text("a file")
    assert "is not a directory; move it away" in refused_start(daemon)


# ---------------------------------------------------------------------------------------------------------- tables


@pytest.mark.failure_mode("State", "database of a newer schema")
def test_a_database_of_a_newer_version_is_refused_and_left_alone(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("one")
    daemon.stop()
    with connected(daemon) as other:
        other.execute("INSERT INTO ostler_migrations VALUES ('ostler', 999, 'later', 0)")
    before = database(daemon).read_bytes()
    why = refused_start(daemon)
    assert "at version 999 (later), this installation only knows versions up to" in why
    assert "install a version of ostler that is at least as new" in why
    assert database(daemon).read_bytes() == before
    with connected(daemon) as other:
        other.execute("DELETE FROM ostler_migrations WHERE number = 999")
    daemon.start()
    daemon.assert_nothing_lost()


@pytest.mark.failure_mode("State", "starts that fail, and the backups of earlier ones")
def test_starts_that_fail_in_a_migration_keep_the_backup_of_an_earlier_one(machine: Machine) -> None:
    daemon = machine.daemon().start()
    daemon.keep("one")
    daemon.stop()
    backups = daemon.root / "state" / "backups"
    backups.mkdir()
    good = backups / "ostler-20260101T000000Z-before-ostler-0004-to-0005.db"
    shutil.copy(database(daemon), good)
    with connected(daemon) as other:
        (last,) = other.execute("SELECT max(number) FROM ostler_migrations WHERE namespace = 'ostler'").fetchone()
        other.execute("DELETE FROM ostler_migrations WHERE namespace = 'ostler'")
    for _ in range(6):
        why = refused_start(daemon)
        assert "migration 0001 core of ostler failed" in why
        assert "it was rolled back; the previous state is saved in" in why
    assert good.exists()
    assert len(list(backups.iterdir())) == 2
    assert last > 1
    with connected(daemon) as other:
        assert other.execute("SELECT count(*) FROM key_value WHERE key = 'one'").fetchone() == (1,)


LAMPS = """
import ostler
from ostler import Context, Manager, exposed
from ostler.hookspecs import hookimpl


class LampManager(Manager):
    @exposed()
    def light(self, ctx: Context) -> str:
        return "on"


@hookimpl
def ostler_managers():
    return {"lamps": LampManager}


@hookimpl
def ostler_migrations():
    return {"lamps": "lamp_migrations"}
"""
FIRST = "def forward(database):\n    database.execute_sql('CREATE TABLE lamps_lamps (name TEXT)')\n"
FAILING = """
def forward(database):
    database.execute_sql("CREATE TABLE lamps_shades (name TEXT)")
    database.execute_sql("ALTER TABLE lamps_lamps ADD COLUMN shade TEXT")
    database.execute_sql("INSERT INTO lamps_lamps VALUES ('half done', '')")
    raise ValueError("no power")
"""


def lamp_tables(daemon: FaultyDaemon) -> dict[str, str]:
    with connected(daemon) as other:
        rows = other.execute("SELECT name, sql FROM sqlite_master WHERE name LIKE 'lamps%'").fetchall()
        assert other.execute("SELECT count(*) FROM lamps_lamps").fetchone() == (0,)
    return dict(rows)


@pytest.mark.failure_mode("State", "a migration of a plugin that fails")
def test_a_failing_migration_of_a_plugin_stops_its_services_alone_and_is_undone(machine: Machine) -> None:
    daemon = machine.daemon('[services.lamps]\nmanager = "lamps"\n')
    daemon.install("lamps", LAMPS)
    package = daemon.plugins / "lamp_migrations"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "m0001_lamps.py").write_text(FIRST)
    daemon.start()
    assert daemon.call("lamps", "light") == "on"
    daemon.keep("one")
    daemon.stop()
    before = lamp_tables(daemon)
    (package / "m0002_shades.py").write_text(FAILING)
    for _ in range(3):
        daemon.start()
        daemon.wait_problem("migration 0002 shades of lamps failed: ValueError: no power")
        daemon.assert_nothing_lost()
        (state,) = [each["state"] for each in daemon.status()["services"] if each["topic"] == "lamps"]
        assert state == "failed"
        assert daemon.stop() == 0
    assert lamp_tables(daemon) == before
    assert len(list((daemon.root / "state" / "backups").iterdir())) == 1
    (package / "m0002_shades.py").write_text("def forward(database):\n    pass\n")
    shutil.rmtree(package / "__pycache__", ignore_errors=True)
    daemon.start()
    daemon.wait_well()
    assert daemon.call("lamps", "light") == "on"
