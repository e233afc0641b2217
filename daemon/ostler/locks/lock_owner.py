"""Who holds a lock, or waits for it: a task or thread, in the request that it serves."""

from __future__ import annotations

from collections.abc import Iterator

from ostler.aio.actor import actor_name, current_actor, has_ended
from ostler.messaging.wire.request_context import Context, current_context

_MAX_CALLERS = 100
"""Calls within calls that are followed; a longer chain is an endless recursion, which has limits of its own."""


class LockOwner:
    """The task or thread that holds a lock or waits for one, and the request that it serves.

    Two are the same if both are: a thread of a pool serves one request after the other, and a request may use several
    threads, which exclude each other like any two.

    Args:
        service: The topic of the service that asks.
        context: The request; None outside of one.
        actor: The task or thread.
    """

    __slots__ = ("actor", "context", "service")

    def __init__(self, service: str, context: Context | None, actor: object) -> None:
        self.service = service
        self.context = context
        self.actor = actor

    @classmethod
    def current(cls, service: str) -> LockOwner:
        """Return what runs here."""
        return cls(service, current_context(), current_actor())

    @property
    def method(self) -> str:
        """`topic.method` of the request; the service and the thread or task outside of one."""
        if self.context is None:
            return f"{self.service} ({self.actor_name})"
        return f"{self.context.topic}.{self.context.method}"

    @property
    def request_id(self) -> str:
        """The id of the request; empty outside of one."""
        return self.context.request_id if self.context is not None else ""

    @property
    def actor_name(self) -> str:
        """The name of the thread or task."""
        return actor_name(self.actor)

    def __str__(self) -> str:
        return f"{self.method} (request {self.request_id})" if self.request_id else self.method

    def is_at(self, context: Context | None, actor: object) -> bool:
        """Return whether it is this task or thread, in this request."""
        return self.context is context and self.actor == actor

    def waiting_for_it(self) -> Iterator[tuple[Context | None, object]]:
        """Yield it, and those that cannot continue before it does: they wait for the call that it serves."""
        context = self.context
        yield context, self.actor
        for _ in range(_MAX_CALLERS):
            if context is None or context.caller is None:
                return
            yield context.parent, context.caller
            context = context.parent

    def has_ended(self) -> bool:
        """Return whether the task or thread has ended."""
        return has_ended(self.actor)
