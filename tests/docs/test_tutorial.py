"""The tutorial is typed word by word, in an empty folder outside of this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import blocks, commands, matches  # noqa: E402

END = "--- end of command"


class Terminal:
    """A shell that is typed into, one command after the other, as a reader would."""

    def __init__(self, folder: Path) -> None:
        environ = {**os.environ, "HOME": str(folder), "TERM": "dumb", "COLUMNS": "200"}
        environ.pop("VIRTUAL_ENV", None)
        environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
        self._shell = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environ, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, command: str) -> str:
        """Run a command and return what it printed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command}\necho '{END}'\n")
        self._shell.stdin.flush()
        lines = []
        for line in self._shell.stdout:
            if line.rstrip("\n").endswith(END):
                lines.append(line.rstrip("\n").removesuffix(END))
                break
            lines.append(line)
        return "".join(lines)

    def close(self) -> None:
        """End the shell and what it started."""
        self._shell.communicate("kill $(jobs -p) 2>/dev/null; exit\n", timeout=20)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


@pytest.mark.timeout(120)
def test_the_tutorial_works_word_by_word(tmp_path: Path, terminal: Terminal) -> None:
    for block in blocks(ROOT / "docs" / "tutorial.md"):
        if block.file:
            target = tmp_path / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            continue
        if block.language != "console":
            continue
        for command in commands(block):
            # Where the reader has Ostler is the one thing the page cannot know.
            typed = f"export OSTLER={ROOT}" if command.typed.startswith("export OSTLER=") else command.typed
            output = terminal.type(typed)
            if command.expected or "setup" not in block.words:
                assert matches(command.expected, output), (
                    f"tutorial.md, block of line {block.line}: $ {command.typed}\n"
                    f"--- expected\n" + "\n".join(command.expected) + f"\n--- came\n{output}"
                )
