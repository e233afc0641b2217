from pathlib import Path

import pytest

from ostler.config import OptionsModel, load_text, validate, validate_core
from ostler.config.core_sections import CORE_SECTIONS, default_host_name
from ostler.errors import ConfigurationError, Problem

GOOD = """
[daemon]
host = "node1"
[services.lamp]
manager = "lamp"
poll = "5min"
[services.lamp.drivers.hall]
driver = "gpio"
path = "/dev/gpio1"
"""


def test_a_good_configuration_is_handed_out_by_section(lamp):
    configuration = lamp(GOOD)
    assert configuration.daemon.host == "node1"
    assert configuration.services["lamp"].poll == 300.0
    assert configuration.services["lamp"].room == 2**30
    assert configuration.drivers["lamp", "hall"].path == Path("/dev/gpio1")
    assert configuration.store.synchronous == "FULL"
    assert configuration.sections == {}


def test_without_any_file_everything_has_its_default():
    configuration = validate(load_text(""), {}, {})
    assert configuration.daemon.host == default_host_name()
    assert configuration.messaging.max_message_size == 16 * 2**20
    assert configuration.access.admin == []


def test_everything_that_is_wrong_is_said_at_once_and_in_order(problems):
    assert problems("""
[daemon]
host = "a.b"
hots = 1
stop_timeout = "ten"
[plugins]
required = "x"
[log]
level = "loud"
[services.lamp]
workers = "many"
wrokers = 3
[services.lamp.drivers.hall]
path = 5
[servces.lamp]
""") == [
        'ostler.toml:3:8: daemon.host: expected a host name of letters, digits, - and _, without dots, got "a.b"',
        'ostler.toml:4:1: unknown key "hots" in [daemon]; did you mean "host"?',
        (
            'ostler.toml:5:16: daemon.stop_timeout: "ten" is not a valid time span; '
            'write seconds (30) or a number with a unit ("30s", "5min", "2h", "1h30min")'
        ),
        'ostler.toml:7:12: plugins.required: expected a list, each item text, got "x"',
        'ostler.toml:9:9: log.level: expected one of "debug", "info", "warning", "error", "critical", got "loud"',
        'ostler.toml:10:1: missing required key "manager" in [services.lamp]: Name of the manager',
        'ostler.toml:11:11: services.lamp.workers: expected a whole number from 1 to 1024, got "many"',
        'ostler.toml:12:1: unknown key "wrokers" in [services.lamp]; did you mean "workers"?',
        'ostler.toml:13:1: missing required key "driver" in [services.lamp.drivers.hall]: Name of the driver',
        "ostler.toml:14:8: services.lamp.drivers.hall.path: expected a path, got 5",
        'ostler.toml:15:2: unknown table "servces" at the top level; did you mean "services"?',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("workers = true", "workers: expected a whole number from 1 to 1024, got true"),
        ('workers = "8"', 'workers: expected a whole number from 1 to 1024, got "8"'),
        ("workers = 8.0", "workers: expected a whole number from 1 to 1024, got 8.0"),
        ("workers = 2000", "workers: expected a whole number from 1 to 1024, got 2000"),
        ("workers = 99999999999999999999999", "1024, got 99999999999999999999999"),
        ("workers = []", "got an empty list"),
        ("workers = {a = 1}", "got a table"),
        ("workers = 2020-01-01", "got date 2020-01-01"),
        ("poll = 0", 'poll: expected a time span above 0 (such as 30, "30s" or "5min"), got 0'),
        ("poll = inf", "got inf"),
        ("poll = nan", "got nan"),
        ("poll = true", "got true"),
        ("timeout = -1", "timeout: expected a time span above 0"),
        ("room = 1", 'room: expected a size of at least 4KiB (such as "10GiB" or 4096), got 1'),
        ('room = "-1GiB"', 'room: "-1GiB" is below zero; write whole bytes'),
        ("mode = []", "mode: expected a whole number or text, got an empty list"),
        ('colours = ["red", 5]', "colours[1]: expected text, got 5"),
        ("pin = 1234", "pin: expected text, got ***"),
        ('manager = "' + "x" * 99 + '"', "unknown"),
        ("drivers = 5", "drivers: expected a table, got 5"),
        ("drivers.hall = 5", "drivers.hall: expected a table, got 5"),
    ],
)
def test_a_wrong_value_is_said_in_plain_words(problems, line, what):
    found = problems(f"[services.lamp]\n{line}\nunknown = 1\n{'' if 'manager' in line else 'manager = 1'}\n")
    assert any(what in problem for problem in found), found
    assert not any("pydantic" in problem or "Input should" in problem for problem in found)


def test_options_that_are_right_one_by_one_may_be_wrong_together(problems):
    assert problems("[services.lamp]\nmanager = 'x'\npoll = 10\ntimeout = 5\n") == [
        "ostler.toml:4:11: services.lamp.timeout: must not be below `poll`, which is 10 s"
    ]


def test_a_long_text_is_cut_in_a_message(problems):
    (found,) = problems(f'[services.lamp]\nmanager = "x"\nworkers = "{"y" * 500}"')
    assert len(found) < 200


def test_unknown_keys_list_what_is_known_when_nothing_is_near(problems):
    assert problems("[store]\nzzz = 1\n") == [
        'ostler.toml:2:1: unknown key "zzz" in [store]; available: backups, busy_timeout, slow_transaction, synchronous'
    ]
    sections = sorted([*CORE_SECTIONS, "services"])
    known = f"at the top level; available: {', '.join(sections)}"
    assert problems("zzz = 1\n[qqq]\n") == [
        f'ostler.toml:1:1: unknown key "zzz" {known}',
        f'ostler.toml:2:1: unknown table "qqq" {known}',
    ]


def test_a_key_in_the_wrong_case_is_recognised(problems):
    assert problems("[daemon]\nHOST = 'a'\n") == [
        'ostler.toml:2:1: unknown key "HOST" in [daemon]; did you mean "host"?'
    ]


def test_what_is_no_table_is_refused_once(problems):
    assert problems("services = 5\n") == ["ostler.toml:1:12: services: expected a table, got 5"]
    assert problems("[services]\nlamp = 5\n") == ["ostler.toml:2:8: services.lamp: expected a table, got 5"]
    assert problems("[[daemon]]\nhost = 'a'\n") == ["ostler.toml:1:3: daemon: expected a table, got a list"]


def test_names_of_services_and_drivers_are_checked(problems):
    found = problems(
        '[services.lamp]\nmanager="x"\n[services."a.b"]\n[services.ostler]\n[services.lamp.drivers."a b"]\n'
    )
    assert found == [
        'ostler.toml:3:1: "a.b" is not a valid name of a topic; use letters, digits, - and _',
        'ostler.toml:4:1: the topic "ostler" is reserved for the daemon; choose another name',
        'ostler.toml:5:1: "a b" is not a valid name of a driver; use letters, digits, - and _',
    ]


def test_a_plugin_cannot_be_required_and_kept_out(problems):
    assert problems('[plugins]\nrequired = ["a", "b"]\nblocked = ["b"]\n') == [
        'ostler.toml:3:11: plugins.blocked: "b" is also in `required`; remove it from one of the two lists'
    ]


def test_mistakes_of_three_files_come_in_the_order_of_the_files(write, paths):
    raw = write({
        "ostler.toml": "[daemon]\nhots = 1\n[log]\nlevel = 1\n",
        "conf.d/1.toml": "[daemon\n",
        "conf.d/2.toml": "[store]\nsyncronous = 'FULL'\n",
    })  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        validate(raw, {}, {})
    etc = paths.config_file.parent
    assert [problem.where for problem in caught.value.problems] == [
        f"{etc}/ostler.toml:2:1",
        f"{etc}/ostler.toml:4:9",
        f"{etc}/conf.d/1.toml:1:8",
        f"{etc}/conf.d/2.toml:2:1",
    ]
    assert caught.value.exit_code == 78


def test_what_may_stand_in_a_file_that_cannot_be_read_is_not_called_missing(write, lamp_sections):
    raw = write({"ostler.toml": "[services.lamp\nmanager = 'x'\n", "conf.d/1.toml": "[services.lamp]\nworkers = 1\n"})
    with pytest.raises(ConfigurationError) as caught:
        validate(raw, lamp_sections, {})
    assert len(caught.value.problems) == 1


def test_a_mistake_on_the_command_line_is_said_with_its_origin(write):
    with pytest.raises(ConfigurationError) as caught:
        validate(write({}, ["store.backups=-1"]), {}, {})
    assert str(caught.value) == "--set: store.backups: expected a whole number from 1 to 100, got -1"


def test_findings_of_the_caller_are_reported_together_with_the_rest(problems):
    text = "[services.lamp]\nmanager = 'nobody'\nworkers = 0\n"
    mine = load_text(text).problem_at(("services", "lamp", "manager"), 'no plugin brings a manager "nobody"')
    assert [line.split(": ")[0] for line in problems(text, problems=[mine])] == ["ostler.toml:2:11", "ostler.toml:3:11"]


def test_a_table_whose_real_model_is_unknown_is_checked_as_far_as_it_is_known(lamp, problems):
    text = "[services.lamp]\nmanager = 'x'\ncolour = 'red'\nworkers = 0\n"
    path = ("services", "lamp")
    assert problems(text, partial=[path]) == [
        "ostler.toml:4:11: services.lamp.workers: expected a whole number from 1 to 1024, got 0"
    ]
    assert lamp(text.replace("workers = 0", ""), partial=[path]).services["lamp"].manager == "x"


def test_the_key_that_names_the_manager_misspelt_is_said_as_such(problems):
    text = "[services.lamp]\nmanger = 'x'\ncolour = 'red'\n"
    said = problems(text, partial=[("services", "lamp")])
    assert 'ostler.toml:2:1: unknown key "manger" in [services.lamp]; did you mean "manager"?' in said
    assert not any("colour" in line for line in said)


def test_sections_of_plugins_are_validated_as_the_daemons_own():
    class Own(OptionsModel):
        size: int = 3

    sections = {("lampshade",): Own}
    assert validate(load_text("[lampshade]\nsize = 4"), sections, {}).sections["lampshade"].size == 4
    assert validate(load_text(""), sections, {}).sections["lampshade"].size == 3
    with pytest.raises(ConfigurationError, match=r'unknown table "lampshad" .* did you mean "lampshade"'):
        validate(load_text("[lampshad]"), sections, {})


def test_the_first_step_never_raises_and_keeps_what_is_right():
    raw = load_text('[plugins]\nrequired = 5\nblocked = ["a"]\nunknown = 1\n[daemon]\nhost = "n"\n[log]\nlevel = "x"\n')
    core = validate_core(raw)
    assert (core.plugins.blocked, core.plugins.required) == (["a"], [])
    assert (core.daemon.host, core.log.level) == ("n", "info")
    assert len(core.problems) == 3
    assert validate_core(load_text("plugins = 5")).plugins.blocked == []
    assert [problem.where for problem in validate_core(load_text("=")).problems] == ["ostler.toml:1:1"]


def test_a_wrong_default_of_a_plugin_is_reported_and_no_crash():
    from ostler.config import Field, Size

    class Wrong(OptionsModel):
        size: Size = Field("ten", help="")

    with pytest.raises(ConfigurationError, match=r'wrong\.size: "ten" is not a valid size'):
        validate(load_text(""), {("wrong",): Wrong}, {})


def test_tables_of_options_may_stand_inside_others():
    from ostler.config import Field

    class Inner(OptionsModel):
        depth: int = Field(help="How deep")

    class Outer(OptionsModel):
        one: Inner = Field(help="One")
        more: list[Inner] = Field([], help="More")

    with pytest.raises(ConfigurationError) as caught:
        validate(load_text("[outer]\n[outer.one]\ndeph = 1\n[[outer.more]]\ndepth = 'x'\n"), {("outer",): Outer}, {})
    assert [str(problem) for problem in caught.value.problems] == [
        'ostler.toml:2:1: missing required key "depth" in [outer.one]: How deep',
        'ostler.toml:3:1: unknown key "deph" in [outer.one]; did you mean "depth"?',
        'ostler.toml:5:9: outer.more[0].depth: expected a whole number, got "x"',
    ]


def test_problems_of_callers_without_a_place_come_last(problems):
    found = problems("[daemon]\nx = 1\n", problems=[Problem("", "nowhere")])
    assert found[-1] == "nowhere"


def test_problems_beyond_what_anybody_reads_are_not_told(problems):
    found = problems("".join(f"k{number} = 1\n" for number in range(3_000)))
    assert len(found) == 501
    assert "and more: only the first 500 problems are shown" in found
