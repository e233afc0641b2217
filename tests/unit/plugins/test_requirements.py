"""What plugins need, and what happens when it is not there."""

from importlib import import_module

import pytest

from ostler.errors import PluginError
from ostler.hookspecs import hookimpl
from ostler.plugins import DiscoveredPlugin
from ostler.plugins.requirements import Requirements, read_requirements


class Lamp:
    pass


@pytest.fixture
def loaded(load, plugin):
    """Load plugins by what each needs; return name to state and why."""

    def run(versions=None, managers=None, **needs):
        found = []
        for name, requires in needs.items():
            contents = {} if requires is None else {"ostler_requires": requires}
            names = (managers or {}).get(name, ())
            contents["ostler_managers"] = hookimpl(lambda names=names: dict.fromkeys(names, Lamp))
            made = plugin(name, **contents)
            found.append(DiscoveredPlugin(name, name, lambda made=made: made, name, (versions or {}).get(name, "1.0")))
        host = load(found)
        return {row.name: (str(row.state), row.why) for row in host.statuses()}, host

    return run


def test_what_is_there_is_enough(loaded):
    needs = {
        "api": "1.0", "plugins": ["lamp >= 0.9"], "managers": ["lamp"],
        "packages": ["msgspec>=0.1", "nowhere; python_version < '3'"],
    }  # fmt: skip
    found, _ = loaded(managers={"lamp": ["lamp"]}, app=needs, lamp=None)
    assert found == {"app": ("loaded", ""), "lamp": ("loaded", "")}


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"api": "1.9"}, "it needs version 1.9 of the hooks (this Ostler has 1.0)"),
        (
            {"packages": ["no-such-package>=2"]},
            "it needs the Python package no-such-package>=2, which is not ",
        ),
        ({"packages": ["msgspec>=99"]}, "it needs the Python package msgspec>=99 (version "),
        ({"plugins": ["torch"]}, "it needs the plugin torch, which is not installed"),
        ({"plugins": ["lamp>=2"]}, "it needs the plugin lamp>=2 (version 1.0 is installed)"),
        ({"managers": ["lamq"]}, "it needs the manager lamq, which no loaded plugin provides, did you mean lamp?"),
    ],
)
@pytest.mark.failure_mode("Plugins", "one that needs what is not there, or itself by way of others")
def test_what_is_missing_is_named_with_what_to_install(loaded, needs, said):
    found, host = loaded(managers={"lamp": ["lamp"], "app": ["app"]}, app=needs, lamp=None)
    state, why = found["app"]
    assert state == "failed"
    assert why.startswith(said)
    assert "install" in why
    assert found["lamp"] == ("loaded", "")
    assert list(host.managers()) == ["lamp"], "it contributes nothing"


@pytest.mark.failure_mode("Plugins", "one that needs what is not there, or itself by way of others")
def test_those_that_need_one_that_failed_fail_as_well_whatever_their_names(loaded):
    found, _ = loaded(a={"plugins": ["m"]}, m={"plugins": ["z"]}, z={"packages": ["no-such-package"]}, other=None)
    assert {name: state for name, (state, _) in found.items()} == {
        "a": "failed", "m": "failed", "z": "failed", "other": "loaded",
    }  # fmt: skip
    assert found["a"][1].startswith("it needs the plugin m, which is failed: it needs the plugin z, which is failed: ")


@pytest.mark.failure_mode("Plugins", "one that needs what is not there, or itself by way of others")
def test_a_cycle_is_named_and_those_that_need_one_of_it_fail_too(loaded):
    found, _ = loaded(
        a={"plugins": ["b"]}, b={"plugins": ["c"]}, c={"plugins": ["a"]}, d={"plugins": ["a"]}, e={"plugins": ["e"]}
    )
    assert found["a"][1].startswith("it needs a -> b -> c -> a, a cycle")
    assert found["b"][1].startswith("it needs b -> c -> a -> b, a cycle")
    assert found["e"][1].startswith("it needs e -> e, a cycle")
    assert found["d"][1].startswith("it needs the plugin a, which is failed: ")


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (["volume"], "is a list, it must be a dictionary"),
        ({"plugin": ["volume"]}, "unknown key 'plugin', did you mean 'plugins'"),
        ({"plugins": "volume"}, "`plugins` of its `ostler_requires` must be a list of strings, not 'volume'"),
        ({"packages": [3]}, "must be a list of strings"),
        ({"api": 1.0}, "must be a string like '1.0', not 1.0"),
    ],
)
def test_a_declaration_that_is_not_valid_is_said(plugin, declared, said):
    with pytest.raises(PluginError) as caught:
        read_requirements(plugin(ostler_requires=declared))
    assert said in caught.value.message


def test_a_requirement_that_does_not_parse_fails_that_plugin_alone(loaded):
    found, _ = loaded(a={"plugins": ["!"]}, b={"packages": ["x >>= 1"]}, c=None)
    assert {name: state for name, (state, _) in found.items()} == {"a": "failed", "b": "failed", "c": "loaded"}
    assert "'!' of its `ostler_requires` is not a valid requirement" in found["a"][1]


def test_a_plugin_without_a_declaration_needs_nothing(plugin):
    assert read_requirements(plugin()) == Requirements()


@pytest.mark.failure_mode("Plugins", "one that needs what is not there, or itself by way of others")
def test_a_module_that_cannot_be_found_is_named_with_what_to_install(load):
    def found():
        import_module("no_such_module")

    host = load([DiscoveredPlugin("lamp", "lamp.plugin", found)])
    (status,) = host.statuses()
    assert "ModuleNotFoundError: No module named 'no_such_module'" in status.why
    assert "install the package that provides no_such_module into the environment of Ostler" in status.why
    assert (status.errors, status.last_error) == (1, status.why)
