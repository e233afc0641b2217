"""Waits for the addresses of `[network]` at the start: after a boot they may become available later than the daemon."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from ostler.aio import WorkerPool
from ostler.clock import Clock
from ostler.config.configuration import Configuration
from ostler.errors import MessagingError, OstlerError
from ostler.time_text import format_duration

_log = logging.getLogger(__name__)
_RETRY_DELAY = 1.0


async def wait_for_addresses(
    configuration: Configuration,
    clock: Clock,
    on_wait: Callable[[str], None],
    check: Callable[[str], None] | None = None,
) -> None:
    """Return when this machine has the addresses to listen on, or when waiting cannot help. On the loop.

    Args:
        configuration: The addresses, and how long to wait for them.
        clock: The source of time.
        on_wait: Called with what is awaited, and with an empty text at the end.
        check: Raises when an address cannot be used; see `check_address`.

    Raises:
        MessagingError: They did not become available in time.
    """
    network = configuration.network
    if not network.rpc:
        return
    from ostler.messaging.tcp.bind import ADDRESS_NOT_READY, check_address  # only with a network, as below

    check = check or check_address
    until = clock.monotonic() + network.address_wait
    for address in filter(None, (network.rpc, network.events)):
        begun = clock.monotonic()
        while (error := await _check_address(address, check, until - clock.monotonic())) is not None:
            if error.reason != ADDRESS_NOT_READY:
                break  # any other error is reported by the code that binds it
            now = clock.monotonic()
            if now >= until:
                raise error
            if begun <= now:
                begun = math.inf
                limit = format_duration(until - now)
                _log.warning("waiting up to %s for an address of [network]: %s", limit, error.message)
            on_wait(f"the address {address}")
            await asyncio.sleep(_RETRY_DELAY)
    on_wait("")


async def _check_address(address: str, check: Callable[[str], None], timeout: float) -> OstlerError | None:
    """Return why an address cannot be used now; runs on a thread, because a name server may not respond."""
    pool = WorkerPool("ostler-address", 1)
    try:
        async with asyncio.timeout(max(timeout, _RETRY_DELAY)):
            await pool.run(lambda: check(address), label="resolve an address")
    except TimeoutError:
        from ostler.messaging.tcp.bind import ADDRESS_NOT_READY  # as above

        return MessagingError(
            f"{address} cannot be resolved: the name server does not respond",
            hint="use an IP address instead of a name in [network]",
            reason=ADDRESS_NOT_READY,
        )
    except OstlerError as error:
        return error
    finally:
        pool.close()
    return None
