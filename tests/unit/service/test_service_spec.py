from ostler import Field, ManagerOptions
from ostler.config.configuration_diff import changed_options, effective_options


class LampOptions(ManagerOptions):
    live: int = Field(1, help="Takes effect at once", reload="live")
    built: int = Field(1, help="Built anew", reload="driver")
    threads: int = Field(1, help="Started anew", reload="service")
    port: int = Field(1, help="Needs a new process", reload="daemon")


class Others(ManagerOptions):
    pass


OLD = LampOptions(manager="lamp")
NEW = LampOptions(manager="lamp", live=2, built=2, threads=2, port=2)


def test_what_needs_a_new_process_keeps_its_value() -> None:
    options = effective_options(OLD, NEW)
    assert (options.live, options.built, options.threads, options.port) == (2, 2, 2, 1)
    assert effective_options(OLD, OLD) is OLD


def test_options_of_another_manager_are_taken_as_they_are() -> None:
    wanted = Others(manager="other")
    assert effective_options(OLD, wanted) is wanted


def test_the_options_that_differ_are_named() -> None:
    assert changed_options(OLD, NEW) == ["live", "built", "threads", "port"]
    assert changed_options(OLD, OLD) == []
    assert changed_options(OLD, Others(manager="lamp")) == ["live", "built", "threads", "port"]
