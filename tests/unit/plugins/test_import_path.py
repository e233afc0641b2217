"""From the name in a configuration to a manager or driver."""

import sys

import pytest

from ostler.errors import PluginError
from ostler.plugins import resolve_object


class Manager:
    """Stands for the base class; the plugin host knows no real one."""

    def __init__(self, environment):
        self.environment = environment


class Lamp(Manager):
    """A manager that takes its environment."""


class Single(Manager):
    """Made by its author, before there is an environment."""

    def __init__(self):
        self.count = 0


class Binds(Single):
    def bind(self, environment):
        self.bound = environment


def make_unsaid(environment):
    return Lamp(environment)


def make_lamp(environment) -> Lamp:
    return Lamp(environment)


@pytest.mark.failure_mode("Plugins", "a manager named by class, module, object and factory")
def test_a_manager_named_by_class(module):
    module("home.lamp", Lamp=Lamp)
    loaded = resolve_object("home.lamp:Lamp", Manager)
    assert (loaded.kind, loaded.cls, loaded.reference) == ("class", Lamp, "home.lamp:Lamp")
    assert loaded.build("environment").environment == "environment"


@pytest.mark.failure_mode("Plugins", "a manager named by class, module, object and factory")
def test_a_manager_named_by_module(module):
    module("home.lamp", Lamp=type("Lamp", (Manager,), {}), Another=1, sys=sys)
    loaded = resolve_object("home.lamp", Manager)
    assert loaded.cls.__name__ == "Lamp"
    assert loaded.build("environment").environment == "environment"
    assert resolve_object("home.lamp:", Manager).cls is loaded.cls


def test_classes_that_a_module_only_imports_are_not_its_own(module):
    here = module("home.lamp", Lamp=type("Lamp", (Manager,), {}))
    here.Elsewhere = Single
    here.Manager = Manager
    assert resolve_object("home.lamp", Manager).cls is here.Lamp


@pytest.mark.failure_mode("Plugins", "a manager named by class, module, object and factory")
def test_a_manager_named_by_object(module):
    single = Single()
    single.count = 7
    module("home.lamp", single=single)
    loaded = resolve_object("home.lamp:single", Manager)
    assert (loaded.kind, loaded.cls) == ("object", Single)
    built = loaded.build("environment")
    assert built is single
    assert (built.count, built.environment) == (7, "environment"), "its own construction is not run again"
    assert loaded.build("another") is single


def test_an_object_that_binds_is_told_its_environment_itself(module):
    module("home.lamp", single=Binds())
    built = resolve_object("home.lamp:single", Manager).build("environment")
    assert built.bound == "environment"
    assert not hasattr(built, "environment")


@pytest.mark.failure_mode("Plugins", "a manager named by class, module, object and factory")
def test_a_manager_named_by_factory(module):
    module("home.lamp", make=make_lamp)
    loaded = resolve_object("home.lamp:make", Manager)
    assert (loaded.kind, loaded.cls) == ("factory", Lamp), "the annotation says so, before it is called"
    assert isinstance(loaded.build("environment"), Lamp)


def test_a_factory_may_return_a_class(module):
    def make(environment) -> type[Lamp]:
        return Lamp

    module("home.lamp", make=make)
    loaded = resolve_object("home.lamp:make", Manager)
    assert loaded.cls is Lamp
    assert loaded.build("environment").environment == "environment"


def test_a_factory_that_does_not_say_what_it_returns_has_the_options_of_the_base(module):
    module("home.lamp", make=make_unsaid)
    loaded = resolve_object("home.lamp:make", Manager)
    assert loaded.cls is Manager
    assert isinstance(loaded.build("environment"), Lamp)


@pytest.mark.parametrize(("returned", "kind"), [(Lamp, "class"), (Single(), "object")])
def test_a_factory_without_arguments_is_called_at_once(module, returned, kind):
    module("home.lamp", make=lambda: returned)
    loaded = resolve_object("home.lamp:make", Manager)
    assert (loaded.kind, loaded.value) == (kind, returned)
    assert loaded.build("environment").environment == "environment"


def test_a_module_may_build(module):
    module("home.lamp", build=make_lamp)
    loaded = resolve_object("home.lamp", Manager)
    assert (loaded.kind, loaded.cls) == ("module", Lamp)
    assert isinstance(loaded.build("environment"), Lamp)


def test_a_module_that_builds_and_has_one_class_is_known_by_it(module):
    module("home.lamp", build=make_unsaid, Lamp=Lamp)
    assert resolve_object("home.lamp", Manager).cls is Lamp


def test_a_registered_name_leads_to_a_class_or_on_to_a_path(module):
    module("home.lamp", Lamp=Lamp)
    registered = {"lamp": Lamp, "far": "home.lamp:Lamp"}
    assert resolve_object("lamp", Manager, registered=registered).cls is Lamp
    assert resolve_object("far", Manager, registered=registered).cls is Lamp
    assert resolve_object("far", Manager, registered=registered).reference == "far"


def test_a_class_itself_is_a_reference():
    assert resolve_object(Lamp, Manager).cls is Lamp
    assert resolve_object(Lamp, Manager).reference.endswith(":Lamp")


def test_a_nested_name_is_followed(module):
    class Outer:
        Inner = Lamp

    module("home.lamp", Outer=Outer)
    assert resolve_object("home.lamp:Outer.Inner", Manager).cls is Lamp


def refused(reference, **options):
    with pytest.raises(PluginError) as caught:
        resolve_object(reference, Manager, **options)
    return str(caught.value)


def test_an_unknown_name_is_guessed():
    assert refused("lmap", registered={"lamp": Lamp}).startswith(
        "no plugin provides a manager named 'lmap', and no module has that name, did you mean lamp?"
    )
    assert "available: lamp, torch" in refused("zzzz", registered={"lamp": Lamp, "torch": Lamp})


def test_a_module_that_is_not_there():
    assert "module nowhere not found" in refused("nowhere.lamp:Lamp")
    assert "module json.nowhere not found" in refused("json.nowhere:Lamp")
    assert "neither a registered name nor an import path" in refused("no where:x")


def test_a_module_that_needs_one_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "needy_of_this_test.py").write_text("import missing_of_this_test\n")
    monkeypatch.syspath_prepend(tmp_path)
    said = refused("needy_of_this_test:Lamp")
    assert "cannot be imported: it needs the module missing_of_this_test, which is not installed" in said


@pytest.mark.parametrize("line", ["1/0", "raise SystemExit(3)", "raise KeyboardInterrupt", "def"])
def test_a_module_that_raises(tmp_path, monkeypatch, line):
    (tmp_path / "raises_of_this_test.py").write_text(f"{line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "raises_of_this_test:Lamp cannot be imported: " in refused("raises_of_this_test:Lamp")
    sys.modules.pop("raises_of_this_test", None)


def test_an_attribute_that_is_not_there_is_guessed(module):
    module("home.lamp", Lamp=Lamp)
    assert refused("home.lamp:Lmap") == "home.lamp:Lmap: module home.lamp has no Lmap, did you mean Lamp?"


def test_a_module_whose_attributes_raise(module):
    def attribute(name):
        raise OSError("no " + name)

    module("home.lamp", __getattr__=attribute)
    assert refused("home.lamp:Lamp") == "home.lamp:Lamp: cannot get Lamp: OSError: no Lamp"


def test_a_class_of_another_kind(module):
    module("home.other", Other=type("Other", (), {}))
    assert "is the class Other, which does not derive from Manager" in refused("home.other:Other")


def test_something_that_is_neither(module):
    module("home.lamp", number=3)
    assert "home.lamp:number is 3, not a Manager or a subclass of it; use" in refused("home.lamp:number")


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(1)])
def test_a_factory_that_fails(module, error):
    def make():
        raise error

    module("home.lamp", make=make)
    assert "the factory home.lamp:make failed: " in refused("home.lamp:make")


def test_a_factory_that_returns_nonsense(module):
    module("home.lamp", now=lambda: 3, later=lambda environment: 3)
    assert "the factory home.lamp:now returned 3, not a Manager" in refused("home.lamp:now")
    loaded = resolve_object("home.lamp:later", Manager)
    with pytest.raises(PluginError, match=r"the factory home\.lamp:later returned 3, not a Manager"):
        loaded.build("environment")


def test_a_factory_that_is_async(module):
    async def make():
        return Lamp

    module("home.lamp", make=make)
    assert "returned a coroutine, not a Manager" in refused("home.lamp:make")


def test_a_module_with_no_class_or_several(module):
    module("home.none", x=1)
    module("home.two", Lamp=type("Lamp", (Manager,), {}), Torch=type("Torch", (Manager,), {}))
    assert "the module home.none has no class derived from Manager, and no function `build`" in refused("home.none")
    said = refused("home.two")
    assert "several classes that derive from Manager: Lamp, Torch" in said
    assert "name the class: home.two:Lamp" in said


def test_what_belongs_to_a_blocked_plugin_is_not_imported():
    said = refused("bad_thing.lamp:Lamp", forbidden={"bad_thing": "bad"})
    assert said.startswith("bad_thing.lamp:Lamp belongs to the plugin bad, which is blocked")
