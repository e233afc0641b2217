"""The files of a new plugin: a manager, a driver contract, a driver, a command and tests, which pass as they are."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

from ostler.errors import Conflict, InvalidInput
from ostler.files import create_file, make_directory
from ostler.messaging.apicheck.interface_diff import format_interface

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

FILE_TEMPLATES = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "$dist"
version = "0.1.0"
description = "A plugin of Ostler: $name."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["ostler>=0.1,<1"]

[project.optional-dependencies]
dev = ["pytest>=8"]

[project.entry-points.ostler]
$name = "$package.plugin"

[project.entry-points."ostler.commands"]
$verb = "$package.commands:app"

[tool.hatch.build.targets.wheel]
packages = ["$package"]

[tool.pytest.ini_options]
testpaths = ["tests"]
""",
    "README.md": """\
# $dist

A plugin of Ostler. Install it into the environment of Ostler, and try it:

    pip install --editable '.[dev]'
    pytest
    ostler plugin check $name

`tests/api` contains the RPC interface of each release. A test compares the manager with the last one, and reports which
change breaks which callers and which `rpc_version` is required. Add a file with each release:

    ostler plugin api $name --output tests/api/$name-1.1.json

Configure it, for example in `/etc/ostler/conf.d/$name.toml`:

    [services.$name]
    manager = "$name"

    [services.$name.drivers.one]
    driver = "memory"
    items = ["first", "second"]

    ostler check
    systemctl restart ostler
    ostler $verb list
""",
    "$package/__init__.py": '''\
"""A plugin of Ostler: $name."""
''',
    "$package/py.typed": "",
    "$package/driver.py": '''\
"""The contract of $name drivers: what each of them must implement."""

from __future__ import annotations

from abc import abstractmethod

from ostler import Driver


class ${cls}Driver(Driver):
    """The abstract base of $name drivers."""

    @abstractmethod
    def items(self) -> dict[str, bool]:
        """Return all items of this driver, and whether each is on."""

    @abstractmethod
    def switch(self, item: str, on: bool) -> None:
        """Switch an item on or off."""
''',
    "$package/memory.py": '''\
"""A driver whose items exist in memory only."""

from __future__ import annotations

from ostler import DriverOptions, Field

from $package.driver import ${cls}Driver


class Memory${cls}Driver(${cls}Driver):
    """Items that exist in memory only."""

    class Options(DriverOptions):
        """Options of `driver = "memory"`."""

        items: list[str] = Field(["first"], help="Names of the items")

    def initialise(self) -> None:
        """Prepare the driver; retried with growing delays as long as it raises."""
        self._on = dict.fromkeys(self.options.items, False)

    def items(self) -> dict[str, bool]:
        """Return the items."""
        return dict(self._on)

    def switch(self, item: str, on: bool) -> None:
        """Store whether the item is on."""
        self._on[item] = on
''',
    "$package/manager.py": '''\
"""The manager of $name: owns the data and makes the decisions."""

from __future__ import annotations

import msgspec
from ostler import Context, Field, Manager, ManagerOptions, NotFound, Seconds, exposed, periodic

from $package.driver import ${cls}Driver


class Item(msgspec.Struct):
    """An item as returned to callers."""

    name: str
    on: bool
    driver: str


class ${cls}Manager(Manager):
    """Maps items to their drivers, and switches them."""

    rpc_version = "1.0"
    driver_type = ${cls}Driver

    class Options(ManagerOptions):
        """Options of `manager = "$name"`."""

        poll: Seconds = Field(30, gt=0, help="How often the items are read from the drivers")

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Start without items; `driver_ready` adds those of each driver."""
        self._items: dict[str, Item] = {}

    def driver_ready(self, name: str) -> None:
        """Read the items of a driver that has become ready."""
        self._look(name)

    @exposed(role="viewer", changes=False)
    def items(self, ctx: Context) -> list[Item]:
        """Return all items."""
        return sorted(self._items.values(), key=lambda item: item.name)

    @exposed(role="operator")
    def switch(self, ctx: Context, item: str, on: bool = True) -> Item:
        """Switch an item on or off."""
        found = self._items.get(item)
        if found is None:
            raise NotFound(f"item {item} not found", hint="see `ostler $verb list`")
        self.drivers[found.driver].switch(item, on)
        self._look(found.driver)
        self.client.publish("switched", {"item": item, "on": on})
        return self._items[item]

    @periodic(spacing="poll")
    def look(self, ctx: Context) -> None:
        """Read the items from the drivers."""
        for name in self.drivers.ready():
            self._look(name)

    def _look(self, driver: str) -> None:
        for name, on in self.drivers[driver].items().items():
            self._items[name] = Item(name=name, on=on, driver=driver)
''',
    "$package/api.py": '''\
"""`${cls}Api`: a typed client of $name, for programs and other managers."""

# A stub has a docstring and no body.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from ostler import RpcApi, remote

from $package.manager import Item


class ${cls}Api(RpcApi):
    """The calls of `${cls}Manager`: `${cls}Api(client).switch("first")`."""

    topic = "$name"
    rpc_version = "1.0"

    @remote()
    def items(self) -> list[Item]:
        """Return all items."""

    @remote()
    def switch(self, item: str, on: bool = True) -> Item:
        """Switch an item on or off."""
''',
    "$package/plugin.py": '''\
"""The hooks of this plugin."""

from __future__ import annotations

from ostler import hookimpl

from $package.manager import ${cls}Manager
from $package.memory import Memory${cls}Driver

ostler_api = "1.0"


@hookimpl
def ostler_managers():
    """Return the managers by their registered names."""
    return {"$name": ${cls}Manager}


@hookimpl
def ostler_drivers():
    """Return the drivers by manager and name."""
    return {("$name", "memory"): Memory${cls}Driver}
''',
    "$package/commands.py": '''\
"""`ostler $verb`."""

from __future__ import annotations

from typing import Annotated

import typer
from ostler.cli import kit

from $package.manager import Item

app = kit.app(help="Manage $name.")


@app.command("list")
def list_items() -> None:
    """List the items."""
    with kit.client() as client:
        kit.show_table(client.on(type=list[Item]).call("$name", "items"), ["name", "on", "driver"], empty="No items.")


@app.command()
def switch(
    item: Annotated[str, typer.Argument(help="The item's name")],
    off: Annotated[bool, typer.Option("--off", help="Switch it off")] = False,
) -> None:
    """Switch an item on or off."""
    with kit.client() as client:
        kit.show_fields(client.on(type=Item).call("$name", "switch", item=item, on=not off))
''',
    "tests/test_$name.py": '''\
"""Tests of the $name plugin: the service runs in this process, without a daemon or a socket."""

from pathlib import Path

import pytest
from $package.api import ${cls}Api
from $package.manager import ${cls}Manager, Item
from ostler import NotFound
from ostler.testing import check_rpc_api, check_rpc_client, host

CONFIG = """
[services.$name]
manager = "$name"

[services.$name.drivers.one]
driver = "memory"
items = ["first", "second"]
"""


def test_switching_an_item_publishes_an_event():
    with host(plugins=["$package.plugin"], config=CONFIG) as h:
        assert h.call("$name", "switch", item="first")["on"] is True
        assert [item["on"] for item in h.call("$name", "items")] == [True, False]
        assert h.events("$name.*.switched")[0].payload == {"item": "first", "on": True}


def test_an_unknown_item_is_refused():
    with host(plugins=["$package.plugin"], config=CONFIG) as h:
        with pytest.raises(NotFound, match="item third not found"):
            h.call("$name", "switch", item="third")


def test_the_typed_client_matches_the_manager():
    check_rpc_client(${cls}Api, ${cls}Manager)
    with host(plugins=["$package.plugin"], config=CONFIG) as h, h.client() as client:
        assert ${cls}Api(client).switch("second", on=False) == Item("second", False, "one")


def test_the_version_reflects_the_changes_since_the_last_release():
    # Written by `ostler plugin api $name --output tests/api/$name-1.0.json`; add a file with each release.
    check_rpc_api(${cls}Manager, Path(__file__).parent / "api")
''',
}
"""Path to text, both with placeholders `$name`, `$dist`, `$package`, `$cls` and `$verb`."""

_FIELD = {"required": True, "type": "str"}
_SWITCH = {"item": _FIELD, "on": {"default": True, "required": False, "type": "bool"}}
_METHOD = {"role": "operator", "version": "1.0", "changes": True, "streams": False}
INTERFACE_TEMPLATE: dict[str, Any] = {
    "format": 1,
    "namespaces": {
        "": {
            "rpc_version": "1.0",
            "methods": {
                "items": _METHOD
                | {"role": "viewer", "changes": False, "arguments": {}}
                | {"result": {"kind": "list", "items": {"ref": "Item"}}},
                "switch": _METHOD | {"arguments": _SWITCH, "result": {"ref": "Item"}},
            },
        }
    },
    "types": {
        "Item": {"kind": "struct", "fields": {"name": _FIELD, "on": _FIELD | {"type": "bool"}, "driver": _FIELD}}
    },
}
"""The output of `ostler plugin api` for the new manager, without its name."""


def write_plugin(name: str, parent: Path) -> list[Path]:
    """Write a new plugin to a new directory `ostler-NAME`, and return the files.

    Args:
        name: The plugin's name, which is also that of its manager and topic.
        parent: The directory in which the new one is created.

    Raises:
        InvalidInput: The name cannot be that of a Python package.
        Conflict: The directory already exists.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name} is not a valid name of a plugin", hint="use lower-case letters, digits and _, for example lamp"
        )
    words = {
        "name": name,
        "dist": f"ostler-{name.replace('_', '-')}",
        "verb": name.replace("_", "-"),
        "package": f"ostler_{name}",
        "cls": "".join(part.capitalize() for part in name.split("_")),
    }
    folder = parent / words["dist"]
    if folder.exists():
        raise Conflict(f"{folder} already exists", hint="choose another name, or another directory with --into")
    written = []
    for path, text in FILE_TEMPLATES.items():
        file = folder / Template(path).substitute(words)
        make_directory(file.parent, 0o755)
        create_file(file, Template(text).substitute(words).encode())
        written.append(file)
    api = folder / "tests" / "api" / f"{name}-1.0.json"
    make_directory(api.parent, 0o755)
    create_file(api, format_interface(INTERFACE_TEMPLATE | {"manager": name}).encode())
    return [*written, api]
