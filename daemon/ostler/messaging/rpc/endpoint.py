"""What a topic offers: the exposed methods of an object, checked and counted."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from ostler.aio import WorkerPool
from ostler.errors import ContractError, NotExposed, TargetNotFound, UnsupportedVersion
from ostler.messaging.exposed import Exposure, exposure_of
from ostler.messaging.rpc.signature import Signature, type_name
from ostler.messaging.rpc.stats import MethodStats
from ostler.messaging.target import did_you_mean, speaks
from ostler.types import ROLE_ORDER, MethodDescription

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class Method(NamedTuple):
    """One exposed method, ready to be called."""

    name: str
    where: str
    call: Callable[..., Any]
    exposure: Exposure
    signature: Signature
    is_async: bool
    rank: int
    doc: str
    stats: MethodStats


class Endpoint:
    """The exposed methods of one service (or of the daemon itself), checked once when it is made.

    Args:
        topic: The topic it answers on.
        host: The host it is on.
        target: The object whose `@exposed` methods are offered.
        pool: The threads of its `def` methods; None for an object that has only `async def` ones.
        version: The RPC version it speaks, `major.minor`.
        wrap: Wraps each method once; a `def` must stay one, and an `async def` too.

    Raises:
        ContractError: A method's signature cannot go over the wire; says which and why.
    """

    def __init__(
        self,
        topic: str,
        host: str,
        target: object,
        pool: WorkerPool | None,
        version: str = "1.0",
        wrap: Wrap | None = None,
    ) -> None:
        self.topic = topic
        self.host = host
        self.target = target
        self.pool = pool
        self.version = version
        self.draining = ""
        self.in_flight = 0
        self.requests = 0
        self.replies = 0
        self.refused = 0
        self.errors: Counter[str] = Counter()
        self.methods = {method.name: method for method in _collect(topic, target, pool, wrap)}

    def method(self, name: str) -> Method:
        """Return an exposed method.

        Raises:
            NotExposed: There is such a method, but it is not offered.
            TargetNotFound: There is none.
        """
        found = self.methods.get(name)
        if found is not None:
            return found
        facts = {"topic": self.topic, "method": name}
        if not name.startswith("_") and inspect.isroutine(inspect.getattr_static(self.target, name, None)):
            raise NotExposed(
                f"{self.topic}.{name} is not offered to callers", hint="its author marks it with `@exposed`", **facts
            )
        raise TargetNotFound(
            f"{self.topic} has no method {name!r}",
            hint=did_you_mean(name, self.methods) or f"see `ostler describe {self.topic}`",
            **facts,
        )

    def check_version(self, asked: str) -> None:
        """Refuse a version that this service does not speak.

        Raises:
            UnsupportedVersion: It is of another major version, or newer.
        """
        if not speaks(self.version, asked):
            raise UnsupportedVersion(
                f"{self.topic} on {self.host} speaks version {self.version}, version {asked} was asked for",
                hint="upgrade the older of the two, or pin the version with `rpc_pin`",
                topic=self.topic,
                host=self.host,
                offered=self.version,
                asked=asked,
            )

    def describe(self) -> list[MethodDescription]:
        """Return the methods as `ostler describe` shows them, by name."""
        return [
            MethodDescription(
                topic=self.topic,
                method=method.name,
                role=method.exposure.role,
                version=method.exposure.version,
                changes=method.exposure.changes,
                arguments=method.signature.describe(),
                result=type_name(method.signature.result),
                doc=method.doc,
            )
            for method in sorted(self.methods.values(), key=lambda method: method.name)
        ]

    def stats(self) -> dict[str, Any]:
        """Return the counters: requests, replies, errors by name, refused, in_flight, queued."""
        return {
            "requests": self.requests,
            "replies": self.replies,
            "errors": dict(self.errors),
            "refused": self.refused,
            "in_flight": self.in_flight,
            "queued": self.pool.queued if self.pool is not None else 0,
        }


def _collect(topic: str, target: object, pool: WorkerPool | None, wrap: Wrap | None) -> list[Method]:
    found = []
    for name in dir(type(target)):
        declared = getattr(type(target), name, None)
        exposure = exposure_of(declared)
        if exposure is None:
            continue
        found.append(_method(topic, name, getattr(target, name), exposure, pool, wrap))
    return found


def _method(
    topic: str, name: str, bound: Callable[..., Any], exposure: Exposure, pool: WorkerPool | None, wrap: Wrap | None
) -> Method:
    where = f"{topic}.{name}"
    is_async = inspect.iscoroutinefunction(bound)
    if inspect.isgeneratorfunction(bound) or inspect.isasyncgenfunction(bound):
        raise ContractError(f"{where} yields, and streams are not offered yet", hint="return a list", method=where)
    if not is_async and pool is None:
        raise ContractError(f"{where} is a `def`, and {topic} has no threads", hint="make it `async def`", method=where)
    call = bound if wrap is None else wrap(bound)
    if inspect.iscoroutinefunction(call) is not is_async:
        raise ContractError(f"the wrapper of {where} must keep a `def` a `def`, and `async def` likewise", method=where)
    doc = inspect.getdoc(bound) or ""
    rank = ROLE_ORDER[exposure.role]
    return Method(name, where, call, exposure, Signature(bound, where), is_async, rank, doc, MethodStats())
