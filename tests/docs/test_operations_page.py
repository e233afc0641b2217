"""The section of the page on operations in which a daemon is killed is typed word by word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import Terminal, type_page  # noqa: E402


@pytest.mark.timeout(120)
def test_the_volume_that_survives_a_kill_does_so_word_by_word(terminal: Terminal) -> None:
    assert type_page(ROOT / "docs" / "operations.md", terminal, word="run") > 15
