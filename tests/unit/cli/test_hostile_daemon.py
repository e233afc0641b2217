"""Every verb there is, plugins' too, with a daemon each of whose texts is hostile: nothing of it reaches the terminal.

The verbs come from the tree of commands and the answers from the types that they ask for: a new verb is covered by
itself, and fails here when it prints what a daemon said around `printable`.
"""

from __future__ import annotations

import contextlib
import enum
import io
import json
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ostler.cli.command_line import run_command
from ostler.cli.command_tree import COMMANDS, root_command
from ostler.errors import Busy, ConfigurationError, OstlerError, Problem, WrongCallKind
from ostler.messaging.clients.operation import Operation, unknown_operation
from ostler.messaging.events.event import Event, Gap
from ostler.messaging.wire.request_context import Progress
from ostler.types import OperationState, OperationStatus
from support.terminal import Terminal

EVIL = "A\x1b]0;pwned\x07\x1b[2J\x9b31mB\x7f\u202egnp\u2066\u200b\u200f\r\nFORGED LINE\x85\u2028\u2029\U000e0041[red]X"
RAW = set("\x1b\x07\x9b\x7f\u202e\u2066\u200b\u200f\r\x85\u2028\u2029\U000e0041")
DRAWN = re.compile(r"\x1b\[[0-9;?]*[mKhlAGJH]")
"""What rich draws with."""
NOT_RUN = (("run",), ("plugin", "install"))
"""Verbs that talk to no daemon: they do not end, or fetch packages from the network."""
WORDS = {
    "words": "x=1", "arguments": "x=1", "key": "log.level", "value": "debug", "size": "1MiB", "new_size": "2MiB",
    "level": "debug", "into": "x",
}  # fmt: skip
OPTIONS = {"top": ["--once", "--interval", "0.1", "--all"], "events": ["--count", "2"]}
NUMBERS = (float("inf"), float("nan"), 1e308, 0.0)


def hostile(kind: Any, number: float = 1e308) -> Any:
    """Return a value of a type, each text in it hostile and each number out of all bounds."""
    if kind in (None, Any):
        return {EVIL: [EVIL, {EVIL: EVIL}], "x": EVIL, "n": number}
    if kind in (bool, int):
        return kind(1)
    if kind is float:
        return number
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(**{name: hostile(hints[name], number) for name in kind.__struct_fields__})
    return hostile_inside(kind, typing.get_origin(kind), typing.get_args(kind), number)


def hostile_inside(kind: Any, origin: Any, inside: Any, number: float) -> Any:
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        return hostile(next(each for each in inside if each is not type(None)), number)
    if origin is typing.Literal:
        return inside[0]
    if origin is dict:
        return {hostile(inside[0], number): hostile(inside[1], number)}
    if origin in (list, tuple, set, frozenset):
        return origin([hostile(inside[0], number)])
    return EVIL


class HostileStream:
    """A stream of hostile items."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class HostileClient:
    """Answers every call with what was asked for, or with an error."""

    def __init__(self, error: OstlerError | None = None, number: float = 1e308) -> None:
        self.error = error
        self.number = number
        self.asked = 0
        self.options: dict[str, Any] = {}

    def connect(self, *_where: Any) -> HostileClient:
        return self

    def __enter__(self) -> typing.Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def on(self, **options: Any) -> HostileClient:
        self.options |= options
        return self

    def call(self, _topic: str, _method: str, /, **_: Any) -> Any:
        self.asked += 1
        kind, on_progress = self.options.get("type"), self.options.get("on_progress")
        if on_progress is not None:
            on_progress(Progress(self.number, self.number, EVIL))
        if self.error is not None:
            raise self.error
        return hostile(kind, self.number)

    def cast(self, topic: str, method: str, /, **arguments: Any) -> None:
        self.call(topic, method)

    def fanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        self.call(topic, method)
        return 1

    def stream(self, topic: str, method: str, /, **_: Any) -> HostileStream:
        kind = self.options.get("type")
        if kind is OperationStatus:
            running = hostile(kind, self.number)
            return HostileStream([running, msgspec.structs.replace(running, state=OperationState.FAILED)])
        return HostileStream([EVIL, hostile(kind, self.number)])

    def submit(self, topic: str, method: str, /, **arguments: Any) -> Operation:
        self.on(type=OperationStatus)
        return Operation(self, self.call(topic, method))

    def operation(self, operation_id: str, /) -> Operation:
        return Operation(self, unknown_operation(operation_id, None))

    def events(self, *_patterns: str, **_options: Any) -> Iterator[Any]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        yield Event(EVIL, EVIL, EVIL, hostile(None, self.number), 1, 1, self.number, EVIL, EVIL, EVIL)
        yield Gap(EVIL, EVIL, 1, 2)


def leaves(command: Any, context: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of each verb that can be typed, with an argument for each that it takes."""
    names = command.list_commands(context) if hasattr(command, "list_commands") else None
    if names is None:
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        yield (*path, *(WORDS.get(each.name, "a") for each in arguments), *OPTIONS.get(path[0], []))
        return
    for name in names:
        yield from leaves(command.get_command(context, name), context, (*path, name))


def all_verbs() -> list[tuple[str, ...]]:
    command = root_command()
    with command.make_context("ostler", ["status"]) as context:
        return [words for words in leaves(command, context) if not any(words[: len(each)] == each for each in NOT_RUN)]


ALL = all_verbs()


def shown(client: HostileClient, words: list[str], terminal: bool) -> tuple[str, str]:
    out, err = (Terminal(), Terminal()) if terminal else (io.StringIO(), io.StringIO())
    environ = {"TERM": "xterm"} if terminal else {}
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        run_command(words, environ, connect=client.connect)
    return out.getvalue(), err.getvalue()


def check(out: str, err: str, terminal: bool) -> None:
    for each in (out, err):
        text = DRAWN.sub("", each).replace("\r", "") if terminal else each
        assert not RAW & set(text), repr(text)
        assert not any(line.startswith("FORGED LINE") for line in text.splitlines())
        assert "Traceback" not in text
        assert "unexpected" not in text


@pytest.fixture(autouse=True)
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_verb_shows_what_a_hostile_daemon_says_as_it_is(words: tuple[str, ...], places: Any) -> None:
    for terminal in (False, True):
        for number in NUMBERS:
            client = HostileClient(number=number)
            check(*shown(client, ["--root", str(places), *words], terminal), terminal)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_with_json_it_is_valid_and_escaped(words: tuple[str, ...], places: Any) -> None:
    for terminal in (False, True):
        out, err = shown(HostileClient(), ["--root", str(places), "--json", *words], terminal)
        check(out, err, terminal)
        if out.lstrip().startswith(("{", "[", '"')):
            decoder, text = json.JSONDecoder(), out.strip()
            while text:
                _, end = decoder.raw_decode(text)
                text = text[end:].strip()


ERRORS = [
    Busy(EVIL, hint=f"{EVIL}\n{EVIL}", retry_after=float("nan"), name=EVIL, **{EVIL: EVIL}),
    ConfigurationError([Problem("", EVIL), *(Problem("", line) for line in EVIL.splitlines())], hint=EVIL),
    WrongCallKind(EVIL, streams=True),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_verb_shows_the_error_of_a_hostile_daemon_as_it_is(
    words: tuple[str, ...], error: OstlerError, places: Any
) -> None:
    for terminal in (False, True):
        check(*shown(HostileClient(error), ["--root", str(places), *words], terminal), terminal)
        check(*shown(HostileClient(error), ["--root", str(places), "--json", *words], terminal), terminal)


def test_all_verbs_are_tried_and_those_of_a_daemon_ask_it(places: Any) -> None:
    assert {words[0] for words in ALL} >= set(COMMANDS) - {"run"}
    asking = set()
    for words in ALL:
        client = HostileClient()
        shown(client, ["--root", str(places), *words], terminal=False)
        if client.asked:
            asking.add(words[0])
    assert asking >= {
        "status", "reload", "config", "service", "plugin", "call", "cast", "describe", "events", "periodic", "top",
        "lock", "handler", "audit", "log-level", "dump", "db",
    }  # fmt: skip
