"""`SchedulerManager`: keeps capabilities, chooses a backend for a request, and explains the choice."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ostler import (
    Busy,
    CapabilityReport,
    Context,
    Field,
    InvalidInput,
    Json,
    Manager,
    ManagerEnvironment,
    ManagerOptions,
    OstlerError,
    Seconds,
    ValidationContext,
    check_length,
    exposed,
    parse_size,
    periodic,
)
from ostler_scheduler.candidates import Candidates
from ostler_scheduler.choose import Chooser, chosen_of, no_capacity, why
from ostler_scheduler.filters import Filter
from ostler_scheduler.parts import make_filters, make_weighers, unknown_part
from ostler_scheduler.weighers import Weigher
from ostler_scheduler.wire import Candidate, Explanation, Judgement, Request, Selection, with_neighbours

FILTER_KIND = "scheduler.filter"
WEIGHER_KIND = "scheduler.weigher"
_NAME_LIMIT = 255
_REPORT_LIMIT = 256 * 1024
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
        180, gt=0, help="A service that has not reported for this long is no candidate", reload="live"
    )
    forget_after: Seconds = Field(
        86400, gt=0, help="A service that has not reported for this long is not shown any more", reload="live"
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
        self._candidates = Candidates(self.options.stale_after, self.options.forget_after)
        self._turn = threading.Lock()
        self._synced = -_SYNC_AGAIN
        self._sync_failed = False
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
        self._candidates.stale_after = self.options.stale_after
        self._candidates.forget_after = self.options.forget_after

    @periodic(spacing="sync_interval")
    def sync(self, ctx: Context) -> None:
        """Fetch what a lost fanout may have missed: reports, services that went down, and the operator's enable."""
        self._sync()

    def _refresh(self) -> None:
        # An operator who has just disabled a service expects the next choice to know it, not the one after a report.
        if self.clock.monotonic() - self._synced >= _SYNC_AGAIN:
            self._sync()

    def _sync(self) -> None:
        asked = self._synced = self.clock.monotonic()
        try:
            reports = self.client.call("ostler", "capabilities", type=list[CapabilityReport], timeout=_SYNC_TIMEOUT)
        except OstlerError as error:
            # Services report again by themselves, and this is tried again: no reason not to start.
            if not self._sync_failed:
                self.log.warning("the capabilities that the daemon keeps cannot be read now: %s", error)
            self._sync_failed = True
            return
        if self._sync_failed:
            self.log.info("the capabilities that the daemon keeps can be read again")
            self._sync_failed = False
        self._candidates.take_kept(reports, asked, self.clock.monotonic())

    @exposed(role="admin")
    def update_capabilities(
        self,
        ctx: Context,
        on_host: str,
        topic: str,
        backends: dict[str, dict[str, Json]],
        reported_at: float,
        enabled: bool,
    ) -> None:
        """Take a report of a service; sent as a fanout by the services themselves.

        Args:
            ctx: The request.
            on_host: The host of the service.
            topic: Its topic.
            backends: Backend name to facts.
            reported_at: When it was made, by the sender's wall clock.
            enabled: Whether an operator has left the service enabled.

        Raises:
            NotPermitted: The caller does not speak for that host: its key is another's.
            InvalidInput: The report is too long.
        """
        ctx.check_host(on_host)
        _check_report(topic, backends)
        now = self.clock.monotonic()
        self._candidates.update(topic, on_host, backends, reported_at=reported_at, enabled=enabled, now=now)

    @exposed(role="operator")
    def select(
        self,
        ctx: Context,
        topic: str,
        size: int | str = 0,
        features: tuple[str, ...] = (),
        on_host: str = "",
        exclude: tuple[str, ...] = (),
    ) -> Selection:
        """Choose a backend, and count the size as given away until it reports again.

        Args:
            ctx: The request.
            topic: The topic whose backends are candidates.
            size: Bytes, or text as people write it (`10GiB`); 0 when room does not matter.
            features: What it must offer: a feature's name, or `fact=value`.
            on_host: The only host that will do, empty for any.
            exclude: What will not do: `HOST` or `HOST/BACKEND`.

        Raises:
            InvalidInput: The topic is empty, or the size is none.
            NoCapacity: No candidate is left; says which filter dropped how many.
            Busy: Another selection does not come to its end.
        """
        request = _request(topic, size, features, on_host, exclude)
        self._refresh()
        judgements = self._choose(ctx, request)
        chosen = chosen_of(judgements)
        if chosen is None:
            raise no_capacity(judgements, request, self._candidates.silent(topic))
        self.log.info("%s on %s is chosen for %s: %s", chosen.backend, chosen.host, topic, why(judgements))
        return Selection(host=chosen.host, backend=chosen.backend, why=why(judgements))

    def _choose(self, ctx: Context, request: Request) -> list[Judgement]:
        # One at a time: two that chose at once would both be given the same room.
        with self._my_turn(ctx):
            judgements = self._judge(request)
            chosen = chosen_of(judgements)
            if chosen is not None:
                self._candidates.promise(request.topic, chosen.host, chosen.backend, request.size)
        return judgements

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
        if chosen_of(judgements) is not None:
            said = why(judgements)
        else:
            said = no_capacity(judgements, request, self._candidates.silent(topic)).message
        return Explanation(topic=topic, size=request.size, why=said, candidates=judgements)

    @exposed(role="viewer", changes=False)
    def candidates(self, ctx: Context, topic: str = "") -> list[Candidate]:
        """Return every backend that has reported, of one topic or all, with its facts and their age."""
        self._refresh()
        return self._known(topic)

    def _known(self, topic: str) -> list[Candidate]:
        # Backends of other topics may be on the same file systems.
        known = with_neighbours(self._candidates.known(self.clock.monotonic()))
        return [one for one in known if topic in {"", one.topic}]

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


def _check_report(topic: str, backends: dict[str, dict[str, Json]]) -> None:
    """Refuse a report that is too long: everybody who asks for candidates is shown it."""
    check_length("the topic", topic, _NAME_LIMIT)
    for name in backends:
        check_length("the name of a backend", name, _NAME_LIMIT)
    size = len(json.dumps(backends))
    if size > _REPORT_LIMIT:
        raise InvalidInput(f"the report of {topic} has {size} characters, the limit is {_REPORT_LIMIT}", size=size)


def _request(topic: str, size: int | str, features: tuple[str, ...], on_host: str, exclude: tuple[str, ...]) -> Request:
    if not topic:
        raise InvalidInput("a topic is needed: whose backends are the candidates?", argument="topic")
    wanted = parse_size(str(size))
    return Request(topic=topic, size=wanted, features=features, host=on_host, exclude=exclude)
