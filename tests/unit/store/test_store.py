import asyncio
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import peewee
import pytest

from ostler.clock import FakeClock
from ostler.errors import Conflict, StoreCorrupt, StoreError, StoreInUse, StoreUnavailable
from ostler.store import Record, Store


class Lamp(Record):
    name = peewee.TextField(unique=True)
    shade = peewee.BlobField(default=b"")

    class Meta:
        table_name = "test_lamps"


@pytest.fixture
def lamps(store: Store) -> Store:
    store.write(Lamp.create_table)
    return store


def names(store: Store) -> list[str]:
    return store.read(lambda: [lamp.name for lamp in Lamp.select().order_by(Lamp.name)])


def test_what_is_written_can_be_read_at_once(lamps):
    assert lamps.write(lambda: Lamp.create(name="a", shade=b"\x00\xff").id) == 1
    assert lamps.read(lambda: Lamp.get(Lamp.name == "a").shade) == b"\x00\xff"


def test_what_is_written_is_there_after_a_restart(lamps, path, clock):
    lamps.write(lambda: Lamp.create(name="a"))
    lamps.close()
    again = Store.open(path, clock=clock)
    assert names(again) == ["a"]
    again.close()


def test_a_write_that_raises_is_undone_and_its_error_comes_out(lamps):
    def half():
        Lamp.create(name="a")
        raise LookupError("no such lamp")

    with pytest.raises(LookupError, match="no such lamp"):
        lamps.write(half)
    assert names(lamps) == []


def test_a_broken_constraint_keeps_its_own_error(lamps):
    lamps.write(lambda: Lamp.create(name="a"))
    with pytest.raises(peewee.IntegrityError):
        lamps.write(lambda: Lamp.create(name="a"))


def test_a_record_outside_of_a_session_is_refused_with_the_way_out(lamps):
    with pytest.raises(StoreError, match=r"outside of store\.read and store\.write.*store\.read"):
        list(Lamp.select())
    with pytest.raises(StoreError, match="outside"):
        Lamp.create(name="a")
    # A query may be built outside and run inside.
    query = Lamp.select().where(Lamp.name == "a")
    assert lamps.read(lambda: list(query)) == []


def test_a_read_cannot_write(lamps):
    with pytest.raises(StoreError, match="a function that writes"):
        lamps.read(lambda: Lamp.create(name="a"))
    with pytest.raises(StoreError, match=r"inside store\.read"):
        lamps.read(lambda: lamps.write(lambda: Lamp.create(name="a")))
    assert names(lamps) == []


def test_a_read_sees_one_moment(lamps):
    lamps.write(lambda: Lamp.create(name="a"))

    def read():
        before = Lamp.select().count()
        writer = threading.Thread(target=lambda: lamps.write(lambda: Lamp.create(name="b")))
        writer.start()
        writer.join()
        return before, Lamp.select().count()

    assert lamps.read(read) == (1, 1)
    assert names(lamps) == ["a", "b"]


def test_a_write_inside_a_write_is_part_of_it(lamps):
    def outer():
        lamps.write(lambda: Lamp.create(name="inner"))
        assert lamps.read(lambda: Lamp.select().count()) == 1
        raise LookupError

    with pytest.raises(LookupError):
        lamps.write(outer)
    assert names(lamps) == []


def test_an_inner_write_that_fails_is_undone_alone(lamps):
    def broken():
        Lamp.create(name="broken")
        raise LookupError

    def outer():
        Lamp.create(name="outer")
        with pytest.raises(LookupError):
            lamps.write(broken)

    lamps.write(outer)
    assert names(lamps) == ["outer"]


def test_two_stores_in_one_process_do_not_mix(lamps, tmp_path, clock):
    other = Store.open(tmp_path / "other" / "ostler.db", clock=clock)
    other.write(Lamp.create_table)

    def both():
        Lamp.create(name="here")
        other.write(lambda: Lamp.create(name="there"))

    lamps.write(both)
    assert names(lamps) == ["here"]
    assert names(other) == ["there"]
    other.close()


def test_write_on_the_loops_thread_is_refused(lamps):
    async def on_the_loop():
        lamps.write(lambda: Lamp.create(name="a"))

    with pytest.raises(StoreError, match=r"on the loop's thread.*await store\.awrite"):
        asyncio.run(on_the_loop())


def test_awrite_and_aread_work_on_the_loop(lamps):
    async def on_the_loop():
        await asyncio.gather(*(lamps.awrite(lambda n=n: Lamp.create(name=f"{n:02d}")) for n in range(20)))
        with pytest.raises(peewee.IntegrityError):
            await lamps.awrite(lambda: Lamp.create(name="07"))
        return await lamps.aread(lambda: Lamp.select().count())

    assert asyncio.run(on_the_loop()) == 20


def test_a_cancelled_awrite_is_still_written_and_harms_nobody(lamps):
    async def on_the_loop():
        task = asyncio.create_task(lamps.awrite(lambda: Lamp.create(name="a")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await lamps.awrite(lambda: Lamp.create(name="b"))

    asyncio.run(on_the_loop())
    assert names(lamps) == ["a", "b"]


def test_a_system_exit_in_a_write_harms_only_its_caller(lamps):
    with pytest.raises(SystemExit):
        lamps.write(lambda: sys.exit(3))
    lamps.write(lambda: Lamp.create(name="a"))
    assert names(lamps) == ["a"]


def test_a_closed_store_refuses_clearly_and_closes_twice(path, clock):
    store = Store.open(path, clock=clock)
    assert store.close() == ""
    assert store.close() == ""
    with pytest.raises(StoreUnavailable, match="closed"):
        store.write(lambda: None)
    with pytest.raises(StoreUnavailable, match="closed"):
        store.read(lambda: None)


def test_writes_that_wait_are_finished_by_close(lamps, path, clock):
    async def on_the_loop():
        writes = [asyncio.ensure_future(lamps.awrite(lambda n=n: Lamp.create(name=str(n)))) for n in range(50)]
        await asyncio.sleep(0)
        await asyncio.to_thread(lamps.close)
        await asyncio.gather(*writes)

    asyncio.run(on_the_loop())
    again = Store.open(path, clock=clock)
    assert len(names(again)) == 50
    again.close()


def test_evidence_is_the_moment_of_the_last_commit(store, clock):
    clock.advance(5)
    assert store.evidence() == clock.monotonic() - 5
    first = store.ping()
    assert store.evidence() == clock.monotonic()
    assert asyncio.run(store.aping()) == first + 1


def test_a_read_is_no_evidence(store, clock):
    before = store.evidence()
    clock.advance(5)
    store.read(lambda: None)
    assert store.evidence() == before


def test_the_file_is_for_its_owner_alone(store, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_suffix(".lock").stat().st_mode) == 0o600


def test_a_sound_database_checks_clean(lamps):
    assert lamps.check() == []


def test_a_broken_reference_is_found_by_check(store, path):
    with closing(sqlite3.connect(path)) as stranger:
        stranger.executescript("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a (id));")
        stranger.execute("INSERT INTO b VALUES (7)")
        stranger.commit()
    assert store.check() == ["row 1 of b refers to a row of a that does not exist"]


def test_a_backup_is_whole_and_never_overwrites(lamps, tmp_path):
    lamps.write(lambda: Lamp.create(name="a"))
    target = lamps.backup(tmp_path / "copies" / "one.db")
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("SELECT name FROM test_lamps").fetchall() == [("a",)]
    assert [p.name for p in target.parent.iterdir()] == ["one.db"]
    with pytest.raises(Conflict, match="there already"):
        lamps.backup(target)


def test_a_backup_that_cannot_be_written_leaves_nothing(lamps, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        lamps.backup(tmp_path / "file" / "one.db")


def test_readers_do_not_grow(lamps):
    for _ in range(50):
        threads = [threading.Thread(target=lambda: names(lamps)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lamps._readers._idle) <= 8


def test_trap_two_daemons_on_one_host_and_name(store, path, clock):
    with pytest.raises(StoreInUse, match=r"in use by another daemon \(process \d+\).*--root") as caught:
        Store.open(path, clock=clock)
    assert caught.value.facts["pid"] > 0
    script = f"from ostler.store import Store; from pathlib import Path; Store.open(Path({str(path)!r}))"
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert f"process {caught.value.facts['pid']}" in second.stderr
    store.close()
    Store.open(path, clock=clock).close()


def test_trap_database_corrupt_at_start_is_said_with_the_way_out(lamps, path, clock):
    lamps.write(lambda: Lamp.create(name="a" * 20_000))
    lamps.close()
    content = bytearray(path.read_bytes())
    content[4096:12288] = b"\x55" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match=r"damaged.*backups"):
        Store.open(path, clock=clock)
    assert path.read_bytes() == content
    # The lock is free again: the operator can put a copy in place and start.
    path.write_bytes(b"no database at all, but long enough to have a header of some kind" * 20)
    with pytest.raises(StoreCorrupt, match="not a database"):
        Store.open(path, clock=clock)


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
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        Store.open(tmp_path / "file" / "state" / "ostler.db", clock=clock)


def test_a_database_that_vanished_is_not_made_anew_in_silence(path):
    from ostler.store.database import connect

    path.parent.mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        connect(path)
    assert not Path(path).exists()


def test_it_needs_no_loop_to_open_and_no_clock(path):
    Store.open(path).close()
    assert FakeClock
