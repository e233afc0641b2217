"""Which methods of a manager can be called over RPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar, get_args

import msgspec

from ostler.types import Role

F = TypeVar("F", bound=Callable[..., Any])
_EXPOSURE_ATTRIBUTE = "__ostler_exposed__"


OnRestart = Literal["resume", "retry", "clean up", "fail"]
OnDrain = Literal["wait", "hand over"]


class Durable(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation on a durable method is retried, and what becomes of it when the daemon ends.

    Attributes:
        on_restart: What the next start does with an operation that was running when the daemon ended. `resume`: it runs
            the method again; steps that were recorded with `ctx.step` are not repeated. `retry`: it runs the method
            again from the start, without the recorded steps. `clean up`: it runs the method named by `clean_up`, then
            the operation has failed. `fail`: the operation has failed, as the daemon ended while it ran.
        clean_up: The name of a method of the manager that undoes an attempt that was cut off; it takes the same
            arguments. Not exposed itself.
        attempts: How often the method is run at most when it raises an error after which another attempt may succeed
            (a busy or starting service, a driver that is not ready, a database that cannot be written, a lost
            connection; with `resume` or `retry` also a driver whose process crashed). The runs that ended with the
            daemon are not counted.
        backoff: Seconds before the second attempt; the wait doubles with each further one.
        max_backoff: Seconds that the wait takes at most.
        on_drain: Whether a service that drains waits for a running operation, within its `drain_timeout`, or asks it to
            stop at once (`hand over`), so that the next start continues it as `on_restart` says.
        runs_unstored: Whether a plain call is served while the database cannot be written, without being stored: for
            methods that free space. Submitting is refused then all the same.

    Raises:
        ValueError: A value is not one of these; or `clean_up` is missing or superfluous.
    """

    on_restart: OnRestart = "fail"
    clean_up: str = ""
    attempts: int = 1
    backoff: float = 1.0
    max_backoff: float = 300.0
    on_drain: OnDrain = "wait"
    runs_unstored: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("on_restart", OnRestart), ("on_drain", OnDrain)):
            if getattr(self, name) not in get_args(kinds):
                known = ", ".join(map(repr, get_args(kinds)))
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")
        if (self.on_restart == "clean up") is not bool(self.clean_up):
            raise ValueError('on_restart="clean up" and clean_up="METHOD" belong together')
        if self.attempts < 1 or self.backoff <= 0 or self.max_backoff < self.backoff:
            raise ValueError("attempts must be 1 or more, backoff above 0, and max_backoff not below backoff")


class Exposure(msgspec.Struct, frozen=True):
    """What `@exposed` said: the role a caller needs, the version that brought it, what it changes and keeps secret.

    `short` says that it usually takes a short time, or ends other work, and has threads of its own.
    """

    role: Role
    version: str
    changes: bool
    secret: tuple[str, ...] = ()
    short: bool = False
    durable: Durable | None = None


def exposed(
    *,
    role: str = "operator",
    version: str = "1.0",
    changes: bool = True,
    secret: Iterable[str] = (),
    short: bool = False,
    durable: Durable | bool = False,
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
        durable: Whether each call of the method is an operation: it is stored before it is accepted, and survives the
            daemon. True, or how it is retried and what a restart does; see `Durable`.

    Raises:
        ValueError: The role is not one of the three.
        TypeError: `secret` is a text and not a list of names.
    """
    if isinstance(secret, str):
        raise TypeError(f'secret is a list of names: secret=["{secret}"]')
    policy = durable if isinstance(durable, Durable) else Durable() if durable else None
    exposure = Exposure(Role(role), version, changes, tuple(secret), short, policy)

    def mark(method: F) -> F:
        setattr(method, _EXPOSURE_ATTRIBUTE, exposure)
        return method

    return mark


def exposure_of(method: object) -> Exposure | None:
    """Return what `@exposed` said of a method, None for one that is not exposed."""
    found = getattr(method, _EXPOSURE_ATTRIBUTE, None)
    return found if isinstance(found, Exposure) else None
