"""What a manager offers as plain data, and what a change of it breaks."""

import datetime as dt
import enum
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, TypedDict  # noqa: F401 - names for the text of methods

import msgspec
import pytest

from ostler.errors import InvalidInput
from ostler.manager import Manager
from ostler.messaging import Context, RpcApi, exposed, remote
from ostler.messaging.apicheck.interface_diff import (
    MAJOR,
    MINOR,
    NEW_CLIENTS,
    NONE,
    OLD_CLIENTS,
    build_interface,
    compare_interfaces,
    format_interface,
    read_interface,
)
from ostler.testing import check_rpc_api, check_rpc_client


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Tree(msgspec.Struct):
    name: str
    children: "list[Tree]" = []


class Point(NamedTuple):
    x: int
    y: int = 0


class Row(TypedDict):
    a: int


class Admin:
    rpc_version = "2.0"

    @exposed(role="admin", version="2.0")
    async def reset(self, ctx: Context) -> None: ...


class Lamps(Manager):
    rpc_version = "1.1"
    namespaces = {"admin": Admin}

    @exposed(role="viewer", changes=False)
    def find(
        self,
        ctx: Context,
        tree: Tree,
        count: Annotated[int, msgspec.Meta(ge=1)] = 3,
        colour: Colour | None = None,
        at: Point = Point(0),  # noqa: B008
        since: dt.datetime | None = None,
        mode: Literal["a", "b"] = "a",
    ) -> dict[str, list[Tree]]:
        """Find."""

    @exposed(version="1.1", secret=["code"])
    def watch(self, ctx: Context, code: str = "hunter2") -> Iterator[Row]:
        yield Row(a=1)


def test_an_interface_is_plain_data_with_the_structure_of_every_type():
    found = build_interface("lamp", Lamps)
    assert found["namespaces"]["admin"] == {
        "rpc_version": "2.0",
        "methods": {
            "reset": {
                "version": "2.0", "role": "admin", "changes": True, "streams": False, "arguments": {}, "result": "none",
            }
        },
    }  # fmt: skip
    find, watch = (found["namespaces"][""]["methods"][name] for name in ("find", "watch"))
    assert find["arguments"] == {
        "tree": {"type": {"ref": "Tree"}, "required": True},
        "count": {"type": {"kind": "int", "ge": 1}, "required": False, "default": 3},
        "colour": {
            "type": {"kind": "union", "of": ["none", {"kind": "enum", "values": ["blue", "red"]}]},
            "required": False,
            "default": None,
        },
        "at": {"type": {"ref": "Point"}, "required": False, "default": [0, 0]},
        "since": {"type": {"kind": "union", "of": ["datetime", "none"]}, "required": False, "default": None},
        "mode": {"type": {"kind": "enum", "values": ["a", "b"]}, "required": False, "default": "a"},
    }
    assert find["result"] == {"kind": "map", "keys": "str", "values": {"kind": "list", "items": {"ref": "Tree"}}}
    assert (watch["streams"], watch["result"], watch["version"]) == (True, {"ref": "Row"}, "1.1")
    assert watch["arguments"]["code"] == {"type": "str", "required": False, "secret": True}
    assert found["types"]["Tree"] == {
        "kind": "struct",
        "fields": {
            "name": {"type": "str", "required": True},
            "children": {"type": {"kind": "list", "items": {"ref": "Tree"}}, "required": False},
        },
    }
    assert found["types"]["Point"]["kind"] == "array"
    assert found["types"]["Row"]["sparse"]
    assert "hunter2" not in format_interface(found)
    assert format_interface(found).startswith('{\n  "format": 1,\n  "manager": "lamp",')


def manager(members, version="1.0", types=None, imports=()):
    """Return a manager class from the text of its methods."""
    text = f"class M(Manager):\n    rpc_version = {version!r}\n    {members or 'pass'}"
    names = {**vars(sys.modules[__name__]), **(types or {})}
    exec(text, names)
    return names["M"]


def lamp(**fields):
    return {"Lamp": msgspec.defstruct("Lamp", list(fields.values()))}


PLAIN = "@exposed(role={role!r})\n    def m(self, ctx: Context{args}) -> {result}: ..."


def m(args="", result="None", role="operator"):
    return PLAIN.format(args=f", {args}" if args else "", result=result, role=role)


ONE = {"Lamp": msgspec.defstruct("Lamp", [("name", str)])}
WITH_DEFAULT = {"Lamp": msgspec.defstruct("Lamp", [("name", str), ("on", bool, False)])}
WITH_MORE = {"Lamp": msgspec.defstruct("Lamp", [("name", str), ("on", bool)])}
RENAMED = {"Lamp": msgspec.defstruct("Light", [("name", str)])}
OTHER = {"Lamp": msgspec.defstruct("Lamp", [("name", int)])}
LIMITED = {"Lamp": msgspec.defstruct("Lamp", [("name", Annotated[str, msgspec.Meta(max_length=5)])])}
CLOSED = {"Lamp": msgspec.defstruct("Lamp", [("name", str)], forbid_unknown_fields=True)}
CLOSED_MORE = {"Lamp": msgspec.defstruct("Lamp", [("name", str), ("on", bool, False)], forbid_unknown_fields=True)}
TAGGED = {"Lamp": msgspec.defstruct("Lamp", [("name", str)], tag="lamp")}

BOTH = {OLD_CLIENTS, NEW_CLIENTS}
CASES = [
    # what it was, what it is, whom that breaks, what is due, words of it
    (m(), m(), set(), None, ""),
    (m(), "", {OLD_CLIENTS}, MAJOR, "lamp.m was removed"),
    ("", m(), {NEW_CLIENTS}, MINOR, "lamp.m was added"),
    (m(), m("a: int"), BOTH, MAJOR, "the argument a of lamp.m was added and is required"),
    (m(), m("a: int = 1"), {NEW_CLIENTS}, MINOR, "the argument a of lamp.m was added"),
    (m("a: int"), m(), {OLD_CLIENTS}, MAJOR, "the argument a of lamp.m was removed"),
    (m("a: int = 1"), m(), {OLD_CLIENTS}, MAJOR, "was removed"),
    (m("a: int"), m("a: int = 1"), {NEW_CLIENTS}, MINOR, "is no longer required"),
    (m("a: int = 1"), m("a: int"), {OLD_CLIENTS}, MAJOR, "is now required"),
    (m("a: int = 1"), m("a: int = 2"), set(), MINOR, "has another default"),
    (m("a: int"), m("a: int | str"), {NEW_CLIENTS}, MINOR, "accepts more than before (it may be str, not int)"),
    (m("a: int"), m("a: float"), {NEW_CLIENTS}, MINOR, "accepts more than before (it may be float, not int)"),
    (m("a: int | None"), m("a: int"), {OLD_CLIENTS}, MAJOR, "accepts less than before (it may be none, not int)"),
    (m("a: int"), m("a: Annotated[int, msgspec.Meta(ge=1)]"), {OLD_CLIENTS}, MAJOR, "may be below ge 1"),
    (m("a: Annotated[str, msgspec.Meta(max_length=5)]"), m("a: str"), {NEW_CLIENTS}, MINOR, "above max_length 5"),
    (m("a: Literal['x', 'y']"), m("a: Literal['x']"), {OLD_CLIENTS}, MAJOR, "it may be 'y'"),
    (m("a: Literal['x', 'y']"), m("a: str"), {NEW_CLIENTS}, MINOR, "accepts more"),
    (m("a: dt.datetime"), m("a: str"), {NEW_CLIENTS}, MINOR, "accepts more"),
    (m("a: Colour"), m("a: Literal['red', 'blue']"), set(), None, ""),
    (m("a: list[int]"), m("a: set[int]"), set(), None, ""),
    (m("a: list[int]"), m("a: tuple[int, int]"), {OLD_CLIENTS}, MAJOR, "accepts less"),
    (m("a: tuple[int, int]"), m("a: tuple[int, int, int]"), {OLD_CLIENTS}, MAJOR, "it has 2 items, not 3"),
    (m("a: tuple[int, int]"), m("a: list[int]"), {NEW_CLIENTS}, MINOR, "accepts more"),
    (m("a: dict[str, int]"), m("a: dict[str, Any]"), {NEW_CLIENTS}, MINOR, "it[] may be any, not int"),
    (m("a: Any"), m("a: dict[str, int]"), {OLD_CLIENTS}, MAJOR, "accepts less"),
    (m(result="int"), m(result="int | None"), {OLD_CLIENTS}, MAJOR, "the result of lamp.m has changed"),
    (m(result="int | None"), m(result="int"), {NEW_CLIENTS}, MAJOR, "guarantees more than old services return"),
    (m(result="list[int]"), m(result="list[str]"), {OLD_CLIENTS}, MAJOR, "it[] may be str, not int"),
    (m(result="int"), m(result="Any"), {OLD_CLIENTS}, MAJOR, "it may be any, not int"),
    (m(role="viewer"), m(role="admin"), {OLD_CLIENTS}, MAJOR, "needs the role admin, no longer viewer"),
    (m(role="admin"), m(role="viewer"), {NEW_CLIENTS}, MINOR, "needs only the role viewer"),
    (m(result="list[int]"), "@exposed()\n    def m(self, ctx: Context) -> Iterator[int]:\n        yield 1", BOTH, MAJOR,
     "is now a stream"),
    (m(), "@exposed(changes=False)\n    def m(self, ctx: Context) -> None:\n        'Words.'", set(), NONE,
     "no longer marked"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "breaks", "due", "words"), CASES)
def test_each_change_says_whom_it_breaks_and_what_is_due(old, new, breaks, due, words):
    (report,) = compare_interfaces(build_interface("lamp", manager(old)), build_interface("lamp", manager(new)))
    assert len(report.changes) == (due is not None)
    assert report.required_bump == {MAJOR: "2.0", MINOR: "1.1"}.get(due, "1.0")
    for change in report.changes:
        assert (set(change.breaks), change.required_bump) == (breaks, due)
        assert words in str(change)


FIELDS = [
    # as an argument and as a result: whom it breaks and what is due
    (ONE, RENAMED, (set(), None), (set(), None)),
    (ONE, WITH_DEFAULT, ({NEW_CLIENTS}, MINOR), (set(), MINOR)),
    (ONE, WITH_MORE, ({OLD_CLIENTS}, MAJOR), ({NEW_CLIENTS}, MAJOR)),
    (WITH_DEFAULT, ONE, (set(), None), ({OLD_CLIENTS}, MAJOR)),
    (WITH_MORE, ONE, ({NEW_CLIENTS}, MINOR), ({OLD_CLIENTS}, MAJOR)),
    (WITH_MORE, WITH_DEFAULT, (set(), None), (set(), None)),
    (ONE, OTHER, ({OLD_CLIENTS}, MAJOR), ({OLD_CLIENTS}, MAJOR)),
    (ONE, LIMITED, ({OLD_CLIENTS}, MAJOR), ({NEW_CLIENTS}, MAJOR)),
    (CLOSED_MORE, CLOSED, ({OLD_CLIENTS}, MAJOR), ({OLD_CLIENTS}, MAJOR)),
    (CLOSED, CLOSED_MORE, ({NEW_CLIENTS}, MINOR), ({OLD_CLIENTS}, MAJOR)),
    (ONE, TAGGED, ({OLD_CLIENTS}, MAJOR), ({OLD_CLIENTS}, MAJOR)),
]


@pytest.mark.parametrize(("old", "new", "argument", "result"), FIELDS)
@pytest.mark.parametrize("inside", ["{}", "list[{}]", "dict[str, {} | None]", "tuple[int, {}]"])
def test_fields_are_compared_by_structure_wherever_they_are(old, new, argument, result, inside):
    kind = inside.format("Lamp")
    for members, (breaks, due) in ((m(f"a: {kind}"), argument), (m(result=kind), result)):
        one, other = (build_interface("lamp", manager(members, types=types)) for types in (old, new))
        (report,) = compare_interfaces(one, other)
        assert {whom for change in report.changes for whom in change.breaks} == breaks, report.changes
        assert {change.required_bump for change in report.changes} == ({due} if due else set()), report.changes


def test_types_that_hold_themselves_are_compared():
    class Old(msgspec.Struct):
        children: "list[Old]" = []
        parent: "Old | None" = None

    class New(msgspec.Struct):
        children: "list[New]" = []
        parent: "New | None" = None
        name: str = ""

    globals().update(Old=Old, New=New)
    one, other = (build_interface("lamp", manager(m("a: Tree", "Tree"), types={"Tree": kind})) for kind in (Old, New))
    (report,) = compare_interfaces(one, other)
    assert [change.required_bump for change in report.changes] == [MINOR, MINOR]
    (report,) = compare_interfaces(other, one)
    assert "Tree" not in globals() or report.required_bump == "2.0"


@pytest.fixture
def released(tmp_path):
    def write(members, version="1.0", name="lamp-1.0.json", types=None):
        (tmp_path / name).write_text(format_interface(build_interface("lamp", manager(members, version, types))))
        return tmp_path / name

    return write


NEW = "@exposed(version={!r})\n    def n(self, ctx: Context) -> None: ..."


def test_a_version_that_does_not_say_what_changed_fails_the_test_of_the_plugin(released):
    file = released(m("a: int"))
    assert check_rpc_api(manager(m("a: int")), file) == []
    with pytest.raises(AssertionError) as caught:
        check_rpc_api(manager(m("a: int = 1")), file)
    assert str(caught.value).splitlines() == [
        f"since {file}:",
        f"  the argument a of lamp.m is no longer required: breaks {NEW_CLIENTS}; requires a minor version",
        'lamp has version 1.0, but its changes require 1.1: set `rpc_version = "1.1"`',
    ]  # fmt: skip
    assert len(check_rpc_api(manager(m("a: int = 1"), "1.1"), file)) == 1
    with pytest.raises(AssertionError, match=r"its changes require 2\.0"):
        check_rpc_api(manager(m("b: int"), "1.1"), file)
    released("", "1.4")
    with pytest.raises(AssertionError, match=r"has version 1\.3, but its changes require 1\.4"):
        check_rpc_api(manager("", "1.3"), file)


def test_a_new_method_has_to_be_marked_with_its_version(released):
    file = released(m())
    with pytest.raises(AssertionError, match=r'lamp.n is new, but is marked as added in version 1.0.*`version="1.1"`'):
        check_rpc_api(manager(f"{m()}\n    {NEW.format('1.0')}", "1.1"), file)
    assert [str(change) for change in check_rpc_api(manager(f"{m()}\n    {NEW.format('1.1')}", "1.1"), file)] == [
        "lamp.n was added: breaks new clients of an old service; requires a minor version"
    ]


def test_of_a_folder_the_last_release_counts(released, tmp_path):
    with pytest.raises(InvalidInput, match="has a version in its name"):
        check_rpc_api(manager(m()), tmp_path)
    released(m(), name="lamp-1.9.json")
    released(m("a: int = 1"), "1.10", name="lamp-1.10.json")
    assert check_rpc_api(manager(m("a: int = 1"), "1.10"), tmp_path) == []


def test_namespaces_come_and_go(released, tmp_path):
    class Without(Lamps):
        namespaces = {}

    (tmp_path / "old.json").write_text(format_interface(build_interface("lamp", Lamps)))
    with pytest.raises(AssertionError, match=r"lamp\.admin was removed, but clients still call it"):
        check_rpc_api(Without, tmp_path / "old.json")
    (tmp_path / "old.json").write_text(format_interface(build_interface("lamp", Without)))
    assert [change.what for change in check_rpc_api(Lamps, tmp_path / "old.json")] == ["lamp.admin was added"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99, "namespaces": {}}'])
def test_what_is_no_interface_is_refused_by_name(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"not a (valid )?manager interface"):
        read_interface(tmp_path / "x.json")
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_interface(tmp_path / "y.json")


class LampsApi(RpcApi):
    topic = "lamp"
    rpc_version = "1.1"

    @remote()
    def find(self, tree: Tree, count: int = 3) -> dict[str, list[Tree]]: ...

    @remote(version="1.1")
    def watch(self, code: str = "") -> Iterator[Row]: ...


class AdminApi(RpcApi):
    topic = "lamp"
    namespace = "admin"
    rpc_version = "2.0"

    @remote(version="2.0")
    def reset(self) -> None: ...


class WrongApi(RpcApi):
    topic = "lamp"
    rpc_version = "1.2"

    @remote(version="1.1")
    def find(self, tree: Tree | None = None, more: int = 0) -> list[Tree]: ...

    @remote()
    def watch(self) -> Row: ...

    @remote()
    def nothing(self) -> None: ...


def test_a_typed_client_is_held_to_its_manager():
    check_rpc_client(AdminApi, Lamps)
    with pytest.raises(AssertionError) as caught:
        check_rpc_client(LampsApi, Lamps)
    assert str(caught.value) == "the argument count of LampsApi.find may be below ge 1"
    with pytest.raises(AssertionError) as caught:
        check_rpc_client(WrongApi, Lamps)
    assert str(caught.value).splitlines() == [
        "WrongApi has version 1.2, Lamps has 1.1",
        "WrongApi.find has version 1.1, the method has 1.0",
        "WrongApi.find has an argument more, which the method does not have",
        "WrongApi.find has an optional argument tree, which the method requires",
        "the argument tree of WrongApi.find may be none, not struct",
        "the result of WrongApi.find may be map, not list",
        "WrongApi.nothing is not a method of Lamps",
        "WrongApi.watch has version 1.0, the method has 1.1",
        "WrongApi.watch is not a stream, unlike the method",
    ]
    with pytest.raises(AssertionError, match="has no namespace"):
        check_rpc_client(AdminApi, manager(""))
