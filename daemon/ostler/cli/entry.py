"""From the words that were typed to an exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ostler.cli import failures, session, streams
from ostler.cli.arguments import Arguments, take_apart
from ostler.cli.session import Session
from ostler.errors import FAILED, WELL, NotRunning

if TYPE_CHECKING:
    from ostler.cli.remote import Remote


def run_command(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    connect: session.Connect = session.connect,
    now: Callable[[], float] = time.time,
) -> int:
    """Run the command and return its exit code; every error ends here as a line on stderr.

    Args:
        argv: What was typed after `ostler`.
        environ: The environment.
        connect: Makes clients; a test hands in a fake.
        now: Tells the wall time.
    """
    streams.prepare()
    arguments = take_apart(argv)
    try:
        code = _run(arguments, Session(environ=environ, connect=connect, now=now))
        sys.stdout.flush()
    except BrokenPipeError:  # `ostler … | head` has what it wanted
        failures.silence(sys.stdout)
        return WELL
    except KeyboardInterrupt:
        return failures.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where errors become lines
        return failures.report(error, json=arguments.json, environ=environ)
    return code


def _run(arguments: Arguments, bare: Session) -> int:
    remote = _remote(arguments, bare.environ)
    chosen = replace(
        bare,
        root=None if remote is not None else arguments.root or bare.environ.get("OSTLER_ROOT") or None,
        remote=remote,
        json=arguments.json,
        timeout=_seconds(arguments.timeout),
        trust_owner=arguments.trust_owner,
    )
    with session.using(chosen):
        try:
            if arguments.rest[:1] == ["run"]:  # its output is the log, which has its own door
                return _verb(chosen, arguments.rest)
            with streams.safe_streams(json=chosen.json):
                return _verb(chosen, arguments.rest)
        except NotRunning as error:
            # The client knows an address; a plain `ostler run` would be another daemon. One elsewhere has its own hint.
            if chosen.root is not None and "`ostler run`" in error.hint:
                error.hint = f"start it with `ostler --root {chosen.root} run`"
            raise


def _verb(chosen: Session, words: list[str]) -> int:
    code = _quick(chosen, words)
    return _typed(words) if code is None else code


def _remote(arguments: Arguments, environ: Mapping[str, str]) -> Remote | None:
    if not arguments.remote and not environ.get("OSTLER_ADDRESS"):
        return None
    from ostler.cli.remote import find

    return find(arguments.remote, environ, rooted=bool(arguments.root))


def _quick(chosen: Session, words: list[str]) -> int | None:
    # Two verbs are in a hurry; typer sees them only when it has something to explain.
    if words[:1] == ["run"]:
        from ostler.cli import start

        options = start.read(words[1:])
        return None if options is None else start.start(chosen, options)
    if words[:1] == ["status"]:
        from ostler.cli import glance

        check = glance.read(words[1:])
        return None if check is None else glance.start(chosen, check)
    return None


def _typed(words: list[str]) -> int:
    from typer import Abort, Exit

    from ostler.cli.tree import root_command

    command = root_command()
    try:
        # Not `command.main`: that one turns errors into output and exit codes of its own.
        with command.make_context("ostler", words) as context:
            command.invoke(context)
    except Exit as leave:
        return leave.exit_code
    except Abort:
        return FAILED
    return WELL


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    from ostler.config.units import parse_seconds

    return parse_seconds(text)
