"""The section of the page on reloads in which backends, services and plugins come and go is typed word by word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))

from executable_pages import Terminal, type_page  # noqa: E402


@pytest.mark.timeout(120)
@pytest.mark.failure_mode("Life", "a reload that fails at any of its steps")
@pytest.mark.failure_mode("Plugins", "one that is installed while the daemon runs")
def test_backends_and_services_come_and_go_under_load_word_by_word(terminal: Terminal) -> None:
    assert type_page(ROOT / "docs" / "reload.md", terminal, word="run") > 40
