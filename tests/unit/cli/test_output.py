from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ostler.cli import invocation, kit
from ostler.errors import InvalidInput
from support.terminal import Terminal


class Lamp(msgspec.Struct):
    name: str
    on: bool
    watts: float = 0.0


LAMPS = [Lamp("hall", True, 4.5), Lamp("a", False)]


def shown(show: Callable[[], None], *, json: bool = False, terminal: bool = False, term: str = "xterm") -> str:
    out = Terminal() if terminal else io.StringIO()
    environ = {"TERM": term} if terminal and term else {}
    with contextlib.redirect_stdout(out), invocation.use_invocation(invocation.Invocation(json=json, environ=environ)):
        show()
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


def test_a_pipe_gets_aligned_text_without_trailing_spaces_or_box_characters() -> None:
    columns: list[str | kit.Column] = ["name", "on", kit.Column("watts", right=True)]
    assert shown(lambda: kit.show_table(LAMPS, columns)) == (
        "NAME  ON   WATTS\n"
        "hall  yes    4.5\n"
        "a     no       0\n"
    )  # fmt: skip


def test_a_terminal_gets_the_same_words() -> None:
    out = shown(lambda: kit.show_table(LAMPS, ["name", "on"]), terminal=True)
    assert [line.split() for line in out.splitlines()] == [["NAME", "ON"], ["hall", "yes"], ["a", "no"]]


def test_a_terminal_that_can_only_print_lines_gets_plain_text() -> None:
    plain = shown(lambda: kit.show_table(LAMPS, ["name", "on"]))
    assert shown(lambda: kit.show_table(LAMPS, ["name", "on"]), terminal=True, term="") == plain
    assert shown(lambda: kit.show_table(LAMPS, ["name", "on"]), terminal=True, term="dumb") == plain


def test_markup_in_a_value_is_not_interpreted() -> None:
    out = shown(lambda: kit.show_table([{"name": "[red]x[/red] :smile:"}], ["name"]), terminal=True)
    assert "[red]x[/red] :smile:" in out


def test_json_has_the_rows_themselves() -> None:
    out = shown(lambda: kit.show_table(LAMPS, ["name"]), json=True)
    assert json.loads(out) == [{"name": "hall", "on": True, "watts": 4.5}, {"name": "a", "on": False, "watts": 0.0}]


def test_json_is_one_line_in_a_pipe_and_indented_on_a_terminal() -> None:
    assert shown(lambda: kit.emit({"a": 1}), json=True) == '{"a":1}\n'
    assert shown(lambda: kit.emit({"a": 1}), json=True, terminal=True) == '{\n  "a": 1\n}\n'


def test_rows_may_be_mappings_tuples_or_objects_and_columns_functions() -> None:
    assert shown(lambda: kit.show_table([{"a": 1}], ["a", "b"])) == "A  B\n1  -\n"
    assert shown(lambda: kit.show_table([("x", 2)], ["p", "q"])) == "P  Q\nx  2\n"
    twice = kit.Column("twice", lambda lamp: lamp.watts * 2)
    assert shown(lambda: kit.show_table(LAMPS[:1], [twice])) == "TWICE\n9\n"


def test_an_empty_table_is_a_sentence_on_a_terminal_and_a_header_in_a_pipe() -> None:
    assert shown(lambda: kit.show_table([], ["name"], empty="No lamps."), terminal=True) == "No lamps.\n"
    assert shown(lambda: kit.show_table([], ["name"], empty="No lamps.")) == "NAME\n"
    assert shown(lambda: kit.show_table([], ["name"], empty="No lamps."), json=True) == "[]\n"


def test_fields_of_a_struct_stand_under_each_other() -> None:
    assert shown(lambda: kit.show_fields(LAMPS[0])) == "name   hall\non     yes\nwatts  4.5\n"
    assert shown(lambda: kit.show_fields(LAMPS[0], names=["on"])) == "on  yes\n"
    assert shown(lambda: kit.show_fields({"last_run": 0}), terminal=True).split() == ["last", "run", "0"]
    assert json.loads(shown(lambda: kit.show_fields(LAMPS[0]), json=True))["name"] == "hall"


def test_emit_shows_any_value() -> None:
    assert shown(lambda: kit.emit("done")) == "done\n"
    assert shown(lambda: kit.emit(None)) == ""
    assert shown(lambda: kit.emit(3)) == "3\n"
    assert shown(lambda: kit.emit(["a", "b"])) == "a\nb\n"
    assert shown(lambda: kit.emit({"a": 1})) == "a  1\n"
    assert shown(lambda: kit.emit({})) == ""
    assert shown(lambda: kit.emit([])) == ""
    assert shown(lambda: kit.emit([{"a": 1}, {"a": 2, "b": 3}])) == "A  B\n1  -\n2  3\n"
    assert shown(lambda: kit.emit(LAMPS[:1])) == "NAME  ON   WATTS\nhall  yes  4.5\n"
    assert shown(lambda: kit.emit(None), json=True) == "null\n"
    assert json.loads(shown(lambda: kit.emit({"where": Path("/srv")}), json=True)) == {"where": "/srv"}


def test_say_and_heading_are_for_people() -> None:
    assert shown(lambda: kit.say("hello")) == "hello\n"
    assert shown(lambda: kit.say("hello"), json=True) == ""
    assert shown(lambda: kit.heading("Lamps")) == "Lamps\n"
    assert shown(lambda: kit.heading("Lamps"), terminal=True).strip() == "Lamps"
    assert shown(lambda: kit.heading("Lamps"), json=True) == ""


EVIL = "A\x1b[2J\x9b31m\x7f\u202egnp\u2066\r\nFORGED\x85\u2028[red]X[/red]"


@pytest.mark.parametrize("terminal", [False, True])
def test_no_function_of_the_kit_shows_what_somebody_else_wrote_as_it_is(terminal: bool) -> None:
    functions: list[Callable[[], None]] = [
        lambda: kit.say(EVIL),
        lambda: kit.heading(EVIL),
        lambda: kit.emit(EVIL),
        lambda: kit.emit([EVIL]),
        lambda: kit.emit({EVIL: {EVIL: [EVIL]}}),
        lambda: kit.emit([{EVIL: EVIL}, {EVIL: EVIL}]),
        lambda: kit.show_table([{"a": EVIL}], [kit.Column(EVIL, "a"), "a"]),
        lambda: kit.show_fields({EVIL: EVIL}),
    ]
    for show in functions:
        out = shown(show, terminal=terminal)
        assert not set(out) & set("\x1b\x9b\x7f\u202e\u2066\r\x85\u2028"), repr(out)
        assert "[red]X[/red]" in out.replace("\n", "").upper().replace("RED", "red")
        assert not any(line.startswith("FORGED") for line in out.splitlines())


@pytest.mark.parametrize("terminal", [False, True])
def test_json_shows_it_as_escapes_and_means_the_same(terminal: bool) -> None:
    out = shown(lambda: kit.emit({EVIL: EVIL}), json=True, terminal=terminal)
    assert not set(out) & set("\x1b\x9b\x7f\u202e\u2066\r\x85\u2028")
    assert json.loads(out) == {EVIL: EVIL}


def test_a_file_name_that_is_no_utf_8_can_be_shown_as_json() -> None:
    assert json.loads(kit.to_json({"file": os.fsdecode(b"a\xff"), "count": 1})) == {"file": "a\\udcff", "count": 1}


def test_what_is_deep_in_itself_ends_in_words() -> None:
    deep: list[object] = []
    for _ in range(1_000_000):  # since Python 3.14 the size of the stack is the limit
        deep = [deep]
    assert kit.text_of(deep) == "…"
    with pytest.raises(InvalidInput, match="too deep"):
        kit.to_json(deep)


def test_large_cells_and_many_rows_are_shown_in_bounded_time() -> None:
    out = shown(lambda: kit.show_table([{"a": "x" * 10_000_000}], ["a"]), terminal=True)
    assert out == f"A\n{'x' * 109}…\n"
    assert "(10000000 characters)" in shown(lambda: kit.show_table([{"a": "x" * 10_000_000}], ["a"]))
    out = shown(lambda: kit.show_table([{"a": number} for number in range(20_000)], ["a"]), terminal=True)
    assert out.count("\n") == 20_001
