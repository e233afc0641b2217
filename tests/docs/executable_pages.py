"""Pages that are run word by word: files to write, and consoles to type, in the order in which they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

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
