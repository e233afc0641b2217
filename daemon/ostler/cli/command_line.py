"""Runs a command line and returns its exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ostler.cli import error_output, invocation, standard_streams
from ostler.cli.global_options import GlobalOptions, split_global_options
from ostler.cli.invocation import Invocation
from ostler.config.units import parse_seconds
from ostler.errors import EXIT_FAILURE, EXIT_OK, DaemonNotRunning, OstlerError

if TYPE_CHECKING:
    from ostler.cli.remote_daemon import AnyRemoteDaemon


def run_command(
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    connect: invocation.ClientFactory = invocation.open_client,
    now: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run the command and return its exit code; every error becomes a line on stderr.

    Args:
        argv: The arguments after `ostler`.
        environ: The environment.
        connect: Creates clients; tests pass a fake.
        now: Returns the wall time.
        sleep: Waits for seconds.
    """
    standard_streams.prepare_standard_streams()
    arguments = split_global_options(argv)
    try:
        code = _run_session(arguments, Invocation(environ=environ, connect=connect, now=now, sleep=sleep))
        sys.stdout.flush()
    except BrokenPipeError:  # as in `ostler … | head`
        error_output.redirect_to_devnull(sys.stdout)
        return EXIT_OK
    except KeyboardInterrupt:
        return error_output.EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where errors become output
        return error_output.report_error(error, format=arguments.error_format, environ=environ)
    return code


def _run_session(arguments: GlobalOptions, bare: Invocation) -> int:
    remote = _find_remote_daemon(arguments, bare.environ)
    chosen = replace(
        bare,
        root=None if remote is not None else arguments.root or bare.environ.get("OSTLER_ROOT") or None,
        remote=remote,
        json=arguments.json,
        output=arguments.output_options(),
        timeout=_parse_timeout(arguments.timeout),
        trust_owner=arguments.trust_owner,
    )
    with invocation.use_invocation(chosen):
        try:
            if arguments.rest[:1] == ["run"]:  # its output is the log, which has its own stream
                return _run_words(chosen, arguments.rest)
            with standard_streams.escape_standard_streams(json=chosen.json):
                return _run_words(chosen, arguments.rest)
        except DaemonNotRunning as error:
            # The client knows only an address; a plain `ostler run` would start another daemon. Remote daemons have
            # their own hint.
            if chosen.root is not None and "`ostler run`" in error.hint:
                error.hint = f"start it with `ostler --root {chosen.root} run`"
            raise


def _run_words(chosen: Invocation, words: list[str]) -> int:
    code = _run_fast_path(chosen, words)
    return _run_typer(words) if code is None else code


def _activate_plugins(*, is_own: bool) -> None:
    """Have the installed plugins found: for a command of Ostler those of the files that it reads, else their commands.

    A user without a daemon talks to the system's, and has the commands of its plugins. Without a usable place of the
    daemon there are none; what needs that place says so.
    """
    # As `invocation.paths`: not for `status`.
    from ostler.config.paths import Paths
    from ostler.plugins.plugin_directory import activate_plugins

    chosen = invocation.current_invocation()
    with suppress(OstlerError):
        if is_own and chosen.remote is None:
            activate_plugins(chosen.paths())
        else:
            activate_plugins(Paths.for_client(chosen.root, chosen.environ))


def _find_remote_daemon(arguments: GlobalOptions, environ: Mapping[str, str]) -> AnyRemoteDaemon | None:
    if not arguments.remote and not environ.get("OSTLER_ADDRESS"):
        return None
    from ostler.cli.remote_daemon import find_remote_daemon  # 2 ms: only with `--address`

    return find_remote_daemon(arguments.remote, environ, has_root=bool(arguments.root))


def _run_fast_path(chosen: Invocation, words: list[str]) -> int | None:
    # Three commands must start fast; typer handles them only for help and usage errors.
    if words[:1] == ["run"]:
        from ostler.cli import fast_run  # not for `status`

        options = fast_run.parse_run_options(words[1:])
        return None if options is None else fast_run.run_foreground(chosen, options)
    if words[:1] == ["status"]:
        from ostler.cli import fast_status  # 10 ms: not for `run`

        check = fast_status.parse_check_flag(words[1:])
        return None if check is None else fast_status.run_status(chosen, check)
    if words[:1] == ["check"]:
        from ostler.cli import fast_check, fast_run  # 10 ms: not for `status`

        overrides = fast_check.parse_overrides(words[1:])
        if overrides is not None:
            fast_run.speed_up_imports()
            _activate_plugins(is_own=True)
            return fast_check.run_check(overrides)
    return None


def _run_typer(words: list[str]) -> int:
    # 60 ms: not for `run` and `status`.
    from typer import Abort, Exit

    from ostler.cli.command_tree import COMMANDS, root_command

    _activate_plugins(is_own=bool(words) and words[0] in COMMANDS and words[0] != "help")
    command = root_command()
    if instruction := invocation.current_invocation().environ.get("_OSTLER_COMPLETE"):
        from ostler.cli.shell_completion import complete  # only when a shell asks

        return complete(command, instruction)
    try:
        # Not `command.main`, which handles errors by itself, with other output and exit codes.
        with command.make_context("ostler", words) as context:
            command.invoke(context)
    except Exit as leave:
        return leave.exit_code
    except Abort:
        return EXIT_FAILURE
    return EXIT_OK


def _parse_timeout(text: str | None) -> float | None:
    if text is None:
        return None
    return parse_seconds(text)
