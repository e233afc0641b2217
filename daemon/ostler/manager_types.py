"""What managers and the command are told of locks, event handlers, and where the daemon listens."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ostler.wall_time import WallTime


class LockStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a lock, or waits for it, as an operator sees it.

    Attributes:
        service: The topic that the lock belongs to.
        name: Its name there.
        is_held: Whether it is held; else this one waits.
        is_shared: Whether it is shared.
        is_cluster: Whether daemons with the same database exclude each other.
        since: Wall time since which it is held, or waited for.
        host: The host on which.
        method: `topic.method` of the request; the service and its thread outside of one.
        request_id: The request; empty outside of one.
        thread: The name of the thread or task.
    """

    service: str
    name: str
    is_held: bool
    is_shared: bool = False
    is_cluster: bool = False
    since: WallTime = 0.0
    host: str = ""
    method: str = ""
    request_id: str = ""
    thread: str = ""


class EventHandlerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A method of a manager that is called with events, as an operator sees it.

    Attributes:
        service: The topic of its service.
        handler: The name of the method.
        patterns: Which events.
        hosts: The hosts whose events it follows now.
        unreachable: The hosts whose events it cannot follow now, each with why.
        handled: Events and gaps for which it has returned, since the start of the service.
        errors: Events and gaps for which it raised.
        gaps: The gaps among them.
        waiting: Events that wait for it.
        handling: The event that it is handling now; empty for none.
        handling_since: Wall time since which it is.
        last_error: The error of the last call; empty when that succeeded.
    """

    service: str
    handler: str
    patterns: list[str] = []
    hosts: list[str] = []
    unreachable: dict[str, str] = {}
    handled: int = 0
    errors: int = 0
    gaps: int = 0
    waiting: int = 0
    handling: str = ""
    handling_since: WallTime = 0.0
    last_error: str = ""


class DaemonAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where a daemon listens.

    Attributes:
        rpc: The address for calls of this host, for `Client(…)`.
        events: The address for subscribers of this host.
        network: The address for calls of other hosts; empty without one.
        sockets: Listening sockets that systemd has handed over, by name (`FileDescriptorName=`): descriptor. A manager
            that listens takes its own from here, and duplicates the descriptor before it uses it. Several of one name
            are `name`, `name-2`, `name-3`.
    """

    rpc: str = ""
    events: str = ""
    network: str = ""
    sockets: Mapping[str, int] = {}


class LogLevel(msgspec.Struct, frozen=True, kw_only=True):
    """The level of a logger, of all others under the empty name; `seconds_left` is None if it does not end."""

    logger: str
    level: str
    seconds_left: float | None = None


class FollowedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record of the log for whoever follows it, redacted as in the log; `detail` has further lines: a traceback."""

    at: WallTime
    level: str
    logger: str
    message: str
    fields: dict[str, str] = {}
    detail: str = ""


class FollowedRecords(msgspec.Struct, frozen=True, kw_only=True):
    """Records that were logged since the ones before, and how many more came faster than they were taken."""

    records: list[FollowedRecord] = []
    dropped: int = 0


class TokenStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A token as an administrator sees it; nothing here helps to find its secret.

    Attributes:
        name: Its name.
        role: The role that it gives.
        created_at: When it was made.
        made_by: Who made it.
        expires_at: When it ends; 0 for never.
        is_expired: Whether that has passed.
        last_used_at: When it was last used, to the minute; 0 for never.
    """

    name: str
    role: str
    created_at: WallTime = 0.0
    made_by: str = ""
    expires_at: WallTime = 0.0
    is_expired: bool = False
    last_used_at: WallTime = 0.0


class NewToken(TokenStatus, frozen=True, kw_only=True):
    """A token that was just made, with its `secret`, which is known from nowhere else and shown this once."""

    secret: str


class ConsoleText(msgspec.Struct, frozen=True):
    """A part of what an input of `ostler console` has printed; `failed` in the last part says whether it raised."""

    text: str = ""
    failed: bool = False
