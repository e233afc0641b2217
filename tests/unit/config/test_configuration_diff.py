from time import monotonic

import pytest

from ostler.config import Field, OptionsModel, diff, load_text, validate
from ostler.config.configuration_diff import change_level, effective_values, note_secrets_in_use
from ostler.messaging.tcp.curve import generate_keys
from ostler.redaction import SECRETS

# private: _monotonic: SECRETS is one object for the process, which no test makes

BASE = """
[services.lamp]
manager = "x"
workers = 4
[services.lamp.drivers.hall]
driver = "gpio"
"""


def changes(old, new):
    return [(change.path, change.old, change.new, change.needs) for change in diff(old, new)]


def test_nothing_changes_when_only_the_writing_does(lamp):
    assert changes(lamp(BASE), lamp(BASE.replace("workers = 4", "workers=4 # x\npoll = 30"))) == []


def test_each_change_says_what_it_needs(lamp):
    new = BASE.replace("workers = 4", 'workers = 5\npoll = "1min"') + 'path = "/dev/other"\n[daemon]\nhost = "other"\n'
    assert changes(lamp(BASE + '[daemon]\nhost = "one"\n'), lamp(new)) == [
        ("daemon.host", "one", "other", "daemon"),
        ("services.lamp.drivers.hall.path", "/dev/gpio", "/dev/other", "driver"),
        ("services.lamp.poll", 30.0, 60.0, "live"),
        ("services.lamp.workers", 4, 5, "service"),
    ]


def test_the_path_of_an_option_says_what_its_change_needs(lamp):
    running = [value.path for value in lamp(BASE).values()]
    tables = lamp(BASE + '[services.bell]\nmanager = "x"\n[services.lamp.drivers.attic]\ndriver = "gpio"\n').tables
    levels = {
        "daemon.host": "daemon",
        "log.level": "live",
        "services.lamp.poll": "live",
        "services.lamp.workers": "service",
        "services.lamp.drivers.hall.path": "driver",
        "services.lamp.drivers.attic.path": "driver",  # added
        "services.lamp.drivers.gone.path": "driver",
        "services.bell.poll": "service",
        "services.gone.drivers.hall.path": "service",
        "plugin.key": "live",
        "services": "service",
        "no = valid [key": "live",
        "of two\nlines": "live",
    }
    assert {path: change_level(tables, path, running) for path in levels} == levels


def test_secrets_are_compared_but_never_shown(lamp, tmp_path):
    file, text = tmp_path / "f", BASE.replace("workers = 4", f'token = {{file = "{tmp_path}/f"}}')
    file.write_text("one secret", encoding="utf-8")
    old = lamp(text)
    file.write_text("two secret", encoding="utf-8")
    assert changes(old, lamp(text)) == [("services.lamp.token", "***", "***", "live")]


def test_a_secret_in_use_is_redacted_although_the_file_has_another(tmp_path):
    def network(secret):
        file = tmp_path / "key"
        file.write_text(secret, encoding="utf-8")
        return validate(load_text(f"[network]\nsecret_key = {{file = '{file}'}}"), {}, {})

    first, second = generate_keys().secret, generate_keys().secret
    started = network(first)
    SECRETS.begin_update()
    network(second)
    note_secrets_in_use(started)
    SECRETS.commit_update()
    day_later = monotonic() + 2 * 86400
    with pytest.MonkeyPatch.context() as patch:
        # SECRETS is one object for the process, which no test makes.
        patch.setattr(SECRETS, "_monotonic", lambda: day_later)
        SECRETS.commit_update()
    assert SECRETS.redact(f"{first} {second}") == "*** ***"


def test_tables_that_come_and_go_are_one_change_each(lamp):
    class Other(OptionsModel):
        driver: str = Field(help="")

    lamp_model, hall = (type(model) for model in (lamp(BASE).services["lamp"], lamp(BASE).drivers["lamp", "hall"]))
    moved = BASE.replace("hall", "cellar")
    sections = {("services", "lamp"): lamp_model, ("services", "lamp", "drivers", "cellar"): hall}
    found = changes(lamp(BASE), validate(load_text(moved), sections, {}))
    assert [(path, needs) for path, _, _, needs in found] == [
        ("services.lamp.drivers.cellar", "driver"),
        ("services.lamp.drivers.hall", "driver"),
    ]
    gone = changes(lamp(BASE), validate(load_text(""), {}, {}))
    assert [(path, new, needs) for path, _, new, needs in gone] == [("services.lamp", None, "service")]


def test_another_class_behind_the_same_name_is_compared_option_by_option(lamp):
    class Other(OptionsModel):
        driver: str = Field(help="", reload="service")
        colour: str = Field("red", help="", reload="driver")

    sections = {
        ("services", "lamp"): type(lamp(BASE).services["lamp"]),
        ("services", "lamp", "drivers", "hall"): Other,
    }
    new = validate(load_text(BASE.replace("gpio", "other")), sections, {})
    assert changes(lamp(BASE), new) == [
        ("services.lamp.drivers.hall.colour", None, "red", "driver"),
        ("services.lamp.drivers.hall.driver", "gpio", "other", "service"),
        ("services.lamp.drivers.hall.path", "/dev/gpio", None, "driver"),
    ]


def test_what_waits_for_a_restart_is_shown_as_it_runs_and_where_it_was_read(lamp):
    old = lamp(BASE + '[daemon]\nhost = "one"\n')
    changed = BASE.replace("workers = 4", 'workers = 5\npoll = "1min"').replace("hall", "cellar")
    new = lamp("\n" + changed + '[daemon]\nhost = "two"\n')
    hall = old.drivers["lamp", "hall"].model_copy(update={"path": "/dev/else"})
    found = {
        each.path: (each.value, each.origin)
        for each in effective_values(old, new, {("services", "lamp", "drivers", "hall"): hall})
    }
    assert found["daemon.host"] == ("one", "ostler.toml:8:1")
    assert found["services.lamp.workers"] == (5, "ostler.toml:5:1")
    assert found["services.lamp.poll"] == (60.0, "ostler.toml:6:1")
    assert found["services.lamp.drivers.hall.path"] == ("/dev/else", "default")
    assert not [path for path in found if "cellar" in path]
