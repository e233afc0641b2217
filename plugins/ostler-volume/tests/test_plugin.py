from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pluggy
import pytest

import ostler_volume
from ostler import Driver, Manager, hookspecs
from ostler_volume import plugin

HOME = Path(ostler_volume.__file__).parent
PUBLIC = {"ostler", "ostler.testing", "ostler.cli.kit"}


def resolved(path):
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def test_the_hooks_are_those_of_ostler_and_lead_somewhere():
    host = pluggy.PluginManager("ostler")
    host.add_hookspecs(hookspecs)
    host.register(plugin)
    host.check_pending()
    assert issubclass(resolved(plugin.ostler_managers()["volume"]), Manager)
    assert issubclass(resolved(plugin.ostler_drivers()["volume", "file"]), Driver)
    assert import_module(plugin.ostler_migrations()["volume"]).__path__


def test_the_plugin_is_light():
    """Importing it must not bring what only a running service or a command needs."""
    heavy = "pydantic", "peewee", "typer", "rich", "zmq", "ostler_volume.manager"
    code = f"import sys, ostler_volume.plugin; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda path: path.name)
def test_a_bundled_plugin_uses_public_names_only(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "ostler.cli"
                else [node.module]
            )
        for name in names:
            assert name.partition(".")[0] not in {"ostler", "ostler_scheduler"} or name in PUBLIC, (
                f"{path.name}: {name}"
            )
