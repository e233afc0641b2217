"""Completion in a real bash, and in the protocol of the other shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ostler.cli.command_line import run_command
from ostler.cli.command_tree import COMMANDS

BIN = str(Path(sys.executable).parent)


def completed(line: str) -> list[str]:
    """Return what bash offers at the end of a line."""
    script = f"""
        eval "$(ostler completion bash)"
        COMP_WORDS=({line}); [[ {line!r} == *' ' ]] && COMP_WORDS+=('')
        COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
        "$(complete -p ostler | sed -E 's/.*-F ([^ ]+).*/\\1/')" ostler
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environ = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=environ)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ostler stat", {"status"}),
        ("ostler service fr", {"freeze"}),
        ("ostler --root /nowhere operation can", {"cancel"}),
        ("ostler status --ch", {"--check"}),
        ("ostler completion ", {"bash", "zsh", "fish"}),
        ("ostler volume snap", {"snapshot"}),
        ("ostler nosuch ", set()),
    ],
)
def test_bash_completes_commands_options_and_values(line, offered) -> None:
    assert set(completed(line)) == offered


def test_bash_offers_all_commands() -> None:
    assert set(COMMANDS) <= set(completed("ostler "))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_is_one_of_its_shell(shell, capsys) -> None:
    assert run_command(["completion", shell], {}) == 0
    script = capsys.readouterr().out
    assert "_OSTLER_COMPLETE" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_refused(capsys) -> None:
    assert run_command(["completion", "csh"], {}) == 2
    assert "csh" in capsys.readouterr().err
