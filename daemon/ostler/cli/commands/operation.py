"""`ostler operation`: operations, which survive the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ostler.cli import kit
from ostler.cli.follow import until_interrupted
from ostler.cli.method_calls import parse_timeout
from ostler.cli.operation_output import COLUMNS, format_progress, show_operation
from ostler.cli.results import Removed
from ostler.messaging.clients.operation import Operation
from ostler.types import CONTROL_TOPIC, OperationState, OperationStatus

app = kit.app(help="List, show, watch, cancel and retry operations.")

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The operation, or the beginning of its id", show_default=False)
]
HostOption = Annotated[str | None, typer.Option(help="The host of the operation", show_default=False)]


@app.command("list")
@kit.view
@kit.shows(OperationStatus, many=True)
def list_operations(
    service: Annotated[str, typer.Option(help="Only operations of this service", show_default=False)] = "",
    state: Annotated[
        list[OperationState] | None,
        typer.Option(help="Only operations in this state; may be repeated", show_default=False),
    ] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only operations that this user submitted")] = False,
    limit: Annotated[int, typer.Option(help="Maximum number of operations, the newest")] = 50,
    host: HostOption = None,
) -> None:
    """List operations, the newest last."""
    with kit.client() as client:
        found = client.on(type=list[OperationStatus], host=host).call(
            CONTROL_TOPIC, "operation.list", topic=service, states=state or [], mine=mine, limit=limit
        )
    kit.show_table(found, COLUMNS, empty="There are no operations.")


@app.command()
@kit.view
@kit.shows(OperationStatus)
def show(operation: IdArgument, host: HostOption = None) -> None:
    """Show an operation with its arguments, steps and result."""
    with _open(operation, host) as opened:
        show_operation(opened.inspect())


@app.command()
@kit.shows(OperationStatus, lines=True)
def watch(operation: IdArgument, host: HostOption = None) -> None:
    """Follow an operation until it has ended.

    A line is written for each change. When the daemon restarts, this waits for it and goes on. Exits with the error of
    the operation if it has failed.
    """
    ended = False
    with _open(operation, host) as opened, until_interrupted():
        for status in opened.watch():
            _show_change(status)
        ended = True
    if ended:
        opened.final_result(None)


def _show_change(status: OperationStatus) -> None:
    if kit.json_wanted():
        kit.emit_item(status)
        return
    parts = [kit.human_time(status.since), str(status.state), format_progress(status), status.why]
    print(kit.printable("  ".join(part for part in parts if part)), flush=True)  # noqa: T201 - the command's output


@app.command()
@kit.shows(OperationStatus)
def cancel(operation: IdArgument, host: HostOption = None) -> None:
    """Cancel an operation.

    One that waits ends at once. One that runs is asked to stop, and may still succeed.
    """
    with _open(operation, host) as opened:
        status = opened.cancel()
    _say(status, f"operation {status.id}: {_cancel_text(status)}")


def _cancel_text(status: OperationStatus) -> str:
    return "asked to stop" if status.state is OperationState.RUNNING else str(status.state)


@app.command()
@kit.shows(OperationStatus)
def retry(operation: IdArgument, host: HostOption = None) -> None:
    """Run a failed or cancelled operation again.

    Steps that it has recorded are not repeated.
    """
    with _open(operation, host) as opened:
        status = opened.retry()
    _say(status, f"operation {status.id}: {status.state}")


@app.command()
@kit.shows(Removed)
def prune(
    keep: Annotated[
        int | None, typer.Option(help="How many of the newest ended operations to keep", show_default=False)
    ] = None,
    older: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only those that ended longer ago: 2h, 7d", show_default=False)
    ] = None,
    host: HostOption = None,
    yes: kit.YesOption = False,
) -> None:
    """Remove ended operations, with their results.

    Without options, those above the limits of the section `[operations]`. Operations that have not ended are never
    removed. Asks first on a terminal.
    """
    with kit.client() as client:
        kit.confirm(_prune_question(keep, older), yes=yes)
        removed = client.on(type=int, host=host).call(
            CONTROL_TOPIC, "operation.prune", keep=keep, age=parse_timeout(older)
        )
    if kit.json_wanted():
        kit.emit(Removed(removed=removed))
    else:
        kit.confirm_done(f"{removed} operations removed")


def _prune_question(keep: int | None, older: str | None) -> str:
    which = [] if keep is None else [f"all but the newest {keep}"]
    which += [] if older is None else [f"those that ended more than {older} ago"]
    return f"remove ended operations: {', '.join(which) or 'those above the limits of [operations]'}"


@contextmanager
def _open(operation: str, host: str | None) -> Iterator[Operation]:
    """Yield an operation by its id, or the beginning of it."""
    with kit.client() as client:
        view = client.on(host=host)
        yield view.operation(view.on(type=str).call(CONTROL_TOPIC, "operation.find", beginning=operation))


def _say(status: OperationStatus, text: str) -> None:
    if kit.json_wanted():
        kit.emit(status)
    else:
        kit.confirm_done(text)
