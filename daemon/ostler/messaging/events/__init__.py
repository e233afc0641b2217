"""Events: publishing, choosing by prefix, and detecting what was missed.

`event`, `subscription` and `replay` do no I/O; `event_publisher`, `journal` and `last_value_cache` are the
daemon's side, `sync_event_stream` and `async_event_stream` the clients'. Not here: calls (`rpc`), and the database
behind the journal (`ostler.store.records`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names
from ostler.messaging.events.event import (
    Event,
    EventPattern,
    Gap,
    JournalPage,
    JournalPosition,
    StreamItem,
    Watermark,
)

if TYPE_CHECKING:
    from ostler.messaging.events.event_publisher import Publisher
    from ostler.messaging.events.subscription import Subscription

__all__ = [
    "Event",
    "EventPattern",
    "Gap",
    "JournalPage",
    "JournalPosition",
    "Publisher",
    "StreamItem",
    "Subscription",
    "Watermark",
]

_HOMES = {"Publisher": "event_publisher", "Subscription": "subscription"}

# A client needs no publisher, a daemon no subscription, and neither what these import.
__getattr__ = lazy_names(__name__, _HOMES)
