"""`MethodRoles`: which methods a caller may use, so that nothing is offered that would be refused."""

from __future__ import annotations

from typing import Any

from ostler import Clock, OstlerError, Role

_RANKS = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}
_MAX_AGE = 5.0
"""Seconds after which roles are asked for again: a reload may have changed them."""


class MethodRoles:
    """The roles that the methods of topics require, as the daemon describes them. On one loop.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._described: dict[str, tuple[float, dict[str, dict[str, Any]]]] = {}

    async def methods(self, client: Any, topic: str) -> dict[str, dict[str, Any]]:
        """Return what is known of the methods of a topic, by name; nothing for a topic that cannot be asked now."""
        now = self._clock.monotonic()
        asked_at, found = self._described.get(topic, (0.0, {}))
        if topic not in self._described or now - asked_at > _MAX_AGE:
            try:
                described = await client.call("ostler", "describe", {"topic": topic}, timeout=10.0)
            except OstlerError:
                return found
            found = {one["method"]: one for one in described}
            self._described[topic] = (now, found)
        return found


def is_allowed(caller_role: Any, required: str) -> bool:
    """Return whether a role suffices; for `nobody`, and names that are not roles, none does."""
    try:
        return _RANKS[Role(caller_role)] >= _RANKS[Role(required)]
    except ValueError:
        return False
