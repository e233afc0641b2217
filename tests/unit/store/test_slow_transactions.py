import contextvars
import sqlite3
import threading
from contextlib import closing

from ostler.store import Callers, Statement, Store
from ostler.store.session import current_session


def execute(sql, *values):
    return current_session().database.execute_sql(sql, values)


def warnings(caplog):
    return [each.message for each in caplog.records if each.name == "ostler.store.slow_transactions"]


def test_a_slow_write_is_named_with_who_asked_for_it(path, clock, caplog):
    who = contextvars.ContextVar("who", default="")
    store = Store.open(path, clock=clock, callers=Callers(request=who.get))
    who.set("volume.create_volume of uid 1000 (request abc)")
    store.write(lambda: clock.advance(3), label="add volume big")
    (line,) = warnings(caplog)
    assert "the write add volume big (tests.unit.store.test_slow_transactions.test_a_slow_write" in line
    assert ", asked for by volume.create_volume of uid 1000 (request abc), blocked all others for 3s" in line
    assert "after waiting for 0s" in line
    store.close()


def test_how_long_a_slow_write_waited_is_said(path, clock, caplog):
    store = Store.open(path, clock=clock)
    inside, leave = threading.Event(), threading.Event()

    def hold():
        inside.set()
        leave.wait(30)

    first = threading.Thread(target=store.write, args=(hold,))
    first.start()
    assert inside.wait(30)
    second = threading.Thread(target=lambda: store.write(lambda: clock.advance(2), label="late"))
    second.start()
    while not store.stats()["queued"]:
        threading.Event().wait(0.001)
    clock.advance(0.75)
    leave.set()
    first.join()
    second.join()
    (line,) = warnings(caplog)
    assert "the write late " in line
    assert line.endswith("blocked all others for 2s, after waiting for 750ms; write in smaller pieces")
    store.close()


def test_one_function_is_named_once_a_minute_whatever_its_label(path, clock, caplog):
    store = Store.open(path, clock=clock)

    def slow():
        clock.advance(2)

    for number in range(20):
        store.write(slow, label=f"set key{number}")
    assert len(warnings(caplog)) == 1
    clock.advance(60)
    store.write(slow)
    assert "(and 19 more of this kind since the last line)" in warnings(caplog)[1]
    store.close()


def test_the_limit_can_be_changed_and_a_quick_write_is_not_named(path, clock, caplog):
    store = Store.open(path, clock=clock)
    store.set_slow_transaction(5.0)
    store.write(lambda: clock.advance(4))
    assert warnings(caplog) == []
    store.set_slow_transaction(0.5)
    store.write(lambda: clock.advance(0.6))
    assert len(warnings(caplog)) == 1
    store.close()


def test_a_slow_read_is_named_with_who_asked(path, clock, caplog):
    store = Store.open(path, clock=clock, callers=Callers(request=lambda: "audit.query of uid 7"))

    def read_everything():
        clock.advance(2.5)

    store.read(read_everything)
    (line,) = warnings(caplog)
    assert "read_everything, asked for by audit.query of uid 7, took 2.5s" in line
    assert "could not be checkpointed" in line
    store.close()


def test_a_slow_statement_is_named(path, clock, caplog):
    store = Store.open(path, clock=clock)
    store.write(lambda: execute("CREATE TABLE t (n)"))
    store.write(lambda: current_session().database.connection().create_function("wait", 0, lambda: clock.advance(2)))
    caplog.clear()
    store.write(Statement("INSERT INTO t VALUES (wait())"), label="one statement")
    (line,) = warnings(caplog)
    assert "the write one statement (ostler.store.statement.Statement) blocked" in line
    store.close()


def test_a_slow_commit_names_the_disk(path, clock, caplog):
    store = Store.open(path, clock=clock)

    def time_passes_at_the_commit():
        connection = current_session().database.connection()
        connection.set_trace_callback(lambda sql: clock.advance(4) if sql == "COMMIT" else None)

    store.write(time_passes_at_the_commit)
    (line,) = warnings(caplog)
    assert line == "the commit of 1 writes took 4s: check the health and the load of the disk"
    store.close()


def test_a_lock_of_another_program_is_named(path, clock, caplog):
    store = Store.open(path, clock=clock)
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = threading.Thread(target=store.ping)
        writing.start()
        while (job := store.current_job()) is None or job.label != "waiting for the database":
            threading.Event().wait(0.001)
        clock.advance(2)
        other.execute("ROLLBACK")
        writing.join()
    assert "all writes waited for 2s for a database that another program had locked" in warnings(caplog)[0]
    store.close()
