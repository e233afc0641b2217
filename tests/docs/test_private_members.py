"""What tests reach into: private members with a reason, functions of modules with a reason, and no constants."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "daemon" / "ostler", *(ROOT / "plugins").glob("*/ostler_*")]
TESTS = sorted(path for place in ("tests", "plugins/*/tests") for path in ROOT.glob(f"{place}/**/*.py"))
LIBRARY_NAMES = {"_asdict", "_fields", "_make", "_replace", "_meta", "_exit"}
"""Names that are public in spite of their underscore: of named tuples, of peewee, of `os`."""
MAX_PRIVATE_USES = 130
"""Private names that all test files together may use: they are the exception."""
PROCESS_STATE = {"sys", "threading"}
"""Modules whose hooks, paths and streams a test may exchange: pytest puts them back."""

_is_private = re.compile(r"_[A-Za-z0-9]\w*").fullmatch
_is_constant = re.compile(r"_?[A-Z][A-Z0-9_]+").fullmatch
_find_reasons = re.compile(r"^# private: ((?:_\w+, )*_\w+): (\S.*)$", re.MULTILINE).findall


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_named(node: ast.expr, *names: str) -> bool:
    return isinstance(node, ast.Name) and node.id in names


def own_names(tree: ast.AST) -> Iterator[str]:
    """Yield the private names that a file defines: functions, classes, variables, and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_named(node.value, "self"):
            yield node.attr


@cache
def private_names() -> frozenset[str]:
    """Return the private names of ostler and of the bundled plugins."""
    paths = [path for place in SOURCES for path in place.rglob("*.py")]
    return frozenset(name for path in paths for name in own_names(parse(path)) if _is_private(name)) - LIBRARY_NAMES


def private_uses(tree: ast.AST) -> set[str]:
    """Return the private names of ostler that a test file uses and does not define itself."""
    used: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not _is_named(node.value, "self", "cls"):
            used.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ostler"):
            used.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            used.update(str(each.value).rpartition(".")[2] for each in node.args[:2] if isinstance(each, ast.Constant))
    return (used & private_names()) - set(own_names(tree))


def imports(tree: ast.AST) -> dict[str, str]:
    """Return what a file imports: the name that it has there, and its name with the module."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return found


def patches(tree: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield where a file exchanges a member of a module or imported class, and the whole name of that member."""
    known = imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            target, member = node.args[0], node.args[1]
            if isinstance(target, ast.Constant):
                yield node, str(target.value)
            elif isinstance(member, ast.Constant) and ast.unparse(target).partition(".")[0] in known:
                root, _, rest = ast.unparse(target).partition(".")
                yield node, ".".join(filter(None, (known[root], rest, str(member.value))))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_named(node.value, *known):
            yield node, f"{known[ast.unparse(node.value)]}.{node.attr}"


def has_comment(lines: list[str], node: ast.expr) -> bool:
    """Return whether there is a comment on the line before, or on one of the lines of an expression."""
    return lines[node.lineno - 2].lstrip().startswith("#") or any(
        "  # " in line for line in lines[node.lineno - 1 : node.end_lineno]
    )


def test_private_members_are_used_with_a_reason() -> None:
    """Use what is public, or write `# private: _name, _other: the reason` at the top of the file."""
    found, count = [], 0
    for path in TESTS:
        reasons = _find_reasons(path.read_text(encoding="utf-8"))
        used, named = private_uses(parse(path)), {name for names, _ in reasons for name in names.split(", ")}
        count += len(used)
        found += [f"{path.relative_to(ROOT)}: no reason for {name}" for name in sorted(used - named)]
        found += [f"{path.relative_to(ROOT)}: {name} is not used" for name in sorted(named - used)]
    assert not found
    assert 0 < count < MAX_PRIVATE_USES


def test_there_are_private_members_to_look_for() -> None:
    assert len(private_names()) > 1000
    tree = ast.parse(
        "from ostler.aio import x\nx._lock = x._no_such_member\nself._lock = 1\nx._closed\nm.setattr(x, '_read', 1)"
    )
    assert private_uses(tree) == {"_closed", "_read"}, "a file may define a name of its own"


def test_no_constant_of_a_module_is_patched() -> None:
    """A constant that a test needs otherwise is an argument with the constant as its default."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name}"
        for path in TESTS
        for node, name in patches(parse(path))
        if _is_constant(name.rpartition(".")[2])
    ]
    assert not found


def test_functions_of_modules_are_patched_with_a_reason() -> None:
    """Where no fake can be handed in, a comment on the line, or on the one before, says why."""
    found, count = [], 0
    for path in TESTS:
        lines = path.read_text(encoding="utf-8").splitlines()
        for node, name in patches(parse(path)):
            count += 1
            if name.partition(".")[0] not in PROCESS_STATE and not has_comment(lines, node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found
    assert count > 20


def test_what_patches_is_recognised() -> None:
    text = (
        "import os.path\nfrom ostler.aio import worker_pool as pool\n"
        "monkeypatch.setattr(pool, '_MAX', 1)\npatch.setattr('ostler.aio.LIMIT', 1)\n"
        "monkeypatch.setattr(os.path, 'realpath', 1)\npool.SIZE = 3\nmonkeypatch.setattr(made, 'LIMIT', 1)\n"
    )
    assert [name for _, name in patches(ast.parse(text))] == [
        "ostler.aio.worker_pool._MAX", "ostler.aio.LIMIT", "os.path.path.realpath", "ostler.aio.worker_pool.SIZE"
    ]  # fmt: skip
