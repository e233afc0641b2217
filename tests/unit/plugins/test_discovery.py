"""Entry points found in one walk over what is installed."""

import sys

import pytest

from ostler.plugins import given, installed

GROUP = "group.of.this.test"


@pytest.fixture
def on_path(monkeypatch):
    """Put folders at the front of the path."""

    def put(*folders):
        monkeypatch.setattr(sys, "path", [*map(str, folders), *sys.path])

    return put


def distribution(folder, name, version, entry_points):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if entry_points is not None:
        (info / "entry_points.txt").write_text(entry_points)


def test_entry_points_of_the_group_are_found_sorted_by_name(tmp_path, on_path):
    distribution(tmp_path, "lamp-things", "1.5", f"[{GROUP}]\nzebra = lamp.zebra\nant = lamp.ant:plugin\n")
    distribution(tmp_path, "others", "2", f"[console_scripts]\nx = y:z\n\n[{GROUP}.commands]\nlamp = y:app\n")
    distribution(tmp_path, "nothing", "3", None)
    on_path(tmp_path)
    found = installed(GROUP)
    assert [(each.name, each.value, each.module, each.distribution, each.version) for each in found] == [
        ("ant", "lamp.ant:plugin", "lamp.ant", "lamp-things", "1.5"),
        ("zebra", "lamp.zebra", "lamp.zebra", "lamp-things", "1.5"),
    ]
    assert [each.name for each in installed(f"{GROUP}.commands")] == ["lamp"]


def test_a_distribution_that_is_on_the_path_twice_counts_once(tmp_path, on_path):
    for folder, version in (("first", "1"), ("second", "2")):
        distribution(tmp_path / folder, "lamp", version, f"[{GROUP}]\nlamp = lamp.plugin\n")
    on_path(tmp_path / "first", tmp_path / "second")
    assert [each.version for each in installed(GROUP)] == ["1"]


def test_a_damaged_installation_keeps_nobody_else_from_being_found(tmp_path, on_path, caplog):
    distribution(tmp_path, "broken", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")
    (tmp_path / "broken-1.dist-info" / "METADATA").unlink()
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")
    on_path(tmp_path)
    assert [each.distribution for each in installed(GROUP)] == ["lamp"]
    assert "cannot be read" in caplog.text


def test_the_module_is_imported_only_when_it_is_loaded(tmp_path, on_path):
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp_of_this_test:plugin\n")
    (tmp_path / "lamp_of_this_test.py").write_text("plugin = 'the plugin'\n")
    on_path(tmp_path)
    (found,) = installed(GROUP)
    assert "lamp_of_this_test" not in sys.modules
    assert found.load() == "the plugin"
    del sys.modules["lamp_of_this_test"]


def test_a_plugin_that_is_there_can_be_given():
    found = given("lamp", sys)
    assert (found.name, found.value, found.load()) == ("lamp", "sys", sys)
