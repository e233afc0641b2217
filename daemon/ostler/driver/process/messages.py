"""The messages between the daemon and the process of a driver: msgpack arrays, no pickles.

Calls have a channel each, on which one call runs at a time: `Call` one way, `ProgressReport` and then `Result` or
`Failure` the other. Everything else goes over the control channel.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from ostler.metrics.families import MetricFamily
from ostler.types import Peer, Role

BUILD = "<build>"
"""The method that imports the driver's class and creates the instance."""
ATTRIBUTES = "<attributes>"
"""The method that returns the plain attributes of the instance."""


class Start(msgspec.Struct, array_like=True):
    """The first message to the process: which driver, and what it gets.

    `path` is `package.module:Name` of a class or factory; `options` are the validated options with their secrets.
    """

    name: str
    topic: str
    host: str
    path: str
    options: Any
    sys_path: list[str]
    log_level: int
    memory_limit: int
    descriptor_limit: int
    nice: int


class RequestFields(msgspec.Struct, array_like=True):
    """The request that a call serves; `remaining` are seconds until its deadline, None without one."""

    topic: str
    method: str
    request_id: str
    peer: Peer
    role: Role
    remaining: float | None
    host: str
    trace: str
    is_operation: bool


class Call(msgspec.Struct, array_like=True):
    """A call of a method. Each argument is encoded on its own, as the method declares it."""

    number: int
    method: str
    log_level: int
    context: RequestFields | None
    arguments: list[Raw]
    named: dict[str, Raw]


class Result(msgspec.Struct, array_like=True, tag=0):
    """What the method returned."""

    value: Raw


class Failure(msgspec.Struct, array_like=True, tag=1):
    """What the method raised; see `failures`.

    `names` are those of an Ostler error, `path` is `module:Name` of another one.
    """

    path: str
    names: list[str]
    message: str
    hint: str
    details: dict[str, Any]
    arguments: list[Any]
    traceback: str


class ProgressReport(msgspec.Struct, array_like=True, tag=2):
    """What the method reported with `Context.progress`."""

    done: float
    total: float
    text: str


Reply: TypeAlias = Result | Failure | ProgressReport


class SetOptions(msgspec.Struct, array_like=True, tag=0):
    """Other options, which need no new instance."""

    options: Any


class Cancel(msgspec.Struct, array_like=True, tag=1):
    """Cancel the context of a call."""

    number: int


class StoreReply(msgspec.Struct, array_like=True, tag=2):
    """The answer to a `StoreRequest`."""

    number: int
    value: Any
    failure: Failure | None


Order: TypeAlias = SetOptions | Cancel | StoreReply


class LogLine(msgspec.Struct, array_like=True, tag=0):
    """A log record of the process; `call` is the number of the call it was written in, 0 for none."""

    level: int
    logger: str
    text: str
    traceback: str
    call: int
    fields: dict[str, str]


class StoreRequest(msgspec.Struct, array_like=True, tag=1):
    """A call of a method of the driver's key-value store."""

    number: int
    method: str
    arguments: list[Any]


class MetricReport(msgspec.Struct, array_like=True, tag=2):
    """The metrics of the driver that have changed, with their values now."""

    families: list[MetricFamily]


Notice: TypeAlias = LogLine | StoreRequest | MetricReport
