"""Pages that are run word by word: files to write, and consoles to type, in the order in which they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

END = "--- end of command"
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class CodeBlock(NamedTuple):
    """A fenced block: its language, the words after it, its text, and its line in the page."""

    language: str
    words: list[str]
    text: str
    line: int

    @property
    def file(self) -> str:
        """The file it is the content of; empty when it is none."""
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")


class ConsoleCommand(NamedTuple):
    """What is typed after `$ `, and what is to come back, with `...` for anything."""

    typed: str
    expected: list[str]


def blocks(page: Path) -> list[CodeBlock]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        CodeBlock(match[1], match[2].split(), match[3], text.count("\n", 0, match.start()) + 1)
        for match in _FENCE.finditer(text)
    ]


def commands(block: CodeBlock) -> list[ConsoleCommand]:
    """Return the commands of a console block."""
    found: list[ConsoleCommand] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append(ConsoleCommand(line[2:], []))
        else:
            found[-1].expected.append(line)
    return found


def matches(expected: list[str], output: str) -> bool:
    """Return whether an output is what a page says, where `...` stands for anything, line ends included."""
    pattern = ".*".join(re.escape(part) for part in "\n".join(expected).strip().split("..."))
    return re.fullmatch(pattern, output.strip(), re.DOTALL) is not None


class Terminal:
    """A shell that is typed into, one command after the other, as a reader would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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


def type_page(page: Path, terminal: Terminal, *, word: str = "", change: Callable[[str], str] = str) -> int:
    """Write the files of a page and type its commands, in their order; return how many were typed.

    Args:
        page: The page.
        terminal: Where it is typed.
        word: Only the consoles with this word after the language; empty for all.
        change: Returns what is typed instead of a command.

    Raises:
        AssertionError: A command printed something else than the page says.
    """
    typed = 0
    for block in blocks(page):
        if block.file:
            target = terminal.folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
        if block.file or block.language != "console" or (word and word not in block.words):
            continue
        for command in commands(block):
            output = terminal.type(change(command.typed))
            typed += 1
            if command.expected or "setup" not in block.words:
                assert matches(command.expected, output), (
                    f"{page.name}, block of line {block.line}: $ {command.typed}\n"
                    f"--- expected\n" + "\n".join(command.expected) + f"\n--- came\n{output}"
                )
    return typed
