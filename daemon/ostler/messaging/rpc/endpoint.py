"""The exposed methods of a topic's object, checked and counted."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import log2
from sys import maxsize
from types import MethodType
from typing import Any

import msgspec

from ostler.aio import WorkerPool
from ostler.bounds import type_name
from ostler.errors import ContractError, MethodNotFound, NotExposed, UnsupportedVersion
from ostler.messaging.access.policy import Policy, RoleOverride, role_rank
from ostler.messaging.interface.exposure import Exposure, exposure_of
from ostler.messaging.interface.introspection import (
    check_method_version,
    check_namespaces,
    describe_method,
    rpc_version_of,
)
from ostler.messaging.interface.method_signature import MethodSignature
from ostler.metrics.families import Exemplar
from ostler.spelling import suggest
from ostler.types import ROLE_ORDER, MethodDescription, OperatorOverride
from ostler.version_numbers import is_compatible

_BUCKETS_PER_OCTAVE = 4
"""Buckets for each doubling of the time: a percentile is right within a fifth."""


_MAX_ERROR_NAMES = 100
"""Names of errors that a service counts separately; plugins can make any number of classes."""
_OTHER = "other"


def count_name(counts: Counter[str], name: str) -> None:
    """Count a name, or `other` for one that comes after a hundred others."""
    counts[name if name in counts or len(counts) < _MAX_ERROR_NAMES else _OTHER] += 1


class MethodStats:
    """The counters of one method since its service was loaded. On the loop's thread only.

    Times go into buckets that grow by the factor 2^(1/4), from a microsecond to twelve days.
    """

    __slots__ = (
        "buckets",
        "errors",
        "exemplars",
        "has_large_results",
        "in_flight",
        "refused",
        "requests",
        "total_seconds",
        "typical_seconds",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.refused = 0
        self.in_flight = 0
        self.total_seconds = 0.0
        self.typical_seconds = 1.0
        self.has_large_results = False
        """Whether the last result of a `def` was large. Written by its thread."""
        self.buckets: dict[int, int] = {}
        self.exemplars: dict[int, Exemplar] | None = None
        """The last request of each bucket that belongs to a sampled trace; None while there is none."""

    def record_run(self, seconds: float) -> None:
        """Record how long a `def` ran in its thread; `typical_seconds` is about the least of late. On that thread."""
        self.typical_seconds = (
            seconds if seconds < self.typical_seconds else self.typical_seconds + (seconds - self.typical_seconds) / 16
        )

    def record_latency(self, seconds: float) -> None:
        """Count a request that has ended, and how long it took from its arrival."""
        micros = seconds * 1e6
        bucket = int(_BUCKETS_PER_OCTAVE * log2(micros)) if micros > 1 else 0
        buckets = self.buckets
        buckets[bucket] = buckets.get(bucket, 0) + 1
        self.total_seconds += seconds

    def record_trace(self, seconds: float, trace: str, wall: float) -> None:
        """Keep a request that is traced as an example of those that took as long.

        Args:
            seconds: How long it took from its arrival.
            trace: Its `traceparent`, which says whether the trace is sampled.
            wall: When it ended.
        """
        if trace.endswith("-01"):
            # One for each factor of four is as many as readers tell apart.
            bucket = (int(log2(seconds * 1e6)) + 1) // 2 if seconds > 1e-6 else 0
            if self.exemplars is None:
                self.exemplars = {}
            self.exemplars[bucket] = Exemplar(trace_id=trace[3:35], value=seconds, at=wall)


def percentile(buckets: dict[int, int], fraction: float) -> float:
    """Return the seconds within which `fraction` (0 to 1) of the requests ended, 0 when there were none."""
    left = fraction * sum(buckets.values())
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 0:
            return 2 ** ((bucket + 1) / _BUCKETS_PER_OCTAVE) / 1e6
    return 0.0


class Method(msgspec.Struct, frozen=True):
    """One exposed method, ready to be called."""

    name: str
    full_name: str
    function: Callable[..., Any]
    exposure: Exposure
    signature: MethodSignature
    is_async: bool
    role_rank: int
    doc: str
    stats: MethodStats
    required_role: str = ""
    """The role in force, or `nobody`."""
    pool: WorkerPool | None = None
    """The threads in which it runs, when it is a `def`."""
    starts_at_once: bool = False
    """Whether a plain call of it is a coroutine on the loop: it is no `def`, and not durable."""


class Endpoint:
    """The exposed methods of one service (or of the daemon itself), checked once when it is made.

    Args:
        topic: The topic it answers on.
        host: The host it is on.
        target: The object whose `@exposed` methods are offered.
        pool: The threads of its `def` methods; None for an object that has only `async def` ones.
        version: The RPC version it speaks, `major.minor`.
        namespaces: Further objects whose methods are offered as `namespace.method`, each with its own `rpc_version`.
        trusted: Do not look at each type again: the object is one of ours, and a test has.
        short_pool: The threads of those `def` methods that say they are short; those of the others by default.

    Raises:
        ContractError: A method's signature cannot be encoded, it is newer than what it belongs to, or names
            clash; says which and why.
    """

    def __init__(
        self,
        topic: str,
        host: str,
        target: object,
        pool: WorkerPool | None,
        version: str = "1.0",
        namespaces: Mapping[str, object] | None = None,
        *,
        trusted: bool = False,
        short_pool: WorkerPool | None = None,
    ) -> None:
        self.topic = topic
        self.host = host
        self.target = target
        self.pool = pool
        self.short_pool = short_pool
        self.version = version
        self.draining_reason = ""
        self.returns_after: float | None = None
        """Seconds after which callers of a draining topic are to try again; None if it does not come back by itself."""
        self.frozen: OperatorOverride | None = None
        self.refuses_work = False
        """Whether it drains or is frozen: one look for each request."""
        self.max_in_flight = maxsize
        """Requests in progress at once, those that wait for a thread included; one more is refused."""
        self.in_flight = 0
        self.requests = 0
        self.replies = 0
        self.refused = 0
        self.errors: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        """Requests that were not begun, by the name of the error."""
        self.namespaces = dict(namespaces or {})
        check_namespaces(topic, target, self.namespaces)
        self.versions = {
            "": version,
            **{name: rpc_version_of(each, f"{topic}.{name}") for name, each in self.namespaces.items()},
        }
        self.methods = {method.name: method for method in self._collect_methods(trusted)}
        self._descriptions: dict[bool, tuple[Mapping[str, Method], list[MethodDescription]]] = {}

    def count_error(self, error: BaseException) -> None:
        """Count a request that failed or was refused, by the name of its error."""
        count_name(self.errors, type_name(error))

    def apply_policy(self, policy: Policy) -> list[RoleOverride]:
        """Put the roles of a policy into force, for calls that come from now on; return what differs from `@exposed`.

        Nothing is asked of the policy when a call comes.
        """
        changes = []
        applied = {}
        for name, method in self.methods.items():
            asked = method.exposure.role
            needs = policy.required_role(self.topic, name, asked)
            applied[name] = msgspec.structs.replace(method, role_rank=role_rank(needs), required_role=needs)
            if needs != asked:
                changes.append(RoleOverride(method.full_name, str(asked), needs))
        self.methods = applied
        return changes

    def get_method(self, name: str) -> Method:
        """Return an exposed method.

        Raises:
            NotExposed: The method exists, but is not exposed.
            MethodNotFound: There is none.
        """
        found = self.methods.get(name)
        if found is not None:
            return found
        facts = {"topic": self.topic, "method": name}
        namespace, _, plain = name.rpartition(".")
        target = self.namespaces.get(namespace) if namespace else self.target
        if not plain.startswith("_") and inspect.isroutine(inspect.getattr_static(target, plain, None)):
            raise NotExposed(
                f"{self.topic}.{name} is not exposed to callers",
                hint="mark the method with `@exposed` in the plugin",
                **facts,
            )
        raise MethodNotFound(
            f"{self.topic} has no method {name!r}",
            hint=suggest(name, self.methods) or f"see `ostler describe {self.topic}`",
            **facts,
        )

    def check_version(self, wanted: str, method: str = "") -> None:
        """Refuse a version that this service, or the namespace of the method, does not speak.

        Raises:
            UnsupportedVersion: It is of another major version, or newer.
        """
        namespace = method.rpartition(".")[0]
        offered = self.versions.get(namespace)
        if offered is None or is_compatible(
            offered, wanted
        ):  # a namespace that is not there is said when the method is sought
            return
        what = f"{self.topic}.{namespace}" if namespace else self.topic
        raise UnsupportedVersion(
            f"{what} on {self.host} has version {offered}, version {wanted} was requested",
            hint="upgrade the older of the two, or pin the version with `rpc_pins` in [messaging]",
            topic=self.topic, host=self.host, offered=offered, asked=wanted, namespace=namespace,
        )  # fmt: skip

    def is_description_cached(self, *, schema: bool) -> bool:
        """Return whether `describe` has nothing to make, which takes some milliseconds for schemas."""
        kept = self._descriptions.get(schema)
        return kept is not None and kept[0] is self.methods

    def describe(self, *, schema: bool = False) -> list[MethodDescription]:
        """Return the methods as `ostler describe` shows them, by name, those of namespaces last.

        What is made is kept until another policy is applied. Any thread.
        """
        methods = self.methods
        kept = self._descriptions.get(schema)
        if kept is None or kept[0] is not methods:
            kept = self._descriptions[schema] = (methods, self._describe(methods, schema=schema))
        return kept[1]

    def _describe(self, methods: Mapping[str, Method], *, schema: bool) -> list[MethodDescription]:
        found = [
            describe_method(
                self.topic, each.name, each.exposure, each.signature, each.doc,
                version=self.versions[each.name.rpartition(".")[0]], schema=schema, role=each.required_role,
            )
            for each in methods.values()
        ]  # fmt: skip
        return sorted(found, key=lambda method: (method.namespace, method.method))

    def stats(self) -> dict[str, Any]:
        """Return the counters: requests, replies, errors by name, refused, in_flight, queued."""
        return {
            "requests": self.requests,
            "replies": self.replies,
            "errors": dict(self.errors),
            "refused": self.refused,
            "in_flight": self.in_flight,
            "queued": sum(pool.queued_count for pool in (self.pool, self.short_pool) if pool is not None),
        }

    def _collect_methods(self, trusted: bool) -> Iterator[Method]:
        for prefix, target in (("", self.target), *self.namespaces.items()):
            for attribute in dir(type(target)):
                exposure = exposure_of(getattr(type(target), attribute, None))
                if exposure is None:
                    continue
                name = f"{prefix}.{attribute}" if prefix else attribute
                if attribute in getattr(target, "__dict__", {}):
                    raise ContractError(
                        f"{self.topic}.{name} cannot be exposed: the object has an instance attribute of that name",
                        hint=f"rename the method; managers receive {attribute!r} as an attribute",
                        method=f"{self.topic}.{name}",
                    )
                check_method_version(exposure.version, self.versions[prefix], f"{self.topic}.{name}")
                pool = self.short_pool if exposure.short and self.short_pool is not None else self.pool
                yield _make_method(self.topic, name, getattr(target, attribute), exposure, pool, trusted)


def _make_method(
    topic: str, name: str, bound: Callable[..., Any], exposure: Exposure, pool: WorkerPool | None, trusted: bool
) -> Method:
    where = f"{topic}.{name}"
    is_async = inspect.iscoroutinefunction(bound)
    if pool is None and not is_async and not inspect.isasyncgenfunction(bound):
        raise ContractError(f"{where} is a `def`, but {topic} has no threads", hint="make it `async def`", method=where)
    _check_durable(bound, exposure, where)
    doc = inspect.getdoc(bound) or ""
    rank = ROLE_ORDER[exposure.role]
    if trusted or not isinstance(bound, MethodType):
        signature = MethodSignature(bound, where, exposure.secret, trusted=trusted)
    else:
        signature = MethodSignature.checked(bound, where, exposure.secret)
    if exposure.durable is not None and signature.secrets:
        raise ContractError(
            f"{where} is durable and has the secret argument {min(signature.secrets)}, which is not stored",
            hint="take the secret from a file or a credential, or make the method a plain one", method=where,
        )  # fmt: skip
    return Method(
        name, where, bound, exposure, signature, is_async, rank, doc, MethodStats(), str(exposure.role), pool,
        is_async and exposure.durable is None,
    )  # fmt: skip


def _check_durable(bound: Callable[..., Any], exposure: Exposure, where: str) -> None:
    """Refuse a durable method that yields, or whose `clean_up` does not exist."""
    if exposure.durable is None:
        return
    if inspect.isgeneratorfunction(bound) or inspect.isasyncgenfunction(bound):
        raise ContractError(f"{where} is durable and yields", hint="return one result", method=where)
    clean_up = exposure.durable.clean_up
    if clean_up and not inspect.isroutine(getattr(getattr(bound, "__self__", None), clean_up, None)):
        raise ContractError(
            f"{where} names {clean_up!r} to clean up after it, which its manager does not have as a method",
            hint="`clean_up` is the name of a method with the same arguments", method=where,
        )  # fmt: skip
