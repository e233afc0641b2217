import os
import sys

import pytest

from ostler.errors import Conflict, NotFound, StoreInUse
from ostler.store import Store
from ostler.store.offline import backup_offline, check_offline, migrate_offline, vacuum_offline

FIRST = "def forward(database): database.execute_sql('CREATE TABLE lamp_bulbs (n INTEGER PRIMARY KEY)')\n"
SECOND = "def forward(database): database.execute_sql('ALTER TABLE lamp_bulbs ADD COLUMN watts REAL')\n"


@pytest.fixture
def stopped(path, clock):
    store = Store.open(path, clock=clock)
    store.kv("x").set("key", "value")
    store.close()
    return path


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that makes a package of migrations, by the texts of its modules."""
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    made = []

    def make(name, *texts):
        folder = tmp_path / "packages" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
        for number, text in enumerate(texts, 1):
            (folder / f"m{number:04d}_step{number}.py").write_text(text)
        made.append(name)
        return name

    yield make
    for loaded in [each for each in sys.modules if each.partition(".")[0] in made]:
        del sys.modules[loaded]


def test_a_running_daemon_is_not_disturbed(path, store, tmp_path):
    for work in (
        lambda: check_offline(path),
        lambda: vacuum_offline(path),
        lambda: backup_offline(path, tmp_path / "copy.db"),
        lambda: migrate_offline(path, {}, backups=3),
        lambda: migrate_offline(path, {}, backups=3, dry_run=True),
    ):
        with pytest.raises(StoreInUse, match="in use by another daemon"):
            work()


def test_where_there_is_no_database_none_is_made(tmp_path):
    with pytest.raises(NotFound, match="there is no database"):
        check_offline(tmp_path / "nowhere" / "ostler.db")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="there is no database"):
        vacuum_offline(tmp_path / "empty" / "ostler.db")
    assert not (tmp_path / "empty" / "ostler.db").exists()


def test_it_is_checked_vacuumed_and_copied(stopped, clock, tmp_path):
    assert check_offline(stopped) == []
    result = vacuum_offline(stopped)
    assert result.after <= result.before
    backup_offline(stopped, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="already exists"):
        backup_offline(stopped, tmp_path / "copy.db")
    store = Store.open(stopped, clock=clock)
    assert store.kv("x").get("key") == "value"
    assert store.close() == ""


def test_pending_migrations_are_shown_and_then_applied_after_a_backup(stopped, package):
    name = package("lamp_migrations", FIRST, SECOND)
    shown = migrate_offline(stopped, {"lamp": name}, backups=3, dry_run=True)
    assert shown.steps == ["lamp 0001 step1", "lamp 0002 step2"]
    assert (shown.backup, shown.problems) == ("", [])
    assert not (stopped.parent / "backups").exists()
    done = migrate_offline(stopped, {"lamp": name}, backups=3)
    assert done.steps == shown.steps
    assert "before-lamp-0000-to-0002" in done.backup
    assert check_offline(stopped) == []
    assert migrate_offline(stopped, {"lamp": name}, backups=3).steps == []


def test_a_plugin_that_cannot_be_migrated_is_named_and_others_are(stopped, package):
    broken = package("broken_migrations", "def forward(database): database.execute_sql('CREATE TABEL x')\n")
    good = package("lamp_migrations", FIRST)
    report = migrate_offline(stopped, {"broken": broken, "lamp": good}, backups=3)
    assert report.steps == ["lamp 0001 step1"]
    (problem,) = report.problems
    assert problem.startswith("the tables of broken: migration 0001 step1 of broken failed")


def test_a_plugin_may_refer_to_tables_of_one_that_is_migrated_before(stopped, package):
    refers = (
        "def forward(database): database.execute_sql('CREATE TABLE shade_shades ("
        "bulb INTEGER REFERENCES lamp_bulbs (n) ON DELETE CASCADE)')\n"
    )
    lamp, shade = package("lamp_migrations", FIRST), package("shade_migrations", refers)
    report = migrate_offline(stopped, {"lamp": lamp, "shade": shade}, backups=3)
    assert report.problems == []
    assert check_offline(stopped) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_state(stopped, package):
    for each in (stopped.parent, *stopped.parent.iterdir()):
        os.chown(each, 65534, 65534)
    migrate_offline(stopped, {"lamp": package("lamp_migrations", FIRST)}, backups=3)
    files = [*stopped.parent.iterdir(), *(stopped.parent / "backups").iterdir()]
    assert len(files) >= 4
    assert {each.stat().st_uid for each in files} == {65534}
