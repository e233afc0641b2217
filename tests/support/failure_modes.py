"""Which failure modes must have tests, and which tests say that they are for one, without a test run.

A test says so with `@pytest.mark.failure_mode(category, mode)`. The files are parsed and not imported, so that the
page is the same on a machine where a part of the tests cannot be loaded.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeGuard

from ostler.spelling import suggest

ROOT = Path(__file__).resolve().parents[2]
MARKER = "failure_mode"
FAILURE_MODES: dict[str, tuple[str, ...]] = {
    "Life": (
        "READY only when work is possible",
        "SIGHUP before the handler is set",
        "SIGHUP with a file that does not parse",
        "SIGHUP with a bad typed value",
        "SIGHUP then SIGTERM",
        "50 SIGHUPs in a second",
        "SIGTERM during `init_host`",
        "SIGTERM with a driver hung in a native call",
        "second SIGTERM",
        "`stop` before `start`",
        "failed start leaves nothing behind",
        "a manager that raises `SystemExit` or `KeyboardInterrupt`",
        "an eternal task that ends",
        "a reload that hangs or finds no configuration",
        "a reload that fails at any of its steps",
        "packages replaced while the daemon starts",
        "reloads in their hundreds under load",
        "an option that needs a new process",
        "callers of a service that a reload restarts",
        "a backend that is removed while it works",
    ),
    "Plugins": (
        "one that fails to import",
        "one that raises in a hook",
        "a misspelt hook",
        "an async hook",
        "two with one name",
        "one built for another API version",
        "a driver that is an empty class",
        "a driver with a wrong signature",
        "a driver that never comes back",
        "a driver in its own process that crashes, hangs or floods the log",
        "a driver in its own process that uses more CPU than it may",
        "a driver in its own process under the sandbox of systemd",
        "eight callers of a backend that hangs, and somebody who wants another one",
        "four backends that hang at the start or at a reload",
        "a reload while a driver works for hours",
        "an image on a dead mount",
        "thousands of attached volumes after a reboot",
        "one that fails three times and then works",
        "a manager named by class, module, object and factory",
        "an import or a hook that hangs",
        "one that cancels all tasks, stops the loop or exits",
        "one that configures or silences logging",
        "a check of options that raises or exits",
        "errors that are very large, endless or cannot be described",
        "a driver whose calls all fail",
        "a driver whose calls are refused after many failures",
        "one in whose code the daemon crashes again and again",
        "a safe mode without those of others",
        "one that blocks the event loop",
        "one that needs what is not there, or itself by way of others",
        "capabilities that are odd, very large or cannot be read",
        "a scheduler or a filter that hangs or raises",
        "a driver in its own process that looks for what is the daemon's",
        "a driver that crashes in the midst of an operation",
        "one that is installed while the daemon runs",
        "an installation that fails, is killed, or meets another one",
        "plugins of another Python",
        "what a plugin still runs when the daemon stops or dies",
    ),
    "RPC": (
        "10,000 calls to a missing method",
        "a method that is not exposed",
        "arguments of the wrong type, too many, too few, unknown",
        "a caller that goes away",
        "a server that dies in the middle",
        "a deadline that has passed before work begins",
        "cancel of a sync and of an async method",
        "the same request twice",
        "a full queue",
        "an oversized message",
        "garbage frames, truncated and random (fuzzed)",
        "a reply that cannot be encoded",
        "an exception the client does not know",
        "a client of an older and of a newer version",
        "a uid without a role",
        "one peer that takes the room of the others",
        "a thread and the loop that write to one connection",
    ),
    "Events": (
        "a subscriber that joins late",
        "one that is slow",
        "one that vanishes",
        "a gap is seen",
        "replay from a number over a restart",
    ),
    "State": (
        "nothing acknowledged is lost by `kill -9`",
        "record deleted under a live service",
        "database locked for a minute",
        "disk full and then not",
        "database read-only",
        "database corrupt",
        "database of a newer schema",
        "starts that fail, and the backups of earlier ones",
        "a migration of a plugin that fails",
        "a disk that reports errors",
        "a read that never ends",
        "two daemons on one host and name",
        "clock set an hour back and forth",
        "heartbeats on time during 50,000 writes",
        "a stale record pins nobody",
        "a disk that is not mounted, or another directory in its place",
        "a backend that was renamed",
        "a full disk that something has to be deleted on",
        "room that is counted or promised twice",
        "long drain while a successor starts",
        "database files removed, replaced or copied while in use",
        "a crash at any step of an operation",
        "room that was freed and is still counted",
        "two that take one name or make one directory at once",
    ),
    "Periodic": (
        "one that raises",
        "one that raises `SystemExit`",
        "one slower than its spacing",
        "one that never ends",
        "10,000 of them",
        "a spacing changed by reload",
        "one neighbour that blocks",
        "runs missed while the daemon was down",
        "a clock that is set forth and back",
        "a background task that ends or fails",
    ),
    "Configuration": (
        "a problem that points elsewhere than at its value",
        "files of odd kinds and encodings, and leftovers of editors",
        "a secret in the quoted line",
        "a file that masks another",
        "an option by its earlier name",
        "a check that accepts what a start refuses",
        "a check that disturbs the running daemon",
        "a driver whose probe hangs or crashes",
    ),
    "Machine": (
        "no descriptors left",
        "no memory for a thread",
        "no memory for a request",
        "no space on the log",
        "a read-only runtime directory",
        "a socket left over from a dead daemon, and one of a living daemon",
        "started as root",
        "started in an empty environment",
        "started without systemd",
        "started as a user",
        "output that is closed, full or not read",
        "one who follows the log and stops reading, or is killed",
        "sockets that are removed while the daemon runs",
        "an address that is not there yet",
        "a host that gets another name",
        "a user database that hangs",
        "a suspended machine",
    ),
    "Processes": (
        "a signal for a forked child",
        "a forked child that outlives the daemon",
        "threads, executors and `atexit` of plugins that do not end",
        "a client that is used after a fork",
        "process 1 of a container",
    ),
}
"""The modes of each category, in the order of the page. A mode stays here until it cannot occur any more."""

HEAD = """# Failure modes

What daemons of this kind have failed by, and the tests that fail when Ostler does. This page is generated from the
markers `@pytest.mark.failure_mode(category, mode)` of the tests. `tests/support/failure_modes.py` lists the modes, each
of which has at least one test, and `pytest -m failure_mode` runs them all.
"""


@dataclass
class Collection:
    """The tests of each mode by `path::name`, and what is wrong with markers: a text for each."""

    tests: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, call: ast.Call, test: str) -> None:
        """Note that a test has a marker, or what is wrong with the marker."""
        try:
            category, mode = (str(ast.literal_eval(argument)) for argument in call.args)
        except ValueError:
            self.problems.append(f"{test}: failure_mode takes two texts, the category and the mode")
            return
        if category not in FAILURE_MODES:
            self.problems.append(f"{test}: no category {category!r}; {suggest(category, FAILURE_MODES)}")
        elif mode not in FAILURE_MODES[category]:
            hint = suggest(mode, FAILURE_MODES[category]) or "a new one is added to FAILURE_MODES"
            self.problems.append(f"{test}: no failure mode {mode!r} in {category!r}; {hint}")
        else:
            self.tests.setdefault((category, mode), []).append(test)


def files_with_tests(root: Path = ROOT) -> list[Path]:
    """Return the files with tests, those of the bundled plugins last."""
    places = [root / "tests", *sorted(root.glob("plugins/*/tests"))]
    return list(chain.from_iterable(sorted(place.rglob("test_*.py")) for place in places))


def collect(files: Iterable[Path], root: Path = ROOT) -> Collection:
    """Return the tests that these files mark. A marker that stands on no test is a problem."""
    found = Collection()
    for path in files:
        text = path.read_text(encoding="utf-8")
        if MARKER not in text:
            continue
        tree, name = ast.parse(text), str(path.relative_to(root))
        seen = set()
        for test, call in marked(tree.body, name, ()):
            seen.add(call)
            found.add(call, test)
        found.problems += [
            f"{name}:{call.lineno}: failure_mode is not a decorator of a test that runs"
            for call in markers([tree])
            if call not in seen
        ]
    return found


def markers(nodes: Iterable[ast.AST]) -> list[ast.Call]:
    """Return the calls of the marker within these nodes."""
    return [
        node
        for node in chain.from_iterable(map(ast.walk, nodes))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"pytest.mark.{MARKER}"
    ]


def marked(body: Sequence[ast.stmt], name: str, outer: tuple[ast.Call, ...]) -> Iterator[tuple[str, ast.Call]]:
    """Yield each test with each of its markers and those of its class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from marked(node.body, f"{name}::{node.name}", (*outer, *markers(node.decorator_list)))
        elif is_test(node):
            for call in (*outer, *markers(node.decorator_list)):
                yield f"{name}::{node.name}", call


def is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Whether this is a test that can run: one that is always skipped or may fail shows nothing."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
        return False
    decorators = [ast.unparse(each).partition("(")[0] for each in node.decorator_list]
    return not {"pytest.mark.skip", "pytest.mark.xfail"} & set(decorators)


def page(found: Collection) -> str:
    """Return docs/failure-modes.md."""
    lines = [HEAD]
    for category, modes in FAILURE_MODES.items():
        lines += [f"## {category}", "", "| failure mode | tests |", "|---|---|"]
        for mode in modes:
            tests = "<br>".join(f"`{test}`" for test in found.tests.get((category, mode), []))
            lines.append(f"| {mode} | {tests} |")
        lines.append("")
    return "\n".join(lines)
