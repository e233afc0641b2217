"""The errors that a request is refused with, in words."""

from __future__ import annotations

from ostler.errors import Busy, DeadlineExceeded, Draining, NotPermitted, TargetNotFound
from ostler.messaging.context import Relayed
from ostler.messaging.envelope import STREAM
from ostler.messaging.policy import NOBODY
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Method

_ASK = "an administrator gives {} in [access]"


def stranger(call: Call, method: Method | None) -> NotPermitted:
    """Return the refusal of a peer without a role; it names the role it lacks, where the method is known."""
    topic, name, who = call.request.topic, call.request.method, call.peer.name
    needs = method.needs if method is not None else ""
    what = f"{topic}.{name} needs the role {needs}, {who} has no role here" if needs else f"{who} has no role here"
    hint = _ASK.format(needs or "roles")
    return NotPermitted(what, hint=hint, uid=call.peer.uid, topic=topic, method=name, needs=needs)


def not_permitted(call: Call, method: Method) -> NotPermitted:
    """Return the refusal of a peer whose role is not enough."""
    role, needs = call.context.role, method.needs
    if needs == NOBODY:
        what, hint = f"{method.where} is closed here to everybody", "an administrator has closed it in [access.methods]"
    else:
        what, hint = f"{method.where} needs the role {needs}, {call.peer.name} has {role}", _ASK.format(needs)
    return NotPermitted(what, hint=hint, method=method.where, needs=needs, has=str(role))


def not_relayed(call: Call, relayed: Relayed) -> NotPermitted:
    """Return the end of what is relayed for a caller that has lost the role which it needs there."""
    who, has = call.peer.name, call.context.role
    return NotPermitted(
        f"{relayed.where} on {relayed.host} needs the role {relayed.role}, {who} has {has} here",
        hint="an administrator of this host gives it in [access]", needs=str(relayed.role), has=str(has),
    )  # fmt: skip


def undecided(call: Call) -> Busy:
    """Return the refusal of a peer that lacks a role which its groups may give it, once they are known."""
    return Busy(
        f"{call.where} has to wait: the groups of {call.peer.name} are not known yet, the user database takes long",
        hint="try again in a second; an administrator may name the user itself in [access]",
        retry_after=1.0,
        method=call.where,
        uid=call.peer.uid,
    )


def late(call: Call) -> DeadlineExceeded:
    """Return the error of a request whose time is up."""
    begun = "did not end" if call.begun else "had not begun"
    if call.begun and call.request.flags & STREAM:
        begun = "gave no item"
    return DeadlineExceeded(
        f"{call.where} {begun} within {call.request.timeout:g} s",
        hint="give it more time, or see with `ostler dump` what it waits for",
        topic=call.request.topic,
        method=call.request.method,
        timeout=call.request.timeout,
    )


def starting(topic: str, host: str) -> Busy:
    """Return the refusal of a service that is on its way up."""
    return Busy(
        f"{topic} on {host} is starting",
        hint="try again in a second; `ostler status` says what it waits for",
        retry_after=1.0,
        topic=topic,
        host=host,
        state="starting",
    )


def not_started(topic: str, host: str, why: str) -> TargetNotFound:
    """Return the refusal of a service that could not be started."""
    return TargetNotFound(
        f"{topic} on {host} could not be started: {why}",
        hint=f"fix that, then `ostler service start {topic}`; `ostler service show {topic}` says more",
        topic=topic,
        host=host,
        state="failed",
    )


def stopped(topic: str, host: str) -> Draining:
    """Return the refusal of a service that has been stopped, by an operator or with its daemon."""
    return Draining(
        f"{topic} on {host} has been stopped",
        hint=f"`ostler service start {topic}` starts it again, where the daemon goes on",
        topic=topic, host=host, state="stopped",
    )  # fmt: skip


def too_many(limit: int) -> Busy:
    """Return the refusal of a daemon that has its limit of requests under way."""
    return Busy(
        f"this daemon has {limit} requests under way and takes no more",
        hint="try again in a second",
        retry_after=1.0,
        limit=limit,
    )


def caller_has_share(call: Call, where: str, limit: int) -> Busy:
    """Return the refusal of a caller that has its share of the requests under way."""
    return Busy(
        f"{call.peer.name} has its share of the {limit} requests that {where} has under way, and may not have more",
        hint="wait for some of them",
        retry_after=1.0,
        method=call.where,
        limit=limit,
    )


def too_many_here(topic: str, limit: int) -> Busy:
    """Return the refusal of a service that has its limit of requests under way."""
    return Busy(
        f"{topic} has {limit} requests under way and takes no more",
        hint="try again in a second, or raise its `max_in_flight`",
        retry_after=1.0,
        topic=topic,
        limit=limit,
    )
