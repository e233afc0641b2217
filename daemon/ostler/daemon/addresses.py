"""Waiting for the addresses of `[network]` at the start: after a boot they may come later than the daemon."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from ostler.aio import WorkerPool
from ostler.clock import Clock
from ostler.config.configuration import Configuration
from ostler.errors import MessagingError, OstlerError

_log = logging.getLogger(__name__)
_RETRY_DELAY = 1.0


async def wait_for_addresses(
    configuration: Configuration,
    clock: Clock,
    on_wait: Callable[[str], None],
    check: Callable[[str], None] | None = None,
) -> None:
    """Return when this machine has the addresses to listen on, or when nothing of them can be waited for. On the loop.

    Args:
        configuration: Which addresses, and how long they are waited for.
        clock: The source of time.
        on_wait: Told what is waited for, and an empty text at the end.
        check: Finds out whether an address can be used; see `check_address`.

    Raises:
        MessagingError: They have not come in time.
    """
    network = configuration.network
    if not network.rpc:
        return
    from ostler.messaging.zmq.tcp import NOT_YET, check_address

    check = check or check_address
    until = clock.monotonic() + network.address_wait
    for address in filter(None, (network.rpc, network.events)):
        begun = clock.monotonic()
        while (error := await _checked(address, check, until - clock.monotonic())) is not None:
            if error.facts.get("reason") != NOT_YET:
                break  # what else is wrong is said by whoever binds it
            now = clock.monotonic()
            if now >= until:
                raise error
            if begun <= now:
                begun = math.inf
                _log.warning("waiting up to %.0f s for an address of [network]: %s", until - now, error.message)
            on_wait(f"the address {address}")
            await asyncio.sleep(_RETRY_DELAY)
    on_wait("")


async def _checked(address: str, check: Callable[[str], None], longest: float) -> OstlerError | None:
    """Return why an address cannot be used now; on a thread, for a name server may not answer."""
    pool = WorkerPool("ostler-address", 1)
    try:
        async with asyncio.timeout(max(longest, _RETRY_DELAY)):
            await pool.run(lambda: check(address), label="look up an address")
    except TimeoutError:
        from ostler.messaging.zmq.tcp import NOT_YET

        return MessagingError(
            f"{address} cannot be looked up: the name server does not answer",
            hint="use an address instead of a name in [network]",
            reason=NOT_YET,
        )
    except OstlerError as error:
        return error
    finally:
        pool.close()
    return None
