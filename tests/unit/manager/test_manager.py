import logging
from types import SimpleNamespace

from ostler.config import load_text, validate
from ostler.errors import ConfigurationError, DriverError
from ostler.manager import Manager, ManagerEnvironment, ManagerOptions


class LampOptions(ManagerOptions):
    """Options with a check of their own, which calls no other."""

    def validate_options(self):
        if self.workers > self.queue_limit:
            yield "workers", "must not be above queue_limit"


def problems(text, model=ManagerOptions):
    try:
        validate(load_text(f'[services.lamp]\nmanager = "lamp"\n{text}'), {("services", "lamp"): model}, {})
    except ConfigurationError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_down_time_above_the_report_interval_is_right():
    assert problems('report_interval = "10s"\ndown_time = "10.5s"') == []


def test_a_down_time_not_above_the_report_interval_is_an_error_saying_what_to_set():
    (problem,) = problems("report_interval = 30\ndown_time = 30")
    assert problem.startswith("ostler.toml:4:13: services.lamp.down_time: must be above report_interval, which is 30s")
    assert "set down_time to 1min 30s or more" in problem


def test_a_report_interval_above_the_default_down_time_is_pointed_at():
    (problem,) = problems("report_interval = 120")
    assert problem.startswith("ostler.toml:3:19: services.lamp.report_interval: must be below down_time, which is 1min")
    assert "set down_time to 6min" in problem


def test_a_check_of_a_manager_does_not_switch_that_of_every_service_off():
    found = problems("report_interval = 60\ndown_time = 60\nworkers = 9\nqueue_limit = 1", LampOptions)
    assert [problem.split(": ")[1] for problem in found] == ["services.lamp.down_time", "services.lamp.workers"]


def test_it_is_said_together_with_what_is_wrong_in_the_same_table():
    found = problems('report_interval = 60\ndown_time = 60\nworkers = "many"\nqueue_limt = 3', LampOptions)
    assert [problem.split(": ")[0] for problem in found] == ["ostler.toml:4:13", "ostler.toml:5:11", "ostler.toml:6:1"]


def test_what_follows_from_a_wrong_value_is_not_guessed():
    assert len(problems('report_interval = 90\ndown_time = "soon"')) == 1


class Speaker(dict):
    """Drivers of which each says the same; `ready` are all."""

    ready = dict.keys


def manager_of(drivers, **more):
    environment = ManagerEnvironment(
        topic="lamp", host="node1", options=None, drivers=Speaker(drivers), store=None, client=None, clock=None,
        log=logging.LoggerAdapter(logging.getLogger("test")), **more,
    )  # fmt: skip
    return Manager(environment)


def manager_with(told, **drivers):
    return manager_of(drivers, report_change=lambda *change: told.append(change))


def test_a_manager_says_what_has_changed_and_for_which_lease():
    told = []
    manager = manager_with(told)
    manager.capabilities_changed()
    manager.capabilities_changed("desk", lease="l1")
    manager.capabilities_changed(lease="l1", released=True)
    assert told == [("", "", False), ("desk", "l1", False), ("", "l1", True)]


def test_without_a_reporter_a_change_is_told_to_nobody():
    manager = manager_of({})
    # Passing is the assertion: it does not raise.
    manager.capabilities_changed()


def test_each_driver_speaks_for_its_backend_and_one_that_cannot_hides_no_other():
    def silent():
        raise DriverError("no answer")

    says = {name: SimpleNamespace(capabilities=lambda: {"free_bytes": 5}) for name in ("desk", "floor")}
    nothing, broken = SimpleNamespace(capabilities=lambda: None), SimpleNamespace(capabilities=silent)
    manager = manager_with([], **says, nothing=nothing, broken=broken)
    assert manager.backend_capabilities("desk") == {"free_bytes": 5}
    assert manager.capabilities() == {"desk": {"free_bytes": 5}, "floor": {"free_bytes": 5}}
