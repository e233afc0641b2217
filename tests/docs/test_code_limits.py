"""The limits of the house: sizes of files and functions, names that are taken, words that are not used."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
MAX_FILE_LINES = 700
MAX_FUNCTION_LINES = 50
LONGEST_TEST_NAME = 79


def sources() -> list[Path]:
    places = [ROOT / "daemon", *(ROOT / "plugins").glob("*/ostler_*")]
    return sorted(path for place in places for path in place.rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
            start = (first.end_lineno or 0) if documented else node.lineno
            yield node.name, (node.end_lineno or 0) - start


def test_there_are_sources_to_look_at() -> None:
    assert len(sources()) > 80


def test_no_file_is_longer_than_its_limit() -> None:
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := p.read_text().count("\n")) > MAX_FILE_LINES}
    assert not long


def test_no_function_is_longer_than_its_limit() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {name} has {size} lines"
        for path in sources()
        for name, size in functions(path)
        if size > MAX_FUNCTION_LINES
    ]
    assert not long


def test_no_name_of_a_test_is_longer_than_its_limit() -> None:
    paths = [path for place in ("tests", "plugins") for path in (ROOT / place).rglob("*.py")]
    named = [(path, name) for path in paths for name, _ in functions(path) if name.startswith("test_")]
    assert len(named) > 2000
    assert not [f"{path.relative_to(ROOT)}: {name}" for path, name in named if len(name) > LONGEST_TEST_NAME]


def test_no_test_expects_a_line_in_the_log_before_it_is_written() -> None:
    """A thread writes the log of a daemon, later than the work it tells of: `wait_log` waits for a line."""
    early = re.compile(r"^ *assert (?!.*( not in |wait_for|\.split\()).* in \w+(\.\w+)*\.log\b.*$", re.MULTILINE)
    assert early.search('    assert "ready" in daemon.log')
    assert not early.search('    assert "Traceback" not in daemon.log')
    paths = [path for place in ("tests", "plugins") for path in (ROOT / place).rglob("test_*.py") if path != HERE]
    found = [(path, match[0]) for path in paths for match in early.finditer(path.read_text(encoding="utf-8"))]
    assert not [f"{path.relative_to(ROOT)}: {line}" for path, line in found]


def test_nothing_that_may_be_empty_is_replaced_by_a_new_one() -> None:
    """`self._queue or Queue()` makes another one whenever the queue has nothing in it: ask whether it is None."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}
    sized = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(isinstance(each, ast.FunctionDef) and each.name in ("__len__", "__bool__") for each in node.body)
    }
    assert len(sized) > 10
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or)
        for each in node.values[1:]
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Name) and each.func.id in sized
    ]
    assert found == []


def test_no_top_level_folder_is_a_package() -> None:
    assert not list(ROOT.glob("*/__init__.py"))


@pytest.mark.parametrize("word", ["plugin manager", "TODO", "FIXME", "XXX"])
def test_words_that_are_not_used(word: str) -> None:
    found = subprocess.run(
        ["git", "grep", "-lIi" if word.islower() else "-lI", word, "--", "daemon", "plugins", "docs", "README.md"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    assert not found
