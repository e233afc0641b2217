"""Where a new volume goes when nobody said: the scheduler decides, or this manager while there is none.

What was chosen may refuse. When nothing was begun there, or all of it undone, the next candidate is tried: see `undone`
and `not_taken`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import msgspec

from ostler import (
    Busy,
    ConnectionLost,
    Context,
    DeadlineExceeded,
    Draining,
    DriverError,
    NoCapacity,
    NotFound,
    NotPermitted,
    NotRunning,
    OstlerError,
    ServiceDisabled,
    TargetNotFound,
    describe,
    format_size,
)
from ostler_volume.errors import NotSupported, UnknownBackend
from ostler_volume.wire import Selection
from ostler_volume.workshop import Workshop

T = TypeVar("T")
NO_SCHEDULER = (TargetNotFound, NotRunning, Busy, Draining, ServiceDisabled, ConnectionLost, DeadlineExceeded)
"""The one rule for "no scheduler now": not configured, not running or out of reach, starting or full, stopping,
disabled, gone in the middle, or too slow. Any other error is the scheduler's word, and is not passed over."""
NOT_TAKEN = (TargetNotFound, NotRunning, Busy, Draining, ServiceDisabled, NotPermitted)
"""Errors of a call to another host after which nothing was begun there."""
_REFUSALS = (NoCapacity, DriverError, UnknownBackend, NotSupported)
"""Errors of a backend that say nothing of another one."""
SCHEDULER_TIMEOUT = 10.0
"""Seconds that a scheduler has to choose; it takes milliseconds."""
_WHY_LIMIT = 500


class Wish(NamedTuple):
    """What a backend is wanted for.

    Args:
        size: Bytes that must fit.
        features: What it must offer.
        host: The only host that will do; empty for any.
        exclude: What will not do, `HOST/BACKEND`.
    """

    size: int
    features: tuple[str, ...] = ()
    host: str = ""
    exclude: tuple[str, ...] = ()


class Placement:
    """Chooses backends until one takes the work.

    Args:
        workshop: Records and drivers.
        client: Calls other services.
    """

    def __init__(self, workshop: Workshop, client: Any) -> None:
        self._shop = workshop
        self._client = client

    def place(
        self, ctx: Context, scheduler: str, wish: Wish, make: Callable[[Selection], T], *, attempts: int = 3
    ) -> tuple[T, str]:
        """Have a volume made where it is to go.

        Args:
            ctx: The request; it is told of each backend that refuses.
            scheduler: The topic of the scheduler; empty to do without.
            wish: What is needed.
            make: Makes the volume on the backend that was chosen; what it raises with the fact `undone` is a refusal.
            attempts: How many backends are tried at most.

        Returns:
            What `make` returned, and what was not as usual, empty for nothing.

        Raises:
            NoCapacity: No backend has the room and the features, or each that was tried refused.
            ServiceDisabled: There is no scheduler now, and this service is disabled.
            OstlerError: What `make` raised, when the work may have begun.
        """
        refused: dict[str, str] = {}
        first: OstlerError | None = None
        for _ in range(attempts):
            try:
                chosen, note = self._choose(scheduler, wish, refused)
            except (NoCapacity, ServiceDisabled) as error:
                raise _nobody_took(error, first, refused) from None
            ctx.check()  # the deadline may have passed while the scheduler was waited for
            try:
                return make(chosen), "; ".join([*_told(refused), *([note] if note else [])])
            except OstlerError as error:
                if error.facts.get("undone") is not True:
                    raise
                first = first or error
                # A host that cannot be asked is out with all of its backends.
                who = chosen.host if error.facts.get("whole_host") else f"{chosen.host}/{chosen.backend}"
                refused[who] = error.message[:_WHY_LIMIT]
            self._tell(ctx, chosen, refused[who])
        raise _nobody_took(None, first, refused)

    def _tell(self, ctx: Context, chosen: Selection, why: str) -> None:
        self._shop.log.warning(
            "%s on %s was chosen and refused, another backend is tried: %s", chosen.backend, chosen.host, why
        )
        ctx.progress(0, 0, f"{chosen.backend} on {chosen.host} refused, another backend is tried: {why}")

    def _choose(self, scheduler: str, wish: Wish, refused: dict[str, str]) -> tuple[Selection, str]:
        if not scheduler:
            return self._by_room(wish, refused), ""
        where: dict[str, Any] = {"on_host": wish.host} if wish.host else {}
        where |= {"exclude": list(wish.exclude)} if wish.exclude else {}
        where |= {"refused": refused} if refused else {}
        try:
            chosen: Selection = self._client.on(type=Selection, timeout=SCHEDULER_TIMEOUT).call(
                scheduler, "select", topic=self._shop.topic, size=wish.size, features=list(wish.features), **where
            )
        except NO_SCHEDULER as error:
            return self._without(scheduler, wish, refused, error)
        if wish.host not in ("", chosen.host):  # content that lies on one host would not be found on the other
            raise NoCapacity(
                f"{scheduler} chose {chosen.host}, and only {wish.host} will do",
                hint="its option `filters` lacks `host`",
            )
        return chosen, ""

    def _without(
        self, scheduler: str, wish: Wish, refused: dict[str, str], error: OstlerError
    ) -> tuple[Selection, str]:
        why = f"no scheduler on the topic {scheduler} can choose now ({error.message})"
        if wish.host not in ("", self._shop.host):
            raise NoCapacity(f"{why}, and this manager knows only the backends of {self._shop.host}") from None
        try:
            chosen = self._by_room(wish, refused)
        except (NoCapacity, ServiceDisabled) as refusal:
            refusal.message = f"{why}, and on {self._shop.host} {refusal.message}"
            refusal.args = (refusal.message,)
            raise
        self._shop.log.info("%s: the backend with the most room here is taken, %s", why, chosen.backend)
        return chosen, f"{why}: it is on the backend of {self._shop.host} with the most room"

    def check_enabled(self) -> None:
        """Refuse work that is placed here by choice while an operator has disabled this service.

        Raises:
            ServiceDisabled: It is disabled; says who did that and why.
        """
        topic, host = self._shop.topic, self._shop.host
        try:
            row = self._client.on(type=_Row).call("ostler", "service_show", topic=topic)
        except (TargetNotFound, NotFound):  # a service without a record is enabled
            return
        if not row.enabled:
            raise ServiceDisabled(
                f"{topic} on {host} is disabled: {row.disabled_reason} (by {row.disabled_by or 'nobody knows whom'})",
                hint=f"name a backend, or enable it: `ostler service enable {topic}`",
                topic=topic, host=host, undone=True, whole_host=True,
            )  # fmt: skip

    def _by_room(self, wish: Wish, refused: dict[str, str]) -> Selection:
        """Return the backend of this host that can promise most."""
        self.check_enabled()
        best, most, refusals = "", -1, []
        for name in sorted(self._shop.drivers):
            where = f"{self._shop.host}/{name}"
            left, why = (0, refused[where]) if where in refused else self._left(name, wish)
            if not why and left < wish.size:
                why = f"{format_size(max(0, left))} can still be promised"
            if why:
                refusals.append(f"{name}: {why}")
            elif left > most:
                best, most = name, left
        if not best:
            raise NoCapacity(
                f"no backend takes {format_size(wish.size)}: {'; '.join(refusals) or 'there is none'}",
                hint="`ostler status` shows the backends",
                size=wish.size,
            )
        return Selection(host=self._shop.host, backend=best)

    def _left(self, name: str, wish: Wish) -> tuple[int, str]:
        if f"{self._shop.host}/{name}" in wish.exclude:
            return 0, "it is excluded by the request"
        try:
            driver = self._shop.backend(name)
            missing = sorted(set(wish.features) - set(driver.features))
            if missing:
                return 0, f"does not offer {', '.join(missing)}"
            return self._shop.limit(name, driver) - self._shop.records.provisioned(name), ""
        except OstlerError as error:
            return 0, error.message
        except Exception as error:  # noqa: BLE001 - a stranger's driver must harm its own backend alone
            return 0, describe(error)


class _Row(msgspec.Struct):
    """What is looked at of the row of this service."""

    enabled: bool = True
    disabled_reason: str = ""
    disabled_by: str = ""


@contextmanager
def undone() -> Iterator[None]:
    """Mark what a block raises as a refusal of this backend: nothing was begun on it, or all of it was undone."""
    try:
        yield
    except _REFUSALS as error:
        error.facts["undone"] = True
        raise


@contextmanager
def not_taken() -> Iterator[None]:
    """Mark what a call to another host raises, when it says that nothing was begun there."""
    try:
        yield
    except NOT_TAKEN as error:
        error.facts.update(undone=True, whole_host=True)
        raise


def _told(refused: dict[str, str]) -> list[str]:
    return [f"{who} was chosen first and refused: {why}" for who, why in refused.items()]


def _nobody_took(last: OstlerError | None, first: OstlerError | None, refused: dict[str, str]) -> OstlerError:
    """Return the error of a placement that came to nothing.

    Args:
        last: Why no other backend was chosen; None when as many were tried as may be.
        first: What the first one that was tried refused it with; None when none was tried.
        refused: What refused it.
    """
    if first is None:
        assert last is not None  # noqa: S101 - one attempt at least
        return last
    end = "no other is tried" if last is None else f"no other will do: {last.message}"
    if len(refused) == 1:
        first.message = f"{first.message}; {end}"
        first.args = (first.message,)
        return first
    listed = "; ".join(f"{who}: {why}" for who, why in refused.items())
    return NoCapacity(
        f"{len(refused)} backends were chosen and refused, {end}: {listed}",
        hint="`ostler scheduler explain` shows the candidates, and what they refused",
        refused=refused,
    )
