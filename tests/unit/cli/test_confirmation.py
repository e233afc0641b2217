from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.cli import kit
from ostler.cli.command_tree import COMMANDS, root_command
from ostler.errors import Cancelled
from support.terminal import Terminal

DESTRUCTIVE_NAMES = {"delete", "remove", "forget", "prune", "purge", "restore", "clear", "drop", "destroy"}
ONLINE = [["service", "delete", "volume", "--host", "node2"], ["operation", "prune", "--keep", "3", "--older", "2h"]]


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Any:
    def type_in(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", Terminal(text))

    return type_in


@contextlib.contextmanager
def a_screen() -> Iterator[Terminal]:
    # In the test itself: pytest replaces the streams between a fixture and its test.
    shown = Terminal()
    with contextlib.redirect_stderr(shown):
        yield shown


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " yes \n"])
def test_yes_goes_on(keyboard: Any, answer: str) -> None:
    keyboard(answer)
    with a_screen() as screen:
        kit.confirm("delete volume a")
    assert screen.getvalue() == "Delete volume a? [y/N] "


@pytest.mark.parametrize("answer", ["\n", "", "n\n", "yesterday\n", "ostler volume delete b\n"])
def test_any_other_answer_is_a_no(keyboard: Any, answer: str) -> None:
    keyboard(answer)
    with a_screen(), pytest.raises(Cancelled, match="nothing was done: delete volume a") as caught:
        kit.confirm("delete volume a")
    assert caught.value.exit_code == 1


def test_input_that_is_no_text_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noise(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Noise(io.BytesIO(b"y\xff\n"), "utf-8"))
    with a_screen(), pytest.raises(Cancelled):
        kit.confirm("delete volume a")


@pytest.mark.parametrize("stdin", [io.StringIO("n\n"), None])
def test_without_a_terminal_it_goes_on_and_reads_nothing(
    monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with a_screen() as screen:
        kit.confirm("delete volume a")
    assert screen.getvalue() == ""
    assert stdin is None or stdin.read() == "n\n"


def test_it_goes_on_where_no_question_could_be_seen(keyboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard("n\n")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    kit.confirm("delete volume a")


def test_redirected_errors_leave_the_question_on_stdout(keyboard: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keyboard("n\n")
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with pytest.raises(Cancelled):
        kit.confirm("delete volume a")
    assert shown.getvalue() == "Delete volume a? [y/N] "


def test_a_question_cannot_control_the_terminal_and_is_not_endless(keyboard: Any) -> None:
    keyboard("y\n")
    with a_screen() as screen:
        kit.confirm(f"delete volume \x1b[2J{'a' * 10_000}")
    assert "\\x1b[2J" in screen.getvalue()
    assert len(screen.getvalue()) < 500


def test_many_names_are_counted_and_cut() -> None:
    assert kit.count_of(["a"], "volume") == "volume a"
    assert kit.count_of(["a", "b"], "volume") == "2 volumes (a, b)"
    assert kit.count_of(list("abcdefgh"), "volume") == "8 volumes (a, b, c, d, e, …)"


@pytest.mark.parametrize("words", ONLINE, ids=" ".join)
def test_a_no_sends_nothing_to_the_daemon(ostler: Any, client: Any, keyboard: Any, words: list[str]) -> None:
    keyboard("n\n")
    refused = ostler(*words, terminal=True)
    assert refused.code == 1
    assert "[y/N]" in refused.err
    assert "not confirmed, nothing was done" in refused.err
    assert client.calls == []


@pytest.mark.parametrize("words", ONLINE, ids=" ".join)
def test_yes_of_the_command_line_asks_nothing(ostler: Any, client: Any, keyboard: Any, words: list[str]) -> None:
    keyboard("")
    client.answers = {("ostler", "service_delete"): None, ("ostler", "operation.prune"): 2}
    done = ostler(*words, "-y", terminal=True)
    assert (done.code, done.err) == (0, "")
    assert len(client.calls) == 1


def test_a_database_and_a_key_are_not_replaced_after_a_no(ostler: Any, keyboard: Any, tmp_path: Path) -> None:
    key, database = tmp_path / "etc" / "network.key", tmp_path / "state" / "ostler.db"
    for file in (key, database):
        file.parent.mkdir()
        file.write_text("before")
    for words in (["keys", "new", "--force"], ["db", "restore", "--empty"]):
        keyboard("n\n")
        assert ostler("--root", str(tmp_path), *words, terminal=True).code == 1
    assert key.read_text() == database.read_text() == "before"


def test_every_command_that_destroys_something_can_be_told_not_to_ask() -> None:
    root = root_command()
    without = [
        path
        for name in root.list_commands(None)
        for path, command in leaves(root.get_command(None, name), name)
        if path.rpartition(" ")[2] in DESTRUCTIVE_NAMES and "--yes" not in options_of(command)
    ]
    assert without == []
    assert "volume" in root.list_commands(None)
    assert set(COMMANDS) < set(root.list_commands(None))


def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children:
        yield path, command
    for name, child in children.items():
        yield from leaves(child, f"{path} {name}")


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}
