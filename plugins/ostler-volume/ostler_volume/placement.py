"""Chooses the backend of a new volume created without one: by the scheduler, or by this manager without a scheduler.

A chosen backend may refuse. If it has not begun, or has undone everything, the next candidate is tried: see `undone`
and `mark_not_started`.
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
    DaemonNotRunning,
    DeadlineExceeded,
    Draining,
    DriverError,
    MethodNotFound,
    NoCapacity,
    NotFound,
    NotPermitted,
    OstlerError,
    ServiceDisabled,
    ServiceNotFound,
    error_line,
    format_size,
)
from ostler_volume.api_types import SchedulerSelection
from ostler_volume.errors import NotSupported, UnknownBackend
from ostler_volume.volume_context import VolumeContext

T = TypeVar("T")
NO_SCHEDULER_ERRORS = (
    ServiceNotFound,
    MethodNotFound,
    DaemonNotRunning,
    Busy,
    Draining,
    ServiceDisabled,
    ConnectionLost,
    DeadlineExceeded,
)
"""The errors that mean "no scheduler": not configured, without the method, not running or unreachable, starting or
full, stopping, disabled, disconnected during the call, or too slow. Any other error is the scheduler's decision, and
is raised."""
NOT_STARTED_ERRORS = (ServiceNotFound, MethodNotFound, DaemonNotRunning, Busy, Draining, ServiceDisabled, NotPermitted)
"""Errors of a call to another host after which nothing was begun there."""
_REFUSAL_ERRORS = (NoCapacity, DriverError, UnknownBackend, NotSupported)
"""Errors of a backend after which another one may succeed."""
SCHEDULER_TIMEOUT = 10.0
"""Time-out in seconds for the scheduler's choice, which usually takes milliseconds."""
_MAX_REASON_LENGTH = 500


class PlacementRequest(NamedTuple):
    """The requirements for a backend.

    Args:
        size: Bytes that must fit.
        features: Required features.
        host: The only host to consider; empty for all.
        exclude: What to exclude, `HOST/BACKEND`.
    """

    size: int
    features: tuple[str, ...] = ()
    host: str = ""
    exclude: tuple[str, ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """A choice of the placement, as an operation records it.

    Attributes:
        selection: The chosen backend.
        note: Why it was chosen, if not by the scheduler.
        refused: The backends that had refused before, with their reasons.
    """

    selection: SchedulerSelection
    note: str = ""
    refused: dict[str, str] = {}


def choice_step(number: int) -> str:
    """Return the name of the step that records a choice; numbers begin with 1."""
    return f"chosen {number}"


class Placement:
    """Chooses backends until one accepts the work.

    Args:
        context: Records and drivers.
        client: The client for calls of other services.
    """

    def __init__(self, context: VolumeContext, client: Any) -> None:
        self._context = context
        self._client = client

    def place(
        self,
        ctx: Context,
        scheduler: str,
        request: PlacementRequest,
        make: Callable[[SchedulerSelection, int], T],
        *,
        attempts: int = 3,
    ) -> tuple[T, str]:
        """Create a volume on a chosen backend.

        Args:
            ctx: The request; each refusal is reported as progress.
            scheduler: The topic of the scheduler; empty for none.
            request: The requirements.
            make: Creates the volume on the chosen backend, of the choice of a number; an error with the fact `undone`
                is a refusal.
            attempts: Maximum number of backends to try.

        Returns:
            The result of `make`, and a note about refusals, empty for none.

        Raises:
            NoCapacity: No backend has the space and the features, or each that was tried refused.
            ServiceDisabled: No scheduler is available, and this service is disabled.
            OstlerError: `make` raised it, and the work may have begun.
        """
        refused: dict[str, str] = {}
        first: OstlerError | None = None
        for number in range(1, attempts + 1):
            if ctx.is_recorded(choice_step(number + 1)):  # an earlier attempt of the operation was refused there
                continue
            try:
                choice = self._choose(ctx, number, scheduler, request, refused)
            except (NoCapacity, ServiceDisabled) as error:
                raise _placement_error(error, first, refused) from None
            ctx.check()  # the deadline may have passed during the call of the scheduler
            chosen, note, refused = choice.selection, choice.note, dict(choice.refused)
            try:
                return make(chosen, number), "; ".join([*_refusal_notes(refused), *([note] if note else [])])
            except OstlerError as error:
                if error.details.get("undone") is not True:
                    raise
                first = first or error
                # An unreachable host is excluded with all its backends.
                who = chosen.host if error.details.get("whole_host") else f"{chosen.host}/{chosen.backend}"
                refused[who] = error.message[:_MAX_REASON_LENGTH]
            self._report_refusal(ctx, chosen, refused[who])
        raise _placement_error(None, first, refused)

    def _choose(
        self, ctx: Context, number: int, scheduler: str, request: PlacementRequest, refused: dict[str, str]
    ) -> Choice:
        """Choose a backend; what an operation has chosen is not chosen again when it is resumed."""

        def choose() -> Choice:
            return Choice(*self._ask_scheduler(scheduler, request, refused), dict(refused))

        return ctx.step(choice_step(number), choose, type=Choice)

    def _report_refusal(self, ctx: Context, chosen: SchedulerSelection, why: str) -> None:
        self._context.log.warning("%s on %s refused, trying another backend: %s", chosen.backend, chosen.host, why)
        ctx.progress(0, 0, f"{chosen.backend} on {chosen.host} refused, trying another backend: {why}")

    def _ask_scheduler(
        self, scheduler: str, request: PlacementRequest, refused: dict[str, str]
    ) -> tuple[SchedulerSelection, str]:
        if not scheduler:
            return self._choose_by_free_space(request, refused), ""
        where: dict[str, Any] = {"on_host": request.host} if request.host else {}
        where |= {"exclude": list(request.exclude)} if request.exclude else {}
        where |= {"refused": refused} if refused else {}
        try:
            chosen: SchedulerSelection = self._client.on(type=SchedulerSelection, timeout=SCHEDULER_TIMEOUT).call(
                scheduler,
                "select",
                topic=self._context.topic,
                size=request.size,
                features=list(request.features),
                **where,
            )
        except NO_SCHEDULER_ERRORS as error:
            return self._choose_without_scheduler(scheduler, request, refused, error)
        if request.host not in ("", chosen.host):  # the content is available on that host only
            raise NoCapacity(
                f"{scheduler} chose host {chosen.host} instead of {request.host}",
                hint="add `host` to its option `filters`",
            )
        return chosen, ""

    def _choose_without_scheduler(
        self, scheduler: str, request: PlacementRequest, refused: dict[str, str], error: OstlerError
    ) -> tuple[SchedulerSelection, str]:
        why = f"no scheduler is available on the topic {scheduler} ({error.message})"
        if request.host not in ("", self._context.host):
            raise NoCapacity(f"{why}, and this manager knows only the backends of {self._context.host}") from None
        try:
            chosen = self._choose_by_free_space(request, refused)
        except (NoCapacity, ServiceDisabled) as refusal:
            refusal.message = f"{why}, and on {self._context.host} {refusal.message}"
            refusal.args = (refusal.message,)
            raise
        self._context.log.info("%s; using the local backend with the most space, %s", why, chosen.backend)
        return chosen, f"{why}; placed on the backend of {self._context.host} with the most space"

    def check_enabled(self) -> None:
        """Refuse work that is placed here automatically while an operator has disabled this service.

        Raises:
            ServiceDisabled: The service is disabled; the message says who did that and why.
        """
        topic, host = self._context.topic, self._context.host
        try:
            row = self._client.on(type=_ServiceEnabledRow).call("ostler", "service_show", topic=topic)
        except (ServiceNotFound, NotFound):  # a service without a record is enabled
            return
        if not row.enabled:
            raise ServiceDisabled(
                f"{topic} on {host} is disabled: {row.disabled_reason} (by {row.disabled_by or 'unknown'})",
                hint=f"give a backend, or enable the service: `ostler service enable {topic}`",
                topic=topic, host=host, undone=True, whole_host=True,
            )  # fmt: skip

    def _choose_by_free_space(self, request: PlacementRequest, refused: dict[str, str]) -> SchedulerSelection:
        """Return the backend of this host with the most space to promise."""
        self.check_enabled()
        best, most, refusals = "", -1, []
        for name in sorted(self._context.drivers):
            where = f"{self._context.host}/{name}"
            left, why = (0, refused[where]) if where in refused else self._remaining_space(name, request)
            if not why and left < request.size:
                why = f"{format_size(max(0, left))} can still be promised"
            if why:
                refusals.append(f"{name}: {why}")
            elif left > most:
                best, most = name, left
        if not best:
            raise NoCapacity(
                f"no backend for {format_size(request.size)}: {'; '.join(refusals) or 'none is configured'}",
                hint="`ostler status` shows the backends",
                size=request.size,
            )
        return SchedulerSelection(host=self._context.host, backend=best)

    def _remaining_space(self, name: str, request: PlacementRequest) -> tuple[int, str]:
        if f"{self._context.host}/{name}" in request.exclude:
            return 0, "excluded by the request"
        try:
            driver = self._context.ready_driver(name)
            missing = sorted(set(request.features) - set(driver.features))
            if missing:
                return 0, f"does not offer {', '.join(missing)}"
            return self._context.limit(name, driver) - self._context.records.provisioned(name), ""
        except OstlerError as error:
            return 0, error.message
        except Exception as error:  # noqa: BLE001 - a failure of a third-party driver must affect its own backend only
            return 0, error_line(error)


class _ServiceEnabledRow(msgspec.Struct):
    """The part of the row of this service that is used here."""

    enabled: bool = True
    disabled_reason: str = ""
    disabled_by: str = ""


@contextmanager
def mark_undone() -> Iterator[None]:
    """Mark errors of a block as refusals of this backend: nothing was begun on it, or everything was undone."""
    try:
        yield
    except _REFUSAL_ERRORS as error:
        error.details["undone"] = True
        raise


@contextmanager
def mark_not_started() -> Iterator[None]:
    """Mark errors of a call to another host that mean that nothing was begun there."""
    try:
        yield
    except NOT_STARTED_ERRORS as error:
        error.details.update(undone=True, whole_host=True)
        raise


def _refusal_notes(refused: dict[str, str]) -> list[str]:
    return [f"{who} was chosen before and refused: {why}" for who, why in refused.items()]


def _placement_error(last: OstlerError | None, first: OstlerError | None, refused: dict[str, str]) -> OstlerError:
    """Return the error of a failed placement.

    Args:
        last: Why no other backend was chosen; None if the maximum number was tried.
        first: The error of the first one that was tried; None if none was tried since the operation was resumed.
        refused: The backends that refused, with their reasons.
    """
    if first is None and not refused:
        assert last is not None  # noqa: S101 - one attempt at least
        return last
    end = "the limit of attempts is reached" if last is None else f"no other is suitable: {last.message}"
    if len(refused) == 1 and first is not None:
        first.message = f"{first.message}; {end}"
        first.args = (first.message,)
        return first
    listed = "; ".join(f"{who}: {why}" for who, why in refused.items())
    return NoCapacity(
        f"{len(refused)} chosen backends refused, {end}: {listed}",
        hint="`ostler scheduler explain` shows the candidates and their refusals",
        refused=refused,
    )
