from __future__ import annotations

from typing import Any

import pytest
import typer

from ostler.cli.commands import run
from ostler.cli.fast_run import RunOptions, parse_run_options


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", RunOptions([], None)),
        ("--set a.b=1 --set=c=2 --log-level debug", RunOptions(["a.b=1", "c=2"], "debug")),
        ("--log-level=info", RunOptions([], "info")),
        ("--safe --set a=1", RunOptions(["a=1"], None, True)),
    ],
)
def test_the_options_of_run_are_read_by_hand(words: str, expected: RunOptions) -> None:
    assert parse_run_options(words.split()) == expected


@pytest.mark.parametrize("words", ["--help", "--dev", "--set", "extra", "--set a=1 --bogus", "--log-level"])
def test_what_is_not_understood_is_left_to_typer(words: str) -> None:
    assert parse_run_options(words.split()) is None


def test_typer_knows_the_same_options() -> None:
    command: Any = typer.main.get_command(run.app)
    options = {name for option in command.params for name in option.opts}
    assert options == {"--set", "--log-level", "--safe", "--dev"}


def test_the_help_of_run_says_what_its_signals_do(ostler: Any) -> None:
    code, out, _ = ostler("run", "--help")
    assert code == 0
    assert "SIGHUP" in out
