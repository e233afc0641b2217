"""`ostler log-level`: the log levels of the daemon."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ostler.cli import kit
from ostler.cli.method_calls import parse_timeout
from ostler.config.units import format_seconds
from ostler.errors import InvalidInput
from ostler.manager_types import LogLevel
from ostler.types import CONTROL_TOPIC

app = kit.app(group=False)
LEVELS = ("debug", "info", "warning", "error", "critical", "inherit")
_ALL = "(all others)"

COLUMNS = [
    kit.Column("logger", lambda each: each.logger or _ALL, priority=0),
    kit.Column("level", priority=0),
    kit.Column(
        "ends", lambda each: "-" if each.seconds_left is None else f"in {format_seconds(each.seconds_left, units=2)}"
    ),
]


@app.command()
@kit.shows(LogLevel, many=True)
def log_level(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[LOGGER] [LEVEL]",
            help="A logger with those below it, such as ostler.store (by default all); debug, info, warning, error, "
            "critical, or inherit: that of the logger above",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End it after this time: 10min, 2h", show_default=False),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write it to the configuration as well, for reloads and restarts")
    ] = False,
) -> None:
    """Show or set log levels of the daemon.

    A level is valid until the next reload, unless `--keep` is given; with `--for` until that time is over, also if the
    configuration is reloaded meanwhile.
    """
    logger, level = split_words(words or [])
    if not level and (duration is not None or keep):
        raise InvalidInput("no level was given", hint="for example `ostler log-level ostler.store debug --for 10min`")
    if duration is not None and keep:
        raise InvalidInput("`--for` and `--keep` cannot be combined", hint="give only one of them")
    if keep:
        keep_level(logger, level)
    arguments: dict[str, Any] = {"level": level, "logger": logger}
    if seconds := parse_timeout(duration):
        arguments["seconds"] = seconds
    method = "log_level" if level else "log_levels"
    with kit.client() as client:
        levels = client.on(type=list[LogLevel]).call(CONTROL_TOPIC, method, **(arguments if level else {}))
    if not level and logger:
        levels = [each for each in levels if f"{each.logger}.".startswith(f"{logger}.")]
    kit.show_table(levels, COLUMNS, empty=f"{logger} and the loggers below it have the level of those above.")


def split_words(words: list[str]) -> tuple[str, str]:
    """Return the logger and the level of the arguments, which come in any order; either may be missing.

    Raises:
        InvalidInput: There are more, or neither of two is a level.
    """
    levels = [word for word in words if word.lower() in LEVELS]
    level = levels[-1] if levels else ""
    others = list(words)
    if level:
        others.remove(level)
    if len(others) > 1:
        raise InvalidInput(f"{others[-1]} is not a log level", hint=f"choose one of {', '.join(LEVELS)}")
    return (others[0] if others else ""), level.lower()


def keep_level(logger: str, level: str) -> None:
    """Write a level to the configuration, as `ostler config set` does."""
    from ostler.cli import config_set  # 25 ms: only for `--keep`

    key = f'log.levels."{logger}"' if logger else "log.level"
    done = config_set.unset_option(key) if level == "inherit" else config_set.set_option(key, level)
    kit.confirm_done(f"{key} was written to {done.file}")
