"""Messages, help texts and pages use plain technical English: a list of phrases that are wrong everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]

BANNED = {
    r"there (?:is|are) no (?:volume|service|plugin|snapshot|backend|driver|manager|method|topic|file|key|upload)\b": (
        "X not found"
    ),
    r"\bis no (?:valid|such|\w+ (?:of|for)|key|option|size|time|text|TOML|UTF-8|number|name|app|method)\b": (
        "is not a valid X"
    ),
    r"\bthere (?:is|are): ": "available: …",
    r"\b(?:is|are) there already\b": "already exists",
    r"\btake another name\b": "choose another name",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\banew\b": "again",
    r"\bfor who\b": "for the caller, for whoever",
    r"\bbrings? (?:it|them|the|a|no)\b|\bbrought (?:by|along)\b": "provides, applies, provided by, included",
    r"\btaken back\b": "cancelled, undone",
    r"\bcome(?:s)? again\b": "be retried",
    r"\bby itself\b": "automatically",
    r"\bat one glance\b": "summary",
    r"\bfor ever\b": "indefinitely",
    r"\bbeside\b": "alongside, next to, in addition to",
    r"\boperator's word\b": "operator override",
    r"\bfolders?\b": "directory",
    r"\bstrangers?\b": "third parties, unauthorised peers",
    r"\bnot well\b|\b[Aa]ll is well\b": "problems, no problems",
    r"\bcannot be reached for\b": "unreachable for",
    r"\btried again by itself\b": "retrying",
    r"\bnobody takes\b": "no host can serve",
    r"\bsomebody else listens\b": "X is already in use",
    r"\bhas got no thread\b": "could not start a thread",
    r"\bsigns of life\b": "is responding again",
    r"\bwhat is no (?:request|message)\b": "an invalid request",
    r"\bas a manager has to be\b": "violates the manager contract",
    r"\bsee DESIGN\b|\bDESIGN \d": "refer to pages of this repository only",
    r"\bverbs?\b": "command",
    r"\bwaited in vain\b": "timed out waiting for",
    r"\bhas not come back\b": "has not returned, hangs",
    r"\b[Tt]raps?\b": "failure mode",
    r"\bliving (?:service|daemon|host|thread|process)\w*\b": "running",
}
"""Regular expression to what to write instead. Only what is wrong wherever it stands."""

QUOTED = re.compile(r"`[^`]*`|\{[^{}]*\}|\[\w[\w.]*\]|https?://\S+")
"""Names, commands and placeholders within a text: they are not prose."""

EXEMPT = ("docs/decisions.md", "docs/failure-modes.md", "docs/reliability.md")
"""The record of decisions, whose older entries keep their words, and pages whose rows name tests and attacks."""


@cache
def tracked(*patterns: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def complaints(text: str) -> list[str]:
    prose = QUOTED.sub("X", text)
    return [
        f"{match[0]!r}: write {instead!r}" for phrase, instead in BANNED.items() for match in re.finditer(phrase, prose)
    ]


def texts_of(node: ast.AST) -> Iterator[ast.Constant]:
    for child in ast.walk(node):
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child


def messages(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the string constants of what is raised, logged and printed, and of `hint=`, `help=` and the like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            for argument in node.exc.args:
                yield from texts_of(argument)
        if isinstance(node, ast.keyword) and node.arg in {"hint", "help", "expects", "empty", "epilog"}:
            yield from texts_of(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOGGING:
            for argument in node.args:
                yield from texts_of(argument)


LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "say", "warn", "heading"}


def found_in(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    if not name.endswith(".py"):
        prose = re.sub(r"^```.*?^```|^(?: {4}|\t).*?$", "", text, flags=re.DOTALL | re.MULTILINE)
        return [f"{name}: {complaint}" for complaint in complaints(prose)]
    return [
        f"{name}:{text.lineno}: {complaint}"
        for text in messages(ast.parse(text))
        for complaint in complaints(str(text.value))
    ]


@pytest.mark.parametrize(
    "patterns",
    [
        ("daemon/ostler/*.py", "plugins/*/ostler_*/*.py"),
        ("docs/*.md", "*README.md", "CHANGELOG.md", "conf/ostler.toml"),
    ],
    ids=["messages", "pages"],
)
def test_no_text_has_a_banned_phrase(patterns: tuple[str, ...]) -> None:
    names = [name for name in tracked(*patterns) if not name.startswith(EXEMPT)]
    assert names
    assert [line for name in names for line in found_in(name)] == []


def test_each_exemption_is_still_needed() -> None:
    names = tracked("daemon/ostler/*.py", "plugins/*/ostler_*/*.py", "docs/*.md", "*README.md", "CHANGELOG.md")
    for exempt in EXEMPT:
        assert any(found_in(name) for name in names if name.startswith(exempt)), f"{exempt} is not needed any more"


def test_a_banned_phrase_is_found_and_names_are_not_prose() -> None:
    assert complaints("there is no volume a") == ["'there is no volume': write 'X not found'"]
    assert complaints("set `image_directories`, or the folder") == ["'folder': write 'directory'"]
    tree = ast.parse('raise X(f"take another name {a}", hint="mend it")\nlog.info("anew %s", a)\nx = "anew"')
    assert sorted(str(text.value) for text in messages(tree)) == ["anew %s", "mend it", "take another name "]


def test_time_spans_of_messages_have_one_notation() -> None:
    """`1min 30s`, as options and tables have them: `format_seconds`, or `format_duration` for what lasts."""
    other = re.compile(r"\{[^{}]*\} s\b(?!=)|%[.0-9]*[gdf] s\b")
    assert other.search('f"within {timeout:g} s"')
    assert other.search('"took %.3g s"')
    names = tracked("daemon/ostler/*.py", "plugins/*/ostler_*/*.py")
    assert names
    assert [name for name in names if other.search((ROOT / name).read_text(encoding="utf-8"))] == []
