"""Each failure mode has a test that is marked with it, and docs/failure-modes.md lists them.

After a change of a marker: `OSTLER_REGENERATE=1 pytest tests/docs`, or
`python tests/docs/test_failure_modes.py > docs/failure-modes.md`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # without pytest, which reads the search path from pyproject.toml
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest

from support.failure_modes import FAILURE_MODES, ROOT, Collection, collect, files_with_tests, page

PAGE = ROOT / "docs" / "failure-modes.md"


@pytest.fixture(scope="module")
def found() -> Collection:
    return collect(files_with_tests())


def test_each_marker_names_a_failure_mode_of_the_list(found: Collection) -> None:
    assert found.problems == []


@pytest.mark.parametrize(
    ("category", "mode"), [(category, mode) for category, modes in FAILURE_MODES.items() for mode in modes]
)
def test_each_failure_mode_has_a_test(found: Collection, category: str, mode: str) -> None:
    assert found.tests.get((category, mode)), f"no test is marked with failure_mode({category!r}, {mode!r})"


def test_the_page_lists_what_the_markers_say(found: Collection) -> None:
    if os.environ.get("OSTLER_REGENERATE"):
        PAGE.write_text(page(found), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(found), "update it with OSTLER_REGENERATE=1"


if __name__ == "__main__":
    sys.stdout.write(page(collect(files_with_tests())))
