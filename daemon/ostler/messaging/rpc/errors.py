"""The errors with which requests are refused."""

from __future__ import annotations

from ostler.availability import format_override
from ostler.errors import OWN_SHARE, Busy, DeadlineExceeded, Draining, NotPermitted, ServiceFrozen, ServiceNotFound
from ostler.messaging.access.policy import NOBODY
from ostler.messaging.access.roles import TOKEN_PREFIX
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Endpoint, Method
from ostler.messaging.wire.envelope import STREAM
from ostler.messaging.wire.request_context import Relayed
from ostler.time_text import format_seconds
from ostler.types import Peer

FROZEN_RETRY_DELAY = 10.0
"""Seconds after which a caller may try a frozen service again: an operator thaws it, which takes minutes or hours."""
_ROLE_HINT = "an administrator grants {} in [access]"
_NEW_TOKEN_HINT = "an administrator makes a token with a role: `ostler token new NAME --role {}`"  # noqa: S105 - a hint


def _role_hint(peer: Peer, needs: str) -> str:
    """Return what to do about a role that a peer lacks."""
    if peer.principal.startswith(TOKEN_PREFIX):
        return _NEW_TOKEN_HINT.format(needs or "ROLE")
    return _ROLE_HINT.format(needs or "roles")


def no_role_error(call: Call, method: Method | None) -> NotPermitted:
    """Return the refusal of a peer without a role; it names the role it lacks, where the method is known."""
    topic, name, who = call.request.topic, call.request.method, call.peer.name
    needs = method.required_role if method is not None else ""
    what = f"{topic}.{name} needs the role {needs}, {who} has no role here" if needs else f"{who} has no role here"
    hint = _role_hint(call.peer, needs)
    return NotPermitted(what, hint=hint, uid=call.peer.uid, topic=topic, method=name, needs=needs)


def role_too_low_error(call: Call, method: Method) -> NotPermitted:
    """Return the refusal of a peer whose role is not sufficient."""
    role, needs = call.context.role, method.required_role
    if needs == NOBODY:
        what, hint = (
            f"{method.full_name} is closed to everyone on this host",
            "an administrator has closed it in [access.methods]",
        )
    else:
        what, hint = (
            f"{method.full_name} needs the role {needs}, {call.peer.name} has {role}",
            _role_hint(call.peer, needs),
        )
    return NotPermitted(what, hint=hint, method=method.full_name, needs=needs, role=str(role))


def relay_not_permitted_error(call: Call, relayed: Relayed) -> NotPermitted:
    """Return the error of a relayed request whose caller has lost the required role."""
    who, has = call.peer.name, call.context.role
    return NotPermitted(
        f"{relayed.full_name} on {relayed.host} needs the role {relayed.role}, {who} has {has} here",
        hint="an administrator of this host grants it in [access]", needs=str(relayed.role), role=str(has),
    )  # fmt: skip


def groups_pending_error(call: Call) -> Busy:
    """Return the refusal of a peer that lacks a role which its groups may give it, once they are known."""
    return Busy(
        f"{call.full_name} was refused: the groups of {call.peer.name} are not known yet, the user database is slow",
        hint="try again in a second; an administrator can list the user itself in [access]",
        retry_after=1.0,
        method=call.full_name,
        uid=call.peer.uid,
    )


def deadline_error(call: Call) -> DeadlineExceeded:
    """Return the error of a request whose deadline has passed."""
    begun = "did not complete" if call.is_started else "did not start"
    if call.is_started and call.request.flags & STREAM:
        begun = "yielded no item"
    return DeadlineExceeded(
        f"{call.full_name} {begun} within {format_seconds(call.request.timeout or 0)}",
        hint="increase the timeout, or use `ostler dump` to see what it is waiting for",
        topic=call.request.topic,
        method=call.request.method,
        timeout=call.request.timeout,
    )


def service_starting_error(topic: str, host: str) -> Busy:
    """Return the refusal of a service that is starting."""
    return Busy(
        f"{topic} on {host} is starting",
        hint="try again in a second; `ostler status` shows what it is waiting for",
        retry_after=1.0,
        topic=topic,
        host=host,
        state="starting",
    )


def draining_error(endpoint: Endpoint) -> Draining:
    """Return the refusal of a service that drains; one that is restarted says when to try again."""
    if endpoint.returns_after is not None:
        return restarting_error(endpoint.topic, endpoint.draining_reason, endpoint.returns_after)
    topic, why = endpoint.topic, endpoint.draining_reason
    return Draining(f"{topic} accepts no new work: {why}", topic=topic, why=why)


def restarting_error(topic: str, why: str, returns_after: float) -> Draining:
    """Return the refusal of a service that will be back: callers are to try again after `returns_after` seconds."""
    return Draining(
        f"{topic} accepts no new work: {why}",
        hint="try again in a second",
        topic=topic, why=why, retry_after=returns_after, state="restarting",
    )  # fmt: skip


def service_not_started_error(topic: str, host: str, why: str) -> ServiceNotFound:
    """Return the refusal of a service that could not be started."""
    return ServiceNotFound(
        f"{topic} on {host} could not be started: {why}",
        hint=f"fix that, then `ostler service start {topic}`; `ostler service show {topic}` shows more",
        topic=topic,
        host=host,
        state="failed",
    )


def service_left_out_error(topic: str, host: str, why: str) -> ServiceNotFound:
    """Return the refusal of a service of the configuration that the daemon runs without, because of its plugin."""
    return ServiceNotFound(
        f"{topic} on {host} is left out: {why}",
        hint="`ostler reload` adds it when its plugin works; `ostler plugin list` shows that",
        topic=topic,
        host=host,
        state="left out",
    )


def service_stopped_error(topic: str, host: str) -> Draining:
    """Return the refusal of a service that has been stopped, by an operator or with its daemon."""
    return Draining(
        f"{topic} on {host} has been stopped",
        hint=f"`ostler service start {topic}` starts it again if the daemon is still running",
        topic=topic, host=host, state="stopped",
    )  # fmt: skip


def check_frozen(call: Call, endpoint: Endpoint) -> None:
    """Refuse new work for a frozen service.

    What it has goes on: attempts of operations that were begun, and calls that its own work makes of itself. Methods
    that change nothing are served, so that an operator can look at it.

    Raises:
        ServiceFrozen: Says who froze it, why and since when.
    """
    method, frozen = endpoint.methods.get(call.request.method), endpoint.frozen
    if frozen is None or call.operation is not None or (method is not None and not method.exposure.changes):
        return
    parent = call.parent
    while parent is not None:
        if parent.topic == endpoint.topic:
            return
        parent = parent.parent
    raise ServiceFrozen(
        f"{endpoint.topic} on {endpoint.host} is frozen{format_override(frozen)}; it accepts no new work",
        hint=f"`ostler service thaw {endpoint.topic} --host {endpoint.host}` has it accept work again",
        topic=endpoint.topic, host=endpoint.host, state="frozen",
        why=frozen.reason, by=frozen.by, since=frozen.since, retry_after=FROZEN_RETRY_DELAY,
    )  # fmt: skip


def daemon_limit_error(limit: int) -> Busy:
    """Return the refusal of a daemon that has reached its limit of requests in progress."""
    return Busy(
        f"this daemon has {limit} requests in progress and accepts no more",
        hint="try again in a second",
        retry_after=1.0,
        limit=limit,
    )


def caller_limit_error(call: Call, where: str, limit: int) -> Busy:
    """Return the refusal of a caller that has used its share of the requests in progress."""
    return Busy(
        f"{call.peer.name} has used its share of the {limit} requests that {where} runs at a time",
        hint="wait for some of them to complete",
        retry_after=1.0,
        reason=OWN_SHARE,
        method=call.full_name,
        limit=limit,
    )


def service_limit_error(topic: str, limit: int) -> Busy:
    """Return the refusal of a service that has reached its limit of requests in progress."""
    return Busy(
        f"{topic} has {limit} requests in progress and accepts no more",
        hint="try again in a second, or raise its `max_in_flight`",
        retry_after=1.0,
        topic=topic,
        limit=limit,
    )
