"""The examples install, and pass their tests, ruff, mypy and the check, as a reader would try them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.plugin_environment import check_plugin, create_environment, run

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs" / "examples").iterdir())


def test_there_are_examples() -> None:
    assert [example.name for example in EXAMPLES] == ["ostler-backup"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_works(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / example.name
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    python = check_plugin(folder, create_environment(tmp_path / "environment"))
    name = example.name.removeprefix("ostler-")
    found = run(folder, python, "-m", "ostler", "plugin", "check", name, "--level", "typed")
    assert "failed" not in found
