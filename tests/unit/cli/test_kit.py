from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import typer

from ostler.cli import invocation, kit
from ostler.errors import InvalidInput
from ostler.messaging.wire.request_context import Progress


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_pairs_are_json_or_else_text() -> None:
    words = ["name=hall", "watts=4", "on=true", 'tags=["x"]', "text=a=b", 'ten="10"', "empty="]
    assert kit.pairs(words) == {
        "name": "hall", "watts": 4, "on": True, "tags": ["x"], "text": "a=b", "ten": "10", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["name"], ["=x"], ["a b=1"], ["a=1", "a=2"]])
def test_words_that_are_no_pairs_are_refused(words: list[str]) -> None:
    with pytest.raises(InvalidInput):
        kit.pairs(words)


def test_the_client_follows_the_global_options(client: Any) -> None:
    with (
        invocation.use_invocation(invocation.Invocation(root="/a", connect=client.connect)),
        kit.client(),
        kit.client(timeout=5),
    ):
        pass
    with invocation.use_invocation(invocation.Invocation(timeout=7, connect=client.connect)), kit.client(timeout=5):
        pass
    assert client.opened == [("/a", 60.0), ("/a", 5), (None, 7)]
    assert client.closed == 3


def test_progress_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with invocation.use_invocation(invocation.Invocation()), kit.progress("copying") as on_progress:
        on_progress(Progress(1, 2, ""))
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal_and_only_when_there_is_something_to_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Keyboard()
    monkeypatch.setattr(sys, "stderr", screen)
    with invocation.use_invocation(invocation.Invocation(environ={"TERM": "xterm"})):
        with kit.progress("copying") as on_progress:
            pass
        assert screen.getvalue() == ""
        with kit.progress("copying") as on_progress:
            on_progress(Progress(1, 2, ""))
            on_progress(Progress(2, 2, "image [red]"))
    assert "copying" in screen.getvalue()
    assert "image [red]" in screen.getvalue()
    assert capsys.readouterr().out == ""


def test_an_app_with_one_command_keeps_its_name() -> None:
    app = kit.app(help="Lamps")
    app.command("list")(lambda: None)
    assert list(typer.main.get_command(app).commands) == ["list"]  # type: ignore[attr-defined]
