"""Reports errors of the command: one line that says what happened, hints, and a stable exit code; no traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any

from ostler.cli.formatting import printable
from ostler.errors import EXIT_FAILURE, EXIT_USAGE, ConfigurationError, OstlerError, Problem
from ostler.printable import printable_lines

_LOCATED_PROBLEM = re.compile(r"\S.*?:\d+:\d+: ")
"""A problem with its location; one that a daemon sent has the location in its text."""

_REMOTE_PROBLEM = re.compile(r"(?P<where>/[^:]+(?::[0-9]+:[0-9]+)?|--set): (?P<what>.*)", re.DOTALL)
"""A problem that a daemon sent, as one text."""

_MAX_LINE_LENGTH = 4000
_MAX_LINES = 200
"""How much of an error is shown to people; `--json` shows all of it."""

EXIT_INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 plus the number of SIGINT, as in shells."""

TRACEBACK_VARIABLE = "OSTLER_TRACEBACK"
"""The environment variable that makes the command print tracebacks, whatever its value."""


def report_error(
    error: BaseException,
    *,
    format: str,  # noqa: A002 - the word of its option
    environ: Mapping[str, str],
) -> int:
    """Print on stderr why the command failed, and return its exit code.

    Args:
        error: The exception. Usage errors of typer are recognised by their `format_message`.
        format: `json` or `yaml` to print one object instead of lines; empty for lines.
        environ: The environment.
    """
    facts = _error_fields(error)
    if environ.get(TRACEBACK_VARIABLE):
        import traceback  # 3 ms: only for who looks for a defect

        _print_error(printable_lines("".join(traceback.format_exception(error)).rstrip("\n")))
    if format:
        # Only for an error with `--json`.
        from ostler.cli.json_values import moments_by_name
        from ostler.cli.output import to_document

        shown = {name: value for name, value in facts.items() if name != "subject"}
        if "details" in shown:
            shown["details"] = moments_by_name(shown["details"])
        _print_error(to_document({"error": {**shown, **_located_problems(facts)}}, format))
    else:
        for line in _error_lines(facts):
            _print_error(line)
    return int(facts["exit_code"])


def _error_fields(error: BaseException) -> dict[str, Any]:
    if isinstance(error, OstlerError):
        return _ostler_error_fields(error)
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's: its click may be a vendored copy
        return _usage_error_fields(error, format_message())
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
        return {"name": type(error).__name__, "message": message, "hint": "", "exit_code": EXIT_FAILURE}
    return {
        "name": type(error).__name__,
        "message": f"unexpected {type(error).__name__}: {error}".rstrip(": "),
        "hint": f"run with {TRACEBACK_VARIABLE}=1 for details",
        "exit_code": EXIT_FAILURE,
    }


def _ostler_error_fields(error: OstlerError) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": str(error.details.get("name", type(error).__name__)),
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
        "details": error.details,
    }
    if isinstance(error, ConfigurationError):
        facts["subject"] = error.subject
        facts["problems"] = [_problem_fields(problem) for problem in error.problems]
    return facts


def _problem_fields(problem: Problem) -> dict[str, Any]:
    from ostler.config.problem_text import problem_lines  # only for an error of the configuration

    return {"where": problem.where, "what": problem.what, "lines": problem_lines(problem)[1:], "source": problem.source}


def _located_problems(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the problems with their locations, also of problems that a daemon sent as one text."""
    if "problems" not in facts:
        return {}
    matches = [(each, None if each["where"] else _REMOTE_PROBLEM.fullmatch(each["what"])) for each in facts["problems"]]
    return {"problems": [_problem_object(each, match.groupdict() if match else {}) for each, match in matches]}


def _problem_object(problem: Mapping[str, Any], located: Mapping[str, str]) -> dict[str, Any]:
    """Return a problem for programs: its location also as fields, and the line with the marked part if it is known."""
    from ostler.config.layers import split_origin  # only for an error with `--json`

    where, what = located.get("where", problem["where"]), located.get("what", problem["what"])
    file, line, column = split_origin(where)
    place = {"file": file, "line": line, "column": column} if line else {}
    source = problem["source"]
    return {"where": where, "what": what, **place, **({"source": source._asdict()} if source else {})}


def _usage_error_fields(error: BaseException, message: str) -> dict[str, Any]:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "ostler"
    return {
        "name": "UsageError",
        "message": message,
        "hint": f"see `{path} --help`",
        "exit_code": getattr(error, "exit_code", EXIT_USAGE),
        "bare": type(error).__name__ == "NoArgsIsHelpError",
    }


def _error_lines(facts: Mapping[str, Any]) -> list[str]:
    if facts.get("bare"):  # a group without a sub-command: the message is its help
        return printable_lines(str(facts["message"])).split("\n")
    problems = facts.get("problems") or []
    if len(problems) > 1 or any(_LOCATED_PROBLEM.match(_problem_line(each)) for each in problems):
        # A problem that a daemon sent has no location: the indent keeps it from passing as a line of this command.
        lines = [
            line
            for each in problems[:_MAX_LINES]
            for line in (_problem_line(each) if each["where"] else f"  {_problem_line(each)}", *each["lines"])
        ]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines.append(f"ostler: {count} {facts['subject']}")
    else:
        lines = [f"ostler: {facts['message']}"]
    hints = [f"hint: {line}" for line in str(facts["hint"]).splitlines()[:_MAX_LINES]]
    return [printable(line, _MAX_LINE_LENGTH) for line in (*lines, *hints)]


def _problem_line(problem: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (problem["where"], problem["what"])))


def _print_error(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - where errors go
    except (OSError, ValueError):
        pass  # stderr is closed


def redirect_to_devnull(stream: Any) -> None:
    """Redirect a stream whose reader is gone to /dev/null, so that the interpreter's last flush does not fail."""
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass  # no real file behind it, as in a test
