"""Chooses among candidates: filters in their order, then weighers, then chance among equals."""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from ostler import NoCapacity, describe, format_size
from ostler_scheduler.filters import Filter
from ostler_scheduler.weighers import Weigher, normalised
from ostler_scheduler.wire import Candidate, Judgement, Request

T = TypeVar("T")
Log = logging.Logger | logging.LoggerAdapter[logging.Logger]
GONE = "unavailable"
"""What stands as the filter that dropped a candidate which has not reported for too long, or is down."""
REFUSED = "refused"
"""What stands as the filter that dropped a candidate which was chosen for this very request before, and refused it."""
_SAME = 1e-9
_NAMED = 5


class _Drop(NamedTuple):
    by: str
    reason: str


class Chooser:
    """Judges candidates and chooses one. Safe on any thread.

    A filter or weigher that raises drops the candidate that it was asked about, with its error as the reason, and
    nothing else; it is logged once.

    Args:
        filters: Name to filter, in the order they are asked.
        weighers: Name to weigher and its multiplier.
        rng: The source of chance, for ties.
        log: Where a failing filter or weigher is said.
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
        self._complained: set[str] = set()

    def judge(self, candidates: Iterable[Candidate], request: Request) -> list[Judgement]:
        """Return what becomes of each candidate, the chosen one marked, in the order they came."""
        drops: dict[int, _Drop] = {}
        listed = list(candidates)
        for index, candidate in enumerate(listed):
            drop = self._filter(candidate, request)
            if drop is not None:
                drops[index] = drop
        weights = self._weigh(listed, request, drops)
        totals = {index: math.fsum(parts.values()) for index, parts in weights.items()}
        chosen = self._best(totals)
        return [
            _judgement(candidate, drops.get(index), weights.get(index, {}), index == chosen)
            for index, candidate in enumerate(listed)
        ]

    def _filter(self, candidate: Candidate, request: Request) -> _Drop | None:
        if candidate.gone:
            return _Drop(GONE, candidate.gone)
        for refuser in (candidate.host, f"{candidate.host}/{candidate.backend}"):
            if refuser in request.refused:
                return _Drop(REFUSED, request.refused[refuser])
        for name, part in self._filters.items():
            reason, failed = self._ask(f"filter {name}", part.why_not, candidate, request, _reason)
            if failed or reason:
                return _Drop(name, failed or str(reason))
        return None

    def _weigh(
        self, candidates: Sequence[Candidate], request: Request, drops: dict[int, _Drop]
    ) -> dict[int, dict[str, float]]:
        raw: dict[str, dict[int, float]] = {name: {} for name in self._weighers}
        for index, candidate in enumerate(candidates):
            for name, (part, _) in self._weighers.items():
                if index in drops:
                    break
                answer, failed = self._ask(f"weigher {name}", part.weigh, candidate, request, _weight)
                if failed or answer is None:
                    drops[index] = _Drop(name, failed)
                else:
                    raw[name][index] = answer
        weights: dict[int, dict[str, float]] = {i: {} for i in range(len(candidates)) if i not in drops}
        for name, (_, multiplier) in self._weighers.items():
            # Only among those that are left: one that another weigher has dropped since must not set the scale.
            for index, value in normalised({i: raw[name][i] for i in weights}).items():
                weights[index][name] = value * multiplier
        return weights

    def _ask(
        self,
        what: str,
        question: Callable[[Candidate, Request], object],
        candidate: Candidate,
        request: Request,
        check: Callable[[object], T],
    ) -> tuple[T | None, str]:
        try:
            return check(question(candidate, request)), ""
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code must harm its candidate alone
            failed = f"the {what} failed: {describe(error)}"
            if what not in self._complained:
                self._complained.add(what)
                self._log.warning(
                    "%s on %s of %s is not chosen: %s (said once)",
                    candidate.backend, candidate.host, candidate.topic, failed, exc_info=error,
                )  # fmt: skip
            return None, failed

    def _best(self, totals: Mapping[int, float]) -> int | None:
        if not totals:
            return None
        most = max(totals.values())
        return self._rng.choice([index for index, total in totals.items() if most - total <= _SAME])


def _reason(answer: object) -> str:
    if answer is None or isinstance(answer, str):
        return answer or ""
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("why_not is async; it must be a plain method")
    raise TypeError(f"why_not returned {answer!r}; a reason is text, empty for none")


def _weight(answer: object) -> float:
    if inspect.iscoroutine(answer):
        answer.close()
        raise TypeError("weigh is async; it must be a plain method")
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        raise TypeError(f"weigh returned {answer!r}; a weight is a finite number")
    return float(answer)


def _judgement(candidate: Candidate, drop: _Drop | None, weights: dict[str, float], chosen: bool) -> Judgement:
    try:
        free = candidate.free
    except TypeError:  # a fact that is no number: the filter that needs it says so
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


def chosen_of(judgements: Iterable[Judgement]) -> Judgement | None:
    """Return the judgement of the chosen candidate, None when all were dropped."""
    return next((judgement for judgement in judgements if judgement.chosen), None)


def why(judgements: Sequence[Judgement]) -> str:
    """Return in one line why the chosen candidate is chosen; for `judgements` with a chosen one."""
    left = [judgement for judgement in judgements if not judgement.dropped_by]
    best = next(judgement for judgement in left if judgement.chosen)
    if len(left) == 1:
        return f"the only one left of {_count(len(judgements))}"
    parts = ", ".join(f"{name} {weight:.2f}" for name, weight in best.weights.items()) or "no weighers"
    equals = sum(abs(judgement.total - best.total) <= _SAME for judgement in left)
    chance = f"; chance decided among {equals} equals" if equals > 1 else ""
    return f"the best of {_count(len(left))} left ({parts}){chance}"


def no_capacity(
    judgements: Sequence[Judgement], request: Request, silent: Sequence[str] = (), withheld: Sequence[Judgement] = ()
) -> NoCapacity:
    """Return the error for a request that no candidate is left for: each filter, and how many it dropped.

    Args:
        judgements: What became of each candidate.
        request: What was looked for.
        silent: Hosts of the topic that reported without a backend.
        withheld: Backends that are not offered now.
    """
    wanted = f"no backend of {request.topic} for {_wish(request)}"
    dropped = Counter(judgement.dropped_by for judgement in judgements)
    facts = {"topic": request.topic, "size": request.size, "dropped": dict(dropped)}
    if judgements:
        parts = ", ".join(f"{name} dropped {count}" for name, count in dropped.items())
        hint = f"see why with `{_command(request)}`"
        return NoCapacity(f"{wanted}: of {_count(len(judgements))} {parts}{_besides(withheld)}", hint=hint, **facts)
    if silent:
        hint = "look at the drivers with `ostler status`"
        text = f"{wanted}: {', '.join(silent)} reported, with no driver ready{_besides(withheld)}"
        return NoCapacity(text, hint=hint, **facts)
    hint = "is there such a service? See `ostler service list`; a new one reports at its start"
    return NoCapacity(f"{wanted}: no service on this topic has reported", hint=hint, **facts)


def not_offered(host: str, backend: str, why: str, seen: str = "") -> Judgement:
    """Return what became of a backend that its service withholds.

    Args:
        host: Its host.
        backend: The backend.
        why: Why it is withheld, as its service says.
        seen: Why it may not be chosen, as the daemon here sees it; empty when nothing is known against it.
    """
    reason = f"it is not offered: {why}{f'; {seen}' if seen else ''}"
    return Judgement(host=host, backend=backend, dropped_by=GONE, reason=reason)


def _besides(withheld: Sequence[Judgement]) -> str:
    """Return the clause that names what is not offered: a few, with why."""
    if not withheld:
        return ""
    named = ", ".join(f"{one.host}/{one.backend}: {one.reason}" for one in withheld[:_NAMED])
    more = f", and {len(withheld) - _NAMED} more" if len(withheld) > _NAMED else ""
    return f"; {named}{more}"


def _command(request: Request) -> str:
    parts = [f"ostler scheduler explain {request.topic}"]
    if request.size:
        # What is shown rounded (1.5GiB) is written in bytes: the command is there to be pasted.
        text = format_size(request.size)
        parts.append(f"--size {request.size if '.' in text else text}")
    parts += [f"--feature {feature}" for feature in request.features]
    parts += [f"--host {request.host}"] if request.host else []
    parts += [f"--exclude {excluded}" for excluded in request.exclude]
    return " ".join(parts)


def _wish(request: Request) -> str:
    parts = [format_size(request.size) if request.size else "a request of any size"]
    parts += [f"with {', '.join(request.features)}"] if request.features else []
    parts += [f"on {request.host}"] if request.host else []
    return " ".join(parts)


def _count(number: int) -> str:
    return "1 candidate" if number == 1 else f"{number} candidates"
