"""`ostler config`: each value and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from ostler.cli import kit, offline
from ostler.errors import FAILED
from ostler.types import CONTROL_TOPIC, Json, OptionValue

app = kit.app(help="Show the configuration with the origin of each value; secrets are masked.")

COLUMNS = [
    kit.Column("option", "path"),
    kit.Column("value", lambda option: written(option.value)),
    kit.Column("from", "origin"),
]


@app.command()
def cat(
    running: Annotated[
        bool, typer.Option("--running", help="What the daemon runs with, instead of what the files say")
    ] = False,
    no_defaults: Annotated[bool, typer.Option("--no-defaults", help="Leave out what is at its default")] = False,
) -> None:
    """Show each value with its file, line, column.

    Options that stand in no file have the origin `default`; secrets are masked.
    """
    values = _running() if running else offline.read().configuration.values()
    kit.show_table([value for value in values if not (no_defaults and value.origin == "default")], COLUMNS)


@app.command()
def diff(
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when there is a difference")] = False,
) -> None:
    """Show where files and daemon differ.

    `ostler reload` would bring into force what the files say. Secrets are masked, and so never differ.
    """
    found = list(differences(_running(), offline.read().configuration.values()))
    kit.show_table(found, ["option", "running", "files", "from"], empty="The daemon runs with what the files say.")
    if check and found:
        raise typer.Exit(FAILED)


@app.command("set")
def set_value(
    key: Annotated[str, typer.Argument(metavar="TABLE.KEY", help="The option", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="Its value, as in the file", show_default=False)],
) -> None:
    """Write one value to conf.d/90-set.toml.

    Only when the whole configuration is right with it, and no file that is read later sets the same option. The rest of
    the file, its comments and its owner stay as they are. It comes into force with `ostler reload`.
    """
    from ostler.cli import settings

    done = settings.write(key, value)
    if kit.json_wanted():
        kit.emit(done._asdict())
        return
    kit.say(kit.printable(f"{key} = {written(done.value)} is in {done.file}; `ostler reload` brings it into force"))


@app.command()
def schema() -> None:
    """Print the JSON Schema, for editors.

    The sections of configured services and drivers, and those of plugins, are in it.
    """
    print(kit.to_json(offline.schema()))  # noqa: T201 - the command's output


def written(value: Json) -> str:
    """Return a value as it would be written in the file."""
    return value if value == "***" and isinstance(value, str) else kit.to_json(value, indent=0)


def differences(running: Iterable[OptionValue], files: Iterable[OptionValue]) -> Iterable[dict[str, str]]:
    """Return a row for every option that is not the same in the daemon and in the files.

    Args:
        running: What the daemon runs with.
        files: What the files say.
    """
    before = {option.path: option for option in running}
    after = {option.path: option for option in files}
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None or old.value != new.value:
            yield {
                "option": path,
                "running": written(old.value) if old else "",
                "files": written(new.value) if new else "",
                "from": new.origin if new else "",
            }


def _running() -> list[OptionValue]:
    with kit.client() as client:
        found: list[OptionValue] = client.on(type=list[OptionValue]).call(CONTROL_TOPIC, "config")
    return found
