"""Entry points found in one walk over what is installed."""

import importlib.metadata
import os
import sys
import zipfile

import pytest

from ostler.plugins import in_memory_plugin, installed_plugins
from ostler.plugins.discovery import version_on_disk

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
    found = installed_plugins(GROUP)
    assert [(each.name, each.value, each.module, each.distribution, each.version) for each in found] == [
        ("ant", "lamp.ant:plugin", "lamp.ant", "lamp-things", "1.5"),
        ("zebra", "lamp.zebra", "lamp.zebra", "lamp-things", "1.5"),
    ]
    assert [each.name for each in installed_plugins(f"{GROUP}.commands")] == ["lamp"]


def test_a_distribution_that_is_on_the_path_twice_counts_once(tmp_path, on_path):
    for folder, version in (("first", "1"), ("second", "2")):
        distribution(tmp_path / folder, "lamp", version, f"[{GROUP}]\nlamp = lamp.plugin\n")
    on_path(tmp_path / "first", tmp_path / "second")
    assert [each.version for each in installed_plugins(GROUP)] == ["1"]


def test_a_damaged_installation_keeps_nobody_else_from_being_found(tmp_path, on_path, caplog):
    distribution(tmp_path, "broken", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")
    (tmp_path / "broken-1.dist-info" / "METADATA").unlink()
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")
    on_path(tmp_path)
    assert [each.distribution for each in installed_plugins(GROUP)] == ["lamp"]
    assert "cannot be read" in caplog.text


def test_the_module_is_imported_only_when_it_is_loaded(tmp_path, on_path):
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp_of_this_test:plugin\n")
    (tmp_path / "lamp_of_this_test.py").write_text("plugin = 'the plugin'\n")
    on_path(tmp_path)
    (found,) = installed_plugins(GROUP)
    assert "lamp_of_this_test" not in sys.modules
    assert found.load() == "the plugin"
    del sys.modules["lamp_of_this_test"]


def test_extras_comments_and_dotted_names_are_read_as_packaging_writes_them(tmp_path, on_path):
    text = f"[ {GROUP} ]\n# a remark\n\nlamp = lamp_of_this_test : Lamps.red [colour]\n\n[others]\nx = y\n"
    distribution(tmp_path, "lamp", "1", text)
    (tmp_path / "lamp_of_this_test.py").write_text("class Lamps:\n    red = 'a red lamp'\n")
    on_path(tmp_path)
    (found,) = installed_plugins(GROUP)
    assert (found.name, found.module, found.load()) == ("lamp", "lamp_of_this_test", "a red lamp")
    del sys.modules["lamp_of_this_test"]


def test_installations_that_are_linked_into_the_path_are_found(tmp_path, on_path):
    info = tmp_path / "lamp.egg-info"
    info.mkdir()
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: lamp\nVersion: 1\n\nName: of the description\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nlamp = lamp.plugin\n")
    (tmp_path / "old.egg-info").write_text("a file, as very old tools wrote it")
    on_path(tmp_path, tmp_path / "there is no such folder")
    assert [(each.distribution, each.version) for each in installed_plugins(GROUP)] == [("lamp", "1")]


def test_archives_on_the_path_are_looked_into(tmp_path, on_path):
    with zipfile.ZipFile(tmp_path / "lamp.zip", "w") as archive:
        archive.writestr("lamp-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: lamp\nVersion: 1\n")
        archive.writestr("lamp-1.dist-info/entry_points.txt", f"[{GROUP}]\nlamp = lamp.plugin\n")
    on_path(tmp_path / "lamp.zip")
    assert [(each.name, each.version) for each in installed_plugins(GROUP)] == [("lamp", "1")]


def test_distributions_of_other_finders_are_found(tmp_path, monkeypatch):
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")

    class Finder(importlib.metadata.DistributionFinder):
        def find_spec(self, *_):
            return None

        def find_distributions(self, *_):
            yield importlib.metadata.PathDistribution(tmp_path / "lamp-1.dist-info")

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert [(each.name, each.version) for each in installed_plugins(GROUP)] == [("lamp", "1")]
    assert version_on_disk("lamp") == "1"


def test_the_backport_of_importlib_metadata_changes_nothing(tmp_path, on_path, monkeypatch):
    """A plugin may have imported it: it puts a finder of what is on the path beside that of Python."""
    distribution(tmp_path, "lamp", "1", f"[{GROUP}]\nlamp = lamp.plugin\n")
    distribution(tmp_path, "~amp", "2", f"[{GROUP}]\nlamp = lamp.aside\n")

    class MetadataPathFinder:
        __module__ = "importlib_metadata"

        def find_distributions(self, *_):
            raise AssertionError("the directories are read without it")

        def find_spec(self, *_):
            return None

    on_path(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, MetadataPathFinder()])
    assert [(each.name, each.version) for each in installed_plugins(GROUP)] == [("lamp", "1")]
    assert version_on_disk("lamp") == "1"


def test_a_plugin_that_is_there_can_be_given():
    found = in_memory_plugin("lamp", sys)
    assert (found.name, found.value, found.load()) == ("lamp", "sys", sys)


def test_what_an_interrupted_installation_has_left_does_not_win(tmp_path, on_path, caplog, monkeypatch):
    for version, module in (("1.10", "new"), ("1.9", "old"), ("1.10rc1", "candidate")):
        distribution(tmp_path, "lamp", version, f"[{GROUP}]\nlamp = lamp_{module}\n")
    distribution(tmp_path, "~amp", "2.0", f"[{GROUP}]\nlamp = lamp_aside\n")
    on_path(tmp_path)
    listdir = os.listdir
    for reverse in (False, True):  # the order of a directory is chance
        # The order is that of the file system.
        monkeypatch.setattr(os, "listdir", lambda path, turn=reverse: sorted(listdir(path), reverse=turn))
        assert [(each.value, each.version) for each in installed_plugins(GROUP)] == [("lamp_new", "1.10")]
    assert "lamp is installed twice: using 1.10; 1.9 is left over" in caplog.text


def test_the_version_on_disk_is_that_of_a_new_process(tmp_path, on_path):
    on_path(tmp_path)
    assert version_on_disk("lamp-of-this-test") == ""
    distribution(tmp_path, "lamp-of-this-test", "1.5", None)
    assert version_on_disk("Lamp_of.this-test") == "1.5"
