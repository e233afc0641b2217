from ostler import Field, ManagerOptions
from ostler.config.configuration_diff import effective_options
from ostler.service.service_spec import required_reload_scopes


class Options(ManagerOptions):
    live: int = Field(1, help="Taken over")
    driver: int = Field(1, help="Needs a new driver", reload="driver")
    service: int = Field(1, help="Needs a new service", reload="service")
    daemon: int = Field(1, help="Needs a new daemon", reload="daemon")


class Others(ManagerOptions):
    pass


OLD = Options(manager="lamp")
NEW = Options(manager="lamp", live=2, driver=2, service=2, daemon=2)


def test_what_needs_a_restart_stays_as_it_runs() -> None:
    options = effective_options(OLD, NEW)
    assert (options.live, options.driver, options.service, options.daemon) == (2, 2, 1, 1)


def test_options_of_another_kind_come_with_the_restart() -> None:
    assert effective_options(OLD, Others(manager="other")) is OLD


def test_what_is_needed_to_go_from_one_to_the_other() -> None:
    assert required_reload_scopes(OLD, NEW) == {"live", "driver", "service", "daemon"}
    assert required_reload_scopes(OLD, OLD) == set()
    assert required_reload_scopes(OLD, effective_options(OLD, NEW)) == {"live", "driver"}
