"""Configurations and plugins that cannot be used: everything is said at once, and nothing is started or changed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from daemon_process import DaemonProcess

ECHO = '[services.echo]\nmanager = "faulty_managers:EchoManager"\n'
PLACE = re.compile(r"^(?P<file>/\S+?):(?P<line>\d+):(?P<column>\d+): (?P<what>.+)$")


def refused(daemon: DaemonProcess, tracebacks: int = 0) -> dict[str, str]:
    """Refuse the configuration in `ostler check` and `ostler run`; return what was said of `file:line:column`."""
    before = daemon.files()
    checked = daemon.command("check", check=78, env=daemon.environ).stderr.splitlines()
    daemon.start(wait=False)
    assert daemon.wait_end() == 78
    ran = daemon.log.splitlines()
    assert daemon.log.count("Traceback") == tracebacks
    assert daemon.files() == before
    assert daemon.notices.received == []
    assert [line for line in ran if PLACE.match(line) or line in checked[:-1]] == checked[:-1]
    assert ran[-1] == f"{checked[-1]}; nothing was started"
    said = {}
    for line in checked[:-1]:
        if line.startswith("    "):  # the line of the file, and the mark
            continue
        found = PLACE.match(line)
        assert found, line
        place = f"{found['file'].rpartition('/')[2]}:{found['line']}:{found['column']}"
        assert place not in said, line
        said[place] = found["what"]
    return said


def lamp(brings: str = "{}", *, extra: str = "") -> str:
    hook = f"@hookimpl\ndef ostler_managers():\n    return {brings}\n"
    return f"from ostler import hookimpl\nimport faulty_managers\n{extra}\n{hook}"


def plugins(daemon: DaemonProcess) -> dict[str, dict]:
    return {row["name"]: row for row in daemon.json("plugin", "list")}


# -------------------------------------------------------------------------------------------------- configurations


def test_a_file_that_does_not_parse_is_refused_with_its_place(make_daemon) -> None:
    said = refused(make_daemon('[services.echo]\nmanager = "faulty_managers:EchoManager\n'))
    assert list(said) == ["ostler.toml:2:39"]
    assert said["ostler.toml:2:39"].startswith("not valid TOML: ")


def test_a_file_that_does_not_parse_hides_nothing_that_is_wrong_in_the_others(make_daemon) -> None:
    daemon = make_daemon('[daemon]\nhots = "x"\n')
    daemon.configure("[log\n", "conf.d/10-broken.toml")
    daemon.configure('[services.echo]\nmanager = "faulty_managers:EchoManager"\ngreting = 1\n', "conf.d/20-echo.toml")
    assert list(refused(daemon)) == ["ostler.toml:2:1", "10-broken.toml:1:5", "20-echo.toml:3:1"]


def test_four_wrong_keys_in_three_files_are_all_said_with_what_was_meant(make_daemon) -> None:
    daemon = make_daemon('[daemon]\nhots = "x"\n\n[lamp]\nwats = 40\n')
    daemon.install(
        "lamp",
        "from ostler import Field, OptionsModel, hookimpl\n"
        'class Lamp(OptionsModel):\n    watts: int = Field(40, help="Power")\n'
        '@hookimpl\ndef ostler_config_sections():\n    return {"lamp": Lamp}\n',
    )
    daemon.configure(
        '[services.device]\nmanager = "faulty_managers:DeviceManager"\ngretting = "hi"\n', "conf.d/10.toml"
    )
    daemon.configure(
        '[services.device.drivers.lucky]\ndriver = "faulty_managers:ThirdTimeLucky"\ncount = "/x"\ncuont = "/y"\n',
        "conf.d/20.toml",
    )
    assert refused(daemon) == {
        "ostler.toml:2:1": 'unknown key "hots" in [daemon]; did you mean "host"?',
        "ostler.toml:5:1": 'unknown key "wats" in [lamp]; did you mean "watts"?',
        "10.toml:3:1": 'unknown key "gretting" in [services.device]; did you mean "greeting"?',
        "20.toml:4:1": 'unknown key "cuont" in [services.device.drivers.lucky]; did you mean "count"?',
    }


def test_everything_that_can_be_wrong_is_said_at_once(make_daemon) -> None:
    daemon = make_daemon(
        """
        [plugins]
        required = ["volume", "volmue", "broken"]
        [services.echo]
        manager = "faulty_managers:EchoManger"
        [services.nowhere]
        manager = "no.such:Manager"
        [services.dark]
        manager = "lamp"
        [services.late]
        manager = "faulty_managers:EchoManager"
        depends_on = ["echo", "ehco", "nobody"]
        report_interval = "30s"
        down_time = "30s"
        wrokers = 3
        """
    )
    daemon.install("broken", "import a_module_that_nobody_has\n")
    daemon.configure(
        '[services.device]\nmanager = "faulty_managers:DeviceManager"\n'
        '[services.device.drivers.empty]\ndriver = "faulty_managers:EmptyDriver"\n'
        '[services.device.drivers.wrong]\ndriver = "faulty_managers:WrongSignature"\n'
        '[services.device.drivers.none]\ndriver = "faulty_managers:NoDriver"\n'
        '[services.device.drivers.lucky]\ndriver = "faulty_managers:ThirdTimeLucky"\n',
        "conf.d/devices.toml",
    )
    expected = {
        "ostler.toml:3:31": ["the required plugin volmue is not installed, did you mean volume?"],
        "ostler.toml:3:41": [
            "required plugin broken is failed",
            "a_module_that_nobody_has",
            "remove it from `required`",
        ],
        "ostler.toml:5:19": ["module faulty_managers has no EchoManger, did you mean EchoManager?"],
        "ostler.toml:7:19": ["module no not found", "available: http, scheduler, volume", "ostler plugin list"],
        "ostler.toml:9:19": ["no plugin provides a manager named 'lamp'", "plugin broken failed"],
        "ostler.toml:12:31": ["service late needs ehco", "did you mean echo?"],
        "ostler.toml:12:39": ["service late needs nobody", "add it, or remove it from `depends_on`"],
        "ostler.toml:14:21": ["down_time: must be above report_interval, which is 30s", "set down_time to 1min 30s"],
        "ostler.toml:15:9": ['unknown key "wrokers"', 'did you mean "workers"?'],
        "devices.toml:4:10": ["EmptyDriver", "does not derive from DeviceDriver"],
        "devices.toml:6:10": ["WrongSignature", "minutes"],
        "devices.toml:8:10": ["module faulty_managers has no NoDriver"],
        "devices.toml:9:1": ['missing required key "count"'],
    }
    said = refused(daemon, tracebacks=1)  # of the plugin that is broken
    assert list(said) == list(expected)
    for place, parts in expected.items():
        assert all(part in said[place] for part in parts), said[place]


@pytest.mark.parametrize("override", ["services.echo.workers=many", "services.echo.wrokers=3", "log=1"])
def test_a_wrong_value_of_the_command_line_is_refused_as_one_in_a_file(make_daemon, override: str) -> None:
    daemon = make_daemon(ECHO)
    before = daemon.files()
    daemon.start("--set", override, wait=False)
    assert daemon.wait_end() == 78
    assert daemon.log.startswith("--set: ")
    assert daemon.files() == before


def test_a_good_configuration_is_checked_without_starting_anything(make_daemon) -> None:
    daemon = make_daemon(ECHO)
    before = daemon.files()
    assert "echo" in daemon.command("check", env=daemon.environ).stdout
    assert daemon.files() == before


# --------------------------------------------------------------------------------------------------------- plugins


def started(daemon: DaemonProcess, tracebacks: int = 0) -> DaemonProcess:
    """Install a plugin that works beside those that do not, and start: the rest must not be harmed."""
    daemon.install("good", lamp('{"good": faulty_managers.EchoManager}'))
    daemon.configure('[services.good]\nmanager = "good"\n')
    daemon.start()
    assert daemon.call("good", "echo", text="hello")["text"] == "hello"
    assert daemon.wait_log("ready:").count("Traceback") == tracebacks, "of what is unexpected, once"
    return daemon


def failed(daemon: DaemonProcess, name: str) -> str:
    """Return why a plugin failed; that has to stand in the status and the log as well."""
    rows = plugins(daemon)
    assert rows["good"]["state"] == rows["volume"]["state"] == "loaded"
    assert rows[name]["state"] == "failed"
    why = rows[name]["why"]
    assert any(f"plugin {name} is failed" in line for line in daemon.status()["not_well"])
    daemon.wait_log(f"plugin {name}: {why}")
    return str(why)


@pytest.mark.failure_mode("Plugins", "one that fails to import")
def test_a_plugin_that_fails_to_import(make_daemon) -> None:
    daemon = make_daemon()
    daemon.install("dark", "import a_module_that_nobody_has\n")
    why = failed(started(daemon, tracebacks=1), "dark")
    assert "dark_module cannot be imported" in why
    assert "a_module_that_nobody_has" in why
    assert "dark_module.py:1" in why


@pytest.mark.failure_mode("Plugins", "one that raises in a hook")
@pytest.mark.parametrize("kind", ["RuntimeError", "SystemExit", "KeyboardInterrupt"])
def test_a_plugin_that_raises_in_a_hook(make_daemon, kind: str) -> None:
    daemon = make_daemon()
    source = f"from ostler import hookimpl\n@hookimpl\ndef ostler_drivers():\n    raise {kind}('no light')\n"
    daemon.install("dark", source)
    why = failed(started(daemon, tracebacks=1), "dark")
    assert "ostler_drivers failed" in why
    assert "no light" in why


@pytest.mark.failure_mode("Plugins", "a misspelt hook")
def test_a_misspelt_hook(make_daemon) -> None:
    daemon = make_daemon()
    daemon.install("dark", "from ostler import hookimpl\n@hookimpl\ndef ostler_mangers():\n    return {}\n")
    why = failed(started(daemon), "dark")
    assert "ostler_mangers" in why
    assert "ostler_managers" in why


@pytest.mark.failure_mode("Plugins", "an async hook")
def test_an_async_hook(make_daemon) -> None:
    daemon = make_daemon()
    daemon.install("dark", "from ostler import hookimpl\n@hookimpl\nasync def ostler_managers():\n    return {}\n")
    why = failed(started(daemon), "dark")
    assert "ostler_managers" in why
    assert "async" in why
    assert "never awaited" not in daemon.log


@pytest.mark.failure_mode("Plugins", "two with one name")
def test_two_plugins_with_one_name(make_daemon) -> None:
    daemon = make_daemon()
    daemon.install("lamp", lamp(), distribution="a-lamp")
    daemon.install("lamp", lamp(), distribution="b-lamp", version="2.0")
    started(daemon)
    rows = [row for row in daemon.json("plugin", "list") if row["name"] == "lamp"]
    assert [(row["state"], row["distribution"]) for row in rows] == [("loaded", "a-lamp"), ("failed", "b-lamp")]
    assert "a-lamp 1.0" in rows[1]["why"]
    assert "b-lamp 2.0" in rows[1]["why"]
    assert "uninstall one of them" in rows[1]["why"]


@pytest.mark.failure_mode("Plugins", "one built for another API version")
def test_a_plugin_built_for_another_api_version(make_daemon) -> None:
    daemon = make_daemon()
    daemon.install("dark", lamp(extra='ostler_api = "99.0"'))
    why = failed(started(daemon), "dark")
    assert "99.0" in why
    assert "install a newer Ostler" in why
    assert plugins(daemon)["dark"]["api"] == "99.0"


BROKEN: dict[str, Callable[[DaemonProcess], None]] = {
    "fails to import": lambda daemon: daemon.install("dark", "import a_module_that_nobody_has\n"),
    "raises in a hook": lambda daemon: daemon.install("dark", lamp("1 / 0")),
    "is not there": lambda daemon: None,
    "is disabled": lambda daemon: daemon.install("dark", lamp()),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_required_plugin_that_cannot_be_had_keeps_the_daemon_from_starting(make_daemon, kind: str) -> None:
    daemon = make_daemon(f'[plugins]\nrequired = ["dark"]\n{ECHO}')
    BROKEN[kind](daemon)
    if kind == "is disabled":
        daemon.configure('[plugins]\ndisabled = ["dark"]\n', "conf.d/off.toml")
    said = refused(daemon, tracebacks=int(kind in ("fails to import", "raises in a hook")))
    assert "required plugin dark" in said["ostler.toml:2:13"]
    assert "remove it from `required`" in said["ostler.toml:2:13"]


def test_disabled_and_blocked_plugins_are_listed_and_left_alone(make_daemon) -> None:
    daemon = make_daemon()
    daemon.configure('[plugins]\ndisabled = ["off"]\nblocked = ["evil"]\n', "conf.d/plugins.toml")
    daemon.install("off", "raise SystemExit\n")
    daemon.install("evil", "raise SystemExit\n")
    rows = plugins(started(daemon))
    assert (rows["off"]["state"], rows["evil"]["state"]) == ("disabled", "blocked")
    assert daemon.status()["not_well"] == []
