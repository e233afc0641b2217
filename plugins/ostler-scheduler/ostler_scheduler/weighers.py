"""`Weigher`, the contract of weighers, which rate candidates, and the built-in weighers.

To add a weigher, derive a class from `Weigher`, return it from the hook `ostler_extensions` under
`("scheduler.weigher", NAME)`, and name it with its multiplier in the scheduler's option `weighers`.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from ostler_scheduler.api_types import Candidate, Request

K = TypeVar("K")


class Weigher(ABC):
    """Rates candidates, in any unit: the scheduler scales the weights to the range 0 to 1.

    One object is created without arguments for the lifetime of the scheduler. It is called on several threads, for one
    candidate at a time, and must return quickly: no calls, no files.
    """

    @abstractmethod
    def weigh(self, candidate: Candidate, request: Request) -> float:
        """Return the weight of this candidate, a finite number; more is better.

        An error drops only this candidate, with the error as the reason.
        """


class FreeSpaceWeigher(Weigher):
    """Prefers the most free space; with a negative multiplier it fills one backend before the next."""

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return candidate.free or 0.0


class AllocatedWeigher(Weigher):
    """Prefers the least space in use."""

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return -candidate.allocated


class RandomWeigher(Weigher):
    """Prefers a random candidate; with a small multiplier it distributes requests among nearly equal candidates.

    Args:
        rng: The random generator; tests pass one with a seed.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, not for security

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return self._rng.random()


def normalise(raw: Mapping[K, float]) -> dict[K, float]:
    """Return the weights of a weigher scaled to the range 0 (least) to 1 (most); all 0 if they are equal."""
    if not raw:
        return {}
    low, high = min(raw.values()), max(raw.values())
    # Halved before the subtraction: the difference of two large floats may be above the largest one.
    span = high / 2 - low / 2
    if span <= 0 or not math.isfinite(span):
        return dict.fromkeys(raw, 0.0)
    return {key: (value / 2 - low / 2) / span for key, value in raw.items()}
