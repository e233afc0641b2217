from abc import abstractmethod

import pytest
from pydantic import create_model

from ostler import Context, Driver, DriverOptions, Field, Manager, ManagerOptions, OptionsModel, exposed, hookimpl
from ostler.config import Secret, load_text
from ostler.errors import ConfigurationError
from ostler.plugins import DiscoveredPlugin, in_memory_plugin
from ostler.service import resolve_configuration


class LampDriver(Driver):
    @abstractmethod
    def switch(self, lamp: str, on: bool) -> None: ...


class Gpio(LampDriver):
    class Options(DriverOptions):
        pin: int = Field(ge=0, help="The pin")

    def switch(self, lamp: str, on: bool) -> None: ...


class Empty:
    pass


class WrongSignature(LampDriver):
    def switch(self, lamp: str) -> None: ...


class Shade:
    pass


class Lamp(Manager):
    driver_type = LampDriver
    extension_kinds = {"lamp.shade": Shade}

    class Options(ManagerOptions):
        poll: int = Field(30, help="Spacing")


class OddOptions(Manager):
    Options = dict


class OddHook(Manager):
    def init_host(self, only_one):
        pass


class Bulb(OptionsModel):
    watts: int = Field(5, ge=1, help="Watts")
    key: Secret | None = Field(None, help="A secret")


class Chandelier(Manager):
    """Has options that only its table knows: one table for each bulb."""

    class Options(ManagerOptions):
        bulbs: dict[str, dict] = Field({}, help="The bulbs")

    @classmethod
    def options_model(cls, table, extensions):
        if table.get("bulbs") == "raise":
            raise ValueError("no bulbs")
        if table.get("bulbs") == "wrong":
            return dict
        fields = {name: (Bulb, Field(help="A bulb")) for name in table.get("bulbs", {})}
        bulbs = create_model("Bulbs", __base__=OptionsModel, **fields)
        return create_model("Options", __base__=cls.Options, bulbs=(bulbs, Field(help="The bulbs")))


class LampSection(OptionsModel):
    """[lampshade]: a section of a plugin."""

    colour: str = Field("white", help="The colour")


def plugin(**hooks):
    """What a plugin brings, all well; a test puts something else in its place."""
    good = {
        "ostler_managers": {
            "lamp": Lamp,
            "plain": Manager,
            "odd_options": OddOptions,
            "odd_hook": OddHook,
            "chandelier": Chandelier,
        },
        "ostler_drivers": {("lamp", "gpio"): Gpio, ("lamp", "empty"): Empty, ("lamp", "wrong"): WrongSignature},
        "ostler_config_sections": {"lampshade": LampSection},
        "ostler_extensions": {},
    }
    return in_memory_plugin("lampshade", _Hooks({**good, **hooks}))


class _Hooks:
    def __init__(self, hooks):
        self._hooks = hooks

    @hookimpl
    def ostler_managers(self):
        return self._hooks["ostler_managers"]

    @hookimpl
    def ostler_drivers(self):
        return self._hooks["ostler_drivers"]

    @hookimpl
    def ostler_config_sections(self):
        return self._hooks["ostler_config_sections"]

    @hookimpl
    def ostler_extensions(self):
        return self._hooks["ostler_extensions"]


def made(text, *more, **hooks):
    return resolve_configuration(load_text(text), {}, entry_points=[plugin(**hooks), *more])


def problems(text, *more, **hooks):
    with pytest.raises(ConfigurationError) as caught:
        made(text, *more, **hooks)
    return [str(problem) for problem in caught.value.problems]


GOOD = """
[lampshade]
colour = "red"
[services.lamp]
manager = "lamp"
[services.lamp.drivers.desk]
driver = "gpio"
pin = 3
"""


def test_a_good_configuration_makes_services_with_their_options() -> None:
    assembly = made(GOOD)
    (spec,) = assembly.specs
    assert (spec.topic, spec.manager.cls, spec.options.poll) == ("lamp", Lamp, 30)
    loaded, options = spec.drivers["desk"]
    assert (loaded.cls, options.pin) == (Gpio, 3)
    assert spec.sections["lampshade"].colour == "red"
    assert assembly.warnings == []


BULBS = """
[services.hall]
manager = "chandelier"
[services.hall.bulbs.left]
watts = 7
[services.hall.bulbs.right]
"""


def test_a_manager_may_bring_the_model_of_the_very_table() -> None:
    (spec,) = made(BULBS).specs
    assert isinstance(spec.options, Chandelier.Options)
    assert (spec.options.bulbs.left.watts, spec.options.bulbs.right.watts) == (7, 5)


def test_options_of_a_model_for_one_table_are_checked_like_all_others() -> None:
    wrong = BULBS.replace("watts = 7", "watts = 0\nwats = 1\nkey = 'plain'")
    text = "\n".join(problems(wrong))
    assert ":5:9: services.hall.bulbs.left.watts" in text
    assert ':6:1: unknown key "wats" in [services.hall.bulbs.left]; did you mean "watts"?' in text
    assert ":7:7: services.hall.bulbs.left.key: a secret must not be written" in text


@pytest.mark.parametrize(
    ("bulbs", "fault"),
    [("raise", "its `options_model` failed: ValueError: no bulbs"), ("wrong", "its `options_model` returned no class")],
)
def test_a_model_for_one_table_that_cannot_be_had_is_a_fault_of_the_manager(bulbs: str, fault: str) -> None:
    (found, *_) = problems(f'[services.hall]\nmanager = "chandelier"\nbulbs = "{bulbs}"\n')
    assert found.startswith(
        f"{found.partition(':')[0]}:2:11: manager chandelier violates the manager contract: {fault}"
    )


def test_a_service_that_is_not_enabled_is_checked_and_not_made() -> None:
    off = GOOD.replace('manager = "lamp"', 'manager = "lamp"\nenabled = false')
    assert made(off).specs == []
    assert len(problems(off.replace("pin = 3", "pin = -3"))) == 1


def test_all_problems_are_said_at_once_in_order_of_their_places() -> None:
    found = problems(
        """
[services.a]
manager = "lampp"
[services.b]
manager = "lamp"
pol = 5
[services.b.drivers.one]
driver = "gpio"
[services.b.drivers.two]
driver = "nowhere.at:All"
[services.c]
manager = "plain"
depends_on = ["nobody"]
[services.c.drivers.x]
driver = "gpio"
[lampshade]
color = "red"
"""
    )
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == sorted(lines)
    text = "\n".join(found)
    for part in (
        "lampp",
        "pol",
        "pin",
        "nowhere",
        "no [services.nobody]",
        "manager plain does not support drivers",
        "color",
    ):
        assert part in text, part


@pytest.mark.failure_mode("Plugins", "a driver with a wrong signature")
@pytest.mark.parametrize(
    ("driver", "fault"),
    [
        ("empty", "driver empty violates the contract LampDriver"),
        ("wrong", "driver wrong violates the contract LampDriver"),
    ],
)
def test_a_driver_that_breaks_its_contract(driver, fault) -> None:
    found = problems(GOOD.replace('driver = "gpio"\npin = 3', f'driver = "{driver}"'))
    assert found
    assert all(fault in problem for problem in found)


@pytest.mark.parametrize("manager", ["odd_options", "odd_hook"])
def test_a_manager_that_is_not_as_it_has_to_be_is_refused_by_name(manager) -> None:
    found = problems(f'[services.x]\nmanager = "{manager}"\n')
    assert len(found) == 1
    assert f"manager {manager} violates the manager contract" in found[0]


class Singleton(Lamp):
    def __init__(self):
        self.made = 1


def make_lamp():
    return Singleton()


def make_unsaid(environment):
    return Singleton()


single = Singleton()


@pytest.mark.parametrize("name", ["single", "make_lamp", "make_unsaid"])
def test_a_singleton_and_a_factory_may_have_any_constructor(name) -> None:
    (spec,) = made('[services.x]\nmanager = "x"\n', ostler_managers={"x": f"{__name__}:{name}"}).specs
    assert spec.manager.kind in ("object", "factory")


def test_a_class_that_is_made_by_the_daemon_needs_the_constructor() -> None:
    (found,) = problems('[services.x]\nmanager = "x"\n', ostler_managers={"x": Singleton})
    assert "`__init__()` is not compatible" in found


class HalfDone(Gpio):
    @abstractmethod
    def dim(self) -> None: ...


@pytest.mark.parametrize(("driver", "name"), [(LampDriver, "switch"), (HalfDone, "dim")])
def test_an_abstract_contract_is_no_driver(driver, name) -> None:
    found = problems(GOOD.replace("pin = 3", ""), ostler_drivers={("lamp", "gpio"): driver})
    assert f"`{name}` is" in found[0]


def test_services_that_need_each_other_are_said_with_the_way_round() -> None:
    found = problems(
        '[services.a]\nmanager = "plain"\ndepends_on = ["b"]\n[services.b]\nmanager = "plain"\ndepends_on = ["a"]\n'
    )
    assert len(found) == 1
    assert "a -> b -> a" in found[0]


def test_extensions_go_to_the_managers_that_ask_for_their_kind() -> None:
    class Tulip(Shade):
        pass

    brought = {("lamp.shade", "tulip"): Tulip, ("somebody.else", "x"): Empty}
    assembly = made(GOOD, ostler_extensions=brought)
    assert assembly.specs[0].extensions == {"lamp.shade": {"tulip": Tulip}}
    found = problems(GOOD, ostler_extensions={("lamp.shade", "odd"): Empty})
    assert len(found) == 1
    assert "lamp.shade odd of plugin lampshade cannot be used" in found[0]


def test_a_failed_plugin_is_named_where_its_manager_is_missed() -> None:
    def broken():
        raise ImportError("no library")

    found = problems('[services.x]\nmanager = "fancy"\n', DiscoveredPlugin("fancy", "fancy.plugin", broken))
    assert "plugin fancy failed" in found[0]
    assert "no library" in found[0]


def test_a_plugin_that_fails_harms_nobody_who_does_not_need_it() -> None:
    def broken():
        raise ImportError("no library")

    assembly = made(GOOD, DiscoveredPlugin("fancy", "fancy.plugin", broken))
    assert [str(record.state) for record in assembly.plugins.statuses()] == ["failed", "loaded"]
    assert len(assembly.specs) == 1


def test_a_plugin_that_is_required_must_be_there() -> None:
    found = problems('[plugins]\nrequired = ["fancy"]\n')
    assert "fancy" in found[0]


def test_credentials_are_not_looked_for_offline_and_a_missing_file_is_still_told() -> None:
    class Keyed(Manager):
        class Options(ManagerOptions):
            key: Secret = Field(help="A key")

    text = '[services.x]\nmanager = "keyed"\nkey = {SOURCE}\n'
    found = [plugin(ostler_managers={"keyed": Keyed})]
    for offline in (False, True):
        raw = load_text(text.replace("SOURCE", 'file = "/proc/nothing/key"'))
        with pytest.raises(ConfigurationError, match="/proc/nothing/key not found"):
            resolve_configuration(raw, {}, entry_points=found, offline=offline)
    raw = load_text(text.replace("SOURCE", 'credential = "key"'))
    with pytest.raises(ConfigurationError, match="CREDENTIALS_DIRECTORY is not set"):
        resolve_configuration(raw, {}, entry_points=found)
    assert len(resolve_configuration(raw, {}, entry_points=found, offline=True).specs) == 1


def test_what_a_manager_could_not_offer_is_found_by_name_all_of_it() -> None:
    class Wrong(Manager):
        rpc_version = "1.0"

        @exposed(version="1.1")
        def newer(self, ctx: Context) -> None: ...

        @exposed()
        def wordy(self, ctx: Context, *words: str) -> None: ...

        @exposed()
        def untyped(self, ctx: Context, name) -> None: ...

        @exposed()
        def options(self, ctx: Context) -> None: ...

    raw = load_text('[services.lamp]\nmanager = "wrong"\n')
    found = [plugin(ostler_managers={"wrong": Wrong})]
    with pytest.raises(ConfigurationError) as caught:
        resolve_configuration(raw, {}, entry_points=found)
    whole = str(caught.value)
    for words in (
        "lamp.newer was added in version 1.1",
        "argument 'words' of lamp.wordy cannot be given by name",
        "argument 'name' of lamp.untyped has",
        "lamp.options cannot be exposed: managers have an attribute of that name",
    ):
        assert words in whole
    assert whole.count("manager wrong violates the manager contract") == 4
