"""A new plugin installs, and passes its tests, ruff, mypy and the check, whatever it was created with."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from ostler.cli.scaffold import PluginParts, select_lines, write_plugin
from ostler.errors import InvalidInput
from support.plugin_environment import check_plugin, create_environment, run

ALL_PARTS = [PluginParts(*chosen) for chosen in itertools.product((True, False), repeat=3)]


def part_names(parts: PluginParts) -> str:
    return "-".join(name for name, wanted in parts._asdict().items() if wanted) or "none"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_environment(tmp_path_factory.mktemp("environment"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("parts", ALL_PARTS, ids=part_names)
def test_a_new_plugin_passes_everything_at_once(parts: PluginParts, environment: Path, tmp_path: Path) -> None:
    name = "p" + "".join("ny"[wanted] for wanted in parts)
    folder = write_plugin(name, tmp_path, parts)[0].parent
    python = check_plugin(folder, environment)
    assert f"manager {name}" in run(folder, python, "-m", "ostler", "plugin", "check", name)
    if parts.commands:
        assert "list" in run(folder, python, "-m", "ostler", name, "--help")


@pytest.mark.parametrize("name", ["l", "a_name_of_24_characters_"[:-1] + "x", "test", "class_import", "item"])
def test_files_are_formatted_whatever_the_length_of_the_name(name: str, tmp_path: Path) -> None:
    folder = write_plugin(name, tmp_path, PluginParts(tables=True))[0].parent
    run(folder, sys.executable, "-m", "ruff", "check", "--no-cache")
    run(folder, sys.executable, "-m", "ruff", "format", "--check", "--no-cache")
    run(folder, sys.executable, "-m", "compileall", "-q", ".")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rpc", "reserved by Ostler"),
        ("manager", "reserved by Ostler"),
        ("ostler", "reserved by Ostler"),
        ("log_level", "`ostler log-level` is a command of Ostler"),
        ("a" * 25, "not a valid name"),
        ("../lamp", "not a valid name"),
        ("lamp\n", "not a valid name"),
        ("Lamp", "not a valid name"),
    ],
)
def test_names_that_cannot_work_are_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=says):
        write_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_name_of_a_command_is_free_for_a_plugin_without_commands(tmp_path: Path) -> None:
    write_plugin("events", tmp_path, PluginParts(commands=False))


def test_lines_are_selected_by_parts() -> None:
    text = "a\n%if x or y\nb\n%else\nc\n%end\nd\n"
    assert select_lines(text, {"x": False, "y": True}) == "a\nb\nd\n"
    assert select_lines(text, {"x": False, "y": False}) == "a\nc\nd\n"
