"""Plugins loaded in guarded steps, one at a time."""

import logging

import pytest

from ostler.config.core_sections import CORE_SECTIONS
from ostler.hookspecs import hookimpl
from ostler.plugins import DiscoveredPlugin, PluginHost
from ostler.plugins.hook_results import RESERVED_SECTIONS


class Lamp:
    pass


class Torch:
    pass


def managers(**named):
    return hookimpl(lambda: named)


def nothing():
    return {}


@pytest.fixture
def good(plugin):
    return plugin("lamp.plugin", ostler_managers=managers(lamp=Lamp))


def raising(error):
    def load():
        raise error

    return load


def test_a_plugin_that_fits_is_loaded_with_all_that_is_known_of_it(load, good):
    host = load([DiscoveredPlugin("lamp", "lamp.plugin", lambda: good, "ostler-lamp", "1.2")], required=["lamp"])
    (record,) = host.statuses()
    assert (record.name, record.state, record.why) == ("lamp", "loaded", "")
    assert (record.distribution, record.version, record.module) == ("ostler-lamp", "1.2", "lamp.plugin")
    assert (record.api, record.required, record.hooks) == ("1.0", True, ["ostler_managers"])
    assert record.seconds >= 0
    assert host.managers() == {"lamp": Lamp}
    assert host.owner("ostler_managers", "lamp") == "lamp"
    assert host.problems() == []


def test_plugins_have_their_turn_in_the_order_of_names(load, plugin):
    order = []
    names = ["zebra", "ant", "mole"]
    load([DiscoveredPlugin(name, name, lambda name=name: order.append(name) or plugin(name)) for name in names])
    assert order == ["ant", "mole", "zebra"]


@pytest.mark.failure_mode("Plugins", "one that fails to import")
@pytest.mark.parametrize(
    "error", [ImportError("no lamp"), SyntaxError("bad"), SystemExit(3), KeyboardInterrupt(), RuntimeError("boom")]
)
def test_a_plugin_that_fails_to_import_fails_alone(load, good, state, error, caplog):
    with caplog.at_level(logging.INFO):
        host = load([DiscoveredPlugin("a-broken", "broken.plugin", raising(error)), ("lamp", good)])
    assert state(host, "a-broken")[0] == "failed"
    assert "broken.plugin cannot be imported: " in state(host, "a-broken")[1]
    assert type(error).__name__ in state(host, "a-broken")[1]
    assert "(test_plugin_host.py:" in state(host, "a-broken")[1], "the place, in one line"
    assert state(host, "lamp") == ("loaded", "")
    assert host.managers() == {"lamp": Lamp}
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info[1] is error, "an operator finds the traceback in the log, once"


@pytest.mark.failure_mode("Plugins", "one that raises in a hook")
@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(1)])
def test_a_plugin_that_raises_in_a_hook_contributes_nothing_and_hides_nobody(load, good, plugin, state, error):
    def drivers():
        raise error

    broken = plugin(ostler_managers=managers(torch=Torch), ostler_drivers=hookimpl(drivers))
    host = load([("broken", broken), ("lamp", good), ("zebra", plugin(ostler_managers=managers(zebra=Lamp)))])
    assert state(host, "broken")[0] == "failed"
    assert state(host, "broken")[1].startswith(f"ostler_drivers failed: {type(error).__name__}: ")
    assert host.managers() == {"lamp": Lamp, "zebra": Lamp}


@pytest.mark.failure_mode("Plugins", "a misspelt hook")
def test_a_misspelt_hook_is_an_error_that_guesses(load, good, plugin, state):
    misspelt = plugin(ostler_manager=managers())
    host = load([("broken", misspelt), ("lamp", good)])
    assert state(host, "broken") == ("failed", "unknown hook ostler_manager, did you mean ostler_managers?")
    assert state(host, "lamp")[0] == "loaded"


def test_a_hook_that_nobody_knows_lists_those_there_are(load, plugin, state):
    host = load([("broken", plugin(qwxyz=managers()))])
    assert "unknown hook qwxyz; available: ostler_config_sections, ostler_drivers" in state(host, "broken")[1]


def test_an_optional_hook_may_be_unknown(load, plugin, state):
    host = load([("lamp", plugin(ostler_future=hookimpl(optionalhook=True)(lambda: None)))])
    assert state(host, "lamp")[0] == "loaded"


@pytest.mark.failure_mode("Plugins", "an async hook")
def test_an_async_hook_is_refused_before_it_is_called(load, plugin, state):
    async def ostler_managers():
        raise AssertionError

    host = load([("broken", plugin(ostler_managers=hookimpl(ostler_managers)))])
    assert "the hook ostler_managers is `async def`" in state(host, "broken")[1]


@pytest.mark.failure_mode("Plugins", "an async hook")
def test_a_hook_that_returns_a_coroutine_is_refused_and_the_coroutine_closed(load, plugin, state):
    async def work():
        raise AssertionError

    def ostler_managers():
        return work()

    host = load([("broken", plugin(ostler_managers=hookimpl(ostler_managers)))])
    assert "ostler_managers failed: it returned a coroutine" in state(host, "broken")[1]


def test_a_hook_without_its_mark_is_found_out(load, plugin, state):
    host = load([("broken", plugin(ostler_managers=nothing))])
    assert state(host, "broken") == ("failed", "the function ostler_managers is not marked with @hookimpl")


def test_a_hook_with_a_wrong_argument_is_said_in_one_line(load, plugin, state):
    host = load([("broken", plugin(ostler_started=hookimpl(lambda hosst: None)))])
    failed, why = state(host, "broken")
    assert failed == "failed"
    assert "its hooks do not match the hook specifications: " in why
    assert "hosst" in why
    assert "\n" not in why


def test_a_wrapping_hook_is_refused(load, plugin, state):
    def ostler_managers():
        yield

    host = load([("broken", plugin(ostler_managers=hookimpl(wrapper=True)(ostler_managers)))])
    assert "is a wrapper" in state(host, "broken")[1]


def test_a_failed_plugin_leaves_nothing_behind_for_the_next(load, plugin, state):
    misspelt = plugin(ostler_managr=managers())
    wrong = plugin(ostler_started=hookimpl(lambda nobody: None), ostler_managers=managers(x=Lamp))
    host = load([("a", misspelt), ("b", wrong), ("c", plugin(ostler_managers=managers(x=Torch)))])
    assert state(host, "c") == ("loaded", "")
    assert host.managers() == {"x": Torch}


@pytest.mark.failure_mode("Plugins", "one built for another API version")
@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("2.0", "it requires version 2.0 of the hooks, this Ostler has 1.3; install a newer Ostler"),
        ("1.4", "it requires version 1.4 of the hooks, this Ostler has 1.3; install a newer Ostler"),
        ("0.9", "it requires version 0.9 of the hooks, this Ostler has 1.3; install a newer version of the plugin"),
        ("one", "its `ostler_api` is 'one', it must be a string like '1.3'"),
        (1, "its `ostler_api` is 1, it must be a string like '1.3'"),
    ],
)
def test_a_plugin_for_another_api_version_is_refused_by_name(load, plugin, state, wanted, said):
    host = load([("lamp", plugin(ostler_api=wanted, ostler_managers=managers(lamp=Lamp)))], api_version="1.3")
    assert state(host, "lamp")[0] == "failed"
    assert said in state(host, "lamp")[1]
    assert host.managers() == {}


@pytest.mark.parametrize("wanted", ["1.0", "1.3"])
def test_an_older_minor_version_is_welcome(load, plugin, state, wanted):
    host = load([("lamp", plugin(ostler_api=wanted, ostler_managers=managers(lamp=Lamp)))], api_version="1.3")
    assert state(host, "lamp")[0] == "loaded"
    assert host.statuses()[0].api == wanted


@pytest.mark.failure_mode("Plugins", "two with one name")
def test_two_plugins_with_one_name_the_second_is_left_out_and_both_are_named(load, plugin):
    first = DiscoveredPlugin("lamp", "first.plugin", lambda: plugin(ostler_managers=managers(lamp=Lamp)), "dist-a", "1")
    second = DiscoveredPlugin("lamp", "second.plugin", lambda: plugin(ostler_managers=managers(x=Torch)), "dist-b", "2")
    host = load([second, first], required=["lamp"])
    assert [str(record.state) for record in host.statuses()] == ["loaded", "failed"]
    assert host.statuses()[1].why.startswith(
        "two plugins are named lamp: dist-a 1 (first.plugin) and dist-b 2 (second.plugin)"
    )
    assert host.managers() == {"lamp": Lamp}
    assert host.problems() == []


@pytest.mark.failure_mode("Plugins", "two with one name")
def test_two_plugins_that_bring_one_manager_or_driver(load, plugin, state):
    pair = hookimpl(lambda: {("lamp", "gpio"): Lamp})
    host = load(
        [
            ("a", plugin(ostler_managers=managers(lamp=Lamp))),
            ("b", plugin(ostler_managers=managers(lamp=Torch, other=Torch))),
            ("c", plugin(ostler_drivers=pair)),
            ("d", plugin(ostler_drivers=pair)),
        ]
    )
    assert "two plugins provide the manager lamp: a and b" in state(host, "b")[1]
    assert "two plugins provide the driver lamp/gpio: c and d" in state(host, "d")[1]
    assert host.managers() == {"lamp": Lamp}
    assert host.drivers() == {("lamp", "gpio"): Lamp}


def test_one_module_under_two_names_is_loaded_once(load, good, state):
    host = load([("a", good), ("b", good)])
    assert state(host, "b") == ("failed", "lamp.plugin is already loaded as plugin a")
    assert state(host, "a")[0] == "loaded"


def test_disabled_and_blocked_plugins_are_listed_and_not_imported(load, state):
    def explode():
        raise AssertionError

    found = [DiscoveredPlugin("off", "off.plugin", explode), DiscoveredPlugin("bad", "bad_thing.plugin", explode)]
    host = load(found, disabled=["off"], blocked=["bad"])
    assert state(host, "off") == ("disabled", "disabled in [plugins]")
    assert state(host, "bad") == ("blocked", "blocked in [plugins]")
    assert host.blocked_packages() == {"bad_thing": "bad"}


def test_required_plugins_that_are_missing_or_failed_are_all_told(load, good):
    host = load(
        [
            ("lamp", good),
            DiscoveredPlugin("broken", "broken.plugin", raising(ImportError("no"))),
            DiscoveredPlugin("off", "off", raising(OSError)),
        ],
        required=["lamp", "broken", "lmap", "off"],
        disabled=["off"],
    )
    said = [problem.what for problem in host.problems()]
    assert said[0].startswith("the required plugin broken is failed: broken.plugin cannot be imported")
    assert said[1] == "the required plugin lmap is not installed, did you mean lamp?"
    assert said[2] == "the required plugin off is disabled: disabled in [plugins]"
    assert len(said) == 3
    assert list(host.missing_required()) == ["broken", "lmap", "off"]


def test_names_that_nobody_has_are_a_warning_where_nothing_depends_on_them(load, good):
    host = load([("lamp", good)], disabled=["lapm"], blocked=["nothing"])
    assert host.warnings() == [
        "[plugins] disabled: plugin lapm is not installed, did you mean lamp?",
        "[plugins] blocked: plugin nothing is not installed; available: lamp",
    ]
    assert host.problems() == []


@pytest.mark.parametrize(
    ("hook", "result", "said"),
    [
        ("ostler_managers", None, "ostler_managers returned nothing, not a mapping"),
        ("ostler_managers", [("lamp", Lamp)], "not a mapping"),
        ("ostler_managers", {"lamp": 3}, "ostler_managers: lamp is 3, neither a class nor an import path"),
        ("ostler_managers", {"": Lamp}, "'' is not a valid name"),
        ("ostler_managers", {"a.b": Lamp}, "'a.b' is not a valid name"),
        ("ostler_managers", {3: Lamp}, "3 is not a valid name"),
        ("ostler_drivers", {"gpio": Lamp}, "'gpio' is not a pair (manager name, driver name)"),
        ("ostler_drivers", {("lamp", 3): Lamp}, "3 is not a valid name"),
        ("ostler_drivers", {("lamp", "gpio"): None}, "lamp/gpio is nothing, neither a class"),
        ("ostler_extensions", {"x": Lamp}, "'x' is not a pair (kind, name)"),
        ("ostler_extensions", {("scheduler.filter", "x"): None}, "scheduler.filter/x is nothing"),
        ("ostler_config_sections", {"daemon": Lamp}, "the section [daemon] is reserved for Ostler"),
        ("ostler_config_sections", {"lamp": dict}, "not a class that derives from OptionsModel"),
        ("ostler_migrations", {"ostler": "x.y"}, "the namespace ostler is reserved for Ostler"),
        ("ostler_migrations", {"a-b": "x.y"}, "'a-b' is not a valid namespace"),
        ("ostler_migrations", {"lamp": 3}, "lamp is 3, neither a package nor an import path"),
    ],
)
def test_what_a_hook_returns_has_to_have_the_right_shape(load, plugin, state, hook, result, said):
    host = load([("broken", plugin(**{hook: hookimpl(lambda: result)}))])
    assert state(host, "broken")[0] == "failed"
    assert said in state(host, "broken")[1]


def test_all_that_plugins_declare_is_merged(load, plugin):
    class Options:
        model_fields = {}

    import json as package

    host = load(
        [
            ("a", plugin(ostler_extensions=hookimpl(lambda: {("scheduler.filter", "x"): Lamp}))),
            ("b", plugin(ostler_config_sections=hookimpl(lambda: {"lamp": Options}))),
            ("c", plugin(ostler_migrations=hookimpl(lambda: {"lamp": package, "torch": "torch.migrations"}))),
            ("d", plugin(ostler_managers=hookimpl(lambda: {"lamp": "lamp.manager:Lamp"}))),
        ]
    )
    assert [str(record.state) for record in host.statuses()] == ["loaded"] * 4
    assert host.extensions() == {("scheduler.filter", "x"): Lamp}
    assert host.config_sections() == {"lamp": Options}
    assert host.migrations() == {"lamp": package, "torch": "torch.migrations"}
    assert host.managers() == {"lamp": "lamp.manager:Lamp"}
    assert host.owner("ostler_migrations", "torch") == "c"
    assert host.owner("ostler_migrations", "nobody") == ""


def test_a_plugin_may_be_an_object(load, state):
    class Plugin:
        @hookimpl
        def ostler_managers(self):
            return {"lamp": Lamp}

    host = load([("lamp", Plugin())])
    assert state(host, "lamp") == ("loaded", "")
    assert host.managers() == {"lamp": Lamp}


def test_a_plugin_without_hooks_is_loaded_and_says_so(load, plugin, state):
    assert state(load([("lamp", plugin())]), "lamp") == ("loaded", "it has no hooks")


def test_notify_reaches_every_plugin_though_one_raises(load, plugin, caplog):
    heard = []

    def fails(host):
        raise SystemExit("enough")

    async def work():
        raise AssertionError

    def sleeps():
        return work()

    host = load(
        [
            ("a", plugin(ostler_started=hookimpl(lambda host: heard.append(("a", host))))),
            ("b", plugin(ostler_started=hookimpl(fails))),
            ("c", plugin(ostler_started=hookimpl(sleeps))),
            ("d", plugin(ostler_started=hookimpl(lambda host: heard.append(("d", host))))),
            ("e", plugin(ostler_stopping=hookimpl(lambda: heard.append("stopping")))),
            ("f", plugin(ostler_started=hookimpl(fails), ostler_managr=managers())),
        ]
    )
    caplog.clear()
    problems = host.call_hooks("ostler_started", host="node1")
    assert heard == [("a", "node1"), ("d", "node1")]
    assert len(problems) == 2
    assert problems[0].startswith("plugin b: ostler_started failed: SystemExit: enough (test_plugin_host.py:")
    assert problems[1].startswith("plugin c: ostler_started failed: it returned a coroutine")
    assert len(caplog.records) == 2
    assert host.call_hooks("ostler_stopping", host="node1") == []
    assert heard[-1] == "stopping"


def test_discover_runs_once(load, good):
    loads = []
    host = load([DiscoveredPlugin("lamp", "lamp.plugin", lambda: loads.append(1) or good)])
    host.discover()
    assert loads == [1]


def test_without_entry_points_the_installed_ones_are_loaded():
    host = PluginHost()
    host.discover()
    assert {"scheduler", "volume"} <= {record.name for record in host.statuses()}


def test_every_section_of_the_daemon_is_kept_from_plugins():
    assert {*CORE_SECTIONS, "services"} == RESERVED_SECTIONS
