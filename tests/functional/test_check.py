"""`ostler check` and `ostler run` refuse the same, for the same reasons, and a check changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from daemon_process import DaemonProcess, as_nobody, cannot_become_nobody

LAMP = '[services.lamp]\nmanager = "lamp"\n'
HEAD = """
from ostler import Context, Field, Manager, ManagerOptions, Secret, exposed, hookimpl, periodic

class LampManager(Manager):
    class Options(ManagerOptions):
        key: Secret | None = Field(None, help="A key")
        {option}
    {body}

@hookimpl
def ostler_managers():
    return {{"lamp": LampManager}}
"""
Setup = Callable[[DaemonProcess], None]


def manager(body: str, option: str = "pass", more: str = "", config: str = LAMP) -> Setup:
    """Install a plugin whose manager has a method."""

    def install(daemon: DaemonProcess) -> None:
        daemon.install("lamp", HEAD.format(body=body.replace("\n", "\n    "), option=option) + more)
        daemon.configure(config.replace("{root}", str(daemon.root)))

    return install


def migrations(module: str, required: bool) -> Setup:
    """Install a plugin with tables whose second migration cannot be used."""

    def install(daemon: DaemonProcess) -> None:
        hook = '\n@hookimpl\ndef ostler_migrations():\n    return {"lamp": "lamp_migrations"}\n'
        manager("pass", more=hook, config=f"{LAMP}required = {str(required).lower()}\n")(daemon)
        package = daemon.plugins / "lamp_migrations"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "m0001_lamps.py").write_text("def forward(database):\n    pass\n")
        (package / f"{module}.py").write_text("import a_module_that_nobody_has\n")

    return install


def database(*statements: str) -> Setup:
    """Change the database of a daemon that has run before."""

    def change(daemon: DaemonProcess) -> None:
        daemon.start()
        daemon.stop()
        with closing(sqlite3.connect(daemon.root / "state" / "ostler.db")) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return change


def file_at(name: str) -> Setup:
    def write(daemon: DaemonProcess) -> None:
        (daemon.root / name).write_text("x")

    return write


def directory_at(name: str) -> Setup:
    return lambda daemon: (daemon.root / name).mkdir(parents=True)


def link_at(name: str) -> Setup:
    def link(daemon: DaemonProcess) -> None:
        (daemon.root / name).parent.mkdir(exist_ok=True)
        (daemon.root / name).symlink_to("nowhere")

    return link


BAD: dict[str, tuple[int, str, Setup]] = {
    "unknown spacing option": (
        78, "does not have", manager('@periodic(spacing="pol")\ndef poll(self, ctx: Context) -> None: ...')
    ),
    "bad cron": (78, "cron", manager('@periodic(cron="61 * * * *")\ndef poll(self, ctx: Context) -> None: ...')),
    "reserved method name": (
        78, "contract", manager('@exposed(role="viewer")\ndef report_change(self, ctx: Context) -> None:\n    "Say."')
    ),
    "a periodic without its argument": (78, "ctx", manager("@periodic(spacing=60)\ndef poll(self) -> None: ...")),
    "missing secret file": (78, "not found", manager("pass", config=f'{LAMP}key = {{file = "/nonexistent/key"}}\n')),
    "secret that is a directory": (78, "the secret file", manager("pass", config=f'{LAMP}key = {{file = "/etc"}}\n')),
    "migration that cannot be loaded": (1, "cannot be loaded", migrations("m0002_wick", True)),
    "migrations with a gap": (1, "without gaps", migrations("m0003_wick", True)),
    "database of a newer version": (
        1, "only knows versions", database("INSERT INTO ostler_migrations VALUES ('ostler', 99, 'later', 1)")
    ),
    "migration of another name": (
        1, "was applied", database("UPDATE ostler_migrations SET name = 'x' WHERE namespace = 'ostler' AND number = 2")
    ),
    "database of another program": (1, "another program", database("PRAGMA application_id = 7")),
    "database that is a directory": (1, "not a regular file", directory_at("state/ostler.db")),
    "lock that is a link": (1, "not a regular file", link_at("state/ostler.lock")),
    "state directory that is a file": (1, "state is not a directory", file_at("state")),
    "runtime directory that is a file": (1, "run is not a directory", file_at("run")),
    "state directory that is a dangling link": (1, "dangling", link_at("state")),
    "runtime directory that is a dangling link": (1, "dangling", link_at("run")),
}  # fmt: skip


def verdicts(daemon: DaemonProcess, *before: str) -> tuple[int, str]:
    """Check and run; return the exit code and the reasons, which have to be the same."""
    files = daemon.files()
    checked = daemon.command("check", check=None, env=daemon.environ, before=before)
    assert daemon.files() == files, "a check changes nothing"
    logged = len(daemon.log)
    daemon.start(wait=False, before=before)
    code = daemon.wait_end()
    said = daemon.log[logged:]
    assert checked.returncode == code, f"{checked.stderr}\n{said}"
    for line in checked.stderr.splitlines()[:1]:
        assert line.removeprefix("ostler: ") in said
    return code, checked.stderr


@pytest.mark.failure_mode("Configuration", "a check that accepts what a start refuses")
@pytest.mark.parametrize("kind", BAD)
def test_check_and_run_refuse_the_same(make_daemon, kind: str) -> None:
    expected, reason, setup = BAD[kind]
    daemon = make_daemon()
    setup(daemon)
    code, said = verdicts(daemon)
    assert code == expected
    assert reason in said


@pytest.fixture
def another_user() -> None:
    if why := cannot_become_nobody():
        pytest.skip(why)


@pytest.mark.root
@pytest.mark.failure_mode("Configuration", "a check that accepts what a start refuses")
@pytest.mark.parametrize(("name", "code"), [("state", 1), ("run", 1), ("key", 78)])
def test_check_and_run_refuse_what_this_user_cannot_use(make_daemon, another_user, name: str, code: int) -> None:
    daemon = make_daemon()
    manager("pass", config=LAMP + 'key = {file = "{root}/key"}\n')(daemon)
    (daemon.root / "key").write_text("burning")
    daemon.give_to_nobody()
    place = daemon.root / name
    if name == "key":
        place.chmod(0)
    else:
        daemon.root.chmod(0o500)  # it cannot create the missing one
    assert verdicts(daemon, *as_nobody())[0] == code


@pytest.mark.failure_mode("Configuration", "a check that disturbs the running daemon")
def test_a_check_beside_a_running_daemon_finds_what_its_restart_would_refuse(make_daemon) -> None:
    daemon = make_daemon().start()
    before = daemon.files()
    assert "valid" in daemon.command("check", env=daemon.environ).stdout
    with closing(sqlite3.connect(daemon.root / "state" / "ostler.db")) as connection, connection:
        connection.execute("INSERT INTO ostler_migrations VALUES ('ostler', 99, 'later', 1)")
    assert "only knows versions" in daemon.command("check", check=1, env=daemon.environ).stderr
    assert daemon.files() == before
    assert daemon.status()["not_well"] == []
    assert daemon.stop() == 0


def test_tables_of_a_plugin_that_no_required_service_needs_are_a_warning(make_daemon) -> None:
    daemon = make_daemon()
    migrations("m0002_wick", False)(daemon)
    warned = daemon.command("check", env=daemon.environ).stderr
    assert "warning: the tables of lamp cannot be used (service lamp needs them)" in warned
    daemon.start()
    assert daemon.wait_log("the tables of lamp were not migrated")


def test_all_reasons_of_the_host_are_named_at_once_and_in_json(make_daemon) -> None:
    daemon = make_daemon()
    for name in ("state", "run"):
        file_at(name)(daemon)
    said = daemon.command("check", check=1, env=daemon.environ).stderr
    assert said.splitlines()[-1] == "ostler: 2 problems on this host"
    found = json.loads(daemon.command("--json", "check", check=1, env=daemon.environ).stderr)["error"]
    assert [Path(each["where"]).name for each in found["problems"]] == ["state", "run"]
    assert found["name"] == "StartRefused"


PROBES = """
import os, signal, time
from ostler import Driver, DriverOptions, Field, Manager, Secret, hookimpl

class LampManager(Manager):
    driver_type = Driver

class Ready(Driver):
    class Options(DriverOptions):
        key: Secret | None = Field(None, help="A key")

    @classmethod
    def probe(cls, options):
        print("a line that nobody wants")
        return ()

class Refuses(Driver):
    @classmethod
    def probe(cls, options):
        yield "driver", "no such lamp"
        yield "", "and no power"

class Raises(Driver):
    @classmethod
    def probe(cls, options):
        raise OSError("burnt out")

class Exits(Driver):
    @classmethod
    def probe(cls, options):
        os._exit(0)

class Crashes(Driver):
    @classmethod
    def probe(cls, options):
        os.kill(os.getpid(), signal.SIGSEGV)

class Hangs(Driver):
    @classmethod
    def probe(cls, options):
        if not os.fork():
            time.sleep(600)
        time.sleep(600)

class Silent(Driver):
    def is_working(self):
        return True

@hookimpl
def ostler_managers():
    return {"lamp": LampManager}
"""


def probed(make_daemon: Callable[..., DaemonProcess], *names: str) -> DaemonProcess:
    daemon: DaemonProcess = make_daemon()
    daemon.install("lamp", PROBES)
    tables = [f'[services.lamp.drivers.{name}]\ndriver = "lamp_module:{name.title()}"\n' for name in names]
    daemon.configure("".join([LAMP, *tables]))
    return daemon


@pytest.mark.failure_mode("Configuration", "a driver whose probe hangs or crashes")
def test_a_driver_whose_probe_hangs_or_crashes_harms_no_other(make_daemon) -> None:
    names = ["ready", "refuses", "raises", "exits", "crashes", "hangs", "silent"]
    daemon = probed(make_daemon, *names)
    before = daemon.files()
    words = ("check", "--probe", "--probe-timeout", "1")
    found = daemon.json(*words, check=1, env=daemon.environ)
    assert daemon.files() == before
    assert found["ok"] is False
    assert {each["driver"]: (each["state"], each["reasons"]) for each in found["probes"]} == {
        "ready": ("ok", []),
        "refuses": ("failed", ["driver: no such lamp", "and no power"]),
        "raises": ("failed", ["OSError: burnt out"]),
        "exits": ("failed", ["its `probe` ended the process without an answer"]),
        "crashes": ("failed", ["its `probe` ended the process by SIGSEGV"]),
        "hangs": ("failed", ["its `probe` did not return within 1s"]),
        "silent": ("unknown", ["it has no `probe` of its own"]),
    }
    shown = daemon.command(*words, check=1, env=daemon.environ).stdout
    assert "lamp/refuses  failed   driver: no such lamp; and no power" in shown
    assert "a line that nobody wants" not in shown


def test_drivers_are_asked_only_on_request_and_not_without_their_credentials(make_daemon) -> None:
    daemon = probed(make_daemon, "hangs")
    assert daemon.json("check", env=daemon.environ)["probes"] is None
    daemon = probed(make_daemon, "ready")
    with (daemon.root / "etc" / "ostler.toml").open("a") as file:
        file.write('key = {credential = "lamp"}\n')
    found = daemon.json("check", "--probe", env=daemon.environ)
    assert found["ok"] is True
    assert [each["state"] for each in found["probes"]] == ["unknown"]
