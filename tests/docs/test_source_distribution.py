"""What a source distribution holds."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDED_BY_THE_BUILD = {".gitignore", "pyproject.toml"}


def test_a_source_distribution_holds_all_of_the_source() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: there is nothing to compare with")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    here = {line.partition("/")[0] for line in listed.splitlines()}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    included = {name.strip("/") for name in build["targets"]["sdist"]["include"]}
    assert included == here - ADDED_BY_THE_BUILD
