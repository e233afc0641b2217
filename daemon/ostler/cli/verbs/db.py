"""`ostler db`: the daemon's database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli import kit
from ostler.errors import FAILED, InvalidInput
from ostler.types import CONTROL_TOPIC

PATIENCE = 3600.0
"""Seconds: a large database takes its time."""

app = kit.app(help="Check, back up or restore the daemon's database.")


@app.command()
def check() -> None:
    """Check the whole database.

    The exit code is 1 when something is wrong with it.
    """
    with kit.client(timeout=PATIENCE) as client:
        problems = client.on(type=list[str]).call(CONTROL_TOPIC, "db_check")
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
    path: Annotated[str, typer.Argument(help="The new file, which is written by this command", show_default=False)],
) -> None:
    """Write a consistent copy to a new file.

    The daemon goes on meanwhile.
    """
    from ostler.cli.backup import write_new

    target = Path(path).absolute()
    with kit.client(timeout=PATIENCE) as client:
        write_new(target, client.on(type=bytes).stream(CONTROL_TOPIC, "db_backup"))
    if kit.json_wanted():
        kit.emit({"path": str(target)})
    else:
        kit.say(kit.printable(f"The database was copied to {target}"))


@app.command()
def restore(
    file: Annotated[str, typer.Argument(help="A backup")] = "",
    empty: Annotated[bool, typer.Option("--empty", help="Begin with an empty database")] = False,
) -> None:
    """Put a backup in the place of the database of a stopped daemon.

    The backup is checked first. The database that is there is moved to the directory `backups` beside it.
    """
    from ostler.cli import session
    from ostler.store.restore import restore as put_back

    if bool(file) == empty:
        raise InvalidInput("name one backup, or use --empty", hint="ostler db restore FILE")
    database = session.current().paths().database
    moved = put_back(database, None if empty else Path(file).absolute())
    if kit.json_wanted():
        kit.emit({"path": str(database), "moved": str(moved) if moved else None})
        return
    what = "An empty database" if empty else file
    kit.say(kit.printable(f"{what} is in place as {database}; start the daemon"))
    if moved is not None:
        kit.say(kit.printable(f"What was there was moved to {moved}"))
