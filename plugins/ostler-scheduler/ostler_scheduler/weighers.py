"""`Weigher`: says which candidate is the better one; and the weighers that are brought along.

A weigher of your own is a class derived from `Weigher`, brought by the hook `ostler_extensions` under
`("scheduler.weigher", NAME)` and named with its multiplier in the scheduler's option `weighers`.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from ostler_scheduler.wire import Candidate, Request

K = TypeVar("K")


class Weigher(ABC):
    """Says how good a candidate is, in any unit it likes: the scheduler brings all answers to 0 to 1.

    One object is made for the life of the scheduler, without arguments. It is asked from several threads, for one
    candidate at a time, and must answer quickly: no calls, no files.
    """

    @abstractmethod
    def weigh(self, candidate: Candidate, request: Request) -> float:
        """Return how good this candidate is, more is better; a finite number.

        An error drops this candidate alone, with the error as the reason.
        """


class FreeSpaceWeigher(Weigher):
    """Likes the most free room; with a negative multiplier it fills one backend before the next."""

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return candidate.free or 0.0


class AllocatedWeigher(Weigher):
    """Likes the least room in use."""

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return -candidate.allocated


class RandomWeigher(Weigher):
    """Likes one at random; with a small multiplier it spreads what the others weigh about the same.

    Args:
        rng: The source of chance; a test hands in one with a seed.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    def weigh(self, candidate: Candidate, request: Request) -> float:
        """See `Weigher.weigh`."""
        return self._rng.random()


def normalised(raw: Mapping[K, float]) -> dict[K, float]:
    """Return answers of one weigher brought to 0 (the least) to 1 (the most); all 0 when they are all the same."""
    if not raw:
        return {}
    low, high = min(raw.values()), max(raw.values())
    # Halved before the subtraction: the difference of two large floats may be above the largest one.
    span = high / 2 - low / 2
    if span <= 0 or not math.isfinite(span):
        return dict.fromkeys(raw, 0.0)
    return {key: (value / 2 - low / 2) / span for key, value in raw.items()}
