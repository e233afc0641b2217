import sqlite3
from contextlib import closing

import pytest

from ostler.errors import StoreCorrupt
from ostler.store import Store
from ostler.store.damage import Damage


def test_damage_is_said_once_and_stands_until_a_check_finds_none(clock, caplog):
    damage = Damage(clock)
    assert damage.problems() == []
    damage.repaired()
    damage.found(StoreCorrupt("the database x is damaged", hint="restore a backup"))
    damage.found(StoreCorrupt("another page", hint=""))
    (line,) = damage.problems()
    assert "damage was found at" in line
    assert "the database x is damaged; restore a backup" in line
    damage.repaired()
    assert damage.problems() == []
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


@pytest.mark.failure_mode("State", "database corrupt")
@pytest.mark.parametrize("by", ["read", "write", "check"])
def test_a_damaged_table_stays_a_problem_while_others_are_written(path, clock, by):
    store = Store.open(path, clock=clock)
    for number in range(50):
        store.kv("x").set(str(number), "y" * 1000)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'key_value'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xee" * 4096)
    finders = {
        "read": lambda: store.kv("x").items(),
        "write": lambda: store.kv("x").set("new", 1),
        "check": store.check,
    }
    with pytest.raises(StoreCorrupt):
        finders[by]()
    assert store.ping()
    (line,) = store.problems()
    assert "is damaged" in line
    assert "ostler db restore FILE" in line
    assert "\n" not in line
    store.close()
