"""`ostler run`, read by hand: typer would cost a good part of the time to READY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ostler.cli.session import Session


class Start(NamedTuple):
    """The options of `ostler run`: values that win over the files (`key=value`), and the level of the log."""

    overrides: list[str]
    log_level: str | None


def read(words: Sequence[str]) -> Start | None:
    """Return the options of `ostler run`; None when there is anything else, which typer then explains.

    Args:
        words: What was typed after `run`.
    """
    overrides: list[str] = []
    log_level: str | None = None
    rest = list(words)
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
    return Start(overrides, log_level)


def start(session: Session, wanted: Start) -> int:
    """Be the daemon until it is stopped; returns the exit code.

    Args:
        session: Where the daemon lives.
        wanted: The options.
    """
    import gc
    import os
    import signal

    from ostler.cli.heldback import hold_back

    # A KeyboardInterrupt in the middle of importing a library in C can end in a segmentation fault. There is nothing
    # to clean up yet; the daemon has handlers of its own as soon as there is.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    hold_back()
    # Little that a start makes is garbage: without the collector it takes a tenth less. The daemon turns it on again.
    gc.disable()
    # pydantic would look through everything that is installed for plugins of its own; options need none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

    from ostler.daemon import run_daemon

    return run_daemon(session.paths(), wanted.overrides, wanted.log_level)
