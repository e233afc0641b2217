"""`ostler db`: the daemon's database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli import kit
from ostler.errors import FAILED
from ostler.types import CONTROL_TOPIC

PATIENCE = 3600.0
"""Seconds: a large database takes its time."""

app = kit.app(help="Check or back up the daemon's database.")


@app.command()
def check() -> None:
    """Check the whole database.

    The exit code is 1 when something is wrong with it.
    """
    with kit.client(timeout=PATIENCE) as client:
        problems = client.call(CONTROL_TOPIC, "db_check", type=list[str])
    if kit.json_wanted():
        kit.emit({"ok": not problems, "problems": problems})
    elif problems:
        kit.emit(problems)
    else:
        kit.say("The database is sound.")
    if problems:
        raise typer.Exit(FAILED)


@app.command()
def backup(
    path: Annotated[str, typer.Argument(help="The new file, which the daemon writes", show_default=False)],
) -> None:
    """Write a consistent copy to a new file.

    The daemon goes on meanwhile.
    """
    with kit.client(timeout=PATIENCE) as client:
        # The daemon has another folder than whoever typed this.
        written = client.call(CONTROL_TOPIC, "db_backup", type=str, path=str(Path(path).absolute()))
    if kit.json_wanted():
        kit.emit({"path": written})
    else:
        kit.say(kit.printable(f"The database was copied to {written}"))
