import asyncio
import sqlite3
import sys
import threading
import time
from contextlib import closing

import peewee
import pytest

from ostler.errors import StoreCorrupt, StoreError, StoreUnavailable
from ostler.store import Record, Store


class Lamp(Record):
    name = peewee.TextField(unique=True)
    shade = peewee.BlobField(default=b"")

    class Meta:
        table_name = "test_lamps"


@pytest.fixture
def lamps(store):
    store.write(Lamp.create_table)
    return store


def names(store):
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


def test_a_read_cannot_write(lamps):
    with pytest.raises(StoreError, match=r"the function passed to store\.read writes"):
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


async def test_write_on_the_loops_thread_is_refused(lamps):
    with pytest.raises(StoreError, match=r"on the event loop's thread.*await store\.awrite"):
        lamps.write(lambda: Lamp.create(name="a"))


async def test_awrite_and_aread_work_on_the_loop(lamps):
    await asyncio.gather(*(lamps.awrite(lambda n=n: Lamp.create(name=f"{n:02d}")) for n in range(20)))
    with pytest.raises(peewee.IntegrityError):
        await lamps.awrite(lambda: Lamp.create(name="07"))
    assert await lamps.aread(lambda: Lamp.select().count()) == 20


async def test_a_cancelled_awrite_is_still_written_and_harms_nobody(lamps):
    task = asyncio.create_task(lamps.awrite(lambda: Lamp.create(name="a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await lamps.awrite(lambda: Lamp.create(name="b"))
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


async def test_writes_that_wait_are_finished_by_close(lamps, path, clock):
    writes = [asyncio.ensure_future(lamps.awrite(lambda n=n: Lamp.create(name=str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.to_thread(lamps.close)
    await asyncio.gather(*writes)
    again = Store.open(path, clock=clock)
    assert len(names(again)) == 50
    again.close()


def test_evidence_is_the_moment_of_the_last_commit(store, clock):
    clock.advance(5)
    assert store.last_commit_time() == clock.monotonic() - 5
    first = store.ping()
    assert store.last_commit_time() == clock.monotonic()
    assert asyncio.run(store.aping()) == first + 1


def test_a_read_is_no_evidence(store, clock):
    before = store.last_commit_time()
    clock.advance(5)
    store.read(lambda: None)
    assert store.last_commit_time() == before


def test_a_sound_database_checks_clean(lamps):
    assert lamps.check() == []


async def test_check_works_on_the_loop(lamps):
    assert await lamps.acheck() == []


@pytest.mark.failure_mode("State", "database corrupt")
def test_database_corrupt_at_start_is_said_with_the_way_out(lamps, path, clock):
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


@pytest.mark.failure_mode("State", "database locked for a minute")
def test_a_start_while_another_program_holds_the_lock_goes_on_by_itself(store, path, clock):
    store.kv("x").set("a", 1)
    store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            Store.open(path, clock=clock, busy_timeout=0.05)
        began = Store.open(path, clock=clock, busy_timeout=0.05, later=True)
        assert "locked by another program" in began.problems()[0]
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            began.kv("x").items()
        other.execute("ROLLBACK")
    began.kv("x").set("b", 2)
    assert began.kv("x").items() == {"a": 1, "b": 2}
    assert began.problems() == []
    began.close()


def test_a_read_that_never_ends_does_not_hold_up_a_start(store, path, clock):
    store.kv("x").set("a", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM key_value").fetchone()
        store.kv("x").set("b", 2)
        store.close()
        began = time.monotonic()
        again = Store.open(path, clock=clock, busy_timeout=30)
        assert time.monotonic() - began < 10
        assert again.kv("x").items() == {"a": 1, "b": 2}
        again.close()
