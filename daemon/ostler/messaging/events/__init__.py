"""Events: what is published, how a subscriber chooses, and how it sees that it has missed something.

`event` and `subscription` do no I/O; `publisher` and `journal` are the daemon's side, `stream` and `async_stream` the
clients'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ostler.messaging.events.event import Event, Gap, Head, JournalPage, Pattern, Position, Seen
from ostler.messaging.events.subscription import Subscription

if TYPE_CHECKING:
    from ostler.messaging.events.publisher import Publisher

__all__ = ["Event", "Gap", "Head", "JournalPage", "Pattern", "Position", "Publisher", "Seen", "Subscription"]


def __getattr__(name: str) -> Any:
    # A client needs no publisher, and what that imports.
    if name == "Publisher":
        return import_module("ostler.messaging.events.publisher").Publisher
    raise AttributeError(f"module 'ostler.messaging.events' has no attribute {name!r}")
