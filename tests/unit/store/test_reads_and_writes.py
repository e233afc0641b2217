"""Reads never wait for writes: not for a long write, nor its commit, nor a checkpoint, nor a vacuum."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ostler.store.session import current_session

# private: _writer: a checkpoint by the connection that writes


def execute(sql, *values):
    return current_session().database.execute_sql(sql, values)


def count(store):
    return store.read(lambda: execute("SELECT count(*) FROM t").fetchone()[0])


@pytest.fixture
def table(store):
    store.write(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY, v BLOB)"))
    store.write(lambda: execute("INSERT INTO t (v) VALUES (zeroblob(100000))"))
    return store


class HeldWrite:
    """A write that has changed rows and goes on until it is released."""

    def __init__(self, store):
        self._store = store
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=store.write, args=(self._work,))

    def __enter__(self):
        self._thread.start()
        assert self._inside.wait(30)
        return self

    def _work(self):
        execute("DELETE FROM t")
        execute("INSERT INTO t (n, v) SELECT 1000 + value, zeroblob(10000) FROM (SELECT 1 AS value UNION SELECT 2)")
        self._inside.set()
        assert self._leave.wait(30)

    def __exit__(self, *error):
        self._leave.set()
        self._thread.join()


def test_reads_go_on_during_a_long_write_and_see_what_was_before(table):
    with HeldWrite(table):
        assert [count(table) for _ in range(20)] == [1] * 20
    assert count(table) == 2


async def test_reads_of_the_loop_go_on_during_a_long_write(table):
    with HeldWrite(table):
        assert await table.aread(lambda: execute("SELECT count(*) FROM t").fetchone()) == (1,)


def test_a_read_that_began_before_a_write_keeps_its_snapshot_and_delays_nothing(table):
    with ThreadPoolExecutor(1) as pool:

        def read():
            before = execute("SELECT count(*) FROM t").fetchone()[0]
            pool.submit(table.write, lambda: execute("INSERT INTO t (v) VALUES (x'00')")).result(30)
            return before, execute("SELECT count(*) FROM t").fetchone()[0]

        assert table.read(read) == (1, 1)
    assert count(table) == 2


@pytest.mark.parametrize("mode", ["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
def test_reads_go_on_during_a_checkpoint(table, mode):
    """A read in progress is not disturbed by a checkpoint, and the next one begins at once."""
    with ThreadPoolExecutor(1) as pool:
        started, leave = threading.Event(), threading.Event()

        def checkpoint():
            # Waits for the reader below, for up to the busy time-out; it must hold up nobody else.
            started.set()
            connection = current_session().database.connection()
            connection.execute("PRAGMA busy_timeout = 200")
            while not leave.is_set():
                connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()

        def read():
            first = execute("SELECT count(*) FROM t").fetchone()[0]
            checkpointing = pool.submit(table._writer.run_alone, checkpoint, label="checkpoint")
            assert started.wait(30)
            others = [pool2.submit(count, table).result(5) for _ in range(20)]
            again = execute("SELECT count(*) FROM t").fetchone()[0]
            leave.set()
            return first, again, others, checkpointing

        with ThreadPoolExecutor(1) as pool2:
            first, again, others, checkpointing = table.read(read)
        checkpointing.result(30)
    assert (first, again, others) == (1, 1, [1] * 20)


def test_reads_go_on_during_a_vacuum(table):
    table.write(lambda: [execute("INSERT INTO t (v) VALUES (zeroblob(100000))") for _ in range(300)])
    table.write(lambda: execute("DELETE FROM t WHERE n % 2"))
    with ThreadPoolExecutor(1) as pool:
        vacuuming = pool.submit(table.vacuum)
        results = [count(table)]
        while not vacuuming.done():
            results.append(count(table))
        assert vacuuming.result().after > 0
    assert set(results) == {150}
