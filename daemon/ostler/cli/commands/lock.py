"""`ostler lock`: the locks of services."""

from __future__ import annotations

from typing import Annotated

import typer

from ostler.cli import kit
from ostler.manager_types import LockStatus
from ostler.types import CONTROL_TOPIC

app = kit.app(help="List locks: who holds them, and who waits.")


def format_mode(lock: LockStatus) -> str:
    """Return how a lock is held or wanted: exclusive or shared, and whether other hosts take part."""
    return f"{'shared' if lock.is_shared else 'exclusive'}{', cluster' if lock.is_cluster else ''}"


COLUMNS = [
    kit.Column("service", priority=0, key=True),
    kit.Column("lock", "name", priority=0, key=True),
    kit.Column("state", lambda lock: "held" if lock.is_held else "waiting", priority=0),
    kit.Column("mode", format_mode, priority=3),
    kit.Column("for", lambda lock: kit.human_elapsed(lock.since), priority=0, min_width=11),
    kit.Column("by", "method", priority=0),
    kit.Column("request", lambda lock: lock.request_id or "-", priority=1, min_width=9),
    kit.Column("thread", lambda lock: lock.thread or "-", priority=4),
    kit.Column("host", priority=2),
]


@app.command("list")
@kit.view
@kit.shows(LockStatus, many=True)
def list_locks(
    service: Annotated[str, typer.Option(help="Only locks of this service", show_default=False)] = "",
    host: Annotated[str | None, typer.Option(help="The locks of this host", show_default=False)] = None,
) -> None:
    """List locks: who holds each of them, and who waits.

    Below each lock stand those who wait for it, the next one first.
    """
    with kit.client() as client:
        locks = client.on(type=list[LockStatus], host=host).call(CONTROL_TOPIC, "lock_list", service=service)
    kit.show_table(locks, COLUMNS, empty="No locks are held.")
