import asyncio
import contextlib
import contextvars
import logging
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import peewee
import pytest

from ostler.clock import SystemClock
from ostler.errors import Busy, StoreError, StoreUnavailable
from ostler.store import Store
from ostler.store.session import current_session
from ostler.store.sqlite_errors import translate_error
from ostler.store.sqlite_files.sqlite_connection import connect
from ostler.store.write_queue import WriteQueue
from ostler.store.writer import Writer

# private: _disconnect: a connection that is made again at the next write


def execute(sql, *values):
    return current_session().database.execute_sql(sql, values)


def insert(number):
    return execute("INSERT INTO t VALUES (?)", number)


def rows(store):
    return [row[0] for row in store.read(lambda: execute("SELECT n FROM t ORDER BY n").fetchall())]


@pytest.fixture
def table(store):
    store.write(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    return store


def in_threads(*works):
    """Run each on a thread of its own; return results or errors in order."""
    results = [None] * len(works)

    def run(index, work):
        try:
            results[index] = work()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    return threads, results


class Gate:
    """Holds the writer inside a job until it is opened."""

    def __init__(self, store):
        self.parent_context = threading.Event()
        self._open = threading.Event()
        # What becomes of this job does not matter: it shares the fate of its group.
        (self._thread,), _ = in_threads(lambda: store.write(self._job, label="the gate"))
        assert self.parent_context.wait(10)

    def _job(self):
        self.parent_context.set()
        assert self._open.wait(30)

    def open(self):
        self._open.set()
        self._thread.join(30)


def wait_until_queued(store, count):
    turn = threading.Event()
    for _ in range(2000):
        if store.stats()["queued"] >= count:
            return
        turn.wait(0.005)
    raise AssertionError(f"{store.stats()} never had {count} queued")


def test_callers_that_wait_share_one_commit(table):
    gate = Gate(table)
    threads, _ = in_threads(*(lambda n=n: table.write(lambda: insert(n)) for n in range(30)))
    wait_until_queued(table, 30)
    before = table.stats()["commits"]
    gate.open()
    for thread in threads:
        thread.join()
    assert table.stats()["commits"] - before == 1
    assert rows(table) == list(range(30))


def test_one_failing_job_of_a_group_harms_only_itself(table):
    def broken():
        insert(100)
        raise LookupError("this one")

    gate = Gate(table)
    threads, results = in_threads(
        lambda: table.write(lambda: insert(1)), lambda: table.write(broken), lambda: table.write(lambda: insert(2))
    )
    wait_until_queued(table, 3)
    gate.open()
    for thread in threads:
        thread.join()
    assert isinstance(results[1], LookupError)
    assert rows(table) == [1, 2]


def test_atomic_inside_a_job_is_a_savepoint(table):
    def job():
        insert(1)
        with contextlib.suppress(LookupError), current_session().database.atomic():
            insert(2)
            raise LookupError

    table.write(job)
    assert rows(table) == [1]


def test_a_job_that_commits_by_itself_is_refused_with_the_way_out(table):
    with pytest.raises(StoreError, match=r"ended the store's transaction.*database\.atomic"):
        table.write(lambda: execute("COMMIT"), label="a rude job")
    with pytest.raises(StoreError, match="ended the store's transaction"):
        table.write(lambda: execute("ROLLBACK"))
    table.write(lambda: insert(1))
    assert rows(table) == [1]


def test_a_commit_that_fails_fails_all_of_its_jobs_and_nothing_is_kept(table):
    """A deferred foreign key breaks at the COMMIT, not in the job."""
    table.write(lambda: execute("CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)"))
    gate = Gate(table)
    threads, results = in_threads(
        lambda: table.write(lambda: insert(1)), lambda: table.write(lambda: execute("INSERT INTO child VALUES (77)"))
    )
    wait_until_queued(table, 2)
    gate.open()
    for thread in threads:
        thread.join()
    assert all(isinstance(result, sqlite3.IntegrityError) for result in results)
    assert rows(table) == []
    table.write(lambda: insert(2))
    assert rows(table) == [2]


def test_urgent_jobs_go_first(table):
    gate = Gate(table)
    order = []
    threads, _ = in_threads(*(lambda: table.write(lambda: order.append("normal")) for _ in range(5)))
    wait_until_queued(table, 5)
    urgent, _ = in_threads(lambda: table.write(lambda: order.append("urgent"), urgent=True))
    wait_until_queued(table, 6)
    gate.open()
    for thread in threads + urgent:
        thread.join()
    assert order == ["urgent"] + ["normal"] * 5


def test_what_the_writer_is_busy_with_can_be_seen(table):
    assert table.current_job() is None
    gate = Gate(table)
    busy = table.current_job()
    assert busy.label == "the gate"
    assert busy.seconds >= 0
    gate.open()


def test_a_job_without_a_label_is_named_after_its_function(table):
    inside, leave = threading.Event(), threading.Event()

    def fetch_everything():
        inside.set()
        leave.wait(10)

    threads, _ = in_threads(lambda: table.write(fetch_everything))
    inside.wait(10)
    assert "fetch_everything" in table.current_job().label
    leave.set()
    threads[0].join()


def test_a_long_job_is_named_in_the_log(table, clock, caplog):
    table.write(lambda: clock.advance(3), label="the elephant")
    assert "the write the elephant (" in caplog.text
    assert "blocked all others for 3s" in caplog.text


async def test_a_full_queue_refuses_but_not_the_heartbeats(path, store, clock):
    writer = Writer(
        lambda: connect(path), lambda error: translate_error(error, path), clock, object(), queue=WriteQueue(2)
    )

    waiting = [asyncio.ensure_future(writer.awrite(lambda: None)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="2 writes are waiting") as caught:
        await writer.awrite(lambda: None)
    assert caught.value.retry_after == 1.0
    urgent = asyncio.ensure_future(writer.awrite(lambda: "beat", urgent=True))
    await asyncio.sleep(0)
    writer.start()
    await asyncio.gather(*waiting)
    assert await urgent == "beat"
    assert writer.close(10) == ""


def test_close_names_what_the_writer_hangs_in(path, clock):
    store = Store.open(path, clock=clock)
    gate = Gate(store)
    assert store.close(timeout=0.01).startswith("the gate for")
    gate.open()
    assert store.close() == ""


def test_context_variables_of_the_caller_go_along(table):
    import contextvars

    variable = contextvars.ContextVar("variable", default="")
    variable.set("mine")
    assert table.write(variable.get) == "mine"


def test_a_loop_that_closed_meanwhile_harms_nobody(table):
    gate = Gate(table)

    async def leave():
        task = asyncio.ensure_future(table.awrite(lambda: insert(1)))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())  # not an async test: its loop has to be closed before the gate opens
    gate.open()
    table.write(lambda: insert(2))
    assert rows(table) == [1, 2]


@pytest.mark.failure_mode("State", "database locked for a minute")
def test_database_locked_for_a_minute(table, path, caplog):
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match=r"is locked by another program.*let it finish"):
                table.write(lambda: insert(1))
        assert table.outage.is_active
        assert rows(table) == []  # reading goes on
        stranger.execute("ROLLBACK")
    table.write(lambda: insert(2))
    assert rows(table) == [2]
    assert not table.outage.is_active
    said = [record.message for record in caplog.records if record.name == "ostler.store.writer"]
    assert [text.split(";")[0].split(" after")[0] for text in said] == [
        "writing to the database failed",
        "writing to the database works again",
    ]


def test_a_wait_for_the_lock_can_be_seen_and_all_who_wait_fail_together(path, clock):
    store = Store.open(path, clock=clock, busy_timeout=0.3)
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        threads, results = in_threads(*(lambda: store.write(lambda: None) for _ in range(5)))
        for thread in threads:
            thread.join()
        stranger.execute("ROLLBACK")
    assert all(isinstance(result, StoreUnavailable) for result in results)
    assert len({id(result) for result in results}) == 5
    store.close()


@pytest.mark.failure_mode("State", "disk full and then not")
def test_disk_full_and_then_not(table):
    def limit(pages):
        table.write(lambda: execute(f"PRAGMA max_page_count = {pages}"))

    table.write(lambda: execute("CREATE TABLE big (data BLOB)"))
    table.write(lambda: insert(1))
    limit(30)
    gate = Gate(table)
    threads, results = in_threads(
        lambda: table.write(lambda: insert(2)),
        lambda: table.write(lambda: execute("INSERT INTO big VALUES (zeroblob(1000000))")),
        lambda: table.write(lambda: insert(3)),
    )
    wait_until_queued(table, 3)
    gate.open()
    for thread in threads:
        thread.join()
    assert isinstance(results[1], StoreUnavailable)
    assert "no space left" in str(results[1])
    # What was acknowledged is there, what was refused is not.
    kept = [n for n, result in ((2, results[0]), (3, results[2])) if not isinstance(result, Exception)]
    assert rows(table) == [1, *kept]
    limit(100_000)
    table.write(lambda: execute("INSERT INTO big VALUES (zeroblob(1000000))"))
    assert table.check() == []


@pytest.mark.failure_mode("State", "database read-only")
def test_database_read_only_for_a_while(store, path, clock):
    """The file system turns read-only under the daemon, and back."""
    state = {"read_only": False}
    writer = Writer(
        lambda: connect(path, read_only=state["read_only"]), lambda error: translate_error(error, path), clock, object()
    )
    writer.start()
    state["read_only"] = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"is read-only.*mounted read-only"):
            writer.write(lambda: execute("UPDATE pulse SET number = number + 1"))
        writer._disconnect()
    state["read_only"] = False
    writer._disconnect()
    writer.write(lambda: execute("UPDATE pulse SET number = number + 1"))
    assert writer.close(10) == ""


def test_a_connection_that_cannot_be_made_fails_the_callers_and_is_tried_again(path, store, clock):
    tries = []

    def unsteady():
        tries.append(1)
        if len(tries) < 3:
            raise StoreUnavailable("the disk is away")
        return connect(path)

    writer = Writer(unsteady, lambda error: translate_error(error, path), clock, object())
    writer.start()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="away"):
            writer.write(lambda: 1)
    assert writer.write(lambda: 1) == 1
    assert writer.close(10) == ""


@pytest.mark.failure_mode("State", "heartbeats on time during 50,000 writes")
async def test_heartbeats_on_time_during_50000_writes(path):
    """A heartbeat waits for the job that runs and for its own commit, never for the thousands that wait."""
    store = Store.open(path, clock=SystemClock())
    await store.awrite(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    done = [0]
    waited = []

    def one():
        execute("INSERT INTO t VALUES (NULL)")
        done[0] += 1

    async def heartbeats(stop):
        while not stop.is_set():
            asked = done[0]
            await store.awrite(lambda asked=asked: waited.append(done[0] - asked), urgent=True, label="beat")
            await asyncio.sleep(0.005)

    stop = asyncio.Event()
    beating = asyncio.ensure_future(heartbeats(stop))
    for _ in range(5):
        await asyncio.gather(*(store.awrite(one) for _ in range(10_000)))
    stop.set()
    await beating
    assert done[0] == 50_000
    assert len(waited) > 5
    # At most what one group may do in its time slice; without the fast lane it would be up to 10,000.
    assert sorted(waited)[len(waited) // 2] < 1000, sorted(waited)
    store.close()


KILLED = """
import sys, threading
from pathlib import Path
from ostler.store import Store
from ostler.store.session import current_session
store = Store.open(Path(sys.argv[1]))
lock = threading.Lock()
def work(start):
    for n in range(start, start + 1_000_000):
        store.write(lambda: current_session().database.execute_sql("INSERT INTO t VALUES (?)", (n,)))
        with lock:
            sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
threads = [threading.Thread(target=work, args=(i * 1_000_000,)) for i in range(4)]
for t in threads: t.start()
for t in threads: t.join()
"""


@pytest.mark.failure_mode("State", "nothing acknowledged is lost by `kill -9`")
def test_kill_9_loses_nothing_that_was_acknowledged(path, clock):
    store = Store.open(path, clock=clock)
    store.write(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    store.close()
    for after in (1, 7, 50, 333):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        lines = [process.stdout.readline() for _ in range(after)]
        process.kill()
        rest = process.stdout.read()
        process.wait()
        process.stdout.close()
        # The last line may have been cut off by the kill.
        acknowledged = {int(line) for line in ("".join(lines) + rest).splitlines(keepends=True) if line.endswith("\n")}
        store = Store.open(path, clock=clock)
        assert acknowledged <= set(rows(store))
        assert store.check() == []
        store.write(lambda: execute("DELETE FROM t"))
        store.close()


def test_peewee_errors_of_a_job_are_translated_only_when_they_are_about_the_file(table):
    with pytest.raises(peewee.OperationalError, match="no such table"):
        table.write(lambda: execute("INSERT INTO nowhere VALUES (1)"))
    assert not table.outage.is_active


def test_a_group_that_fails_for_another_reason_is_logged(table, caplog):
    caplog.set_level(logging.ERROR)
    with pytest.raises(StoreError):
        table.write(lambda: execute("COMMIT"))
    assert "a group of 1 writes failed" in caplog.text


async def test_writers_take_turns_and_none_of_them_fills_the_queue(path, store, clock):
    whose = contextvars.ContextVar("whose", default=None)
    writer = Writer(
        lambda: connect(path),
        lambda error: translate_error(error, path),
        clock,
        object(),
        queue=WriteQueue(10, whose.get),
    )
    order = []

    whose.set("greedy")
    greedy = [asyncio.ensure_future(writer.awrite(lambda: order.append("greedy"))) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="this caller has used its share") as refused:
        await writer.awrite(lambda: None)
    assert refused.value.is_own_share
    whose.set("modest")
    modest = asyncio.ensure_future(writer.awrite(lambda: order.append("modest")))
    await asyncio.sleep(0)
    writer.start()
    await asyncio.gather(modest, *greedy)
    assert order == ["greedy", "modest", *["greedy"] * 4]
    assert writer.close(10) == ""
