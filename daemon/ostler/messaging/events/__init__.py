"""Events: what is published, how a subscriber chooses, and how it sees that it has missed something.

`event` and `subscription` do no I/O; `publisher` and `journal` are the daemon's side, `stream` and `async_stream` the
clients'.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ostler.messaging.events.event import Event, Gap, Head, JournalPage, Pattern, Position, Seen

if TYPE_CHECKING:
    from ostler.messaging.events.publisher import Publisher
    from ostler.messaging.events.subscription import Subscription

__all__ = ["Event", "Gap", "Head", "JournalPage", "Pattern", "Position", "Publisher", "Seen", "Subscription"]

_HOMES = {"Publisher": "publisher", "Subscription": "subscription"}


def __getattr__(name: str) -> Any:
    # A client needs no publisher, a daemon no subscription, and neither what these import.
    if name in _HOMES:
        return getattr(import_module(f"ostler.messaging.events.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ostler.messaging.events' has no attribute {name!r}")
