"""`ostler db`: the daemon's database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ostler.cli import invocation, kit
from ostler.cli.results import DatabaseCheck, DatabaseCopy, DatabaseRestored, Migration
from ostler.errors import EXIT_FAILURE, DaemonNotRunning, InvalidInput
from ostler.messaging.wire.request_context import Progress
from ostler.types import CONTROL_TOPIC, PluginState

if TYPE_CHECKING:
    from ostler.messaging.clients.sync_client import Client
    from ostler.store import VacuumResult
    from ostler.store.offline import MigrationReport

T = TypeVar("T")

DATABASE_TIMEOUT = 3600.0
"""Time-out in seconds: a large database takes a while."""

app = kit.app(help="Check, back up, restore, migrate or vacuum the daemon's database.")


@app.command()
@kit.shows(DatabaseCheck)
def check() -> None:
    """Check the whole database.

    The daemon does it, or this command while it is stopped. The exit code is 1 if there is a problem.
    """
    problems = _ask_or_do(_ask_to_check, _check_offline)
    if kit.json_wanted():
        kit.emit(DatabaseCheck(ok=not problems, problems=problems))
    elif problems:
        kit.emit([kit.printable(line) for line in problems])
    else:
        kit.say("The database is intact.")
    if problems:
        raise typer.Exit(EXIT_FAILURE)


def _ask_to_check(client: Client) -> list[str]:
    return client.on(type=list[str]).call(CONTROL_TOPIC, "db_check")  # type: ignore[no-any-return]


def _check_offline(database: Path) -> list[str]:
    from ostler.store.offline import check_offline  # 40 ms: only without a daemon

    return check_offline(database)


@app.command()
@kit.shows(DatabaseCopy)
def backup(
    path: Annotated[str, typer.Argument(help="The new file, written by this command", show_default=False)],
) -> None:
    """Write a consistent copy to a new file.

    The daemon keeps running; while it is stopped, this command makes the copy.
    """
    target = Path(path).absolute()
    _ask_or_do(partial(_ask_for_backup, target), partial(_backup_offline, target))
    if kit.json_wanted():
        kit.emit(DatabaseCopy(path=str(target)))
    else:
        kit.say(kit.printable(f"The database was copied to {target}"))


def _ask_for_backup(target: Path, client: Client) -> None:
    from ostler.cli.new_file import write_new_file  # 1 ms: only for `db backup`

    pieces = client.on(type=bytes).stream(CONTROL_TOPIC, "db_backup")
    with kit.progress("copying", unit="bytes") as on_progress:
        write_new_file(target, _counted(pieces, _database_size(), on_progress))


def _counted(pieces: Iterator[bytes], total: int, on_progress: Callable[[Progress], None]) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        on_progress(Progress(done, max(total, done) if total else 0, ""))


def _database_size() -> int:
    """Return the size of the database, 0 if it cannot be seen from here."""
    current = invocation.current_invocation()
    try:
        return 0 if current.remote is not None else current.paths().database.stat().st_size
    except OSError:
        return 0


def _backup_offline(target: Path, database: Path) -> None:
    from ostler.store.offline import backup_offline  # 40 ms: only without a daemon

    with kit.progress("copying", unit="bytes") as on_progress:
        backup_offline(database, target, lambda done, total: on_progress(Progress(done, total, "")))


@app.command()
@kit.shows("ostler.store:VacuumResult")
def vacuum() -> None:
    """Give the room of removed rows back to the file system.

    The daemon does it, and writes nothing else meanwhile; while it is stopped, this command does. It needs up to twice
    the size of what is in use for a while. A large database can be vacuumed while the daemon is stopped only.
    """
    result = _ask_or_do(_ask_to_vacuum, _vacuum_offline)
    if kit.json_wanted():
        kit.emit(result)
    else:
        kit.say(f"The database has {result.after // 1024} KiB; before, it had {result.before // 1024} KiB")


def _ask_to_vacuum(client: Client) -> VacuumResult:
    from ostler.store import VacuumResult  # 40 ms: only for `db vacuum`

    return client.on(type=VacuumResult).call(CONTROL_TOPIC, "db_vacuum")  # type: ignore[no-any-return]


def _vacuum_offline(database: Path) -> VacuumResult:
    from ostler.store.offline import vacuum_offline  # 40 ms: only without a daemon

    return vacuum_offline(database)


@app.command()
@kit.shows(Migration)
def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the steps, change nothing")] = False,
) -> None:
    """Migrate the tables of a stopped daemon.

    Its own and those of plugins are brought to the installed versions, as a start of the daemon does. A backup is made
    first. The exit code is 1 if something could not be migrated.
    """
    # 110 ms: only for `db migrate`.
    from ostler.cli.without_daemon import load_core
    from ostler.store.offline import migrate_offline

    core, plugins = load_core()
    database = invocation.current_invocation().paths().database
    report = migrate_offline(database, plugins.migrations(), backups=core.store.backups, dry_run=dry_run)
    failed = [f"plugin {each.name}: {each.why}" for each in plugins.statuses() if each.state is PluginState.FAILED]
    problems = [*report.problems, *failed]
    if kit.json_wanted():
        kit.emit(Migration(steps=report.steps, backup=report.backup, problems=problems, dry_run=dry_run))
    else:
        _show_migration(report, problems, dry_run=dry_run)
    if problems:
        raise typer.Exit(EXIT_FAILURE)


def _show_migration(report: MigrationReport, problems: list[str], *, dry_run: bool) -> None:
    for line in problems:
        kit.warn(kit.printable(line))
    for step in report.steps:
        kit.say(kit.printable(f"{'would apply' if dry_run else 'applied'} {step}"))
    if not report.steps and not problems:
        kit.say("All tables are up to date.")
    if report.backup:
        kit.say(kit.printable(f"The previous state was saved to {report.backup}"))


def _ask_or_do(ask: Callable[[Client], T], do: Callable[[Path], T]) -> T:
    """Ask the daemon, or do it in its database while it is not running."""
    try:
        with kit.client(timeout=DATABASE_TIMEOUT) as client:
            return ask(client)
    except DaemonNotRunning:
        database = invocation.current_invocation().paths().database
        if invocation.current_invocation().remote is not None or not database.exists():
            raise
        kit.warn("The daemon is not running; this command works on its database.")
        return do(database)


@app.command()
@kit.shows(DatabaseRestored)
def restore(
    file: Annotated[str, typer.Argument(help="The backup")] = "",
    empty: Annotated[bool, typer.Option("--empty", help="Start with an empty database")] = False,
    yes: kit.YesOption = False,
) -> None:
    """Replace the database of a stopped daemon by a backup.

    Asks first on a terminal. The backup is checked first. The existing database is moved to the directory `backups`
    next to it.
    """
    from ostler.store.sqlite_files.restore import restore_database as put_back  # 40 ms: only for `db restore`

    if bool(file) == empty:
        raise InvalidInput("give either a backup or --empty", hint="ostler db restore FILE")
    database = invocation.current_invocation().paths().database
    if database.exists():
        kit.confirm(f"replace {database} by {'an empty database' if empty else file}", yes=yes)
    with kit.progress(f"restoring {database.name}", unit="bytes") as on_progress:
        moved = put_back(
            database,
            None if empty else Path(file).absolute(),
            lambda done, total: on_progress(Progress(done, total, "checking the copy" if done == total else "")),
        )
    if kit.json_wanted():
        kit.emit(DatabaseRestored(path=str(database), moved=str(moved) if moved else None))
        return
    what = "An empty database" if empty else file
    kit.say(kit.printable(f"{what} was restored to {database}; start the daemon"))
    if moved is not None:
        kit.say(kit.printable(f"The previous database was moved to {moved}"))
