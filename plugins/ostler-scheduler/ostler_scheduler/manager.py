"""`SchedulerManager`: keeps capabilities, chooses a backend for a request, and explains the choice."""

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
from ostler_scheduler.candidates import Candidates
from ostler_scheduler.choose import Chooser, chosen_of, no_capacity, not_offered, why
from ostler_scheduler.filters import Filter
from ostler_scheduler.liveness import Views
from ostler_scheduler.parts import make_filters, make_weighers, unknown_part
from ostler_scheduler.refusals import Refusals
from ostler_scheduler.weighers import Weigher
from ostler_scheduler.wire import Candidate, Explanation, Judgement, Request, Selection, with_neighbours

FILTER_KIND = "scheduler.filter"
WEIGHER_KIND = "scheduler.weigher"
_NAME_LIMIT = 255
_REPORT_LIMIT = 2 * 1024 * 1024
_REFUSED_LIMIT = 100
_WHY_LIMIT = 1000
_FLUSH = 0.5
"""Seconds that a refusal waits for what has just changed, here and on other hosts, and is on its way."""
_TURN = 10.0
"""Seconds a selection waits for its turn at most; each takes milliseconds unless a stranger's filter hangs."""
_SYNC_AGAIN = 0.1
"""Seconds between two looks at what the daemon keeps, however many requests there are."""
_SYNC_TIMEOUT = 5.0
"""Seconds that one look may take; a database that cannot be read must not stop every choice."""


class SchedulerOptions(ManagerOptions):
    """The options of `[services.scheduler]`."""

    filters: list[str] = Field(
        ["enabled", "host", "capabilities", "capacity"],
        help="The filters that every candidate must pass, in this order",
        reload="live",
    )
    weighers: dict[str, float] = Field(
        {"free_space": 1.0},
        help="The weighers, each with its multiplier; a negative one turns its preference round, 0 leaves it out",
        reload="live",
    )
    stale_after: Seconds = Field(
        0,
        ge=0,
        help="For how long a report counts at least; it always counts for three of the `capability_interval` that the "
        "reporting service has itself",
        reload="live",
    )
    forget_after: Seconds = Field(
        86400, gt=0, help="A service that has not reported for this long is not shown any more", reload="live"
    )
    lease_timeout: Seconds = Field(
        60,
        gt=0,
        help="How long room that was given away counts as taken when nothing more is heard of the request",
        reload="live",
    )
    sync_interval: Seconds = Field(
        30, gt=0, help="How often reports that may have been missed are fetched from the daemon", reload="live"
    )
    seed: int = Field(0, ge=0, help="Seed of the chance that decides ties, for tests; 0 for none", reload="live")

    def cross_check(self) -> Iterator[tuple[str, str]]:
        """See `OptionsModel.cross_check`."""
        if self.forget_after < self.stale_after:
            yield "forget_after", "must not be below stale_after: what is stale is shown for a while before it goes"


class SchedulerManager(Manager):
    """Chooses a backend for a request. See the README for how."""

    Options = SchedulerOptions
    rpc_version = "1.1"
    extension_kinds = {FILTER_KIND: Filter, WEIGHER_KIND: Weigher}

    @classmethod
    def validate(cls, options: Any, others: ValidationContext) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Find filters and weighers that no installed plugin brings; see `Manager.validate`."""
        filters, weighers = others.extensions.get(FILTER_KIND, {}), others.extensions.get(WEIGHER_KIND, {})
        for number, name in enumerate(options.filters):
            if name not in filters:
                yield ("filters", number), unknown_part("filter", name, filters)
        for name in options.weighers:
            if name not in weighers:
                yield ("weighers", name), unknown_part("weigher", name, weighers)

    def __init__(self, environment: ManagerEnvironment) -> None:
        super().__init__(environment)
        # How old is too old is asked of the services' own intervals, by `_views`.
        self._candidates = Candidates(math.inf, self.options.forget_after, self.options.lease_timeout)
        self._views = Views()
        self._turn = threading.Lock()
        self._look = threading.Lock()
        self._synced = -math.inf
        """When the daemon was asked for what is known now."""
        self._tried = -math.inf
        """When a look failed last."""
        self._sync_failed = False
        self._refusals = Refusals()
        self._chooser = self._make_chooser()

    def _make_chooser(self) -> Chooser:
        where = f"services.{self.topic}"
        return Chooser(
            make_filters(self.options.filters, self.extensions.get(FILTER_KIND, {}), f"{where}.filters"),
            make_weighers(self.options.weighers, self.extensions.get(WEIGHER_KIND, {}), f"{where}.weighers"),
            random.Random(self.options.seed or None),  # noqa: S311 - decides ties, guards nothing
            self.log,
        )

    def init_host_with_rpc(self) -> None:
        """Take over the capabilities that the daemon keeps."""
        self._sync()

    def reset(self) -> None:
        """Take over changed filters, weighers and times; wrong ones leave the old ones at work."""
        self._chooser = self._make_chooser()
        self._candidates.forget_after = self.options.forget_after
        self._candidates.leases.timeout = self.options.lease_timeout

    @periodic(spacing="sync_interval")
    def sync(self, ctx: Context) -> None:
        """Fetch what a lost fanout may have missed: reports, services that went down, and the operator's enable."""
        self._sync()

    def _refresh(self) -> None:
        # An operator who has just disabled a service expects the next choice to know it, not the one after a report.
        came = self.clock.monotonic()
        if came - self._synced < _SYNC_AGAIN:
            return
        # Who comes during a look waits for what it brings: what was known before it may be half a minute old.
        with self._one_look():
            looked = self._synced if not self._sync_failed else self._tried
            if came - looked >= _SYNC_AGAIN:
                self._sync()

    @contextmanager
    def _one_look(self) -> Iterator[None]:
        if not self._look.acquire(blocking=False):
            with waiting_for("a look at what the daemon keeps"):
                self._look.acquire()
        try:
            yield
        finally:
            self._look.release()

    def _catch_up(self) -> bool:
        """Look at what there is now, what has just changed included, before a request is refused by what there was."""
        self._sync(_FLUSH)
        return not self._sync_failed

    def _sync(self, flush: float = 0.0) -> None:
        asked = self.clock.monotonic()
        try:
            reports = self.client.on(type=list[CapabilityReport], timeout=_SYNC_TIMEOUT).call(
                "ostler", "capabilities", flush=flush
            )
            self._views.take(
                self.client.on(type=list[ServiceStatus], timeout=_SYNC_TIMEOUT).call("ostler", "service_list")
            )
        except OstlerError as error:
            # Services report again by themselves, and this is tried again: no reason not to start.
            if not self._sync_failed:
                self.log.warning("the capabilities that the daemon keeps cannot be read now: %s", error)
            self._sync_failed, self._tried = True, self.clock.monotonic()
            return
        if self._sync_failed:
            self.log.info("the capabilities that the daemon keeps can be read again")
            self._sync_failed = False
        self._candidates.take_kept(reports, asked, self.clock.monotonic())
        # Not before it is known: a choice that is made meanwhile must not take what was known for fresh.
        self._synced = max(self._synced, asked)

    def _why_disabled(self) -> str:
        """Return who has disabled this very service and why; empty while it is enabled, or that cannot be told."""
        row = self._views.of(self.topic, self.host)
        if row is None or row.enabled:
            return ""
        return f"{row.disabled_reason} (by {row.disabled_by or 'nobody knows whom'})"

    @exposed(role="admin")
    async def update_capabilities(self, ctx: Context, report: CapabilityReport) -> None:
        """Take a report of a service; sent by the daemons themselves. Not kept waiting by selections.

        Args:
            ctx: The request.
            report: The whole of what the service offers now.

        Raises:
            NotPermitted: The caller does not speak for that host: its key is another's.
            InvalidInput: The report is too long.
        """
        ctx.check_host(report.host)
        _check_report(report)
        self._candidates.update(report, self.clock.monotonic())

    @exposed(role="operator")
    def release(self, ctx: Context, lease: str) -> bool:
        """Give back what a selection has promised, because nothing was taken; return whether it was still promised.

        Managers say so with `Manager.capabilities_changed`; this is for programs that select by themselves.

        Args:
            ctx: The request.
            lease: The id in the selection.
        """
        return self._candidates.release(lease)

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
        """Choose a backend, and count the size as given away until the backend counts it, or the lease ends.

        Args:
            ctx: The request.
            topic: The topic whose backends are candidates.
            size: Bytes, or text as people write it (`10GiB`); 0 when room does not matter.
            features: What it must offer: a feature's name, or `fact=value`.
            on_host: The only host that will do, empty for any.
            exclude: What will not do: `HOST` or `HOST/BACKEND`.
            refused: What was chosen for this very request before and refused it, `HOST` or `HOST/BACKEND`, with why: it
                is not chosen again for it, and `explain` shows what it refused.

        Raises:
            InvalidInput: The topic is empty, or the size is none.
            NoCapacity: No candidate is left; says which filter dropped how many.
            Busy: Another selection does not come to its end.
            ServiceDisabled: An operator has disabled this scheduler.
        """
        request = _request(topic, size, features, on_host, exclude, refused)
        self._refresh()
        self._check_enabled()
        self._refusals.note(request, self.clock.monotonic())
        judgements, lease = self._choose(ctx, request)
        if chosen_of(judgements) is None and self._catch_up():
            judgements, lease = self._choose(ctx, request)
        chosen = chosen_of(judgements)
        if chosen is None:
            raise self._no_capacity(judgements, request)
        self.log.info("%s on %s is chosen for %s: %s", chosen.backend, chosen.host, topic, why(judgements))
        return Selection(host=chosen.host, backend=chosen.backend, why=why(judgements), lease=lease)

    def _check_enabled(self) -> None:
        if why_disabled := self._why_disabled():
            raise ServiceDisabled(
                f"{self.topic} on {self.host} is disabled: {why_disabled}",
                hint=f"`ostler service enable {self.topic}` there lets it choose again",
                topic=self.topic, host=self.host,
            )  # fmt: skip

    def _choose(self, ctx: Context, request: Request) -> tuple[list[Judgement], str]:
        # One at a time: two that chose at once would both be given the same room.
        with self._my_turn(ctx):
            judgements = self._judge(request)
            chosen, lease = chosen_of(judgements), ""
            if chosen is not None:
                now = self.clock.monotonic()
                lease = self._candidates.promise(request.topic, chosen.host, chosen.backend, request.size, now)
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
        """Say what `select` would choose and why, with every candidate; nothing is given away.

        Args:
            ctx: The request.
            topic: See `select`, and the rest as well.
            size: See `select`.
            features: See `select`.
            on_host: See `select`.
            exclude: See `select`.

        Raises:
            InvalidInput: The topic is empty, or the size is none.
        """
        request = _request(topic, size, features, on_host, exclude)
        self._refresh()
        judgements = self._judge(request)
        if chosen_of(judgements) is None and self._catch_up():
            judgements = self._judge(request)
        left = chosen_of(judgements) is not None
        said = why(judgements) if left else self._no_capacity(judgements, request).message
        if why_disabled := self._why_disabled():
            said = f"{said}; nothing is chosen while {self.topic} is disabled: {why_disabled}"
        listed = [*judgements, *self._withheld(topic)]
        return Explanation(topic=topic, size=request.size, why=said, candidates=self._with_refusals(topic, listed))

    def _with_refusals(self, topic: str, judgements: list[Judgement]) -> list[Judgement]:
        now = self.clock.monotonic()
        return [
            msgspec.structs.replace(one, refused=self._refusals.of(topic, one.host, one.backend, now))
            for one in judgements
        ]

    @exposed(role="viewer", changes=False)
    def candidates(self, ctx: Context, topic: str = "") -> list[Candidate]:
        """Return every backend that has reported, of one topic or all, with its facts and their age."""
        self._refresh()
        return self._known(topic)

    def _known(self, topic: str) -> list[Candidate]:
        # Backends of other topics may be on the same file systems.
        known = with_neighbours(self._candidates.known(self.clock.monotonic()))
        found = [one for one in known if topic in {"", one.topic}]
        return [self._views.judged(candidate, self.options.stale_after) for candidate in found]

    def _no_capacity(self, judgements: list[Judgement], request: Request) -> NoCapacity:
        topic = request.topic
        return no_capacity(judgements, request, self._candidates.silent(topic), self._withheld(topic))

    def _withheld(self, topic: str) -> list[Judgement]:
        return [
            not_offered(host, backend, why, self._views.why_not(topic, host, backend))
            for host, backend, why in self._candidates.withheld(topic)
        ]

    def _judge(self, request: Request) -> list[Judgement]:
        return self._chooser.judge(self._known(request.topic), request)

    @contextmanager
    def _my_turn(self, ctx: Context) -> Iterator[None]:
        left = ctx.remaining()
        if not self._turn.acquire(timeout=_TURN if left is None else min(left, _TURN)):
            raise Busy(
                "another selection does not come to its end",
                hint="a filter or weigher hangs: `ostler dump` shows which",
                retry_after=_TURN,
            )
        try:
            yield
        finally:
            self._turn.release()


def _check_report(report: CapabilityReport) -> None:
    """Refuse a report that is too long: everybody who asks for candidates is shown it."""
    check_length("the topic", report.topic, _NAME_LIMIT)
    for name in report.backends:
        check_length("the name of a backend", name, _NAME_LIMIT)
    size = len(json.dumps([report.backends, report.withheld]))
    if size > _REPORT_LIMIT:
        text = f"the report of {report.topic} has {size} characters, the limit is {_REPORT_LIMIT}"
        raise InvalidInput(text, size=size)


def _request(
    topic: str,
    size: int | str,
    features: tuple[str, ...],
    on_host: str,
    exclude: tuple[str, ...],
    refused: dict[str, str] | None = None,
) -> Request:
    if not topic:
        raise InvalidInput("a topic is needed: whose backends are the candidates?", argument="topic")
    refused = refused or {}
    if len(refused) > _REFUSED_LIMIT:
        raise InvalidInput(f"{len(refused)} backends that refused are too many", hint=f"at most {_REFUSED_LIMIT}")
    for name, reason in refused.items():
        check_length("the name of a backend that refused", name, 2 * _NAME_LIMIT)
        check_length("the reason of a refusal", reason, _WHY_LIMIT)
    wanted = parse_size(str(size))
    return Request(topic=topic, size=wanted, features=features, host=on_host, exclude=exclude, refused=refused)
