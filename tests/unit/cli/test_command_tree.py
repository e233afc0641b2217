from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest

from ostler.cli import command_tree, commands


def test_the_table_and_the_modules_agree() -> None:
    modules = {found.name for found in pkgutil.iter_modules(commands.__path__)}
    assert {verb.module for verb in command_tree.COMMANDS.values()} == modules
    for name, verb in command_tree.COMMANDS.items():
        assert verb.module.replace("_", "-") == name
        assert importlib.import_module(f"ostler.cli.commands.{verb.module}").app.registered_commands, name


@pytest.mark.parametrize("name", command_tree.COMMANDS)
def test_every_verb_has_help_and_a_line_that_fits(ostler: Any, name: str) -> None:
    code, out, err = ostler(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: ostler {name}")
    assert len(command_tree.COMMANDS[name].help) <= 62
    assert "..." not in out.partition("Commands:")[2], "a sub-command's first line is cut off"


def test_the_help_lists_all_verbs_with_their_lines(ostler: Any) -> None:
    code, out, _ = ostler("--help")
    assert code == 0
    for name, verb in command_tree.COMMANDS.items():
        assert f"  {name}  " in out
        assert verb.help in out
    assert "0 success, 1" in " ".join(out.split())


def test_the_help_has_all_commands_in_groups_by_purpose(ostler: Any) -> None:
    shown = ostler("--help").out
    titles = [f"{title}:" for title in command_tree.COMMAND_GROUPS]
    places = [shown.index(f"\n{title}\n") for title in [*titles, "Commands of plugins:"]]
    assert places == sorted(places)
    described = [line for line in shown.splitlines() if line.startswith("  ") and line[2:3].isalpha()]
    columns = {len(line) - len(line[2:].partition("  ")[2].lstrip()) for line in described if "  " in line[2:]}
    assert len(columns) == 1
    for name in command_tree.COMMANDS:
        assert sum(line.startswith(f"  {name} ") for line in described) == 1
