"""What is left out of a configuration whose plugins are broken, or not loaded on purpose."""

import sys
from types import ModuleType

import pytest

from ostler import Driver, Field, Manager, ManagerOptions, hookimpl
from ostler.config.layers import load_text
from ostler.errors import ConfigurationError
from ostler.plugins import in_memory_plugin
from ostler.plugins.plugin_records import PluginHold, PluginRecords
from ostler.service.left_out import part_of
from ostler.service.resolve import resolve_configuration


class LampDriver(Driver):
    pass


class LampManager(Manager):
    driver_type = LampDriver


class Rule:
    pass


class RuleOptions(ManagerOptions):
    rules: list[str] = Field([], help="The rules, in their order", reload="live")


class RuleManager(Manager[RuleOptions, Driver]):
    extension_kinds = {"rule": Rule}

    @classmethod
    def validate(cls, options, others):
        for number, name in enumerate(options.rules):
            if name not in others.extensions["rule"]:
                yield ("rules", number), others.missing_extension("rule", name)
        if "never" in options.rules:
            yield "rules", "never is no rule to have"


def module(name, **contents):
    made = ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.fixture
def resolve(monkeypatch):
    """Resolve a text with a plugin `lamp` that is loaded, and a plugin `torch` that is left out."""
    lamp = module(
        "lamp",
        ostler_managers=hookimpl(lambda: {"lamp": LampManager}),
        ostler_drivers=hookimpl(lambda: {("lamp", "led"): LampDriver}),
    )
    # It must not be imported: an import by its path would find this one.
    monkeypatch.setitem(sys.modules, "torch", module("torch", Manager=LampManager, Driver=LampDriver))

    def run(text, *, held=True):
        records = PluginRecords(holds={"torch": PluginHold(why="it leaks", since=1.0)} if held else {})
        entry_points = [in_memory_plugin("lamp", lamp), in_memory_plugin("torch", module("torch"))]
        return resolve_configuration(load_text(text), {}, entry_points=entry_points, records=records)

    return run


WHY = "plugin torch is disabled: it leaks"
LAMP = '[services.lamp]\nmanager = "lamp"\n[services.lamp.drivers.desk]\ndriver = "led"\n'


def test_services_drivers_and_dependents_of_a_plugin_that_is_left_out(resolve):
    found = resolve(
        LAMP + '[services.lamp.drivers.beam]\ndriver = "beam"\nwatt = 5\n'
        '[services.lamp.drivers.path]\ndriver = "torch:Driver"\n'
        '[services.torch]\nmanager = "torch"\ncolour = "red"\n[services.path]\nmanager = "torch:Manager"\n'
        '[services.b]\nmanager = "lamp"\ndepends_on = ["a"]\n[services.a]\nmanager = "lamp"\ndepends_on = ["torch"]\n'
        '[torch]\nx = 1\n[notifications]\nwarn = ["pager", "log"]\n'
    )
    (spec,) = found.specs
    assert (spec.topic, list(spec.drivers)) == ("lamp", ["desk"])
    assert found.left_out == [
        f"driver beam of service lamp is left out: {WHY}",
        f"driver path of service lamp is left out: {WHY}",
        f"service torch is left out: {WHY}",
        f"service path is left out: {WHY}",
        "service a is left out: it needs torch, which is left out",
        "service b is left out: it needs a, which is left out",
        f"notification sink pager is left out: {WHY}",
        f"[torch] is left out: {WHY}",
    ]
    assert set(found.left_out) <= set(found.warnings)


def test_with_all_plugins_loaded_nothing_is_left_out(resolve):
    assert resolve(LAMP, held=False).left_out == []
    with pytest.raises(ConfigurationError, match="beam"):
        resolve(LAMP + '[services.lamp.drivers.beam]\ndriver = "beam"\n', held=False)


def test_errors_of_what_is_not_left_out_are_errors(resolve):
    with pytest.raises(ConfigurationError) as caught:
        resolve(LAMP + 'workers = "many"\n[services.torch]\nmanager = "torch"\n[services.c]\nworkers = 3\n')
    assert {problem.what.split(" ")[0] for problem in caught.value.problems} != set()
    assert len(caught.value.problems) == 2


@pytest.fixture
def resolve_broken():
    """Resolve a text with a plugin `torch` that cannot be loaded, and one whose objects cannot be used."""
    lamp = module(
        "lamp",
        ostler_managers=hookimpl(lambda: {"lamp": LampManager, "dark": "a_module_that_nobody_has:Manager"}),
        ostler_drivers=hookimpl(lambda: {("lamp", "led"): LampDriver, ("lamp", "odd"): dict}),
        ostler_extensions=hookimpl(lambda: {("notification sink", "bell"): dict}),
    )
    torch = module("torch", ostler_api="99.0")

    def run(text, may_leave_out=lambda _part: True):
        entry_points = [in_memory_plugin("lamp", lamp), in_memory_plugin("torch", torch)]
        return resolve_configuration(load_text(text), {}, entry_points=entry_points, may_leave_out=may_leave_out)

    return run


BROKEN = (
    LAMP + '[services.lamp.drivers.odd]\ndriver = "odd"\n[services.lamp.drivers.beam]\ndriver = "beam"\n'
    '[services.torch]\nmanager = "torch"\ncolour = "red"\n[services.dark]\nmanager = "dark"\n'
    '[services.a]\nmanager = "lamp"\ndepends_on = ["dark"]\n'
    '[torch]\nx = 1\n[notifications]\nwarn = ["bell", "pager", "log"]\n'
)


def test_what_is_broken_is_left_out_with_what_needs_it_and_why(resolve_broken):
    found = resolve_broken(BROKEN)
    (spec,) = found.specs
    assert (spec.topic, list(spec.drivers)) == ("lamp", ["desk"])
    assert [part_of(line) for line in found.broken] == [
        "[torch]",
        "notification sink bell",
        "notification sink pager",
        "driver odd of service lamp",
        "driver beam of service lamp",
        "service torch",
        "service dark",
        "service a",
    ]
    assert found.left_out == found.broken
    assert set(found.broken) <= set(found.warnings)
    assert found.configuration.notifications.warn == ["log"]
    whys = {part_of(line): line for line in found.broken}
    assert "requires version 99.0 of the hooks" in whys["service torch"]
    assert "a_module_that_nobody_has" in whys["service dark"]
    assert "violates the contract LampDriver" in whys["driver odd of service lamp"]


def test_a_reload_leaves_out_only_what_is_left_out_already(resolve_broken):
    left_out = {part_of(line) for line in resolve_broken(BROKEN).broken}
    assert {part_of(line) for line in resolve_broken(BROKEN, left_out.__contains__).broken} == left_out
    with pytest.raises(ConfigurationError) as caught:
        resolve_broken(BROKEN, (left_out - {"service dark", "driver odd of service lamp"}).__contains__)
    whats = [problem.what for problem in caught.value.problems]
    assert any("manager dark of plugin lamp cannot be used" in what for what in whats)
    assert any("driver odd violates the contract" in what for what in whats)
    assert len(whats) == 7, "and all else that is broken: one look at the error shows everything"


def test_what_is_required_or_no_plugins_fault_is_an_error(resolve_broken):
    with pytest.raises(ConfigurationError, match="hooks"):
        resolve_broken('[services.torch]\nmanager = "torch"\nrequired = true\n')
    with pytest.raises(ConfigurationError, match="acess"):
        resolve_broken("[acess]\nx = 1\n")
    with pytest.raises(ConfigurationError, match="nowhere"):
        resolve_broken('[services.b]\nmanager = "nowhere:Manager"\n')
    with pytest.raises(ConfigurationError, match="workers"):
        resolve_broken('[services.torch]\nmanager = "torch"\n[services.lamp]\nmanager = "lamp"\nworkers = "many"\n')


NEEDS = '[services.torch]\nmanager = "torch"\n[services.b]\nmanager = "lamp"\ndepends_on = ["torch"]\n'


def test_a_required_service_that_needs_a_broken_one_refuses_the_start(resolve_broken):
    with pytest.raises(ConfigurationError) as caught:
        resolve_broken(NEEDS + "required = true\n")
    whats = [problem.what for problem in caught.value.problems]
    assert "service b cannot run: it needs torch, which is left out" in whats
    assert not any("there is no [services.torch]" in what for what in whats)


def test_a_reload_leaves_out_no_service_because_it_needs_one_that_is_left_out(resolve_broken):
    left_out = {"service torch"}
    with pytest.raises(ConfigurationError, match="service b cannot run: it needs torch, which is left out"):
        resolve_broken(NEEDS, left_out.__contains__)
    assert resolve_broken(NEEDS, {*left_out, "service b"}.__contains__).specs == []


RULED = (
    '[services.judge]\nmanager = "rules"\nrules = ["light", "dark"]\n[services.lamp]\nmanager = "lamp"\n'
    '[services.court]\nmanager = "lamp"\ndepends_on = ["judge"]\n'
)


@pytest.fixture
def resolve_rules():
    """Resolve a text with a plugin `lamp` and a `torch` that is held, broken, well, or brings a broken rule."""
    lamp = module(
        "lamp",
        ostler_managers=hookimpl(lambda: {"lamp": LampManager, "rules": RuleManager}),
        ostler_extensions=hookimpl(lambda: {("rule", "light"): Rule}),
    )
    torches = {
        "held": module("torch"),
        "broken": module("torch", ostler_api="99.0"),
        "rule": module("torch", ostler_extensions=hookimpl(lambda: {("rule", "dark"): "a_module_that_nobody_has:R"})),
        "well": module("torch"),
    }

    def run(text, torch, may_leave_out=lambda _part: True):
        holds = {"torch": PluginHold(why="it leaks", since=1.0)} if torch == "held" else {}
        return resolve_configuration(
            load_text(text),
            {},
            entry_points=[in_memory_plugin("lamp", lamp), in_memory_plugin("torch", torches[torch])],
            records=PluginRecords(holds=holds),
            may_leave_out=may_leave_out,
        )

    return run


@pytest.mark.parametrize(
    ("torch", "why", "is_broken"),
    [
        ("held", "plugin torch is disabled: it leaks", False),
        ("broken", 'no installed plugin provides the rule "dark"; available: light (plugin torch failed', True),
        ("rule", 'no installed plugin provides the rule "dark"', True),
    ],
)
def test_a_service_whose_option_names_an_extension_of_such_a_plugin_is_left_out(resolve_rules, torch, why, is_broken):
    found = resolve_rules(RULED, torch)
    assert [spec.topic for spec in found.specs] == ["lamp"]
    lines = {part_of(line): line for line in found.left_out}
    assert why in lines["service judge"]
    assert lines["service court"] == "service court is left out: it needs judge, which is left out"
    assert ("service judge" in {part_of(line) for line in found.broken}) is is_broken
    required = RULED.replace('"dark"]', '"dark"]\nrequired = true')
    with pytest.raises(ConfigurationError, match="dark"):
        resolve_rules(required, torch)
    with pytest.raises(ConfigurationError, match="court cannot run: it needs judge"):
        resolve_rules(RULED + "required = true\n", torch)


def test_other_faults_of_the_service_and_unknown_names_are_errors_as_before(resolve_rules):
    with pytest.raises(ConfigurationError, match="never is no rule") as caught:
        resolve_rules(RULED.replace('"light"', '"never"'), "broken")
    (problem,) = [each for each in caught.value.problems if "no rule to have" in each.what]
    assert problem.source is not None, "with its line: the texts are kept until all is checked"
    with pytest.raises(
        ConfigurationError, match=r'services.judge.rules\[1\]: no installed plugin provides the rule "dark"'
    ):
        resolve_rules(RULED, "well")
    with pytest.raises(ConfigurationError, match="plugin torch failed"):
        resolve_rules(RULED, "broken", lambda _part: False)


def test_an_extension_that_breaks_in_another_way_refuses_no_reload(resolve_rules):
    left_out = {part_of(line) for line in resolve_rules(RULED, "broken").broken}
    found = resolve_rules(RULED, "rule", left_out.__contains__)
    assert {part_of(line) for line in found.broken} == {*left_out, "rule dark"}
    with pytest.raises(ConfigurationError, match="rule dark of plugin torch cannot be used"):
        resolve_rules(RULED, "rule", (left_out - {"service judge"}).__contains__)
