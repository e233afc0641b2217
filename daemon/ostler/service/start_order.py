"""The start order of services: each after those it depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ostler.errors import ServiceError


class DependencyCycle(ServiceError):
    """Raised when services depend on each other in a cycle; the message shows the cycle."""


def start_order(depends_on: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the topics so that each comes after all that it depends on; otherwise in the order given.

    Args:
        depends_on: Topic to the topics it needs. A topic that is needed but not a key is ignored.

    Raises:
        DependencyCycle: There is a cycle.
    """
    order: list[str] = []
    path: list[str] = []

    def visit(topic: str) -> None:
        if topic in order:
            return
        if topic in path:
            way = [*path[path.index(topic) :], topic]
            raise DependencyCycle(
                f"services depend on each other in a cycle: {' -> '.join(way)}",
                hint="remove one of them from `depends_on`",
                cycle=way,
            )
        path.append(topic)
        for needed in depends_on[topic]:
            if needed in depends_on:
                visit(needed)
        path.pop()
        order.append(topic)

    for topic in depends_on:
        visit(topic)
    return order
