"""What is imported late, when its files were replaced meanwhile."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ostler.daemon.process.code_snapshot import CodeSnapshot

NAME = "lamp_of_the_snapshot"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of which only the top is imported."""
    root = tmp_path / NAME
    (root / "parts").mkdir(parents=True)
    (root / "__init__.py").write_text("")
    (root / "shade.py").write_text("VALUE = 1\n")
    (root / "parts" / "__init__.py").write_text(f"from {NAME}.shade import VALUE\n")
    (root / "parts" / "bulb.py").write_text("from ..shade import VALUE as OTHER\nVALUE = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(NAME)
    yield root
    for name in [name for name in sys.modules if name.startswith(NAME)]:
        del sys.modules[name]


@pytest.fixture
def snapshot(package: Path) -> Iterator[CodeSnapshot]:
    """A snapshot of the package, in force."""
    made = CodeSnapshot([NAME, "no_such_package"])
    made.read()
    made.install()
    yield made
    made.remove()
    made.remove()


def test_a_module_whose_files_have_gone_is_imported_as_it_was(package: Path, snapshot: CodeSnapshot) -> None:
    snapshot.compress()
    shutil.rmtree(package)
    bulb = importlib.import_module(f"{NAME}.parts.bulb")
    assert (bulb.VALUE, bulb.OTHER) == (2, 1)
    assert bulb.__file__ == str(package / "parts" / "bulb.py")
    assert snapshot.stats()["modules"] == 3


def test_a_module_that_was_replaced_is_imported_as_it_was(package: Path, snapshot: CodeSnapshot) -> None:
    (package / "shade.py").write_text("VALUE = 'of another version'\n")
    assert importlib.import_module(f"{NAME}.shade").VALUE == 1


def test_what_is_as_it_was_comes_from_the_disk_and_what_is_new_as_well(package: Path, snapshot: CodeSnapshot) -> None:
    assert snapshot.find_spec(f"{NAME}.shade") is None
    (package / "new.py").write_text("VALUE = 3\n")
    assert importlib.import_module(f"{NAME}.new").VALUE == 3


def test_what_is_read_in_the_background_is_there_when_it_has_been_waited_for(package: Path) -> None:
    made = CodeSnapshot([NAME])
    made.read_in_background()
    assert made.wait(10)
    shutil.rmtree(package)
    made.install()
    try:
        assert importlib.import_module(f"{NAME}.shade").VALUE == 1
    finally:
        made.remove()


def test_a_pipe_a_loop_of_links_and_a_file_that_cannot_be_read_hold_up_nothing(package: Path) -> None:
    os.mkfifo(package / "pipe.py")
    (package / "away.py").symlink_to("away.py")
    (package / "again").symlink_to(".")
    (package / "abyss").symlink_to("abyss")
    made = CodeSnapshot([NAME])
    made.read_in_background()
    assert made.wait(10)
    shutil.rmtree(package)
    made.install()
    try:
        assert importlib.import_module(f"{NAME}.parts.bulb").VALUE == 2
        assert importlib.import_module(f"{NAME}.shade").VALUE == 1
    finally:
        made.remove()


def test_a_package_without_init_is_found_when_its_directory_has_gone(package: Path) -> None:
    (package / "plain").mkdir()
    (package / "plain" / "wick.py").write_text("VALUE = 4\n")
    made = CodeSnapshot([NAME])
    made.read()
    made.compress()
    made.install()
    shutil.rmtree(package)
    try:
        assert importlib.import_module(f"{NAME}.plain.wick").VALUE == 4
    finally:
        made.remove()


def test_packing_parts_with_what_was_imported_meanwhile(package: Path, snapshot: CodeSnapshot) -> None:
    importlib.import_module(f"{NAME}.shade")
    snapshot.compress()
    assert snapshot.stats()["modules"] == 2
