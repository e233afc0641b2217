"""The tutorial is typed word by word, in an empty folder outside of this repository."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import Terminal, type_page  # noqa: E402


@pytest.mark.timeout(120)
def test_the_tutorial_works_word_by_word(terminal: Terminal) -> None:
    def typed(command: str) -> str:
        # Where the reader has Ostler is the one thing the page cannot know.
        return f"export OSTLER={ROOT}" if command.startswith("export OSTLER=") else command

    assert type_page(ROOT / "docs" / "tutorial.md", terminal, change=typed) > 10
