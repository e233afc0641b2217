"""`SchedulerManager`: stores capabilities, chooses a backend for a request, and explains the choice."""

from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from ostler import (
    Busy,
    CapabilityReport,
    Context,
    Field,
    InvalidInput,
    Manager,
    ManagerEnvironment,
    ManagerOptions,
    NoCapacity,
    OstlerError,
    Seconds,
    ServiceDisabled,
    ServiceStatus,
    ValidationContext,
    check_length,
    exposed,
    parse_size,
    periodic,
    waiting_for,
)
from ostler_scheduler.api_types import Candidate, Explanation, Judgement, Request, Selection, with_neighbours
from ostler_scheduler.candidates import Candidates
from ostler_scheduler.filters import Filter
from ostler_scheduler.loading import make_filters, make_weighers
from ostler_scheduler.refusals import Refusals
from ostler_scheduler.selector import (
    Selector,
    chosen_judgement,
    explain_choice,
    no_capacity_error,
    withheld_judgement,
)
from ostler_scheduler.service_views import ServiceViews
from ostler_scheduler.weighers import Weigher

FILTER_KIND = "scheduler.filter"
WEIGHER_KIND = "scheduler.weigher"
_MAX_NAME_LENGTH = 255
_MAX_REPORT_LENGTH = 2 * 1024 * 1024
_MAX_REFUSED = 100
_MAX_REASON_LENGTH = 1000
_FLUSH_TIMEOUT = 0.5
"""Seconds that a refusal waits for recent changes, on this and other hosts, that have not arrived yet."""
_SELECTION_TIMEOUT = 10.0
"""Maximum wait of a selection in seconds; each takes milliseconds unless a third-party filter hangs."""
_MIN_SYNC_INTERVAL = 0.1
"""Minimum interval in seconds between two queries of the daemon's data, however many requests there are."""
_SYNC_TIMEOUT = 5.0
"""Time-out of such a query in seconds; an unreadable database must not block all selections."""


class SchedulerOptions(ManagerOptions):
    """The options of `[services.scheduler]`."""

    filters: list[str] = Field(
        ["enabled", "host", "capabilities", "capacity"],
        help="The filters that every candidate must pass, in this order",
        reload="live",
    )
    weighers: dict[str, float] = Field(
        {"free_space": 1.0},
        help="The weighers, each with its multiplier; a negative one inverts the preference, 0 disables the weigher",
        reload="live",
    )
    stale_after: Seconds = Field(
        0,
        ge=0,
        help="Minimum age at which a report is stale; a report is never stale within three times the "
        "`capability_interval` of the reporting service",
        reload="live",
    )
    forget_after: Seconds = Field(
        86400, gt=0, help="A service that has not reported for this long is no longer shown", reload="live"
    )
    lease_timeout: Seconds = Field(
        60,
        gt=0,
        help="How long promised space counts as used if nothing more is reported for the request",
        reload="live",
    )
    sync_interval: Seconds = Field(
        30, gt=0, help="How often the daemon is queried for reports that may have been missed", reload="live"
    )
    seed: int = Field(0, ge=0, help="Seed of the random choice among equals, for tests; 0 for none", reload="live")

    def validate_options(self) -> Iterator[tuple[str, str]]:
        """See `OptionsModel.validate_options`."""
        if self.forget_after < self.stale_after:
            yield (
                "forget_after",
                "must not be below stale_after: stale reports are shown for a while before they are dropped",
            )


class SchedulerManager(Manager):
    """Chooses a backend for a request. See the README for how."""

    Options = SchedulerOptions
    rpc_version = "1.1"
    extension_kinds = {FILTER_KIND: Filter, WEIGHER_KIND: Weigher}

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Find filters and weighers that no installed plugin provides; see `Manager.validate`."""
        filters, weighers = others.extensions.get(FILTER_KIND, {}), others.extensions.get(WEIGHER_KIND, {})
        for number, name in enumerate(options.filters):
            if name not in filters:
                yield ("filters", number), others.missing_extension(FILTER_KIND, name)
        for name in options.weighers:
            if name not in weighers:
                yield ("weighers", name), others.missing_extension(WEIGHER_KIND, name)

    def __init__(self, environment: ManagerEnvironment) -> None:
        super().__init__(environment)
        # `_views` decides by the intervals of the services which reports are stale.
        self._candidates = Candidates(math.inf, self.options.forget_after, self.options.lease_timeout)
        self._views = ServiceViews()
        self._selection_lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._synced_at = -math.inf
        """When the daemon was queried for the current data."""
        self._sync_failed_at = -math.inf
        """When a query failed last."""
        self._has_sync_failed = False
        self._refusals = Refusals()
        self._selector = self._make_selector()

    def _make_selector(self) -> Selector:
        where = f"services.{self.topic}"
        return Selector(
            make_filters(self.options.filters, self.extensions.get(FILTER_KIND, {}), f"{where}.filters"),
            make_weighers(self.options.weighers, self.extensions.get(WEIGHER_KIND, {}), f"{where}.weighers"),
            random.Random(self.options.seed or None),  # noqa: S311 - for ties, not for security
            self.log,
        )

    def init_host_with_rpc(self) -> None:
        """Load the capabilities that the daemon has stored."""
        self._sync()

    def reset(self) -> None:
        """Apply changed filters, weighers and times; if they are invalid the old ones stay in effect."""
        self._selector = self._make_selector()
        self._candidates.forget_after = self.options.forget_after
        self._candidates.leases.timeout = self.options.lease_timeout

    @periodic(spacing="sync_interval")
    def sync(self, ctx: Context) -> None:
        """Query what a lost fanout may have missed: reports, services that went down, and changes by operators."""
        self._sync()

    def _sync_if_due(self) -> None:
        # An operator who has disabled a service expects this to affect the next choice, not the one after a report.
        came = self.clock.monotonic()
        if came - self._synced_at < _MIN_SYNC_INTERVAL:
            return
        # Requests during a query wait for its result: the data before it may be half a minute old.
        with self._hold_sync_lock():
            looked = self._synced_at if not self._has_sync_failed else self._sync_failed_at
            if came - looked >= _MIN_SYNC_INTERVAL:
                self._sync()

    @contextmanager
    def _hold_sync_lock(self) -> Iterator[None]:
        if not self._sync_lock.acquire(blocking=False):
            with waiting_for("a query of the daemon's services"):
                self._sync_lock.acquire()
        try:
            yield
        finally:
            self._sync_lock.release()

    def _sync_with_flush(self) -> bool:
        """Query the current data, including recent changes, before a request is refused by older data."""
        self._sync(_FLUSH_TIMEOUT)
        return not self._has_sync_failed

    def _sync(self, flush: float = 0.0) -> None:
        asked = self.clock.monotonic()
        try:
            reports = self.client.on(type=list[CapabilityReport], timeout=_SYNC_TIMEOUT).call(
                "ostler", "capabilities", flush=flush
            )
            self._views.replace(
                self.client.on(type=list[ServiceStatus], timeout=_SYNC_TIMEOUT).call("ostler", "service_list")
            )
        except OstlerError as error:
            # Services report again automatically, and this is retried: no reason not to start.
            if not self._has_sync_failed:
                self.log.warning("cannot read the capabilities stored by the daemon: %s", error)
            self._has_sync_failed, self._sync_failed_at = True, self.clock.monotonic()
            return
        if self._has_sync_failed:
            self.log.info("the capabilities stored by the daemon can be read again")
            self._has_sync_failed = False
        self._candidates.merge_stored(reports, asked, self.clock.monotonic())
        # Not before the data has arrived: a choice made meanwhile must not take the old data for current.
        self._synced_at = max(self._synced_at, asked)

    def _disabled_reason(self) -> str:
        """Return who has disabled this service and why; empty while it is enabled, or if that is unknown."""
        row = self._views.get(self.topic, self.host)
        if row is None or row.enabled:
            return ""
        return f"{row.disabled_reason} (by {row.disabled_by or 'unknown'})"

    @exposed(role="admin")
    async def update_capabilities(self, ctx: Context, report: CapabilityReport) -> None:
        """Store a report of a service, as sent by daemons. Selections do not block it.

        Args:
            ctx: The request.
            report: The complete current offer of the service.

        Raises:
            NotPermitted: The caller's key is not that of the host in the report.
            InvalidInput: The report is too long.
        """
        ctx.check_host(report.host)
        _check_report(report)
        self._candidates.update(report, self.clock.monotonic())

    @exposed(role="operator")
    def release(self, ctx: Context, lease: str) -> bool:
        """Release the promise of a selection that was not used; return whether it was still promised.

        For programs that call `select` directly; managers use `Manager.capabilities_changed`.

        Args:
            ctx: The request.
            lease: The id in the selection.
        """
        return self._candidates.release_lease(lease)

    @exposed(role="operator")
    def select(
        self,
        ctx: Context,
        topic: str,
        size: int | str = 0,
        features: tuple[str, ...] = (),
        on_host: str = "",
        exclude: tuple[str, ...] = (),
        refused: dict[str, str] | None = None,
    ) -> Selection:
        """Choose a backend, and count the size as promised until the backend counts it, or the lease ends.

        Args:
            ctx: The request.
            topic: The topic whose backends are candidates.
            size: Bytes, or text such as `10GiB`; 0 for any.
            features: Required features: a name, or `fact=value`.
            on_host: The only host to consider, empty for all.
            exclude: What to exclude: `HOST` or `HOST/BACKEND`.
            refused: What was chosen for this request before and refused it, `HOST` or `HOST/BACKEND`, with the reason.
                It is not chosen again for this request, and `explain` shows the refusal.

        Raises:
            InvalidInput: The topic is empty, or the size is not valid.
            NoCapacity: No candidate is left; the message says how many each filter dropped.
            Busy: Another selection hangs.
            ServiceDisabled: An operator has disabled this scheduler.
        """
        request = _make_request(topic, size, features, on_host, exclude, refused)
        self._sync_if_due()
        self._check_enabled()
        self._refusals.record(request, self.clock.monotonic())
        judgements, lease = self._choose(ctx, request)
        if chosen_judgement(judgements) is None and self._sync_with_flush():
            judgements, lease = self._choose(ctx, request)
        chosen = chosen_judgement(judgements)
        if chosen is None:
            raise self._no_capacity(judgements, request)
        self.log.info("chose %s on %s for %s: %s", chosen.backend, chosen.host, topic, explain_choice(judgements))
        return Selection(host=chosen.host, backend=chosen.backend, why=explain_choice(judgements), lease=lease)

    def _check_enabled(self) -> None:
        if why_disabled := self._disabled_reason():
            raise ServiceDisabled(
                f"{self.topic} on {self.host} is disabled: {why_disabled}",
                hint=f"run `ostler service enable {self.topic}` on that host to enable it",
                topic=self.topic, host=self.host,
            )  # fmt: skip

    def _choose(self, ctx: Context, request: Request) -> tuple[list[Judgement], str]:
        # One at a time: two concurrent selections could both be promised the same space.
        with self._hold_selection_lock(ctx):
            judgements = self._evaluate(request)
            chosen, lease = chosen_judgement(judgements), ""
            if chosen is not None:
                now = self.clock.monotonic()
                lease = self._candidates.grant_lease(request.topic, chosen.host, chosen.backend, request.size, now)
        return judgements, lease

    @exposed(role="viewer", changes=False)
    def explain(
        self,
        ctx: Context,
        topic: str,
        size: int | str = 0,
        features: tuple[str, ...] = (),
        on_host: str = "",
        exclude: tuple[str, ...] = (),
    ) -> Explanation:
        """Return what `select` would choose and why, with every candidate; nothing is promised.

        Args:
            ctx: The request.
            topic: See `select`.
            size: See `select`.
            features: See `select`.
            on_host: See `select`.
            exclude: See `select`.

        Raises:
            InvalidInput: The topic is empty, or the size is not valid.
        """
        request = _make_request(topic, size, features, on_host, exclude)
        self._sync_if_due()
        judgements = self._evaluate(request)
        if chosen_judgement(judgements) is None and self._sync_with_flush():
            judgements = self._evaluate(request)
        left = chosen_judgement(judgements) is not None
        said = explain_choice(judgements) if left else self._no_capacity(judgements, request).message
        if why_disabled := self._disabled_reason():
            said = f"{said}; nothing is chosen while {self.topic} is disabled: {why_disabled}"
        listed = [*judgements, *self._withheld(topic)]
        return Explanation(topic=topic, size=request.size, why=said, candidates=self._with_refusals(topic, listed))

    def _with_refusals(self, topic: str, judgements: list[Judgement]) -> list[Judgement]:
        now = self.clock.monotonic()
        return [
            msgspec.structs.replace(one, refused=self._refusals.describe_latest(topic, one.host, one.backend, now))
            for one in judgements
        ]

    @exposed(role="viewer", changes=False)
    def candidates(self, ctx: Context, topic: str = "") -> list[Candidate]:
        """Return all backends that have reported, of one topic or all, with their facts and the age of these."""
        self._sync_if_due()
        return self._known(topic)

    def _known(self, topic: str) -> list[Candidate]:
        # Backends of other topics may share the same file systems.
        known = with_neighbours(self._candidates.current(self.clock.monotonic()))
        found = [one for one in known if topic in {"", one.topic}]
        return [self._views.mark_unavailable(candidate, self.options.stale_after) for candidate in found]

    def _no_capacity(self, judgements: list[Judgement], request: Request) -> NoCapacity:
        topic = request.topic
        return no_capacity_error(
            judgements, request, self._candidates.hosts_without_backends(topic), self._withheld(topic)
        )

    def _withheld(self, topic: str) -> list[Judgement]:
        return [
            withheld_judgement(host, backend, why, self._views.reason_unavailable(topic, host, backend))
            for host, backend, why in self._candidates.withheld_backends(topic)
        ]

    def _evaluate(self, request: Request) -> list[Judgement]:
        return self._selector.evaluate(self._known(request.topic), request)

    @contextmanager
    def _hold_selection_lock(self, ctx: Context) -> Iterator[None]:
        left = ctx.remaining()
        if not self._selection_lock.acquire(
            timeout=_SELECTION_TIMEOUT if left is None else min(left, _SELECTION_TIMEOUT)
        ):
            raise Busy(
                "another selection has not finished",
                hint="a filter or weigher hangs; `ostler dump` shows which",
                retry_after=_SELECTION_TIMEOUT,
            )
        try:
            yield
        finally:
            self._selection_lock.release()


def _check_report(report: CapabilityReport) -> None:
    """Refuse a report that is too long, because every caller of `candidates` gets it."""
    check_length("the topic", report.topic, _MAX_NAME_LENGTH)
    for name in report.backends:
        check_length("the name of a backend", name, _MAX_NAME_LENGTH)
    size = len(json.dumps([report.backends, report.withheld]))
    if size > _MAX_REPORT_LENGTH:
        text = f"the report of {report.topic} has {size} characters, the limit is {_MAX_REPORT_LENGTH}"
        raise InvalidInput(text, size=size)


def _make_request(
    topic: str,
    size: int | str,
    features: tuple[str, ...],
    on_host: str,
    exclude: tuple[str, ...],
    refused: dict[str, str] | None = None,
) -> Request:
    if not topic:
        raise InvalidInput(
            "the topic is empty", hint="give the topic of the services that provide the backends", argument="topic"
        )
    refused = refused or {}
    if len(refused) > _MAX_REFUSED:
        raise InvalidInput(f"too many entries in `refused`: {len(refused)}", hint=f"give at most {_MAX_REFUSED}")
    for name, reason in refused.items():
        check_length("the name of a backend that refused", name, 2 * _MAX_NAME_LENGTH)
        check_length("the reason of a refusal", reason, _MAX_REASON_LENGTH)
    wanted = parse_size(str(size))
    return Request(topic=topic, size=wanted, features=features, host=on_host, exclude=exclude, refused=refused)
