"""Entry points found in one walk over what is installed."""

import sys

from ostler.plugins import given, installed


def distribution(folder, name, version, entry_points):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if entry_points is not None:
        (info / "entry_points.txt").write_text(entry_points)


def test_entry_points_of_the_group_are_found_sorted_by_name(tmp_path, monkeypatch):
    distribution(tmp_path, "lamp-things", "1.5", "[ostler]\nzebra = lamp.zebra\nant = lamp.ant:plugin\n")
    distribution(tmp_path, "others", "2", "[console_scripts]\nx = y:z\n\n[ostler.commands]\nlamp = y:app\n")
    distribution(tmp_path, "nothing", "3", None)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = installed()
    assert [(each.name, each.value, each.module, each.distribution, each.version) for each in found] == [
        ("ant", "lamp.ant:plugin", "lamp.ant", "lamp-things", "1.5"),
        ("zebra", "lamp.zebra", "lamp.zebra", "lamp-things", "1.5"),
    ]
    assert [each.name for each in installed("ostler.commands")] == ["lamp"]


def test_a_distribution_that_is_on_the_path_twice_counts_once(tmp_path, monkeypatch):
    for folder, version in (("first", "1"), ("second", "2")):
        distribution(tmp_path / folder, "lamp", version, "[ostler]\nlamp = lamp.plugin\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    assert [each.version for each in installed()] == ["1"]


def test_the_module_is_imported_only_when_it_is_loaded(tmp_path, monkeypatch):
    distribution(tmp_path, "lamp", "1", "[ostler]\nlamp = lamp_of_this_test:plugin\n")
    (tmp_path / "lamp_of_this_test.py").write_text("plugin = 'the plugin'\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (found,) = [each for each in installed() if each.name == "lamp"]
    assert "lamp_of_this_test" not in sys.modules
    assert found.load() == "the plugin"
    del sys.modules["lamp_of_this_test"]


def test_a_plugin_that_is_there_can_be_given():
    found = given("lamp", sys)
    assert (found.name, found.value, found.load()) == ("lamp", "sys", sys)
