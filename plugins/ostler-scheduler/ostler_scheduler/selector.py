"""Chooses among candidates: filters in their order, then weighers, then at random among equals."""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ostler import NoCapacity, error_line, format_size
from ostler_scheduler.api_types import Candidate, Judgement, Request
from ostler_scheduler.filters import Filter
from ostler_scheduler.weighers import Weigher, normalise

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
UNAVAILABLE = "unavailable"
"""The name of the filter that is reported for a candidate whose report is too old, or which is down."""
REFUSED = "refused"
"""The name of the filter that is reported for a candidate that was chosen for this request before, and refused it."""
_TIE_TOLERANCE = 1e-9
_MAX_NAMED = 5


class _DroppedBy(NamedTuple):
    by: str
    reason: str


class Selector:
    """Evaluates candidates and chooses one. Thread-safe.

    If a filter or weigher raises, only the candidate that it was called for is dropped, with the error as the reason;
    this is logged once.

    Args:
        filters: Name to filter, in the order of their calls.
        weighers: Name to weigher and its multiplier.
        rng: The random generator for ties.
        log: The logger for failures of filters and weighers.
    """

    def __init__(
        self,
        filters: Mapping[str, Filter],
        weighers: Mapping[str, tuple[Weigher, float]],
        rng: random.Random,
        log: Log,
    ) -> None:
        self._filters = filters
        self._weighers = weighers
        self._rng = rng
        self._log = log
        self._logged: set[str] = set()

    def evaluate(self, candidates: Iterable[Candidate], request: Request) -> list[Judgement]:
        """Return the judgement of each candidate in their order, with the chosen one marked."""
        drops: dict[int, _DroppedBy] = {}
        listed = list(candidates)
        for index, candidate in enumerate(listed):
            drop = self._filter(candidate, request)
            if drop is not None:
                drops[index] = drop
        weights = self._weigh(listed, request, drops)
        totals = {index: math.fsum(parts.values()) for index, parts in weights.items()}
        chosen = self._pick_best(totals)
        return [
            _make_judgement(candidate, drops.get(index), weights.get(index, {}), index == chosen)
            for index, candidate in enumerate(listed)
        ]

    def _filter(self, candidate: Candidate, request: Request) -> _DroppedBy | None:
        if candidate.gone:
            return _DroppedBy(UNAVAILABLE, candidate.gone)
        for refuser in (candidate.host, f"{candidate.host}/{candidate.backend}"):
            if refuser in request.refused:
                return _DroppedBy(REFUSED, request.refused[refuser])
        for name, part in self._filters.items():
            reason, failed = self._call_extension(f"filter {name}", part.why_not, candidate, request, _check_reason)
            if failed or reason:
                return _DroppedBy(name, failed or str(reason))
        return None

    def _weigh(
        self, candidates: Sequence[Candidate], request: Request, drops: dict[int, _DroppedBy]
    ) -> dict[int, dict[str, float]]:
        raw: dict[str, dict[int, float]] = {name: {} for name in self._weighers}
        for index, candidate in enumerate(candidates):
            for name, (part, _) in self._weighers.items():
                if index in drops:
                    break
                answer, failed = self._call_extension(f"weigher {name}", part.weigh, candidate, request, _check_weight)
                if failed or answer is None:
                    drops[index] = _DroppedBy(name, failed)
                else:
                    raw[name][index] = answer
        weights: dict[int, dict[str, float]] = {i: {} for i in range(len(candidates)) if i not in drops}
        for name, (_, multiplier) in self._weighers.items():
            # Only among the remaining ones: a candidate that another weigher has dropped must not set the scale.
            for index, value in normalise({i: raw[name][i] for i in weights}).items():
                weights[index][name] = value * multiplier
        return weights

    def _call_extension(
        self,
        what: str,
        question: Callable[[Candidate, Request], object],
        candidate: Candidate,
        request: Request,
        check: Callable[[object], T],
    ) -> tuple[T | None, str]:
        try:
            return check(question(candidate, request)), ""
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failure of third-party code must affect its candidate only
            failed = f"the {what} failed: {error_line(error)}"
            if what not in self._logged:
                self._logged.add(what)
                self._log.warning(
                    "%s on %s of %s is not chosen: %s (logged once)",
                    candidate.backend, candidate.host, candidate.topic, failed, exc_info=error,
                )  # fmt: skip
            return None, failed

    def _pick_best(self, totals: Mapping[int, float]) -> int | None:
        if not totals:
            return None
        most = max(totals.values())
        return self._rng.choice([index for index, total in totals.items() if most - total <= _TIE_TOLERANCE])


def _check_reason(answer: object) -> str:
    if answer is None or isinstance(answer, str):
        return answer or ""
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("why_not is async; it must be a plain method")
    raise TypeError(f"why_not returned {answer!r}; it must return a text, empty for no reason")


def _check_weight(answer: object) -> float:
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("weigh is async; it must be a plain method")
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        raise TypeError(f"weigh returned {answer!r}; it must return a finite number")
    return float(answer)


def _make_judgement(
    candidate: Candidate, drop: _DroppedBy | None, weights: dict[str, float], chosen: bool
) -> Judgement:
    try:
        free = candidate.free
    except TypeError:  # a fact that is not a number: the filter that needs it reports it
        free = None
    return Judgement(
        host=candidate.host,
        backend=candidate.backend,
        free=-1 if free is None else max(0, free),
        dropped_by=drop.by if drop else "",
        reason=drop.reason if drop else "",
        weights=weights,
        total=math.fsum(weights.values()),
        chosen=chosen,
    )


def chosen_judgement(judgements: Iterable[Judgement]) -> Judgement | None:
    """Return the judgement of the chosen candidate, None if all were dropped."""
    return next((judgement for judgement in judgements if judgement.chosen), None)


def explain_choice(judgements: Sequence[Judgement]) -> str:
    """Return the reason of the choice in one line; `judgements` must have a chosen candidate."""
    left = [judgement for judgement in judgements if not judgement.dropped_by]
    best = next(judgement for judgement in left if judgement.chosen)
    if len(left) == 1:
        return f"the only one left of {_count_candidates(len(judgements))}"
    parts = ", ".join(f"{name} {weight:.2f}" for name, weight in best.weights.items()) or "no weighers"
    equals = sum(abs(judgement.total - best.total) <= _TIE_TOLERANCE for judgement in left)
    chance = f"; chosen at random among {equals} equals" if equals > 1 else ""
    return f"the best of {_count_candidates(len(left))} left ({parts}){chance}"


def no_capacity_error(
    judgements: Sequence[Judgement], request: Request, silent: Sequence[str] = (), withheld: Sequence[Judgement] = ()
) -> NoCapacity:
    """Return the error for a request without candidates: each filter, and how many it dropped.

    Args:
        judgements: The judgement of each candidate.
        request: The request.
        silent: Hosts of the topic that reported no backend.
        withheld: Backends that their services do not offer now.
    """
    wanted = f"no backend of {request.topic} for {_describe_request(request)}"
    dropped = Counter(judgement.dropped_by for judgement in judgements)
    facts = {"topic": request.topic, "size": request.size, "dropped": dict(dropped)}
    if judgements:
        parts = ", ".join(f"{name} dropped {count}" for name, count in dropped.items())
        hint = f"`{_explain_command(request)}` shows the reasons"
        return NoCapacity(
            f"{wanted}: of {_count_candidates(len(judgements))} {parts}{_withheld_clause(withheld)}", hint=hint, **facts
        )
    if silent:
        hint = "`ostler status` shows the drivers"
        text = f"{wanted}: {', '.join(silent)} reported, but no driver is ready{_withheld_clause(withheld)}"
        return NoCapacity(text, hint=hint, **facts)
    hint = "`ostler service list` shows the services; a service reports when it starts"
    return NoCapacity(f"{wanted}: no service on this topic has reported", hint=hint, **facts)


def withheld_judgement(host: str, backend: str, why: str, seen: str = "") -> Judgement:
    """Return the judgement of a backend that its service does not offer.

    Args:
        host: Its host.
        backend: The backend.
        why: The reason that its service gives.
        seen: Why it must not be chosen according to the local daemon; empty if there is no reason.
    """
    reason = f"not offered: {why}{f'; {seen}' if seen else ''}"
    return Judgement(host=host, backend=backend, dropped_by=UNAVAILABLE, reason=reason)


def _withheld_clause(withheld: Sequence[Judgement]) -> str:
    """Return the clause that lists some of the backends that are not offered, with their reasons."""
    if not withheld:
        return ""
    named = ", ".join(f"{one.host}/{one.backend}: {one.reason}" for one in withheld[:_MAX_NAMED])
    more = f", and {len(withheld) - _MAX_NAMED} more" if len(withheld) > _MAX_NAMED else ""
    return f"; {named}{more}"


def _explain_command(request: Request) -> str:
    parts = [f"ostler scheduler explain {request.topic}"]
    if request.size:
        # A size that would be rounded (1.5GiB) is written in bytes, so that the command can be pasted.
        text = format_size(request.size)
        parts.append(f"--size {request.size if '.' in text else text}")
    parts += [f"--feature {feature}" for feature in request.features]
    parts += [f"--host {request.host}"] if request.host else []
    parts += [f"--exclude {excluded}" for excluded in request.exclude]
    return " ".join(parts)


def _describe_request(request: Request) -> str:
    parts = [format_size(request.size) if request.size else "a request of any size"]
    parts += [f"with {', '.join(request.features)}"] if request.features else []
    parts += [f"on {request.host}"] if request.host else []
    return " ".join(parts)


def _count_candidates(number: int) -> str:
    return "1 candidate" if number == 1 else f"{number} candidates"
