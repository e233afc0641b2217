"""`ostler db`: the daemon's database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli import invocation, kit
from ostler.errors import EXIT_FAILURE, InvalidInput
from ostler.types import CONTROL_TOPIC

DATABASE_TIMEOUT = 3600.0
"""Time-out in seconds: a large database takes a while."""

app = kit.app(help="Check, back up or restore the daemon's database.")


@app.command()
def check() -> None:
    """Check the whole database.

    The exit code is 1 if there is a problem.
    """
    with kit.client(timeout=DATABASE_TIMEOUT) as client:
        problems = client.on(type=list[str]).call(CONTROL_TOPIC, "db_check")
    if kit.json_wanted():
        kit.emit({"ok": not problems, "problems": problems})
    elif problems:
        kit.emit(problems)
    else:
        kit.say("The database is intact.")
    if problems:
        raise typer.Exit(EXIT_FAILURE)


@app.command()
def backup(
    path: Annotated[str, typer.Argument(help="The new file, written by this command", show_default=False)],
) -> None:
    """Write a consistent copy to a new file.

    The daemon keeps running.
    """
    from ostler.cli.new_file import write_new_file  # 1 ms: only for `db backup`

    target = Path(path).absolute()
    with kit.client(timeout=DATABASE_TIMEOUT) as client:
        write_new_file(target, client.on(type=bytes).stream(CONTROL_TOPIC, "db_backup"))
    if kit.json_wanted():
        kit.emit({"path": str(target)})
    else:
        kit.say(kit.printable(f"The database was copied to {target}"))


@app.command()
def restore(
    file: Annotated[str, typer.Argument(help="The backup")] = "",
    empty: Annotated[bool, typer.Option("--empty", help="Start with an empty database")] = False,
) -> None:
    """Replace the database of a stopped daemon by a backup.

    The backup is checked first. The existing database is moved to the directory `backups` next to it.
    """
    from ostler.store.sqlite_files.restore import restore_database as put_back  # 40 ms: only for `db restore`

    if bool(file) == empty:
        raise InvalidInput("give either a backup or --empty", hint="ostler db restore FILE")
    database = invocation.current_invocation().paths().database
    moved = put_back(database, None if empty else Path(file).absolute())
    if kit.json_wanted():
        kit.emit({"path": str(database), "moved": str(moved) if moved else None})
        return
    what = "An empty database" if empty else file
    kit.say(kit.printable(f"{what} was restored to {database}; start the daemon"))
    if moved is not None:
        kit.say(kit.printable(f"The previous database was moved to {moved}"))
