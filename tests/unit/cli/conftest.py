"""A command whose daemon is a script of answers, in a pipe or on a terminal."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

import pytest

from ostler.cli.command_line import run_command
from ostler.cli.global_options import split_global_options
from support.json_documents import check_documents
from support.terminal import Terminal

NOW = 1_800_000_000.0


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


class FakeClient:
    """Answers calls from a table of (topic, method): a value, an error to raise, or a function of the arguments."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.casts: list[tuple[str, str, dict[str, Any]]] = []
        self.stream: Callable[[str], Iterator[Any]] = lambda pattern: iter(())
        self.opened: list[tuple[str | None, float]] = []
        self.closed = 0
        self.lenient = False
        self.options: dict[str, Any] = {}
        self.views: list[dict[str, Any]] = []
        """The options of each view that was made, in order."""

    def connect(self, root: str | None, timeout: float, lenient: bool) -> FakeClient:
        self.opened.append((root, timeout))
        self.lenient = lenient
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed += 1

    def on(self, **options: Any) -> FakeClient:
        view = copy.copy(self)
        view.options = {**self.options, **options}
        self.views.append(view.options)
        return view

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        self.calls.append((topic, method, arguments))
        answer = self.answers[topic, method]
        if isinstance(answer, BaseException):
            raise answer
        return answer(**arguments) if callable(answer) else answer

    def cast(self, topic: str, method: str, /, **arguments: Any) -> None:
        self.casts.append((topic, method, arguments))

    def events(self, pattern: str, **options: Any) -> Iterator[Any]:
        self.events_options = options
        return self.stream(pattern)


def bare(text: str) -> str:
    """Return what a terminal shows, without its escape sequences and the spaces that fill its lines."""
    return "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split("\n"))


class CommandRunner:
    """Runs the command in this process."""

    def __init__(self, client: FakeClient) -> None:
        self.client = client
        self.environ: dict[str, str] = {}

    def __call__(self, *argv: str, terminal: bool = False) -> CommandResult:
        out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
        environ = {"TERM": "xterm", **self.environ} if terminal else self.environ
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(argv, environ, connect=self.client.connect, now=lambda: NOW)
        if split_global_options(argv).output == "json":
            check_documents(argv, out.getvalue())
        return CommandResult(code, bare(out.getvalue()), bare(err.getvalue()))


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def ostler(client: FakeClient) -> CommandRunner:
    return CommandRunner(client)


@pytest.fixture(autouse=True)
def fixed_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
