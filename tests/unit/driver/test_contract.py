"""Classes held against the base class that they have to fulfil."""

from abc import ABC, abstractmethod
from typing import ClassVar

import pytest

from ostler.driver import Driver, DriverOptions, check_contract, feature, require_contract, time_budget
from ostler.errors import ContractError


class LampDriver(Driver):
    @abstractmethod
    def switch(self, lamp: str, on: bool) -> None: ...

    @abstractmethod
    def lamps(self) -> list[str]: ...

    def glow(self, lamp: str, *, seconds: float = 1.0) -> None: ...

    @feature("dim")
    def dim(self, lamp: str, level: int) -> None: ...

    @feature("dim")
    def undim(self, lamp: str) -> None: ...


class Good(LampDriver):
    def switch(self, lamp, on): ...

    def lamps(self):
        return []


def points(cls, base=LampDriver, **options):
    return check_contract(cls, base, **options)


def test_a_driver_that_fits_has_no_points():
    assert points(Good) == []


@pytest.mark.failure_mode("Plugins", "a driver that is an empty class")
def test_a_driver_that_is_an_empty_class():
    class Empty(LampDriver):
        pass

    class Stranger:
        pass

    assert points(Empty) == ["`lamps` is missing", "`switch` is missing"]
    assert points(Stranger) == [
        "it does not derive from LampDriver",
        "`lamps` is missing",
        "`switch` is missing",
    ]


@pytest.mark.failure_mode("Plugins", "a driver that is an empty class")
def test_an_empty_class_below_a_contract_without_abstract_methods():
    class Loose(Driver):
        def poke(self): ...

    class Empty(Loose):
        pass

    class Below(Empty):
        def poke(self): ...

    assert points(Empty, Loose) == ["it is an empty class: it overrides nothing of Loose"]
    assert points(Below, Loose) == []


@pytest.mark.failure_mode("Plugins", "a driver with a wrong signature")
def test_a_driver_with_a_wrong_signature():
    class Wrong(Good):
        def switch(self, lamp): ...

        def glow(self, lamp, seconds): ...

    assert points(Wrong) == [
        "`glow(lamp, seconds)` is not compatible with `glow(lamp, *, seconds=1.0)`: `seconds` needs a default",
        "`switch(lamp)` is not compatible with `switch(lamp, on)`: it does not accept `on`",
    ]


def test_the_hooks_of_driver_itself_are_looked_at_too():
    class Wrong(Good):
        def initialise(self, options): ...

        def cleanup(self, *, force): ...

    said = points(Wrong)
    assert any("`initialise(options)` is not compatible with `initialise()`" in point for point in said)
    assert any("it requires `force`" in point for point in said)


def test_a_misspelt_abstract_method_is_guessed():
    class Misspelt(LampDriver):
        def swich(self, lamp, on): ...

        def lamps(self): ...

    assert points(Misspelt) == ["`switch` is missing (did you mean it by `swich`?)"]


def test_async_where_sync_is_asked_is_a_point():
    class Wrong(Good):
        async def switch(self, lamp, on): ...

    assert points(Wrong) == ["`switch` is `async def`, it must be `def`"]


def test_what_is_no_method_is_a_point():
    class Wrong(Good):
        switch = "on"

        @property
        def lamps(self): ...

    assert points(Wrong) == ["`lamps` is a property, not a method", "`switch` is a str, not a method"]


def test_options_derive_from_the_options_of_the_base():
    class Wrong(Good):
        class Options:
            pass

    class Right(Good):
        class Options(DriverOptions):
            pass

    assert points(Wrong) == ["`Options` does not derive from DriverOptions"]
    assert points(Right) == []


def test_features_are_a_frozenset():
    class Wrong(Good):
        features = ["dim"]

    assert points(Wrong) == ["`features` is a list, it must be a frozenset"]


def test_a_feature_without_its_methods_is_a_point():
    class Wrong(Good):
        features = frozenset({"dim"})

        def dim(self, lamp, level): ...

    assert points(Wrong) == ["it lists the feature 'dim', but does not implement `undim`"]


def test_methods_without_their_feature_are_a_point():
    class Wrong(Good):
        def dim(self, lamp, level): ...

        def undim(self, lamp): ...

    assert points(Wrong) == ["it implements `dim`, `undim`, but does not list the feature 'dim'"]


def test_a_feature_that_nobody_knows_is_a_point():
    class Wrong(Good):
        features = frozenset({"fly"})

    assert points(Wrong) == ["it lists the feature 'fly', which LampDriver does not define; available: dim"]


def test_a_feature_with_its_methods_fits():
    class Right(Good):
        features = frozenset({"dim"})

        def dim(self, lamp, level): ...

        def undim(self, lamp): ...

    class Inherits(Right):
        pass

    assert points(Right) == []
    assert points(Inherits) == []


def test_a_time_budget_names_an_option_that_is_there():
    class Wrong(Good):
        @time_budget("patience")
        def switch(self, lamp, on): ...

    class Right(Good):
        class Options(DriverOptions):
            patience: float = 3.0

        @time_budget("patience")
        def switch(self, lamp, on): ...

    assert points(Wrong) == ["the time budget of `switch` is the option 'patience', which its options do not have"]
    assert points(Right) == []


def test_a_constructor_that_cannot_take_the_environment_is_a_point():
    class Wrong(Good):
        def __init__(self): ...

    class Right(Good):
        def __init__(self, env, extra=None): ...

    assert points(Wrong) == ["`__init__()` is not compatible with `__init__(environment)`"]
    assert points(Right) == []


def test_static_and_class_methods_are_seen_as_their_callers_see_them():
    class Right(Good):
        @staticmethod
        def lamps(): ...

        @classmethod
        def switch(cls, lamp, on): ...

    assert points(Right) == []


@pytest.mark.parametrize("what", ["text", 3, len])
def test_what_is_no_class_is_said(what):
    assert points(what)[0].endswith("not a class")


def test_the_contract_itself_is_no_implementation():
    assert points(LampDriver)[0] == "it is the contract itself, not an implementation"


def test_nothing_of_the_class_is_run():
    class Explosive(Good):
        def __init_subclass__(cls):
            raise AssertionError

        @property
        def name(self):
            raise AssertionError

        def __init__(self, environment):
            raise AssertionError

    assert points(Explosive) == []


class Base:
    """As a manager: its hooks may be `def` or `async def`."""

    kinds: ClassVar[dict[str, type]] = {}
    driver: ClassVar[type | None] = None

    def __init__(self, environment): ...

    def init_host(self, service_id, added): ...


def test_hooks_of_a_manager_may_be_async_but_have_to_fit():
    class Right(Base):
        driver = Driver

        async def init_host(self, service_id, added): ...

    class Wrong(Base):
        async def init_host(self, service_id): ...

    assert points(Right, Base, either=True) == []
    assert points(Right, Base) == ["`init_host` is `async def`, it must be `def`"]
    assert points(Wrong, Base, either=True) == [
        "`init_host(service_id)` is not compatible with `init_host(service_id, added)`: it does not accept `added`"
    ]


def test_extensions_are_checked_just_so():
    class Filter(ABC):
        @abstractmethod
        def passes(self, backend, request): ...

    class Wrong(Filter):
        def passes(self, backend): ...

    assert points(Wrong, Filter) == [
        "`passes(backend)` is not compatible with `passes(backend, request)`: it does not accept `request`"
    ]


def test_require_contract_raises_with_every_point_and_the_name():
    class Empty(LampDriver):
        features = frozenset({"fly"})

    with pytest.raises(ContractError) as caught:
        require_contract(Empty, LampDriver, what="driver hall of light")
    assert "driver hall of light: " in caught.value.message
    assert "Empty does not fulfil LampDriver: `lamps` is missing; `switch` is missing; it lists" in caught.value.message
    assert len(caught.value.details["points"]) == 3
    require_contract(Good, LampDriver, what="driver hall of light")
