"""A manager for clients in other languages: every form of value, and every way to answer."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime

import msgspec

from ostler import Conflict, Context, Manager, exposed


class OutOfPaper(Conflict):
    """An error that no client knows."""


class Colour(enum.Enum):
    """An enum."""

    RED = "red"
    BLUE = "blue"


class Size(msgspec.Struct):
    """A struct."""

    width: int
    height: int = 1


class Forms(msgspec.Struct):
    """One of each."""

    colour: Colour
    when: datetime
    blob: bytes
    size: Size


class ForeignClientManager(Manager):
    """Answers."""

    _number = 0

    @exposed(role="viewer", changes=False)
    async def forms(self, ctx: Context, colour: Colour, when: datetime, blob: bytes, size: Size) -> Forms:
        """Return what came."""
        return Forms(colour, when, blob, size)

    @exposed(role="viewer", changes=False)
    async def double(self, ctx: Context, number: int) -> int:
        """Return twice a number."""
        return 2 * number

    @exposed(role="operator")
    async def next_number(self, ctx: Context) -> int:
        """Count."""
        self._number += 1
        return self._number

    @exposed(role="viewer", changes=False)
    def refuse(self, ctx: Context) -> None:
        """Raise an error that no client knows."""
        raise OutOfPaper("no paper left", hint="add some", sheets=0)

    @exposed(role="viewer", changes=False)
    def work(self, ctx: Context, steps: int) -> str:
        """Report progress."""
        for step in range(1, steps + 1):
            ctx.progress(step, steps, f"step {step}")
        return "done"

    @exposed(role="viewer", changes=False)
    def count(self, ctx: Context, items: int) -> Iterator[int]:
        """Yield numbers."""
        yield from range(items)
