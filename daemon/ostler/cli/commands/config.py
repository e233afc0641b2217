"""`ostler config`: the values of the configuration and their origins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ostler.cli import kit, without_daemon
from ostler.cli.results import OptionDifference, OptionSet, OptionUnset
from ostler.errors import EXIT_FAILURE, NotFound
from ostler.types import CONTROL_TOPIC, DaemonStatus, Json, OptionValue

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration, Tables

app = kit.app(help="Show the configuration with the origin of each value; secrets are masked.")

COLUMNS = [
    kit.Column("option", "path", priority=0),
    kit.Column("value", lambda option: format_option_value(option.text or option.value), priority=0),
    kit.Column("from", "origin"),
]


DIFFERENCE_COLUMNS = [
    kit.Column("option", priority=0, min_width=20),
    kit.Column("running", lambda row: format_difference(row.running_text or row.running), priority=0),
    kit.Column("files", lambda row: format_difference(row.files_text or row.files), priority=0),
    kit.Column("needs", priority=1, min_width=7),
    kit.Column("from", "origin", priority=1, min_width=16),
]


@app.command()
@kit.view
@kit.shows(OptionValue, many=True)
def cat(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="Only this option or table: services.volume", show_default=False)
    ] = "",
    running: Annotated[
        bool, typer.Option("--running", help="Show the values of the running daemon instead of those of the files")
    ] = False,
    no_defaults: Annotated[bool, typer.Option("--no-defaults", help="Omit options that have their default")] = False,
) -> None:
    """Show the values as TOML, each with its file, line, column.

    Options that are set in no file have the origin `default`; secrets are masked, and comments. With --json a list of
    objects with `path`, `value` and `origin`.
    """
    from ostler.cli.config_text import config_toml, matches_prefix  # 10 ms: only for `config cat`

    values = _running_values() if running else _configured().values()
    found = [value for value in values if not prefix or matches_prefix(value.path, prefix)]
    if prefix and not found:
        raise NotFound(f"no option begins with {prefix}", hint="`ostler config cat` shows all of them", prefix=prefix)
    shown = [value for value in found if not (no_defaults and value.origin == "default")]
    if kit.json_wanted() or kit.names_wanted():
        kit.show_table(shown, COLUMNS)
    elif shown:
        print(config_toml(shown))  # noqa: T201 - the command's output, of several lines


@app.command()
@kit.view
@kit.shows(OptionDifference, many=True)
def diff(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 if there is a difference")] = False,
    running: Annotated[
        bool, typer.Option("--running", help="Only what was reloaded already, and waits for a restart of the daemon")
    ] = False,
) -> None:
    """Show the differences between the files and the running daemon.

    `ostler reload` applies the values of the files, `ostler reload --plan` shows how. Secrets are masked, and so never
    differ.
    """
    if running:
        found = _waiting_rows()
    else:
        configured = _configured()
        found = list(difference_rows(_running_values(), configured.values(), configured.tables))
    kit.show_table(found, DIFFERENCE_COLUMNS, empty="No differences.")
    if check and found:
        raise typer.Exit(EXIT_FAILURE)


FileOption = Annotated[
    str,
    typer.Option("--file", metavar="FILE", help="The file to edit: a path, or a name in conf.d", show_default=False),
]


@app.command("set")
@kit.shows(OptionSet)
def set_value(
    key: Annotated[str, typer.Argument(metavar="TABLE.KEY", help="The option", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value, as in the file", show_default=False)],
    file: FileOption = "",
) -> None:
    """Write a value to the file that sets the option now.

    If no file does, or one of a package, it is conf.d/90-set.toml. It is refused if the configuration would be invalid
    with it, or if a file that is read later sets the same option. The rest of the file, its comments, owner and mode do
    not change. A file that is a link, or in a linked conf.d, is not edited. `ostler reload` applies the value.
    """
    from ostler.cli import config_set  # 50 ms: only for `config set`

    done = config_set.set_option(key, value, file)
    if kit.json_wanted():
        kit.emit(done)
        return
    shown = format_option_value(done.value)
    _say(f"{done.option} = {shown} was written to {done.file}; `ostler reload` applies it", done.notes)


@app.command("unset")
@kit.shows(OptionUnset)
def unset_value(
    key: Annotated[str, typer.Argument(metavar="TABLE.KEY", help="The option", show_default=False)],
    file: FileOption = "",
) -> None:
    """Remove a value from the file that sets the option now.

    It is refused if the configuration would be invalid without it, or if no file sets it, or only one of a package. The
    value that is in effect then is shown with its origin. A table can be removed as well. `ostler reload` applies it.
    """
    from ostler.cli import config_set  # 50 ms: only for `config unset`

    done = config_set.unset_option(key, file)
    if kit.json_wanted():
        kit.emit(done)
        return
    now = "has its default now" if done.origin == "default" else f"is now the one of {done.origin}"
    _say(f"{done.option} was removed from {done.file} and {now}; `ostler reload` applies it", done.notes)


def _say(text: str, notes: Iterable[str]) -> None:
    for note in notes:
        kit.warn(f"note: {note}")
    kit.confirm_done(text)


@app.command()
@kit.shows(dict[str, Any])
def schema(
    write: Annotated[
        bool, typer.Option("--write", help="Write it to ostler.schema.json, and name it in the files")
    ] = False,
) -> None:
    """Print the JSON Schema, for editors.

    It includes the sections of configured services, drivers and plugins. With --write it is written next to
    the configuration, and the files there that name no schema get the line `#:schema` that editors with taplo look for.
    """
    if write:
        _write_schema()
        return
    print(kit.to_json(without_daemon.configuration_schema()))  # noqa: T201 - the command's output


def format_option_value(value: Json) -> str:
    """Return a value as it is written in the file."""
    return value if value == "***" and isinstance(value, str) else kit.to_json(value, indent=0)


def _configured() -> Configuration:
    """Return the configuration of the files; warn of what is left out of it because its plugin is broken."""
    found = without_daemon.resolve_configuration()
    for line in found.broken:
        kit.warn(kit.printable(f"warning: {line}"))
    return found.configuration


def difference_rows(
    running: Iterable[OptionValue], files: Iterable[OptionValue], tables: Tables
) -> Iterable[OptionDifference]:
    """Return a row for every option that differs between the daemon and the files.

    Args:
        running: The values of the daemon.
        files: The values of the files.
        tables: The tables of the files, which know what a change of each option needs.
    """
    from ostler.config.configuration_diff import change_level  # only for `config diff`

    before = {option.path: option for option in running}
    after = {option.path: option for option in files}
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None or old.value != new.value:
            yield OptionDifference(
                option=path,
                running=old.value if old else None,
                files=new.value if new else None,
                origin=new.origin if new else "",
                needs=change_level(tables, path, before),
                running_text=old.text if old else "",
                files_text=new.text if new else "",
            )


def _write_schema() -> None:
    from ostler.cli import config_schema  # 5 ms: only for `config schema --write`

    done = config_schema.write_schema()
    if kit.json_wanted():
        kit.emit(done)
        return
    named = f" and is named in {', '.join(done.files)}" if done.files else ""
    _say(f"The schema was written to {done.file}{named}", done.notes)


def format_difference(value: Json) -> str:
    """Return a value as it is written in the file; empty if the option is not set."""
    return "" if value is None else format_option_value(value)


def _waiting_rows() -> list[OptionDifference]:
    with kit.client() as client:
        status = client.on(type=DaemonStatus).call(CONTROL_TOPIC, "status")
    return [
        OptionDifference(
            option=change.path,
            running=change.old,
            files=change.new,
            origin="",
            needs=change.needs,
            running_text=change.old_text,
            files_text=change.new_text,
        )
        for change in status.needs_restart
    ]


def _running_values() -> list[OptionValue]:
    with kit.client() as client:
        found: list[OptionValue] = client.on(type=list[OptionValue]).call(CONTROL_TOPIC, "config")
    return found
