from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from ostler.cli import invocation, kit, view
from ostler.cli.global_options import OutputOptions
from ostler.cli.yaml_text import to_yaml
from ostler.errors import DaemonNotRunning
from support.terminal import Terminal

ROWS = [{"name": f"lamp{number}", "note": "in the hall of the house"} for number in range(50)]


def run(show: Any, *, terminal: bool = True, environ: dict[str, str] | None = None, **options: Any) -> str:
    out = Terminal() if terminal else io.StringIO()
    session = invocation.Invocation(
        json=options.get("format") in ("json", "yaml"),
        environ={"TERM": "xterm", **(environ or {})},
        output=OutputOptions(**options),
        sleep=options_sleep(2),
        now=lambda: 1_800_000_000.0,
    )
    with contextlib.redirect_stdout(out), invocation.use_invocation(session):
        view.run_view(show)
    return out.getvalue()


def options_sleep(times: int) -> Any:
    left = iter(range(times - 1))

    def sleep(_seconds: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return sleep


def pager(tmp_path: Path, text: str = "cat > {file}") -> tuple[dict[str, str], Path]:
    script, file = tmp_path / "pager", tmp_path / "paged"
    script.write_text(f"#!/bin/sh\n{text.format(file=file)}\n")
    script.chmod(0o755)
    return {"OSTLER_PAGER": str(script), "NO_COLOR": "1"}, file


def show() -> None:
    kit.show_table(ROWS, ["name", "note"])


def test_what_does_not_fit_on_the_terminal_goes_through_the_pager(tmp_path: Path) -> None:
    environ, file = pager(tmp_path)
    assert run(show, environ=environ) == ""
    assert file.read_text().count("\n") == 51


@pytest.mark.parametrize(
    ("environ", "options"),
    [({}, {"pager": False}), ({"OSTLER_PAGER": "cat"}, {}), ({"PAGER": ""}, {}), ({"PAGER": "/nowhere/less -F"}, {})],
)
def test_without_a_pager_the_terminal_gets_it_all(environ: dict[str, str], options: Any) -> None:
    assert run(show, environ={"NO_COLOR": "1", **environ}, **options).count("\n") == 51


def test_a_pager_that_is_left_early_is_no_error(tmp_path: Path) -> None:
    environ, _ = pager(tmp_path, "exit 0")
    assert run(lambda: [show() for _ in range(2000)], environ=environ) == ""


def test_what_was_shown_before_an_error_is_not_lost() -> None:
    out = Terminal()

    def fail() -> None:
        kit.say("half")
        raise DaemonNotRunning("gone")

    with contextlib.redirect_stdout(out), pytest.raises(DaemonNotRunning):
        view.run_view(fail)
    assert out.getvalue() == "half\n"


def test_a_terminal_is_told_what_did_not_fit() -> None:
    columns = [kit.Column("name", priority=0), kit.Column("note", lambda row: row["note"] * 20, priority=1)]
    show = lambda: kit.show_table(ROWS[:1], columns)  # noqa: E731
    assert "--wide shows all" in run(show, environ={"NO_COLOR": "1"})
    assert "--wide" not in run(show, environ={"NO_COLOR": "1"}, quiet=True)
    assert "--wide" not in run(show, terminal=False)
    wide = run(show, environ={"NO_COLOR": "1"}, format="wide")
    assert "in the hall of the house" * 20 in wide


def test_watching_replaces_what_the_terminal_shows() -> None:
    out = run(show, environ={"NO_COLOR": "1"}, watch=2.0)
    assert out.count("\x1b[2J") == 2
    assert "Every 2s" in out
    assert out.count("more lines") == 2
    assert all(screen.count("\n") < 24 for screen in out.split("\x1b[H")[1:])


def test_watching_in_a_pipe_appends() -> None:
    assert run(show, terminal=False, watch=2.0).count("NAME") == 2
    assert run(lambda: kit.emit({"a": 1}), terminal=False, watch=2.0, format="json") == '{"a":1}\n{"a":1}\n'
    assert run(lambda: kit.emit({"a": 1}), terminal=False, watch=2.0, format="yaml") == "---\na: 1\n---\na: 1\n"


def test_a_daemon_that_restarts_is_waited_for_while_watching() -> None:
    answers = iter([None, DaemonNotRunning("away")])

    def show() -> None:
        error = next(answers)
        if error:
            raise error
        kit.say("up")

    assert "up" in run(show, terminal=False, watch=2.0)


def test_a_watch_that_fails_at_once_is_an_error() -> None:
    def fail() -> None:
        raise DaemonNotRunning("away")

    with pytest.raises(DaemonNotRunning):
        run(fail, terminal=False, watch=2.0)


def test_only_names_or_no_titles_are_shown_if_wanted() -> None:
    assert run(lambda: kit.show_table(ROWS[:2], ["name", "note"]), format="name") == "lamp0\nlamp1\n"
    assert run(lambda: kit.show_table(ROWS[:1], ["name"]), terminal=False, headers=False) == "lamp0\n"
    assert run(lambda: kit.show_fields(ROWS[0]), format="name") == "lamp0\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ([], "[]"),
        (None, "null"),
        ("yes", '"yes"'),
        ("a: b", '"a: b"'),
        ("1.5", '"1.5"'),
        ("", '""'),
        ("a\x9b\u202e\U000e0001\n", '"a\\x9b\\u202e\\U000e0001\\n"'),
        ({"a": [1, {"b": True, "c": None}], "d e": {}}, "a:\n  - 1\n  - b: true\n    c: null\nd e: {}"),
        ([[1], []], "- - 1\n- []"),
    ],
)
def test_yaml_quotes_what_it_would_take_for_something_else(value: object, text: str) -> None:
    assert to_yaml(value) == text
