"""`drop_excess`: who goes when there are too many of something that everybody may have."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


def drop_excess(items: OrderedDict[Key, Item], limit: int, owner_of: Callable[[Item], Hashable]) -> None:
    """Remove the oldest items of whoever has most of them: so nobody can take the place of others.

    Args:
        items: The items, oldest first.
        limit: How many may stay.
        owner_of: Returns whose an item is.
    """
    while len(items) > limit:
        ((owner, _),) = Counter(map(owner_of, items.values())).most_common(1)
        del items[next(key for key, item in items.items() if owner_of(item) == owner)]
