"""`ostler audit`: who did what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ostler.cli import kit, session
from ostler.cli.following import until_told
from ostler.config.units import format_seconds, parse_seconds
from ostler.errors import InvalidInput, NotRunning
from ostler.types import CONTROL_TOPIC, AuditEntry

app = kit.app(group=False)
_EVERY = 1.0


@app.command()
def audit(
    who: Annotated[str, typer.Option(help="Only of this user: a name, a uid, or the key of a peer")] = "",
    method: Annotated[str, typer.Option(help="Only this method, * for any: volume.create, volume.*, *.delete")] = "",
    since: Annotated[str, typer.Option(help="Only from then on: 2h ago as 2h, or 2027-01-15, 2027-01-15T09:00")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only what was refused or ended with an error")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The most entries, the newest ones")] = 100,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones, until Ctrl-C")] = False,
) -> None:
    """Show calls that changed something or were refused: who, when, what, how it ended.

    While the daemon is down its database is read. With --follow and --json one JSON object a line.
    """
    wanted: dict[str, Any] = {
        "who": who, "method": method, "since": moment(since), "failed": failed, "limit": limit,
    }  # fmt: skip
    if not follow:
        kit.show_table(read(wanted), COLUMNS, empty="There is nothing in the audit log that fits.")
        return
    with until_told():
        for entry in following(wanted):
            print(line_of(entry), flush=True)  # noqa: T201 - the command's output


def read(wanted: dict[str, Any]) -> list[AuditEntry]:
    """Return the entries that fit, from the daemon, or from its database while it is down."""
    try:
        with kit.client() as client:
            return client.on(type=list[AuditEntry]).call(CONTROL_TOPIC, "audit", **wanted)  # type: ignore[no-any-return]
    except NotRunning as error:
        if session.current().remote is not None:
            raise
        return read_database(wanted, error)


def read_database(wanted: dict[str, Any], why: NotRunning) -> list[AuditEntry]:
    """Return the entries that fit, from the database of a daemon that is down; nothing is changed there.

    Args:
        wanted: Which entries.
        why: Why the daemon was not asked; raised when there is no database either.
    """
    path = session.current().paths().database
    if not path.exists():
        raise why
    from ostler.store.audit import AuditRecords, read_offline

    kit.warn("The daemon is not running; this is what its database has.")
    return AuditRecords(read_offline(path)).list(**wanted)


def following(wanted: dict[str, Any]) -> Iterator[AuditEntry]:
    """Yield what there is and then what comes."""
    with kit.client() as client:
        while True:
            entries = client.on(type=list[AuditEntry]).call(CONTROL_TOPIC, "audit", **wanted)
            yield from entries
            if entries:
                wanted = {**wanted, "after": entries[-1].number}
            wanted["limit"] = 10_000
            time.sleep(_EVERY)


def moment(text: str) -> float:
    """Return the wall time that a text means: a date, a date with a time, or a time span that is counted back.

    Raises:
        InvalidInput: It is neither.
    """
    if not text:
        return 0.0
    from datetime import datetime

    try:
        return session.current().now() - parse_seconds(text)
    except InvalidInput:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise InvalidInput(f"{text!r} is no time", hint="write 2h, 30min, 2027-01-15 or 2027-01-15T09:00") from None


def who_of(entry: AuditEntry) -> str:
    """Return who it was: the user's name, or else what the daemon calls the peer, and its process."""
    name = entry.user or entry.who
    return f"{name} ({entry.pid})" if entry.pid > 0 else name


def result_of(entry: AuditEntry) -> str:
    """Return how it ended, and how often that was refused."""
    often = f" ({entry.times} times)" if entry.times > 1 else ""
    return f"{entry.result}{often}{f': {entry.text}' if entry.text else ''}"


def line_of(entry: AuditEntry) -> str:
    """Return an entry as one line."""
    if kit.json_wanted():
        return kit.to_json(entry, indent=0)
    return kit.printable(
        f"{kit.human_time(entry.at)} {who_of(entry)} {entry.topic}.{entry.method} {entry.arguments or '{}'} "
        f"{result_of(entry)} [{entry.request_id}]"
    )


COLUMNS = [
    kit.Column("at", lambda entry: kit.human_time(entry.at)),
    kit.Column("who", who_of),
    kit.Column("method", lambda entry: f"{entry.topic}.{entry.method}"),
    kit.Column("arguments"),
    kit.Column("result", result_of),
    kit.Column("took", lambda entry: format_seconds(entry.seconds, units=2), right=True),
    kit.Column("request", "request_id"),
]
