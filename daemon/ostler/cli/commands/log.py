"""`ostler log`: the log of the running daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.follow import until_interrupted
from ostler.manager_types import FollowedRecord, FollowedRecords
from ostler.types import CONTROL_TOPIC

app = kit.app(group=False)


@app.command()
@kit.shows(FollowedRecord, lines=True)
def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow new records until Ctrl-C")] = False,
    level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL", help="Records from this level on: debug, info, warning, error", show_default=False
        ),
    ] = "",
    logger: Annotated[
        str,
        typer.Option(metavar="LOGGER", help="Only this logger and those below it: ostler.store", show_default=False),
    ] = "",
    service: Annotated[
        str, typer.Option(metavar="TOPIC", help="Only records of this service", show_default=False)
    ] = "",
    request: Annotated[str, typer.Option(metavar="ID", help="Only records of this request", show_default=False)] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="Without --follow: how many of the last lines")
    ] = 100,
) -> None:
    """Show the log of the daemon, or follow it.

    With `--follow` records come from the daemon itself as they are logged. `--level debug` shows those as well that the
    log leaves out; the log, and what others see, does not change. With --json one JSON object per line.
    Without it the last lines are read from the journal, or from the file that the daemon writes to.
    """
    if not follow:
        from ostler.cli import stored_log  # only without `--follow`

        stored_log.show_stored_log(
            lines, unsupported=[name for name, given in _given(level, logger, service, request) if given]
        )
        return
    wanted = {"level": level.lower(), "logger": logger, "service": service, "request": request}
    with until_interrupted(), kit.client() as client:
        batches = client.on(type=FollowedRecords, timeout=None).stream(CONTROL_TOPIC, "log_follow", **wanted)
        for batch in batches:
            show_batch(batch)


def _given(level: str, logger: str, service: str, request: str) -> list[tuple[str, str]]:
    return [("--level", level), ("--logger", logger), ("--service", service), ("--request", request)]


def show_batch(batch: FollowedRecords) -> None:
    """Show records, one line each and more for details, and how many were dropped."""
    for record in batch.records:
        if kit.json_wanted():
            kit.emit_item(record)
        else:
            print("\n".join(record_lines(record)), flush=True)  # noqa: T201 - the command's output
    if batch.dropped:
        kit.warn(f"-- missed: {batch.dropped} records came faster than they were read")


def record_lines(record: FollowedRecord) -> list[str]:
    """Return a record as the log itself shows it: one line, and set off below it a traceback or detail."""
    fields = " ".join(f"{name}={value}" for name, value in record.fields.items())
    line = f"{kit.human_time(record.at)} {record.level.upper():<8} {record.logger}: {record.message}"
    return [
        kit.printable(f"{line} [{fields}]" if fields else line),
        *(f"    {kit.printable(each.strip())}" for each in record.detail.split("\n") if each.strip()),
    ]
