"""`ostler audit`: who did what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from ostler.cli import invocation, kit
from ostler.cli.follow import until_interrupted
from ostler.config.units import format_seconds, parse_seconds
from ostler.errors import DaemonNotRunning, InvalidInput
from ostler.types import CONTROL_TOPIC, AuditEntry

app = kit.app(group=False)
_POLL_INTERVAL = 1.0


@app.command()
@kit.shows(AuditEntry, many=True)
def audit(
    who: Annotated[str, typer.Option(help="Only of this user: a name, a uid, or the key of a peer")] = "",
    method: Annotated[
        str, typer.Option(help="Only this method, with * as wildcard: volume.create, volume.*, *.delete")
    ] = "",
    since: Annotated[str, typer.Option(help="Only entries since then: 2h (ago), 2027-01-15 or 2027-01-15T09:00")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that were refused or failed")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Maximum number of entries; the newest are shown")
    ] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Follow new entries until Ctrl-C")] = False,
) -> None:
    """Show calls that changed something or were refused: who, when, what, and the result.

    While the daemon is not running its database is read. With --follow and --json one JSON object per line.
    """
    wanted: dict[str, Any] = {
        "who": who, "method": method, "since": parse_moment(since), "failed": failed, "limit": limit,
    }  # fmt: skip
    if not follow:
        kit.show_table(read_entries(wanted), COLUMNS, empty="No matching entries in the audit log.")
        return
    with until_interrupted():
        for entry in follow_entries(wanted):
            kit.emit_item(entry if kit.json_wanted() else format_entry(entry))


def read_entries(filters: dict[str, Any]) -> list[AuditEntry]:
    """Return the matching entries from the daemon, or from its database while it is not running."""
    try:
        with kit.client() as client:
            return client.on(type=list[AuditEntry]).call(CONTROL_TOPIC, "audit", **filters)  # type: ignore[no-any-return]
    except DaemonNotRunning as error:
        if invocation.current_invocation().remote is not None:
            raise
        return read_database(filters, error)


def read_database(filters: dict[str, Any], error: DaemonNotRunning) -> list[AuditEntry]:
    """Return the matching entries from the database of a daemon that is not running; nothing is changed there.

    Args:
        filters: The filter.
        error: Why the daemon could not be reached; raised if there is no database either.
    """
    path = invocation.current_invocation().paths().database
    if not path.exists():
        raise error
    from ostler.store.records.audit_records import AuditRecords, read_offline  # 40 ms: only without a daemon

    kit.warn("The daemon is not running; reading its database.")
    return AuditRecords(read_offline(path)).list(**filters)


def follow_entries(filters: dict[str, Any]) -> Iterator[AuditEntry]:
    """Yield the existing entries, and then new ones."""
    with kit.client() as client:
        while True:
            entries = client.on(type=list[AuditEntry]).call(CONTROL_TOPIC, "audit", **filters)
            yield from entries
            if entries:
                filters = {**filters, "after": entries[-1].number}
            filters["limit"] = 10_000
            time.sleep(_POLL_INTERVAL)


def parse_moment(text: str) -> float:
    """Return the wall time of a text: a date, a date with a time, or a time span before now.

    Raises:
        InvalidInput: It is none of these.
    """
    if not text:
        return 0.0
    try:
        return invocation.current_invocation().now() - parse_seconds(text)
    except InvalidInput:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise InvalidInput(
            f"{text!r} is not a valid time", hint="write 2h, 30min, 2027-01-15 or 2027-01-15T09:00"
        ) from None


def format_caller(entry: AuditEntry) -> str:
    """Return the caller: the user's name, or else the daemon's name of the peer, and its process."""
    name = entry.user or entry.who
    return f"{name} ({entry.pid})" if entry.pid > 0 else name


def format_result(entry: AuditEntry) -> str:
    """Return the result, and how often the call was refused."""
    often = f" ({entry.times} times)" if entry.times > 1 else ""
    return f"{entry.result}{often}{f': {entry.text}' if entry.text else ''}"


def format_entry(entry: AuditEntry) -> str:
    """Return an entry as one line."""
    return kit.printable(
        f"{kit.human_time(entry.at)} {format_caller(entry)} {entry.topic}.{entry.method} {entry.arguments or '{}'} "
        f"{format_result(entry)} [{entry.request_id}]"
    )


COLUMNS = [
    kit.Column("at", lambda entry: kit.human_time(entry.at), priority=0, min_width=19),
    kit.Column("who", format_caller, priority=0),
    kit.Column("method", lambda entry: f"{entry.topic}.{entry.method}", priority=0, min_width=16),
    kit.Column("arguments", priority=1, min_width=16),
    kit.Column("result", format_result, priority=0, min_width=12),
    kit.Column("took", lambda entry: format_seconds(entry.seconds, units=2), right=True, priority=2),
    kit.Column("request", "request_id", priority=3, min_width=9, key=True),
]
