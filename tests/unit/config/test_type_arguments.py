"""Options and contract of drivers can be named as type arguments of the base class."""

from __future__ import annotations

from abc import abstractmethod

import pytest

from ostler import Driver, DriverOptions, DriverOptionsT, Field, Manager, ManagerOptions
from ostler.testing import host


class LampOptions(ManagerOptions):
    poll: int = Field(30, help="How often the lamps are read")


class GpioOptions(DriverOptions):
    chip: str = Field("chip0", help="The chip")


class LampDriver(Driver[DriverOptionsT]):
    @abstractmethod
    def switch(self, lamp: str) -> str: ...


class GpioDriver(LampDriver[GpioOptions]):
    def switch(self, lamp: str) -> str:
        return f"{lamp} of {self.options.chip}"


class LampManager(Manager[LampOptions, LampDriver]):
    pass


def test_the_classes_are_those_of_the_type_arguments() -> None:
    assert LampManager.Options is LampOptions
    assert LampManager.driver_type is LampDriver
    assert LampDriver.Options is DriverOptions
    assert GpioDriver.Options is GpioOptions


def test_without_type_arguments_the_inner_class_counts() -> None:
    class Plain(Manager):
        class Options(ManagerOptions):
            pass

        driver_type = LampDriver

    class Derived(LampManager):
        pass

    assert Plain.Options.__qualname__.endswith("Plain.Options")
    assert Plain.driver_type is LampDriver
    assert Derived.Options is LampOptions


def test_one_type_argument_leaves_the_drivers_open() -> None:
    class Single(Manager[LampOptions]):
        pass

    assert Single.Options is LampOptions
    assert Single.driver_type is None


def test_an_inner_class_may_refine_the_type_argument() -> None:
    class Refined(Manager[LampOptions]):
        class Options(LampOptions):
            pass

    assert Refined.Options is not LampOptions


def test_a_contradiction_is_refused_where_the_class_is_written() -> None:
    with pytest.raises(TypeError, match=r"the type argument is LampOptions, but `Options` is .*Options; remove one"):

        class Wrong(Manager[LampOptions]):
            class Options(ManagerOptions):
                pass


def test_a_name_in_quotes_is_refused() -> None:
    with pytest.raises(TypeError, match="'LampOptions' is in quotes"):

        class Quoted(Manager["LampOptions"]):
            pass


def test_a_service_runs_with_them() -> None:
    config = (
        '[services.lamp]\nmanager = "lamp"\npoll = 5\n[services.lamp.drivers.desk]\ndriver = "gpio"\nchip = "chip1"\n'
    )
    with host(config=config, managers={"lamp": LampManager}, drivers={("lamp", "gpio"): GpioDriver}) as h:
        assert h.manager("lamp").options.poll == 5
        assert h.driver("lamp", "desk").switch("a") == "a of chip1"
