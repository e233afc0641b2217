"""An import inside a function says what it saves: on its line, or above the imports that it stands with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "daemon" / "ostler"
Statement = ast.Import | ast.ImportFrom


def lazy_imports(tree: ast.Module) -> Iterator[list[Statement]]:
    """Yield the imports in functions, those that follow each other together."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {node for function in functions for node in ast.walk(function)}
    for node in inner:
        for block in ("body", "orelse", "finalbody"):
            run: list[Statement] = []
            for statement in [*getattr(node, block, [])] if isinstance(getattr(node, block, None), list) else []:
                if isinstance(statement, Statement):
                    run.append(statement)
                elif run:
                    yield run
                    run = []
            if run:
                yield run


def unexplained_imports(source: str) -> list[int]:
    """Return the lines of imports in functions without a comment."""
    lines = source.splitlines()
    found = set()
    for run in lazy_imports(ast.parse(source)):
        if lines[run[0].lineno - 2].lstrip().startswith("#"):
            continue
        for statement in run:
            if not any("#" in lines[number - 1] for number in (statement.lineno, statement.end_lineno or 0)):
                found.add(statement.lineno)
    return sorted(found)


def test_every_lazy_import_says_what_it_saves() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in unexplained_imports(path.read_text(encoding="utf-8"))
    ]
    assert not found, "say in a comment what it saves or why it stands there, or move it to the top of the file"


def test_a_comment_counts_on_the_line_and_above_the_block() -> None:
    source = """
import os

def one():
    import a  # 4 ms
    import b
    if a:
        # Only with a network.
        import c
        from d import e

        from f import g
    import h
"""
    assert unexplained_imports(source) == [6, 13]
