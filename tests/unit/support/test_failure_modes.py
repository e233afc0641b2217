"""The collector of failure modes, on files that nobody runs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from support.failure_modes import Collection, collect, files_with_tests, page

LIFE = ("Life", "second SIGTERM")
MARK = '@pytest.mark.failure_mode("Life", "second SIGTERM")\n'


@pytest.fixture
def collected(tmp_path: Path) -> Callable[[str], Collection]:
    def collected(text: str) -> Collection:
        path = tmp_path / "test_a.py"
        path.write_text(text, encoding="utf-8")
        return collect([path], tmp_path)

    return collected


def test_files_are_parsed_and_not_imported(collected) -> None:
    found = collected(f"import no_such_module\n\n{MARK}async def test_x(): ...\n")
    assert (found.tests, found.problems) == ({LIFE: ["test_a.py::test_x"]}, [])


def test_a_test_may_have_several_modes_and_a_mode_several_tests(collected) -> None:
    two = '@pytest.mark.failure_mode("Events", "a gap is seen")\n'
    found = collected(f"{MARK}{two}def test_x(): ...\n\n{MARK}@pytest.mark.root\ndef test_y(): ...\n")
    assert found.tests == {
        LIFE: ["test_a.py::test_x", "test_a.py::test_y"],
        ("Events", "a gap is seen"): ["test_a.py::test_x"],
    }


def test_the_tests_of_a_class_have_its_mode(collected) -> None:
    found = collected(f"{MARK}class TestLife:\n    def test_x(self): ...\n    def helper(self): ...\n")
    assert found.tests == {LIFE: ["test_a.py::TestLife::test_x"]}


def test_one_case_of_a_parametrized_test_can_have_a_mode(collected) -> None:
    case = f"pytest.param(1, marks={MARK.strip().removeprefix('@')})"
    found = collected(f"@pytest.mark.parametrize('n', [0, {case}])\ndef test_x(n): ...\n")
    assert (found.tests, found.problems) == ({LIFE: ["test_a.py::test_x"]}, [])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('"Lives", "second SIGTERM"', "test_a.py::test_x: no category 'Lives'; did you mean 'Life'?"),
        (
            '"Life", "second SIGTREM"',
            "test_a.py::test_x: no failure mode 'second SIGTREM' in 'Life'; did you mean 'second SIGTERM'?",
        ),
        ('"Life", "zzz"', "test_a.py::test_x: no failure mode 'zzz' in 'Life'; "),
        ('"Life"', "test_a.py::test_x: failure_mode takes two texts, the category and the mode"),
        ("*LIFE", "test_a.py::test_x: failure_mode takes two texts, the category and the mode"),
    ],
)
def test_a_wrong_marker_is_a_problem_with_a_hint(collected, arguments: str, problem: str) -> None:
    found = collected(f"@pytest.mark.failure_mode({arguments})\ndef test_x(): ...\n")
    assert found.tests == {}
    assert len(found.problems) == 1
    assert found.problems[0].startswith(problem)


@pytest.mark.parametrize("why", ["skip", 'skip(reason="slow")', "xfail(strict=True)"])
def test_a_test_that_never_shows_anything_does_not_count(collected, why: str) -> None:
    found = collected(f"{MARK}@pytest.mark.{why}\ndef test_x(): ...\n")
    assert (found.tests, found.problems) == (
        {},
        ["test_a.py:1: failure_mode is not a decorator of a test that runs"],
    )


def test_a_test_that_needs_something_counts(collected) -> None:
    found = collected(f"{MARK}@pytest.mark.skipif(True, reason='needs root')\ndef test_x(): ...\n")
    assert found.tests == {LIFE: ["test_a.py::test_x"]}


@pytest.mark.parametrize("text", [f"{MARK}def helper(): ...\n", f"pytestmark = {MARK[1:]}def test_x(): ...\n"])
def test_a_marker_on_anything_else_is_a_problem(collected, text: str) -> None:
    found = collected(text)
    assert (found.tests, len(found.problems)) == ({}, 1)


def test_the_page_has_a_row_for_each_mode(collected) -> None:
    assert "| second SIGTERM | `test_a.py::test_x`<br>`test_a.py::test_y` |\n" in page(
        collected(f"{MARK}def test_x(): ...\n{MARK}def test_y(): ...\n")
    )
    assert "| second SIGTERM |  |\n" in page(Collection())


def test_tests_of_plugins_are_found_after_those_of_the_daemon(tmp_path: Path) -> None:
    names = ["plugins/a/tests/test_b.py", "plugins/a/tests/conftest.py", "tests/unit/test_c.py", "tests/support/d.py"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in files_with_tests(tmp_path)] == [names[2], names[0]]
