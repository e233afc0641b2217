"""Which methods of a manager can be called over RPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from ostler.types import Role

F = TypeVar("F", bound=Callable[..., Any])
_EXPOSURE_ATTRIBUTE = "__ostler_exposed__"


class Exposure(msgspec.Struct, frozen=True):
    """What `@exposed` said: the role a caller needs, the version that brought it, what it changes and keeps secret.

    `short` says that it usually takes a short time, or ends other work, and has threads of its own.
    """

    role: Role
    version: str
    changes: bool
    secret: tuple[str, ...] = ()
    short: bool = False


def exposed(
    *,
    role: str = "operator",
    version: str = "1.0",
    changes: bool = True,
    secret: Iterable[str] = (),
    short: bool = False,
) -> Callable[[F], F]:
    """Mark a method of a manager as callable over RPC. Nothing else of a manager can be called.

    The method takes `ctx: Context` first and then typed arguments; they and the result go over the wire as msgspec
    knows them. A `def` runs in the service's pool, an `async def` on the loop, where it must not block.

    Args:
        role: What a caller needs: `viewer`, `operator` or `admin`.
        version: The `rpc_version` of the manager that brought this method.
        changes: Whether it changes anything; such calls are audited.
        secret: Names of arguments whose values are shown nowhere: not in the log, the audit, an error, a dump or a
            span. An argument of the type `SecretText`, or with one in its struct, is secret by itself.
        short: Whether a `def` usually takes a short time, or ends other work or frees what that has taken. Such methods
            have threads of their own, as many as the others, so that they never wait behind long work.

    Raises:
        ValueError: The role is not one of the three.
        TypeError: `secret` is a text and not a list of names.
    """
    if isinstance(secret, str):
        raise TypeError(f'secret is a list of names: secret=["{secret}"]')
    exposure = Exposure(Role(role), version, changes, tuple(secret), short)

    def mark(method: F) -> F:
        setattr(method, _EXPOSURE_ATTRIBUTE, exposure)
        return method

    return mark


def exposure_of(method: object) -> Exposure | None:
    """Return what `@exposed` said of a method, None for one that is not exposed."""
    found = getattr(method, _EXPOSURE_ATTRIBUTE, None)
    return found if isinstance(found, Exposure) else None
