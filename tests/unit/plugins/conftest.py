"""Plugins made on the spot: modules of their own, and entry points to them."""

import sys
from types import ModuleType

import pytest

from ostler.plugins import DiscoveredPlugin, PluginHost, in_memory_plugin


@pytest.fixture
def module():
    """Make modules that can be imported until the test ends: `module("lamp.plugin", name=value)`."""
    made = []

    def make(name, **contents):
        new = ModuleType(name)
        vars(new).update(contents)
        for value in contents.values():
            if isinstance(value, type):
                value.__module__ = name
        sys.modules[name] = new
        made.append(name)
        return new

    yield make
    for name in made:
        del sys.modules[name]


@pytest.fixture
def plugin():
    """Make a plugin from functions: `plugin(ostler_managers=hookimpl(lambda: {}))`."""

    def make(name="plugin", **contents):
        new = ModuleType(name)
        vars(new).update(contents)
        return new

    return make


@pytest.fixture
def load():
    """Discover the plugins that are given by name and return the host."""

    def load_them(plugins, **options):
        entry_points = [each if isinstance(each, DiscoveredPlugin) else in_memory_plugin(*each) for each in plugins]
        host = PluginHost(entry_points, **options)
        host.discover()
        return host

    return load_them


@pytest.fixture
def state():
    """Return the record of a plugin by name, as `(state, why)`."""

    def of(host, name):
        (record,) = [record for record in host.statuses() if record.name == name]
        return str(record.state), record.why

    return of
