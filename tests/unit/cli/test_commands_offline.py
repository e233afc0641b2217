"""Verbs that need no daemon: check, config, plugin check, plugin new."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import DaemonNotRunning
from ostler.store import Store
from ostler.types import OptionValue


@pytest.fixture
def root(tmp_path: Path, ostler: Any) -> Path:
    (tmp_path / "etc").mkdir()
    ostler.environ["OSTLER_ROOT"] = str(tmp_path)
    return tmp_path


def configure(root: Path, text: str) -> None:
    (root / "etc" / "ostler.toml").write_text(text)


def test_help_shows_what_the_option_shows(ostler: Any) -> None:
    for words in ((), ("service",), ("service", "show"), ("check",)):
        assert ostler("help", *words).out == ostler(*words, "--help").out
    code, _, err = ostler("help", "service", "shew")
    assert (code, err) == (2, "ostler: unknown command shew\nhint: see `ostler service --help`\n")


def test_the_version_has_a_short_option(ostler: Any) -> None:
    assert ostler("-V") == ostler("--version")


def test_a_right_configuration_is_said_to_be_right(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhost = "node1"\n')
    code, out, err = ostler("check")
    assert (code, err) == (0, "")
    assert out.startswith(f"The configuration is valid: {root}/etc/ostler.toml")
    assert json.loads(ostler("check", "--json").out) == {
        "ok": True,
        "services": [],
        "drivers": [],
        "warnings": [],
        "masked": [],
        "probes": None,
    }


def test_everything_that_is_wrong_is_said_with_its_place(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhots = "a"\nstop_timeout = "never"\n[services.a]\nmanager = "nowhere.at_all:Name"\n')
    code, out, err = ostler("check")
    assert (code, out) == (78, "")
    lines = err.splitlines()
    assert [line.partition(": ")[0] for line in lines[:9:3]] == [
        f"{root}/etc/ostler.toml:{place}" for place in ("2:1", "3:16", "5:11")
    ]
    assert lines[4:6] == ['    stop_timeout = "never"', "                   ^^^^^^^"]
    assert lines[9] == "ostler: 3 problems in the configuration"
    assert "Traceback" not in err


def test_an_override_is_checked_as_well(ostler: Any, root: Path) -> None:
    configure(root, "")
    assert ostler("check", "--set", "daemon.host=a").code == 0
    assert ostler("check", "--set", "daemon.hots=a").code == 78


def test_the_configuration_of_the_files_is_shown(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhost = "node1"\n')
    out = ostler("config", "cat", "--no-defaults").out
    assert out == f'[daemon]\nhost = "node1"  # {root}/etc/ostler.toml:2:1\n'
    everything = ostler("config", "cat").out
    assert 'level = "info"  # default' in everything
    assert tomllib.loads(everything)["daemon"]["host"] == "node1"


def test_the_configuration_is_shown_below_a_prefix(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhost = "node1"\n[log.levels]\n"ostler.store" = "debug"\n')
    assert set(tomllib.loads(ostler("config", "cat", "log").out)) == {"log"}
    assert tomllib.loads(ostler("config", "cat", 'log.levels."ostler.store"').out) == {
        "log": {"levels": {"ostler.store": "debug"}}
    }
    assert ostler("config", "cat", "daemon", "-o", "name").out.splitlines()[0] == "daemon.host"
    assert ostler("config", "cat", "lo").err.startswith("ostler: no option begins with lo\n")


def test_a_difference_between_daemon_and_files_is_shown(ostler: Any, client: Any, root: Path) -> None:
    configure(root, '[log]\nlevel = "debug"\n')
    client.answers["ostler", "config"] = [
        OptionValue(path=row["path"], value=row["value"], origin=row["origin"])
        for row in json.loads(ostler("config", "cat", "--json").out)
    ]
    assert ostler("config", "diff") == (0, "OPTION  RUNNING  FILES  NEEDS  FROM\n", "")
    configure(root, '[log]\nlevel = "info"\n')
    code, out, _ = ostler("config", "diff", "--check")
    assert code == 1
    assert out.splitlines()[1].split() == ["log.level", '"debug"', '"info"', "live", f"{root}/etc/ostler.toml:2:1"]


def test_a_value_is_set_in_a_file_of_its_own(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhost = "node1"\n')
    file = root / "etc" / "conf.d" / "90-set.toml"
    code, out, err = ostler("config", "set", "daemon.host", "node2", "--file", "90-set.toml")
    assert (code, err) == (0, "")
    assert out == f'daemon.host = "node2" was written to {file}; `ostler reload` applies it\n'
    assert json.loads(ostler("config", "set", "log.level", '"debug"', "--json").out)["value"] == "debug"
    ostler("config", "set", "plugins.disabled", '["a b"]')
    assert file.read_text().splitlines()[1:] == [
        'daemon.host = "node2"', 'log.level = "debug"', 'plugins.disabled = ["a b"]',
    ]  # fmt: skip
    assert [path.name for path in file.parent.iterdir()] == ["90-set.toml"]
    row = ostler("config", "cat").out.splitlines()[1]
    assert row.startswith('host = "node2"  # ')
    assert f"{file}:2:" in row


def test_a_value_that_was_set_is_unset_and_the_one_that_counts_then_is_named(ostler: Any, root: Path) -> None:
    configure(root, '[daemon]\nhost = "node1"\n')
    file = root / "etc" / "conf.d" / "90-set.toml"
    ostler("config", "set", "daemon.host", "node2", "--file", "90-set.toml")
    ostler("config", "set", "log.level", "debug")
    file.chmod(0o640)
    assert ostler("config", "unset", "daemon.host").out == (
        f"daemon.host was removed from {file} and is now the one of {root}/etc/ostler.toml:2:1; "
        "`ostler reload` applies it\n"
    )
    assert json.loads(ostler("config", "unset", "log.level", "--json").out) == {
        "option": "log.level", "file": str(file), "origin": "default", "notes": [],
    }  # fmt: skip
    assert file.read_text().splitlines() == [
        "# Written by `ostler config set`; values here override those of earlier files."
    ]
    assert file.stat().st_mode & 0o777 == 0o640
    code, _, err = ostler("config", "unset", "log.level")
    assert (code, err.splitlines()[0]) == (2, f"ostler: log.level is not set in {file}")


def test_a_value_that_is_needed_is_not_unset(ostler: Any, root: Path) -> None:
    configure(root, "[services.a]\nworkers = 2\n")
    file = root / "etc" / "conf.d" / "90-set.toml"
    file.parent.mkdir()
    file.write_text('[services.a]\nmanager = "volume"  # the one\n')
    assert ostler("config", "unset", "services.a.manager").code == 78
    assert file.read_text() == '[services.a]\nmanager = "volume"  # the one\n'


def test_a_value_that_would_be_wrong_is_not_written(ostler: Any, root: Path) -> None:
    configure(root, "")
    assert ostler("config", "set", "daemon.stop_timeout", "never").code == 78
    assert ostler("config", "set", "daemon.hots", "a").code == 78
    assert ostler("config", "set", "nonsense", "a").code == 2
    assert ostler("config", "set", "a b", "a").code == 2
    assert not (root / "etc" / "conf.d").exists()


def test_a_value_that_a_later_file_overrules_is_refused(ostler: Any, root: Path) -> None:
    configure(root, "")
    (root / "etc" / "conf.d").mkdir()
    (root / "etc" / "conf.d" / "99.toml").write_text('[log]\nlevel = "info"\n')
    code, _, err = ostler("config", "set", "log.level", "debug", "--file", "90-set.toml")
    assert (code, f"log.level is set at {root}/etc/conf.d/99.toml:2:1" in err) == (1, True)
    assert not (root / "etc" / "conf.d" / "90-set.toml").exists()


def test_a_file_that_cannot_be_written_is_one_line(ostler: Any, root: Path) -> None:
    configure(root, "")
    (root / "etc" / "conf.d").write_text("")
    code, out, err = ostler("config", "set", "log.level", "debug")
    assert (code, out) == (1, "") or code == 78
    assert "Traceback" not in err
    assert "conf.d" in err


@pytest.mark.parametrize("text", ["", "[daemon]\nhots = 1\n"])
def test_the_schema_is_there_also_while_the_file_is_wrong(ostler: Any, root: Path, text: str) -> None:
    configure(root, text)
    schema = json.loads(ostler("config", "schema").out)
    assert "host" in schema["properties"]["daemon"]["properties"]


def test_the_installed_plugins_are_checked(ostler: Any, root: Path) -> None:
    configure(root, "")
    code, out, err = ostler("plugin", "check", "volume")
    assert (code, err) == (0, "")
    assert "manager volume" in out
    assert "scheduler" not in out
    (found,) = json.loads(ostler("plugin", "check", "volume", "--json").out)
    assert (found["plugin"], found["faults"]) == ("volume", [])
    assert ostler("plugin", "check", "volumes").code == 1


@pytest.mark.failure_mode("Plugins", "one that fails to import")
def test_a_plugin_that_fails_to_import_is_no_traceback(
    ostler: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(root, "")
    (root / "broken-1.0.dist-info").mkdir()
    (root / "broken-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (root / "broken-1.0.dist-info" / "entry_points.txt").write_text("[ostler]\nbroken = no_such_module_at_all\n")
    monkeypatch.syspath_prepend(root)
    code, out, err = ostler("plugin", "check")
    assert (code, err) == (1, "")
    assert "wrong: no_such_module_at_all cannot be imported" in out
    code, _, err = ostler("check")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("warning: plugin broken failed: no_such_module_at_all cannot be imported")


# ---------------------------------------------------------------- plugin api


def test_the_interface_of_a_manager_is_written_to_a_file_or_the_screen(ostler: Any, root: Path) -> None:
    code, out, err = ostler("plugin", "api", "volume")
    assert (code, err) == (0, "")
    assert json.loads(out)["namespaces"][""]["methods"]["get_volume"]["result"] == {"ref": "Volume"}
    file = root / "new" / "volume-1.0.json"
    assert (
        ostler("plugin", "api", "volume", "--write", str(file)).out
        == f"The interface of volume was written to {file}.\n"
    )
    assert file.read_text() == out
    assert ostler("plugin", "api", "volume", "--write", str(root)).code == 2


def test_what_changed_in_an_interface_is_said_with_what_is_due(ostler: Any, root: Path) -> None:
    file = root / "volume-1.0.json"
    ostler("plugin", "api", "volume", "--write", str(file))
    assert ostler("plugin", "api", "volume", "--against", str(file)).out == "No changes.\n"
    before = json.loads(file.read_text())
    del before["namespaces"][""]["methods"]["get_volume"]["arguments"]["name"]
    file.write_text(json.dumps(before))
    code, out, _ = ostler("plugin", "api", "volume", "--against", str(file))
    assert code == 1
    assert "the argument name of volume.get_volume was added and is required: breaks old clients of the new" in out
    assert re.search(r'wrong: volume has version 1\.\d+, but its changes require 2\.0: set `rpc_version = "2\.0"`', out)
    (found,) = json.loads(ostler("plugin", "api", "volume", "--against", str(file), "--json").out)
    assert (found["required_bump"], found["changes"][0]["required_bump"]) == ("2.0", "major")


def test_the_manager_has_to_be_said_when_there_are_several(ostler: Any, root: Path) -> None:
    code, _, err = ostler("plugin", "api")
    assert (code, "scheduler and volume" in err) == (2, True)
    code, _, err = ostler("plugin", "api", "nothing")
    assert (code, "manager or plugin nothing not found" in err) == (1, True)


# ---------------------------------------------------------------- plugin new


@pytest.fixture
def new(ostler: Any, tmp_path: Path) -> Path:
    code, out, err = ostler("plugin", "new", "desk_lamp", "--into", str(tmp_path))
    assert (code, err) == (0, "")
    assert "ostler_desk_lamp/manager.py" in out
    return tmp_path / "ostler-desk-lamp"


def test_a_new_plugin_fulfils_every_contract(new: Path) -> None:
    script = (
        "from importlib import import_module\n"
        "from ostler.cli.plugin_check import check_plugins\n"
        "from ostler.plugins import PluginHost, in_memory_plugin\n"
        "host = PluginHost([in_memory_plugin('desk_lamp', import_module('ostler_desk_lamp.plugin'))])\n"
        "host.discover()\n"
        "(found,) = check_plugins(host)\n"
        "assert found.faults == [], found.faults\n"
        "assert found.provides == ['manager desk_lamp', 'driver desk_lamp/memory'], found.provides\n"
        "from ostler_desk_lamp.commands import app\n"
        "assert len(app.registered_commands) == 2\n"
        "from pathlib import Path\n"
        "from ostler.messaging.apicheck.interface_diff import format_interface, build_interface\n"
        "from ostler_desk_lamp.manager import DeskLampManager\n"
        "written = Path('tests/api/desk_lamp-1.0.json').read_text()\n"
        "assert format_interface(build_interface('desk_lamp', DeskLampManager)) == written, written\n"
    )
    # The assertions are in the program, whose exit code is checked.
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=new, check=True, timeout=30)


def test_a_new_plugin_overwrites_nothing(ostler: Any, new: Path) -> None:
    code, _, err = ostler("plugin", "new", "desk_lamp", "--into", str(new.parent))
    assert code == 1
    assert "already exists" in err


@pytest.mark.parametrize("name", ["Lamp", "1lamp", "../lamp", "desk-lamp", "", "lämp"])
def test_a_name_that_cannot_be_a_package_is_refused(ostler: Any, tmp_path: Path, name: str) -> None:
    assert ostler("plugin", "new", name, "--into", str(tmp_path)).code == 2
    assert list(tmp_path.iterdir()) == []


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give files away")
    os.chown(path, 60_001, 60_001)


@pytest.mark.root
@pytest.mark.parametrize(
    "verb",
    [["check"], ["config", "cat"], ["config", "set", "log.level", "debug"], ["keys", "list"], ["plugin", "check"]],
)
def test_root_does_not_obey_the_configuration_of_somebody_else(ostler: Any, root: Path, verb: list[str]) -> None:
    configure(root, "")
    give_away(root / "etc")
    code, out, err = ostler(*verb)
    assert (code, out) == (78, "")
    assert f"{root}/etc: belongs to uid 60001, not to root" in err
    assert "--trust-owner" in err
    # `plugin check` may find something wrong with a plugin that happens to be installed.
    assert ostler(*verb, "--trust-owner").code in (0, 1)
    ostler.environ["OSTLER_TRUST_OWNER"] = "1"
    assert ostler(*verb).code in (0, 1)


def test_a_value_is_written_through_no_link_and_no_name_that_can_be_foreseen(ostler: Any, root: Path) -> None:
    configure(root, "")
    victim, elsewhere = root / "victim", root / "elsewhere"
    victim.write_text("precious")
    elsewhere.mkdir()
    (root / "etc" / "conf.d").mkdir()
    (root / "etc" / "conf.d" / "90-set.new").symlink_to(victim)
    assert ostler("config", "set", "log.level", "debug").code == 0
    (root / "etc" / "conf.d" / "90-set.toml").rename(root / "kept")
    (root / "etc" / "conf.d" / "90-set.toml").symlink_to(root / "kept")
    code, _, err = ostler("config", "set", "log.level", "info")
    assert (code, "is a symbolic link" in err) == (1, True)
    (root / "etc" / "conf.d").rename(root / "old")
    (root / "etc" / "conf.d").symlink_to(elsewhere)
    code, _, err = ostler("config", "set", "log.level", "info")
    assert (code, "is a symbolic link" in err) == (1, True)
    assert victim.read_text() == "precious"
    assert not list(elsewhere.iterdir())
    assert 'level = "debug"' in (root / "kept").read_text()


def test_a_written_value_keeps_mode_and_group_of_its_file(ostler: Any, root: Path) -> None:
    configure(root, "")
    ostler("config", "set", "log.level", "debug")
    file = root / "etc" / "conf.d" / "90-set.toml"
    file.chmod(0o640)
    ostler("config", "set", "log.level", "info")
    assert file.stat().st_mode & 0o777 == 0o640


def test_comments_and_formatting_of_a_set_file_stay(ostler: Any, root: Path) -> None:
    configure(root, "")
    file = root / "etc" / "conf.d" / "90-set.toml"
    file.parent.mkdir()
    file.write_bytes(b"\xef\xbb\xbf# ours\r\n[log]\r\nlevel = 'info'   # until Friday\r\n")
    assert ostler("config", "set", "log.level", "debug").code == 0
    assert file.read_bytes() == b'\xef\xbb\xbf# ours\r\n[log]\r\nlevel = "debug"   # until Friday\r\n'


def test_a_file_that_cannot_be_edited_is_left_alone_and_named(ostler: Any, root: Path) -> None:
    configure(root, "")
    file = root / "etc" / "conf.d" / "90-set.toml"
    file.parent.mkdir()
    file.write_text("[log.level]\n")
    code, _, err = ostler("config", "set", "log.level", "debug")
    assert (code, f"cannot edit {file}: level is a table with a header" in err) == (2, True)
    assert file.read_text() == "[log.level]\n"


def test_several_that_set_at_once_lose_nothing(ostler: Any, root: Path) -> None:
    configure(root, "")
    etc = os.open(root / "etc", os.O_RDONLY)
    fcntl.flock(etc, fcntl.LOCK_EX)
    wanted = {"log.level": '"debug"', "audit.count": "1000", "events.journal_count": "7"}
    command = [sys.executable, "-m", "ostler", "--root", str(root), "config", "set"]
    at_once = [subprocess.Popen([*command, key, value], stdout=subprocess.DEVNULL) for key, value in wanted.items()]
    os.close(etc)  # now all of them want the lock
    assert [process.wait(60) for process in at_once] == [0, 0, 0]
    lines = (root / "etc" / "conf.d" / "90-set.toml").read_text().splitlines()[1:]
    assert sorted(lines) == sorted(f"{key} = {value}" for key, value in wanted.items())


# ---------------------------------------------------------------- db


@pytest.fixture
def stopped(client: Any) -> None:
    client.answers.update({("ostler", f"db_{each}"): DaemonNotRunning("not running") for each in ("check", "vacuum")})

    def stream(*_: object, **__: object) -> Any:
        raise DaemonNotRunning("not running")

    client.stream = stream


@pytest.fixture
def database(root: Path, stopped: None) -> Path:
    configure(root, "")
    path = root / "state" / "ostler.db"
    Store.open(path).close()
    return path


SAID = "The daemon is not running; this command works on its database.\n"


def test_the_database_of_a_stopped_daemon_is_checked_copied_and_vacuumed(
    ostler: Any, database: Path, tmp_path: Path
) -> None:
    assert ostler("db", "check") == (0, "The database is intact.\n", SAID)
    code, out, err = ostler("db", "vacuum", "--json")
    assert (code, err) == (0, SAID)
    assert json.loads(out).keys() == {"before", "after"}
    copy = tmp_path / "copy.db"
    assert ostler("db", "backup", str(copy)).code == 0
    code, _, err = ostler("db", "backup", str(copy))
    assert code == 1
    assert "already exists" in err


def test_without_a_database_the_daemon_is_missed(ostler: Any, root: Path, stopped: None) -> None:
    for command in ("check", "vacuum"):
        code, _, err = ostler("db", command)
        assert code == 3
        assert "not running" in err
    code, _, err = ostler("db", "migrate")
    assert code == 1
    assert "there is no database" in err


def test_the_tables_of_a_stopped_daemon_are_migrated(ostler: Any, database: Path) -> None:
    code, out, _ = ostler("db", "migrate", "--json", "--dry-run")
    shown = json.loads(out)
    assert (code, shown["backup"], shown["problems"], shown["dry_run"]) == (0, "", [], True)
    assert "volume 0001 volumes" in shown["steps"]
    out = ostler("db", "migrate", "--dry-run").out
    assert "would apply volume 0001 volumes\n" in out
    out = ostler("db", "migrate").out
    assert "applied volume 0001 volumes\n" in out
    assert f"The previous state was saved to {database.parent}/backups/" in out
    assert ostler("db", "migrate").out == "All tables are up to date.\n"


def test_the_tables_of_a_running_daemon_are_not_migrated(ostler: Any, database: Path) -> None:
    store = Store.open(database)
    for more in ([], ["--dry-run"]):
        code, _, err = ostler("db", "migrate", *more)
        assert code == 1
        assert "in use by another daemon" in err
    store.close()


def test_newer_tables_are_named_and_the_exit_code_says_so(ostler: Any, database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("INSERT INTO ostler_migrations VALUES ('volume', 99, 'later', 0)")
        connection.commit()
    code, _, err = ostler("db", "migrate")
    assert code == 1
    assert "are at version 99 (later)" in err
    code, out, _ = ostler("db", "migrate", "--json")
    assert code == 1
    assert len(json.loads(out)["problems"]) == 1
