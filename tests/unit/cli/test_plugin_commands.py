from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ostler.cli.plugin_commands import ENTRY_POINT_GROUP, PluginCommands, installed_entry_points
from ostler.errors import PluginError
from ostler.plugins import DiscoveredPlugin

SOUND = """
from ostler.cli import kit
app = kit.app(help="Lamps")
@app.command("list")
def list_lamps(): kit.emit({"lamps": 0})
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, code: str, brought_by: str = "") -> None:
        module = f"{brought_by or 'ostler_' + name}_verbs_of_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(code)
        info = tmp_path / f"{brought_by or name}-1.0.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {brought_by or name}\nVersion: 1.0\nSummary: All of {name}\n"
        )
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {module}:app\n")

    return make


def test_a_plugins_verb_is_listed_without_being_imported_and_runs(ostler: Any, plugin: Any) -> None:
    plugin("lamp", SOUND)
    assert "lamp" in [point.name for point in installed_entry_points()]
    out = ostler("--help").out
    assert "Commands of plugins:" in out
    assert "All of lamp (lamp)" in out
    assert ostler("lamp", "list") == (0, "lamps  0\n", "")
    assert ostler("lamp", "list", "--json") == (0, '{"lamps":0}\n', "")


def test_a_bare_typer_app_behaves_as_our_own_do(ostler: Any, plugin: Any) -> None:
    plugin(
        "lamp",
        "import typer\napp = typer.Typer()\n@app.command()\ndef on(): 'Switch on'\n@app.command()\ndef off(): 'Off'\n",
    )
    out = ostler("lamp", "--help", terminal=True).out
    assert "--install-completion" not in out
    assert "Switch on" in out
    assert "╭" not in out


@pytest.mark.failure_mode("Plugins", "one that fails to import")
def test_a_verb_that_fails_to_import_is_one_line_and_harms_no_other(ostler: Any, plugin: Any) -> None:
    plugin("lamp", "import nothing_of_that_name\n")
    code, out, err = ostler("lamp", "list")
    assert (code, out) == (1, "")
    first, hint = err.splitlines()
    assert first.startswith("ostler: cannot import the command lamp of lamp: ModuleNotFoundError")
    assert hint.startswith("hint: fix or uninstall lamp")
    assert ostler("--help").code == 0
    assert ostler("lamq").err.startswith("ostler: unknown command lamq; did you mean `ostler lamp`?")


@pytest.mark.parametrize("code", ["raise SystemExit(0)\n", "app = 3\n", "nothing = 1\n"])
def test_a_verb_that_is_no_app_is_refused_by_name(ostler: Any, plugin: Any, code: str) -> None:
    plugin("lamp", code)
    done = ostler("lamp")
    assert done.code == 1
    assert "the command lamp of lamp" in done.err
    assert "Traceback" not in done.err


@pytest.mark.failure_mode("Plugins", "two with one name")
def test_two_plugins_with_one_verb_are_both_named(ostler: Any, plugin: Any) -> None:
    plugin("lamp", SOUND, "lamp_a")
    plugin("lamp", SOUND, "lamp_b")
    assert "the command lamp is provided by lamp_a and lamp_b" in ostler("lamp", "list").err
    assert "provided by lamp_a and lamp_b" in " ".join(ostler("--help").out.split())


def _missing() -> Any:
    raise ModuleNotFoundError("no such module")


def test_a_plugin_cannot_take_a_verb_of_ostler() -> None:
    point = DiscoveredPlugin("status", "nowhere:app", _missing)
    assert PluginCommands(["status"], lambda: [point]).names() == []


def test_an_entry_point_without_a_distribution_is_named_by_its_module() -> None:
    verbs = PluginCommands([], lambda: [DiscoveredPlugin("lamp", "nowhere_at_all:app", _missing)])
    assert verbs.help_lines() == [("lamp", "Provided by nowhere_at_all")]
    with pytest.raises(PluginError, match="the command lamp of nowhere_at_all"):
        verbs.load("lamp")
