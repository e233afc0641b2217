"""Encodes large results of threads one after the other, with pauses, so that the loop is not kept waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call

LARGE_RESULT_SIZE = 1024 * 1024
"""Bytes of a large result."""
_LOCK_TIMEOUT = 1.0
"""Seconds that a thread waits for those before it; what a plugin's own type does while it is encoded may take long."""
_PAUSE_FACTOR, _MAX_PAUSE = 2.0, 0.05
"""The pause after a result is so many times as long as its encoding, and so many seconds at most."""


class LargeResults:
    """Encodes results in the threads that have them; those of methods that return much wait for each other.

    The interpreter is held for the whole of an encoding, some milliseconds for each 8 MB, and the loop needs it back
    after each of its system calls. So there is one such encoding at a time, and for two thirds of the time none.

    Args:
        sleep: Waits for so many seconds.
        monotonic: Returns the time.
        lock_timeout: Seconds that a thread waits for those before it.
    """

    def __init__(
        self,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        lock_timeout: float = _LOCK_TIMEOUT,
    ) -> None:
        self._sleep = sleep
        self._monotonic = monotonic
        self._lock_timeout = lock_timeout
        self._lock = threading.Lock()
        self._next_start_at = 0.0

    def pack(self, call: Call, result: object) -> bytes:
        """Return the result of a call as bytes. Any thread of a pool; raises what `Call.pack` does."""
        stats = call.method.stats
        packed = self._pack_paced(call, result) if stats.has_large_results else call.pack(result)
        stats.has_large_results = len(packed) > LARGE_RESULT_SIZE
        return packed

    def _pack_paced(self, call: Call, result: object) -> bytes:
        if not self._lock.acquire(timeout=self._lock_timeout):
            return call.pack(result)
        try:
            pause = self._next_start_at - self._monotonic()
            if pause > 0.0:
                self._sleep(pause)
            began = self._monotonic()
            try:
                return call.pack(result)
            finally:
                ended = self._monotonic()
                self._next_start_at = ended + min((ended - began) * _PAUSE_FACTOR, _MAX_PAUSE)
        finally:
            self._lock.release()
