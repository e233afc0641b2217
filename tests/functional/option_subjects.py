"""A manager whose arguments have the names of the options of a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ostler import Context, Manager, exposed


class Planner(Manager):
    """Returns what it is given."""

    @exposed(role="viewer", changes=False)
    def plan(
        self, ctx: Context, host: str, timeout: float, retry: bool, type: str, topic: str, method: str  # noqa: A002
    ) -> dict[str, Any]:  # fmt: skip
        """Return the arguments.

        Args:
            ctx: The request.
            host: Where.
            timeout: How long.
            retry: Whether again.
            type: Of which kind.
            topic: About what.
            method: In which way.
        """
        return {"host": host, "timeout": timeout, "retry": retry, "type": type, "topic": topic, "method": method}

    @exposed(role="viewer", changes=False)
    def each(self, ctx: Context, host: str, timeout: float) -> Iterator[list[Any]]:
        """Yield the arguments."""
        yield [host, timeout]
