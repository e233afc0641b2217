import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ostler.clock import FakeClock
from ostler.errors import ContractError, SchemaTooNew, StoreError, StoreUnavailable
from ostler.store import Store
from ostler.store.migrate import list_migrations
from ostler.store.session import current_session


def step(sql):
    return f"def forward(database):\n    database.execute_sql({sql!r})\n"


ONE = step("CREATE TABLE lamp_lamps (id INTEGER PRIMARY KEY, name TEXT)")
TWO = step("ALTER TABLE lamp_lamps ADD COLUMN colour TEXT")


class Package:
    """A package of migrations on disk, imported anew after each change."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.directory = folder / name
        self.directory.mkdir()
        self.write("__init__", "")

    def write(self, module: str, text: str) -> None:
        (self.directory / f"{module}.py").write_text(text)
        self.forget()

    def forget(self) -> None:
        import importlib

        importlib.invalidate_caches()
        for name in [name for name in sys.modules if name.split(".")[0] == self.name]:
            del sys.modules[name]


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made = Package(folder, f"migrations_{abs(hash(request.node.name))}")
    yield made
    made.forget()


def columns(store):
    return store.read(
        lambda: [row[1] for row in current_session().database.execute_sql("PRAGMA table_info(lamp_lamps)").fetchall()]
    )


def copies(path):
    return sorted(copy.name for copy in (path.parent / "backups").glob("*"))


def test_steps_are_applied_once_and_in_order(store, package):
    package.write("m0001_lamps", ONE)
    assert store.migrate("lamp", package.name) == ["lamp 0001 lamps"]
    package.write("m0002_colour", TWO)
    assert store.migrate("lamp", package.name) == ["lamp 0002 colour"]
    assert store.migrate("lamp", package.name) == []
    assert columns(store) == ["id", "name", "colour"]


def test_migrations_of_plugins_can_be_given_to_open(path, clock, package):
    package.write("m0001_lamps", ONE)
    store = Store.open(path, clock=clock, migrations={"lamp": package.name})
    assert columns(store) == ["id", "name"]
    store.close()
    package.write("m0002_broken", "x")
    store = Store.open(path, clock=clock, migrations={"lamp": package.name})
    assert "m0002_broken" in str(store.failed_migrations["lamp"])
    store.close()


@pytest.mark.failure_mode("State", "database of a newer schema")
def test_newer_tables_or_a_failed_migration_of_a_plugin_do_not_close_the_store(path, clock, package):
    package.write("m0001_lamps", ONE)
    package.write("m0002_more", "def forward(database): pass")
    Store.open(path, clock=clock, migrations={"lamp": package.name}).close()
    (package.directory / "m0002_more.py").unlink()
    package.forget()
    store = Store.open(path, clock=clock, migrations={"lamp": package.name})
    assert isinstance(store.failed_migrations["lamp"], SchemaTooNew)
    assert "the tables of lamp" in store.problems()[0]
    store.kv("x").set("key", 1)
    store.close()
    # A start that failed has given the lock back.
    Store.open(path, clock=clock).close()


def test_a_package_may_be_a_module_object_and_other_files_are_ignored(store, package):
    import importlib

    package.write("m0001_lamps", ONE)
    package.write("helpers", "raise RuntimeError")
    assert store.migrate("lamp", importlib.import_module(package.name)) == ["lamp 0001 lamps"]


def test_a_new_database_needs_no_backup_and_an_old_one_gets_one(path, clock, package):
    store = Store.open(path, clock=clock)
    assert copies(path) == []
    package.write("m0001_lamps", ONE)
    store.migrate("lamp", package.name)
    store.write(lambda: current_session().database.execute_sql("INSERT INTO lamp_lamps VALUES (1, 'a')"))
    package.write("m0002_colour", TWO)
    store.migrate("lamp", package.name)
    store.close()
    assert copies(path) == [
        "ostler-20270115T080000Z-before-lamp-0000-to-0001.db",
        "ostler-20270115T080000Z-before-lamp-0001-to-0002.db",
    ]
    with closing(sqlite3.connect(path.parent / "backups" / copies(path)[1])) as before:
        assert before.execute("SELECT * FROM lamp_lamps").fetchall() == [(1, "a")]


def test_only_the_newest_backups_are_kept(path, clock, package):
    store = Store.open(path, clock=clock, backups=2)
    for number in range(1, 6):
        clock.advance(60)
        package.write(f"m{number:04d}_step", step(f"CREATE TABLE lamp_{number} (n)"))
        store.migrate("lamp", package.name)
    store.close()
    assert [name.rpartition("-")[2] for name in copies(path)] == ["0004.db", "0005.db"]


@pytest.mark.failure_mode("Life", "failed start leaves nothing behind")
def test_starts_that_fail_leave_one_backup_and_a_new_database_none(path, clock, package):
    package.write("m0001_lamps", ONE)
    Store.open(path, clock=clock, migrations={"lamp": package.name}).close()
    assert copies(path) == []
    package.write("m0002_broken", TWO + "    database.execute_sql('ALTER TABLE nowhere ADD COLUMN x')\n")
    for _ in range(7):
        clock.advance(60)
        Store.open(path, clock=clock, migrations={"lamp": package.name}).close()
    [copied] = copies(path)
    assert copied.endswith("-before-lamp-0001-to-0002.db")


def test_backups_can_be_turned_off(path, clock, package, caplog):
    store = Store.open(path, clock=clock, backups=0)
    package.write("m0001_lamps", ONE)
    store.migrate("lamp", package.name)
    store.close()
    assert copies(path) == []
    assert "no backup created" in caplog.text


def test_a_backup_that_cannot_be_made_stops_the_migration(path, clock, package):
    store = Store.open(path, clock=clock)
    (path.parent / "backups").write_text("in the way")
    package.write("m0001_lamps", ONE)
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.migrate("lamp", package.name)
    assert columns(store) == []
    store.close()


def test_a_step_that_fails_is_undone_and_names_the_backup(store, package):
    package.write("m0001_lamps", ONE)
    package.write("m0002_broken", TWO + "    database.execute_sql('ALTER TABLE nowhere ADD COLUMN x')\n")
    with pytest.raises(StoreError, match=r"migration 0002 broken of lamp failed: .*no such table.*saved in .*backups"):
        store.migrate("lamp", package.name)
    assert columns(store) == ["id", "name"]
    package.write("m0002_broken", TWO)
    assert store.migrate("lamp", package.name) == ["lamp 0002 broken"]


def test_a_step_that_leaves_broken_references_is_undone(store, package):
    package.write(
        "m0001_lamps",
        ONE
        + "    database.execute_sql('CREATE TABLE lamp_bulbs (lamp INTEGER REFERENCES lamp_lamps (id))')\n"
        + "    database.execute_sql('INSERT INTO lamp_bulbs VALUES (7)')\n",
    )
    with pytest.raises(StoreError, match="broken references: from lamp_bulbs to lamp_lamps"):
        store.migrate("lamp", package.name)
    assert columns(store) == []


def test_a_table_can_be_rebuilt_while_others_refer_to_it(store, package):
    package.write(
        "m0001_lamps",
        ONE
        + "    database.execute_sql('CREATE TABLE lamp_bulbs (lamp INTEGER REFERENCES lamp_lamps (id))')\n"
        + "    database.execute_sql('INSERT INTO lamp_lamps VALUES (1, 2)')\n"
        + "    database.execute_sql('INSERT INTO lamp_bulbs VALUES (1)')\n",
    )
    package.write(
        "m0002_rebuild",
        "def forward(database):\n"
        "    database.execute_sql('CREATE TABLE lamp_new (id INTEGER PRIMARY KEY, name TEXT NOT NULL)')\n"
        "    database.execute_sql('INSERT INTO lamp_new SELECT * FROM lamp_lamps')\n"
        "    database.execute_sql('DROP TABLE lamp_lamps')\n"
        "    database.execute_sql('ALTER TABLE lamp_new RENAME TO lamp_lamps')\n",
    )
    assert len(store.migrate("lamp", package.name)) == 2
    assert store.check() == []


def test_records_can_be_used_in_a_step(store, package):
    package.write(
        "m0001_lamps",
        "import peewee\n"
        "from ostler.store import Record\n"
        "class Lamp(Record):\n"
        "    name = peewee.TextField()\n"
        "    class Meta:\n"
        "        table_name = 'lamp_lamps'\n"
        "def forward(database):\n"
        "    database.create_tables([Lamp])\n"
        "    Lamp.create(name='a')\n",
    )
    store.migrate("lamp", package.name)
    assert columns(store) == ["id", "name"]


@pytest.mark.parametrize("names", [["m0001_a", "m0003_c"], ["m0001_a", "m0001_b"], ["m0002_b"]])
def test_numbers_with_gaps_or_doubles_are_refused(package, names):
    for name in names:
        package.write(name, ONE)
    with pytest.raises(ContractError, match="not numbered 1, 2, 3 without gaps or duplicates"):
        list_migrations("lamp", package.name)


def test_what_is_no_package_is_refused_by_name(store):
    for wrong in ("no.such.package", "json.decoder"):
        with pytest.raises(ContractError, match=r"migrations of lamp cannot be imported from package"):
            store.migrate("lamp", wrong)


def test_a_module_that_does_not_import_changes_nothing(store, package):
    package.write("m0001_lamps", ONE)
    package.write("m0002_colour", "import no_such_module")
    with pytest.raises(ContractError, match=r"m0002_colour of lamp cannot be loaded: ModuleNotFoundError"):
        store.migrate("lamp", package.name)
    assert columns(store) == []


def test_a_released_step_that_was_renamed_is_refused(store, package):
    package.write("m0001_lamps", ONE)
    store.migrate("lamp", package.name)
    (package.directory / "m0001_lamps.py").unlink()
    package.write("m0001_lights", ONE)
    with pytest.raises(StoreError, match=r"'lights' here.*'lamps' was applied"):
        store.migrate("lamp", package.name)


@pytest.mark.failure_mode("State", "database of a newer schema")
def test_database_of_a_newer_schema(store, path, clock, package):
    package.write("m0001_lamps", ONE)
    package.write("m0002_colour", TWO)
    store.migrate("lamp", package.name)
    (package.directory / "m0002_colour.py").unlink()
    package.forget()
    with pytest.raises(
        SchemaTooNew, match=r"tables of lamp .* at version 2 \(colour\), .* only knows versions up to 1"
    ):
        store.migrate("lamp", package.name)
    store.write(
        lambda: current_session().database.execute_sql(
            "INSERT INTO ostler_migrations VALUES ('ostler', 99, 'future', 0)"
        )
    )
    store.close()
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match=r"tables of ostler .* at version 99 \(future\).*at least as new"):
        Store.open(path, clock=clock)
    assert path.read_bytes() == before


def test_a_kill_in_the_middle_of_a_step_leaves_it_out(store, path, clock, package):
    """A step is one transaction with its own mark; what is not committed was never there."""
    package.write("m0001_lamps", ONE + "    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        store.migrate("lamp", package.name)
    assert columns(store) == []
    package.write("m0001_lamps", ONE)
    assert store.migrate("lamp", package.name) == ["lamp 0001 lamps"]
    assert isinstance(clock, FakeClock)
