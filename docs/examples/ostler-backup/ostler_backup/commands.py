"""`ostler backup`."""

from __future__ import annotations

from typing import Annotated

import typer
from ostler import format_size
from ostler.cli import kit

from ostler_backup.api import BackupApi
from ostler_backup.manager import Backup

app = kit.app(help="Manage backups")
COLUMNS = [
    kit.Column("archive"),
    kit.Column("source"),
    kit.Column("target"),
    kit.Column("size", lambda backup: format_size(backup.size), right=True),
    kit.Column("age", lambda backup: kit.human_age(backup.at)),
]


@app.command("list")
@kit.shows(Backup, many=True)
def list_backups(
    source: Annotated[str, typer.Option(help="Only those of this source")] = "",
) -> None:
    """List the backups, the last one first."""
    with kit.client() as client:
        kit.show_table(BackupApi(client).backups(source), COLUMNS, empty="No backups.")


@app.command()
def run(source: Annotated[str, typer.Argument(help="The source")]) -> None:
    """Back up a source now, with a progress bar; it is an operation, which survives the daemon."""
    with kit.client() as client:
        backup = kit.run_operation(client.on(type=Backup), "backup", "back_up", f"backing up {source}", source=source)
    kit.say(f"Stored {kit.printable(backup.archive)} ({format_size(backup.size)}).")


@app.command()
def verify(archive: Annotated[str, typer.Argument(help="The archive")]) -> None:
    """Check that an archive is as it was stored."""
    with kit.client() as client:
        BackupApi(client).verify(archive)
    kit.say(f"{kit.printable(archive)} is unchanged.")
