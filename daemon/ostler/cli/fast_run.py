"""`ostler run`: it bypasses typer, whose import would cost much of the time to READY."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Sequence
from typing import NamedTuple

from ostler.cli.invocation import Invocation
from ostler.cli.lazy_imports import install_lazy_imports


class RunOptions(NamedTuple):
    """The options of `ostler run`: values that override the files (`key=value`), the log level, and the safe mode."""

    overrides: list[str]
    log_level: str | None
    is_safe: bool = False


def parse_run_options(words: Sequence[str]) -> RunOptions | None:
    """Return the options of `ostler run`; None for any other argument, which typer then handles.

    Args:
        words: The arguments after `run`.
    """
    overrides: list[str] = []
    log_level: str | None = None
    rest = [word for word in words if word != "--safe"]
    is_safe = len(rest) != len(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in ("--set", "--log-level") or not (equals or rest):
            return None
        if not equals:
            value = rest.pop(0)
        if name == "--set":
            overrides.append(value)
        else:
            log_level = value
    return RunOptions(overrides, log_level, is_safe)


def speed_up_imports() -> None:
    """Have what follows import less, and faster; for a process that imports the daemon's configuration."""
    install_lazy_imports()
    # A start creates little garbage: without the collector it takes a tenth less. The daemon turns it on again.
    gc.disable()
    # pydantic would search all installed distributions for pydantic plugins; options need none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def run_foreground(session: Invocation, options: RunOptions) -> int:
    """Run the daemon until it is stopped, and return the exit code.

    Args:
        session: Which daemon.
        options: The options.
    """
    # A KeyboardInterrupt during the import of a C extension can end in a segmentation fault. There is nothing to clean
    # up yet; the daemon installs its own handlers before there is.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    speed_up_imports()
    from ostler.daemon import run_daemon  # after the lines above, which concern all that follows

    return run_daemon(session.paths(), options.overrides, options.log_level, is_safe=options.is_safe)
