"""How the command fails: one line that says what happened, hints, and a stable exit code; never a traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from ostler.cli.words import printable
from ostler.errors import FAILED, USAGE, ConfigurationError, OstlerError
from ostler.printable import printable_lines

_PLACE = re.compile(r"\S.*?:\d+:\d+: ")
"""A problem with its place; one that a daemon sent has it in its text."""

_FROM_AFAR = re.compile(r"(?P<where>/[^:]+(?::[0-9]+:[0-9]+)?|--set): (?P<what>.*)", re.DOTALL)
"""A problem that a daemon sent, as one text."""

_LINE_LIMIT = 4000
_MOST_LINES = 200
"""So much of an error is shown to people; with `--json` all of it is."""

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the number of SIGINT, as shells have it."""

TRACEBACK = "OSTLER_TRACEBACK"
"""Set to anything, this variable makes the command print tracebacks."""


def report(error: BaseException, *, json: bool, environ: Mapping[str, str]) -> int:
    """Say on stderr why the command failed, and return its exit code.

    Args:
        error: What was raised. Usage errors of typer are known by their `format_message`.
        json: Whether one JSON object is wanted instead of lines.
        environ: The environment.
    """
    facts = _facts(error)
    if environ.get(TRACEBACK):
        import traceback

        _print(printable_lines("".join(traceback.format_exception(error)).rstrip("\n")))
    if json:
        from ostler.cli.output import to_json

        _print(to_json({"error": {**facts, **_placed(facts)}}))
    else:
        for line in _lines(facts):
            _print(line)
    return int(facts["exit_code"])


def _facts(error: BaseException) -> dict[str, Any]:
    if isinstance(error, OstlerError):
        return _ours(error)
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's, wherever the click inside it lives
        return _usage(error, format_message())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
        return {"name": type(error).__name__, "message": message, "hint": "", "exit_code": FAILED}
    return {
        "name": type(error).__name__,
        "message": f"unexpected {type(error).__name__}: {error}".rstrip(": "),
        "hint": f"run with {TRACEBACK}=1 for details",
        "exit_code": FAILED,
    }


def _ours(error: OstlerError) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": str(error.facts.get("name", type(error).__name__)),
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
        "facts": error.facts,
    }
    if isinstance(error, ConfigurationError):
        facts["problems"] = [{"where": problem.where, "what": problem.what} for problem in error.problems]
    return facts


def _placed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the problems with their places, those that a daemon sent as one text included."""
    if "problems" not in facts:
        return {}
    matches = [(each, None if each["where"] else _FROM_AFAR.fullmatch(each["what"])) for each in facts["problems"]]
    return {"problems": [match.groupdict() if match else each for each, match in matches]}


def _usage(error: BaseException, message: str) -> dict[str, Any]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ostler"
    return {
        "name": "UsageError",
        "message": message,
        "hint": f"see `{path} --help`",
        "exit_code": getattr(error, "exit_code", USAGE),
        "bare": type(error).__name__ == "NoArgsIsHelpError",
    }


def _lines(facts: Mapping[str, Any]) -> list[str]:
    if facts.get("bare"):  # a group without a verb: the message is its help
        return printable_lines(str(facts["message"])).split("\n")
    problems = facts.get("problems") or []
    if len(problems) > 1 or any(_PLACE.match(_problem(each)) for each in problems):
        # What a daemon sent has no place of its own: set off, it cannot read as a line of ours.
        lines = [_problem(each) if each["where"] else f"  {_problem(each)}" for each in problems[:_MOST_LINES]]
        count = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines.append(f"ostler: {count} in the configuration")
    else:
        lines = [f"ostler: {facts['message']}"]
    hints = [f"hint: {line}" for line in str(facts["hint"]).splitlines()[:_MOST_LINES]]
    return [printable(line, _LINE_LIMIT) for line in (*lines, *hints)]


def _problem(problem: Mapping[str, str]) -> str:
    return ": ".join(filter(None, problem.values()))


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - where errors go
    except (OSError, ValueError):
        pass  # stderr is closed: nobody wants to know


def silence(stream: Any) -> None:
    """Point a stream whose reader is gone at /dev/null, so that the interpreter's last flush finds no broken pipe."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass  # no real file behind it, as in a test
