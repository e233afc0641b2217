"""Which methods of a manager can be called over RPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ostler.types import Role

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__ostler_exposed__"


class Exposure(NamedTuple):
    """What `@exposed` said: the role a caller needs, the version that brought the method, whether it changes state."""

    role: Role
    version: str
    changes: bool


def exposed(*, role: str = "operator", version: str = "1.0", changes: bool = True) -> Callable[[F], F]:
    """Mark a method of a manager as callable over RPC. Nothing else of a manager can be called.

    The method takes `ctx: Context` first and then typed arguments; they and the result go over the wire as msgspec
    knows them. A `def` runs in the service's pool, an `async def` on the loop, where it must not block.

    Args:
        role: What a caller needs: `viewer`, `operator` or `admin`.
        version: The `rpc_version` of the manager that brought this method.
        changes: Whether it changes anything; such calls are audited.

    Raises:
        ValueError: The role is none of the three.
    """
    exposure = Exposure(Role(role), version, changes)

    def mark(method: F) -> F:
        setattr(method, _MARK, exposure)
        return method

    return mark


def exposure_of(method: object) -> Exposure | None:
    """Return what `@exposed` said of a method, None for one that is not exposed."""
    found = getattr(method, _MARK, None)
    return found if isinstance(found, Exposure) else None
