"""`ostler log-level`: the log level of the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.types import CONTROL_TOPIC

app = kit.app(group=False)


@app.command()
def log_level(
    level: Annotated[str, typer.Argument(help="debug, info, warning or error", show_default=False)] = "",
    logger: Annotated[
        str, typer.Argument(help="A logger, such as ostler.store; without it, all of Ostler", show_default=False)
    ] = "",
) -> None:
    """Show or set the log level of the daemon; a level that was set is valid until the next reload."""
    with kit.client() as client:
        if level:
            levels = client.on(type=dict[str, str]).call(CONTROL_TOPIC, "log_level", level=level.lower(), logger=logger)
        else:
            levels = client.on(type=dict[str, str]).call(CONTROL_TOPIC, "log_levels")
    if kit.json_wanted():
        kit.emit(levels)
    else:
        kit.show_table([(name or "(all others)", level) for name, level in sorted(levels.items())], ["logger", "level"])
