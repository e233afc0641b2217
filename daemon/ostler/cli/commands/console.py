"""`ostler console`: a Python prompt inside the daemon."""

from __future__ import annotations

import ast
import codeop
import sys
from collections.abc import Iterator
from typing import Any

from ostler.cli import kit
from ostler.errors import EXIT_FAILURE, FeatureNotSupported, MethodNotFound
from ostler.types import CONTROL_TOPIC, Json

app = kit.app(group=False)
_PROMPTS = (">>> ", "... ")


@app.command()
def console() -> None:
    """Open a Python prompt on the event loop of the daemon.

    Only for root and the daemon's user, and only with `console = true` in [daemon]. Every line is in the audit log, and
    can break the daemon. `await` is allowed; Ctrl-C interrupts a line, Ctrl-D ends the session. A line that keeps the
    event loop for 2 s is interrupted. What comes through a pipe runs until the first error.
    """
    import typer  # raised only here

    with kit.client() as client:
        attached = iter(client.stream(CONTROL_TOPIC, "console.attach"))
        try:
            session = next(attached)
        except MethodNotFound as error:
            raise FeatureNotSupported(
                "the console of this daemon is off", hint="set `console = true` in [daemon], and restart the daemon"
            ) from error
        names = next(attached)
        failed = False
        for source in _inputs(names):
            failed = _run(client, session, source)
            if failed and not _is_interactive():
                break
    if failed and not _is_interactive():
        raise typer.Exit(EXIT_FAILURE)


def _run(client: Any, session: str, source: str) -> bool:
    """Run an input, and print what it prints; return whether it raised."""
    failed: Json = False
    stream = client.stream(CONTROL_TOPIC, "console.run", session=session, source=source)
    try:
        for part in stream:
            sys.stdout.write("\n".join(map(kit.printable, part["text"].split("\n"))))
            sys.stdout.flush()
            failed = part["failed"]
    except KeyboardInterrupt:
        stream.close()
        kit.warn("KeyboardInterrupt")
        return True
    return bool(failed)


def _is_interactive() -> bool:
    return sys.stdin.isatty()


def _inputs(names: str) -> Iterator[str]:
    if not _is_interactive():
        if source := sys.stdin.read():
            yield source
        return
    import readline  # noqa: F401 - changes `input`: editing, and a history of this session

    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    kit.say(f"Python {sys.version.split()[0]} in the daemon: {names}. Ctrl-D ends it.")
    lines: list[str] = []
    while True:
        try:
            lines.append(input(_PROMPTS[bool(lines)]))
        except EOFError:
            kit.say()
            return
        except KeyboardInterrupt:
            lines.clear()
            kit.say()
            continue
        source = "\n".join(lines)
        try:
            if compiler(source, "<console>", "single") is None:
                continue
        except (SyntaxError, OverflowError, ValueError):
            pass  # the daemon says what is wrong with it
        lines.clear()
        if source.strip():
            yield source
