import sqlite3
from pathlib import Path

import peewee
import pytest

from ostler.errors import StoreCorrupt, StoreUnavailable
from ostler.store.sqlite_errors import is_database_error, sqlite_error, translate_error

FILE = Path("/var/lib/ostler/ostler.db")


def made(code, kind=sqlite3.OperationalError):
    error = kind("its text")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"
    return error


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable, "is locked by another program; .*let it finish"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreUnavailable, "is locked"),
        (sqlite3.SQLITE_FULL, StoreUnavailable, "no space left on the device; free space"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailable, "is read-only; check the owner"),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable, "cannot be opened; check the owner"),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable, "disk reports an error; check the kernel log"),
        (sqlite3.SQLITE_CORRUPT_VTAB, StoreCorrupt, "is damaged; stop the daemon.*backups"),
        (sqlite3.SQLITE_NOTADB, StoreCorrupt, "is not a database"),
    ],
)
def test_trouble_with_the_file_says_what_it_is_and_what_to_do(code, kind, said):
    original = made(code)
    found = translate_error(peewee.OperationalError(original), FILE)
    assert type(found) is kind
    assert str(FILE) in str(found)
    assert found.details == {"path": str(FILE), "reason": "SQLITE_NAME"}
    assert is_database_error(found)
    with pytest.raises(kind, match=said):
        raise translate_error(original, FILE)


@pytest.mark.parametrize("error", [made(sqlite3.SQLITE_CONSTRAINT), ValueError("x"), sqlite3.InterfaceError("x")])
def test_what_a_query_did_wrong_is_left_as_it_is(error):
    assert translate_error(error, FILE) is error
    assert not is_database_error(error)


def test_the_error_that_peewee_wrapped_is_found():
    original = made(sqlite3.SQLITE_BUSY)
    assert sqlite_error(peewee.OperationalError(original)) is original
    assert sqlite_error(peewee.OperationalError("of its own")) is None
    assert sqlite_error(ValueError()) is None
