"""Which set of installed plugins a process imports from."""

from __future__ import annotations

import os
import sys

import pytest

from ostler.files import Trust
from ostler.plugins.plugin_directory import ActivePlugins, current_set, earlier_sets, is_in_use, next_set_name

TRUST = Trust.of_process()
TAG = sys.implementation.cache_tag


def make_set(directory, name, *, current=True):
    packages = directory / "sets" / name / "site-packages"
    packages.mkdir(parents=True)
    if current:
        link = directory / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"sets/{name}")
    return packages


@pytest.fixture
def active(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    return ActivePlugins()


def test_without_a_directory_nothing_changes(tmp_path, active) -> None:
    before = list(sys.path)
    assert active.activate(tmp_path / "none", TRUST) is None
    assert sys.path == before
    assert active.replaced_path() == before


def test_the_current_set_comes_after_all_else_and_stays_until_activated_again(tmp_path, active) -> None:
    first = make_set(tmp_path, f"000001.{TAG}")
    assert active.activate(tmp_path, TRUST) is None
    assert sys.path[-1] == str(first) == active.packages
    second = make_set(tmp_path, f"000002.{TAG}")
    assert sys.path[-1] == str(first)
    assert active.replaced_path()[-1] == str(second)
    assert str(first) not in active.replaced_path()
    active.activate(tmp_path, TRUST)
    assert sys.path[-1] == str(second)
    assert str(first) not in sys.path
    (tmp_path / "current").unlink()
    assert str(second) not in active.replaced_path()


def test_a_set_is_in_use_as_long_as_a_process_may_import_from_it(tmp_path, active) -> None:
    first = make_set(tmp_path, f"000001.{TAG}").parent
    assert not is_in_use(first)
    active.activate(tmp_path, TRUST)
    assert is_in_use(first)
    make_set(tmp_path, f"000002.{TAG}")
    active.activate(tmp_path, TRUST)
    assert is_in_use(first), "modules of it may be imported later"


@pytest.mark.parametrize("spoiled", ["", "sets", f"sets/000001.{TAG}", f"sets/000001.{TAG}/site-packages"])
def test_a_set_that_others_can_write_is_not_used(tmp_path, active, spoiled) -> None:
    make_set(tmp_path, f"000001.{TAG}")
    (tmp_path / spoiled).chmod(0o777)
    before = list(sys.path)
    problem = active.activate(tmp_path, TRUST)
    assert problem is not None
    assert "is writable by everyone" in problem.what
    assert sys.path == before
    assert active.activate(tmp_path, Trust(os.geteuid(), os.getegid(), all=True)) is None


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("000001.cpython-38", "installed for cpython-38"),
        ("../../etc", "does not lead to a set"),
        ("x", "does not lead"),
    ],
)
def test_a_link_to_something_else_is_named(tmp_path, active, target, said) -> None:
    make_set(tmp_path, "000001.cpython-38")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(f"sets/{target}")
    problem = active.activate(tmp_path, TRUST)
    assert problem is not None
    assert said in problem.what
    assert "ostler plugin replay" in problem.what or "install them again" in problem.what
    assert active.packages is None


def test_sets_are_numbered_and_listed_newest_first(tmp_path) -> None:
    assert next_set_name(tmp_path) == f"000001.{TAG}"
    for number in (1, 2, 9):
        make_set(tmp_path, f"{number:06}.{TAG}", current=number == 2)
    (tmp_path / "sets" / "note.txt").touch()
    assert current_set(tmp_path) == tmp_path / "sets" / f"000002.{TAG}"
    assert [path.name for path in earlier_sets(tmp_path)] == [f"000009.{TAG}", f"000001.{TAG}"]
    assert next_set_name(tmp_path) == f"000010.{TAG}"
