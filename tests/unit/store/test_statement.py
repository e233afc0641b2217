import sqlite3
import threading

import pytest

from ostler.errors import ContractError, StoreError
from ostler.store import Statement, Written
from ostler.store.session import current_session


def execute(sql, *values):
    return current_session().database.execute_sql(sql, values)


def numbers(store):
    return [row[0] for row in store.read(lambda: execute("SELECT n FROM t ORDER BY n").fetchall())]


@pytest.fixture
def table(store):
    store.write(lambda: execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    return store


def test_a_statement_says_what_it_has_done(table):
    assert table.write(Statement("INSERT INTO t VALUES (?)", (7,))) == Written(changed=1, row_id=7)
    assert table.write(Statement("INSERT INTO t VALUES (8), (9)")).changed == 2
    assert table.write(Statement("update t SET n = n + 100 WHERE n > ?", (7,))).changed == 2
    assert table.write(Statement("INSERT INTO t VALUES (?) ON CONFLICT DO NOTHING", (7,))).changed == 0
    assert table.write(Statement(" DELETE FROM t")).changed == 3


def test_a_statement_that_fails_changes_nothing_and_harms_no_other(table):
    with pytest.raises(sqlite3.IntegrityError):
        table.write(Statement("INSERT INTO t VALUES (1), (2), (1)"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        table.write(Statement("DELETE FROM nowhere"))
    table.write(Statement("INSERT INTO t VALUES (5)"))
    assert numbers(table) == [5]


async def test_statements_of_many_callers_share_a_commit_and_each_has_its_own_error(table):
    import asyncio

    before = table.stats()["commits"]
    values = [1, 2, 2, 3]
    found = await asyncio.gather(
        *(table.awrite(Statement("INSERT INTO t VALUES (?)", (value,))) for value in values), return_exceptions=True
    )
    assert [isinstance(result, sqlite3.IntegrityError) for result in found] == [False, False, True, False]
    assert table.stats()["commits"] - before < len(values)
    assert numbers(table) == [1, 2, 3]


def test_a_statement_in_a_write_is_a_part_of_it(table):
    def work():
        Statement("INSERT INTO t VALUES (1)")()
        table.write(Statement("INSERT INTO t VALUES (2)"))
        raise LookupError

    with pytest.raises(LookupError):
        table.write(work)
    assert numbers(table) == []


def test_rows_that_a_trigger_leaves_when_it_fails_are_undone_with_the_group(table):
    """RAISE(FAIL) is the one way in which a statement fails and keeps what it has done."""
    table.write(
        lambda: execute("CREATE TRIGGER no BEFORE INSERT ON t WHEN new.n = 3 BEGIN SELECT RAISE(FAIL, 'no three'); END")
    )
    with pytest.raises(sqlite3.IntegrityError, match="no three"):
        table.write(Statement("INSERT INTO t VALUES (1), (2), (3)"))
    assert numbers(table) == []


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1", "COMMIT", "", "PRAGMA user_version = 1", "WITH x AS (SELECT 1) DELETE FROM t",
        "INSERT OR FAIL INTO t VALUES (1)", "UPDATE or  rollback t SET n = 1", "DELETE FROM t RETURNING n",
    ],
)  # fmt: skip
def test_what_is_no_single_write_is_refused_where_it_is_made(sql):
    with pytest.raises(ContractError, match="RETURNING"):
        Statement(sql)


def test_outside_of_a_write_a_statement_says_what_to_do(table):
    with pytest.raises(StoreError, match=r"pass it to `store\.write`"):
        Statement("DELETE FROM t")()
    with pytest.raises(StoreError, match=r"pass it to `store\.write`"):
        table.read(Statement("DELETE FROM t"))


def test_two_statements_in_one_text_are_refused(table):
    with pytest.raises(sqlite3.Error):
        table.write(Statement("DELETE FROM t; DELETE FROM t"))


def test_values_are_not_shown():
    assert repr(Statement("INSERT INTO t VALUES (?)", ("secret",))) == "Statement('INSERT INTO t VALUES (?)')"


def test_a_statement_runs_on_the_writers_thread_for_any_caller(table):
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(table.write(Statement("INSERT INTO t VALUES (?)", (n,)))))
        for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.row_id for result in results) == list(range(10)) == numbers(table)
