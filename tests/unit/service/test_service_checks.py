"""What is said against services before anything is started, all of it at once and each at its place."""

from abc import abstractmethod

import pytest

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, ValidationContext, hookimpl, periodic
from ostler.config import load_text
from ostler.errors import ConfigurationError
from ostler.plugins import in_memory_plugin
from ostler.service.resolve import resolve_configuration


class LampDriver(Driver):
    """A contract."""

    @abstractmethod
    def light(self) -> None:
        """Do it."""


class Gpio(LampDriver):
    class Options(DriverOptions):
        line: int = Field(1, help="")

    seen: list[ValidationContext] = []

    @classmethod
    def validate(cls, options, others):
        cls.seen.append(others)
        for (topic, name), found in others.drivers.items():
            if found.line == options.line:
                yield "line", f"is the line of {topic}/{name}"

    def light(self) -> None: ...


class HalfDone(Gpio):
    @abstractmethod
    def dim(self) -> None: ...


class Lamp(Manager):
    class Options(ManagerOptions):
        scenes: list[str] = Field([], help="")
        extra: str = Field("", help="")

    driver_type = LampDriver
    seen: list[ValidationContext] = []

    @classmethod
    def validate(cls, options, others):
        cls.seen.append(others)
        if options.extra == "raise":
            raise KeyError("a defect")
        if options.extra == "exit":
            raise SystemExit(0)
        if options.extra == "none":
            return None
        return [(("scenes", number), "is no scene") for number, name in enumerate(options.scenes) if name == "?"]


class Timed(Manager):
    @periodic(spacing="no_such_option")
    def spaced(self, ctx: Context) -> None: ...

    @periodic(cron="61 * * * *")
    def timed(self, ctx: Context) -> None: ...

    @periodic(spacing=5)
    def lonely(self) -> None: ...

    @periodic(spacing=5, jitter=7)
    def spread(self, ctx: Context) -> None: ...

    @periodic(spacing=5)
    def fine(self, ctx: Context) -> None: ...


class Plugin:
    @hookimpl
    def ostler_managers(self):
        return {"lamp": Lamp, "timed": Timed}

    @hookimpl
    def ostler_drivers(self):
        return {("lamp", "gpio"): Gpio, ("lamp", "contract"): LampDriver, ("lamp", "half"): HalfDone}


@pytest.fixture(params=[False, True], ids=["run", "check"])
def faults(request):
    """Return the lines that a configuration is refused with: the same for a start and for a check."""

    def reader(text):
        Lamp.seen.clear()
        Gpio.seen.clear()
        try:
            resolve_configuration(
                load_text(text), {}, entry_points=[in_memory_plugin("lamps", Plugin())], offline=request.param
            )
        except ConfigurationError as error:
            return [str(problem) for problem in error.problems]
        return []

    return reader


LAMP = '[services.lamp]\nmanager = "lamp"\n'
HALL = '[services.lamp.drivers.hall]\ndriver = "gpio"\n'


def test_what_keeps_periodic_tasks_from_running_is_found_before_they_do(faults) -> None:
    found = faults('[services.t]\nmanager = "timed"\n')
    assert len(found) == 4
    for task, words in {
        "spaced": "its spacing is the option 'no_such_option', which the service does not have",
        "timed": "its cron expression '61 * * * *' is not valid",
        "lonely": "it must take one argument, `ctx: Context`",
        "spread": "its jitter is 7",
    }.items():
        lines = [line for line in found if f"the periodic task {task} of t cannot run: {words}" in line]
        assert len(lines) == 1, (task, found)
        assert lines[0].startswith("ostler.toml:2:11: ")


def test_a_driver_that_cannot_be_made_is_refused_by_name(faults) -> None:
    found = faults(LAMP + HALL.replace("gpio", "contract"))
    where = "ostler.toml:4:10: driver contract violates the contract LampDriver: "
    assert found == [f"{where}`light` is missing", f"{where}it is the contract itself, not an implementation"]
    (half,) = faults(LAMP + HALL.replace("gpio", "half"))
    abstract = "`dim` is abstract: it is a contract, not an implementation"
    assert half == f"ostler.toml:4:10: driver half violates the contract LampDriver: {abstract}"


def test_a_manager_validates_its_options_and_names_the_item(faults) -> None:
    assert faults(LAMP + 'scenes = ["a", "?"]\n') == ["ostler.toml:3:16: services.lamp.scenes[1]: is no scene"]
    assert faults(LAMP + 'extra = "none"\n') == []


@pytest.mark.failure_mode("Plugins", "a check of options that raises or exits")
def test_a_validate_that_raises_is_a_problem_and_no_traceback(faults) -> None:
    assert faults(LAMP + 'extra = "raise"\n') == [
        "ostler.toml:2:11: manager lamp: its `validate` failed: KeyError: 'a defect'"
    ]


@pytest.mark.failure_mode("Plugins", "a check of options that raises or exits")
def test_a_validate_that_exits_does_not_end_the_check(faults) -> None:
    assert faults(LAMP + 'extra = "exit"\n') == ["ostler.toml:2:11: manager lamp: its `validate` failed: SystemExit: 0"]


def test_a_driver_sees_the_other_drivers_of_services_that_are_enabled(faults) -> None:
    other = LAMP.replace("lamp]", "other]") + HALL.replace("lamp", "other").replace("hall", "roof")
    assert faults(LAMP + HALL + "line = 4\n" + other + "line = 4\n") == [
        "ostler.toml:5:8: services.lamp.drivers.hall.line: is the line of other/roof",
        "ostler.toml:10:8: services.other.drivers.roof.line: is the line of lamp/hall",
    ]
    assert faults(LAMP + HALL + other.replace("[services.other.", "enabled = false\n[services.other.")) == []
    assert [(each.topic, each.name, sorted(each.drivers)) for each in Gpio.seen] == [("lamp", "hall", [])]


def test_a_manager_sees_the_other_services_its_own_drivers_and_the_host(faults) -> None:
    assert faults('[daemon]\nhost = "h1"\n' + LAMP + HALL + LAMP.replace("lamp]", "other]")) == []
    seen = {each.topic: each for each in Lamp.seen}
    assert (seen["lamp"].host, sorted(seen["lamp"].services)) == ("h1", ["other"])
    assert sorted(seen["lamp"].drivers) == [("lamp", "hall")]
    assert seen["lamp"].sections == {}, "the daemon's own have secrets, and are nobody's business"


def test_all_of_it_is_told_together_with_what_is_wrong_elsewhere(faults) -> None:
    text = (
        '[log]\nlevel = "loud"\n'
        + LAMP
        + 'scenes = ["?"]\n[services.t]\nmanager = "timed"\n[services.x]\nworkers = 0\n'
    )
    found = faults(text)
    for words in ("log.level", "services.lamp.scenes[0]", "periodic task lonely", 'missing required key "manager"'):
        assert sum(words in line for line in found) == 1, (words, found)


def test_a_service_that_needs_one_that_is_not_enabled_is_refused(faults) -> None:
    text = LAMP + 'depends_on = ["off"]\n[services.off]\nmanager = "lamp"\nenabled = false\n'
    assert faults(text) == [
        "ostler.toml:3:15: service lamp needs off, which is not enabled; enable it, or remove it from `depends_on`"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[audit]\ncount = 9999999999999\n", "2:9: audit.count: expected a whole number from 100 to 2147483647, got"),
        ("[messaging]\nevent_queue = 3000000000\n", "2:15: messaging.event_queue: expected a whole number from 1 to"),
        ("[store]\nbusy_timeout = 1e12\n", "2:16: store.busy_timeout: expected a time span from 0 to 86400s"),
        ('[events]\njournal_age = "9999999999999d"\n', "2:15: events.journal_age: expected a time span above 0"),
        ("[audit]\ncount = " + "9" * 5000, "2:9: number too long"),
        (LAMP + "max_in_flight = 99999999999999999999\n", "3:17: services.lamp.max_in_flight: expected a whole number"),
        ('[network]\npeers.a.rpc = "tcp://a:65536"\n', "2:15: network.peers.a.rpc: expected a port of at most 65535"),
        ('[network]\nrpc = "tcp://*:70000"\n', "2:7: network.rpc: expected a port of at most 65535, got 70000"),
        ('[network]\npeers.a.rpc = "tcp://*:80"\n', "2:15: network.peers.a.rpc: expected the address of one host"),
        (
            '[daemon]\nhost = "me"\n[network.peers.me]\nrpc = "tcp://a:80"\n',
            "3:1: network.peers.me is this host itself",
        ),
    ],
)
def test_numbers_and_addresses_that_can_never_work_are_refused(faults, text, line) -> None:
    found = faults(text)
    assert any(each.startswith(f"ostler.toml:{line}") for each in found), found
