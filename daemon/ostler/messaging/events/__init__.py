"""Events: what is published, how a subscriber chooses, and how it sees that it has missed something.

`event` and `subscription` do no I/O; `publisher` and `journal` are the daemon's side, `stream` and `async_stream` the
clients'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names
from ostler.messaging.events.event import Event, Gap, Head, JournalPage, Pattern, Position, Seen

if TYPE_CHECKING:
    from ostler.messaging.events.publisher import Publisher
    from ostler.messaging.events.subscription import Subscription

__all__ = ["Event", "Gap", "Head", "JournalPage", "Pattern", "Position", "Publisher", "Seen", "Subscription"]

_HOMES = {"Publisher": "publisher", "Subscription": "subscription"}

# A client needs no publisher, a daemon no subscription, and neither what these import.
__getattr__ = lazy_names(__name__, _HOMES)
