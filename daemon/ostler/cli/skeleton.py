"""The files of a new plugin: a manager, a driver contract, a driver, a verb and a test that pass as they are."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template
from typing import Any

from ostler.errors import Conflict, InvalidInput
from ostler.files import create_file, make_directory
from ostler.messaging.interface import as_text

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

FILES = {
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

A plugin of Ostler. Install it beside Ostler, and try it:

    pip install --editable '.[dev]'
    pytest
    ostler plugin check $name

`tests/api` holds what each release offers to its callers. A test compares the manager with the last one, and says which
change breaks whom and which `rpc_version` is due. Write the next one with each release:

    ostler plugin api $name --output tests/api/$name-1.1.json

Configure it, for instance in `/etc/ostler/conf.d/$name.toml`:

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
"""The contract of $name drivers: what every one of them must be able to do."""

from __future__ import annotations

from abc import abstractmethod

from ostler import Driver


class ${cls}Driver(Driver):
    """What every $name driver must be able to do; says what, never how."""

    @abstractmethod
    def items(self) -> dict[str, bool]:
        """Return every item that this driver knows, and whether it is on."""

    @abstractmethod
    def switch(self, item: str, on: bool) -> None:
        """Switch an item on or off."""
''',
    "$package/memory.py": '''\
"""A driver whose items exist in memory alone."""

from __future__ import annotations

from ostler import DriverOptions, Field

from $package.driver import ${cls}Driver


class Memory${cls}Driver(${cls}Driver):
    """Items that exist in memory alone."""

    class Options(DriverOptions):
        """Options of `driver = "memory"`."""

        items: list[str] = Field(["first"], help="Names of the items")

    def initialise(self) -> None:
        """Get ready; tried again with growing waits as long as it raises."""
        self._on = dict.fromkeys(self.options.items, False)

    def items(self) -> dict[str, bool]:
        """Return the items."""
        return dict(self._on)

    def switch(self, item: str, on: bool) -> None:
        """Remember whether the item is on."""
        self._on[item] = on
''',
    "$package/manager.py": '''\
"""The manager of $name: owns the data and decides."""

from __future__ import annotations

import msgspec
from ostler import Context, Field, Manager, ManagerOptions, NotFound, Seconds, exposed, periodic

from $package.driver import ${cls}Driver


class Item(msgspec.Struct):
    """An item, as callers see it."""

    name: str
    on: bool
    driver: str


class ${cls}Manager(Manager):
    """Knows which driver has which item, and switches them."""

    rpc_version = "1.0"
    driver_type = ${cls}Driver

    class Options(ManagerOptions):
        """Options of `manager = "$name"`."""

        poll: Seconds = Field(30, gt=0, help="How often the drivers are asked for their items")

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Begin without items; they come with their drivers."""
        self._items: dict[str, Item] = {}

    def driver_ready(self, name: str) -> None:
        """Take over the items of a driver that has become ready."""
        self._look(name)

    @exposed(role="viewer", changes=False)
    def items(self, ctx: Context) -> list[Item]:
        """Return every item."""
        return sorted(self._items.values(), key=lambda item: item.name)

    @exposed(role="operator")
    def switch(self, ctx: Context, item: str, on: bool = True) -> Item:
        """Switch an item on or off."""
        found = self._items.get(item)
        if found is None:
            raise NotFound(f"there is no item {item}", hint="see `ostler $verb list`")
        self.drivers[found.driver].switch(item, on)
        self._look(found.driver)
        self.client.publish("switched", {"item": item, "on": on})
        return self._items[item]

    @periodic(spacing="poll")
    def look(self, ctx: Context) -> None:
        """Ask the drivers for their items."""
        for name in self.drivers.ready():
            self._look(name)

    def _look(self, driver: str) -> None:
        for name, on in self.drivers[driver].items().items():
            self._items[name] = Item(name=name, on=on, driver=driver)
''',
    "$package/api.py": '''\
"""`${cls}Api`: $name from other programs and managers, with types."""

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
        """Return every item."""

    @remote()
    def switch(self, item: str, on: bool = True) -> Item:
        """Switch an item on or off."""
''',
    "$package/plugin.py": '''\
"""What this plugin brings."""

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

app = kit.app(help="Look after $name.")


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


def test_an_item_is_switched_and_tells_so():
    with host(plugins=["$package.plugin"], config=CONFIG) as h:
        assert h.call("$name", "switch", item="first")["on"] is True
        assert [item["on"] for item in h.call("$name", "items")] == [True, False]
        assert h.events("$name.*.switched")[0].payload == {"item": "first", "on": True}


def test_an_item_that_is_not_there_is_refused_by_name():
    with host(plugins=["$package.plugin"], config=CONFIG) as h:
        with pytest.raises(NotFound, match="there is no item third"):
            h.call("$name", "switch", item="third")


def test_the_typed_client_says_what_the_manager_says():
    check_rpc_client(${cls}Api, ${cls}Manager)
    with host(plugins=["$package.plugin"], config=CONFIG) as h, h.client() as client:
        assert ${cls}Api(client).switch("second", on=False) == Item("second", False, "one")


def test_the_version_says_what_changed_since_the_last_release():
    # Written by `ostler plugin api $name --output tests/api/$name-1.0.json`; with each release another one.
    check_rpc_api(${cls}Manager, Path(__file__).parent / "api")
''',
}
"""Path to text, both with `$name`, `$dist`, `$package`, `$cls` and `$verb` in them."""

_FIELD = {"required": True, "type": "str"}
_SWITCH = {"item": _FIELD, "on": {"default": True, "required": False, "type": "bool"}}
_METHOD = {"role": "operator", "version": "1.0", "changes": True, "streams": False}
INTERFACE: dict[str, Any] = {
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
"""What `ostler plugin api` says of the new manager, but for its name."""


def write(name: str, into: Path) -> list[Path]:
    """Write a new plugin into a new folder `ostler-NAME`, and return the files.

    Args:
        name: The plugin's name, which is also that of its manager and topic.
        into: The folder in which the new one is made.

    Raises:
        InvalidInput: The name cannot be one of a Python package.
        Conflict: The folder is there already.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name} cannot be the name of a plugin", hint="use small letters, digits and _, for instance lamp"
        )
    words = {
        "name": name,
        "dist": f"ostler-{name.replace('_', '-')}",
        "verb": name.replace("_", "-"),
        "package": f"ostler_{name}",
        "cls": "".join(part.capitalize() for part in name.split("_")),
    }
    folder = into / words["dist"]
    if folder.exists():
        raise Conflict(f"{folder} is there already", hint="choose another name, or another folder with --into")
    written = []
    for path, text in FILES.items():
        file = folder / Template(path).substitute(words)
        make_directory(file.parent, 0o755)
        create_file(file, Template(text).substitute(words).encode())
        written.append(file)
    api = folder / "tests" / "api" / f"{name}-1.0.json"
    make_directory(api.parent, 0o755)
    create_file(api, as_text(INTERFACE | {"manager": name}).encode())
    return [*written, api]
