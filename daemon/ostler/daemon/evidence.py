"""What the watchdog asks for: proof that the store writes, the RPC socket answers, and critical services get on."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from ostler.clock import Clock
from ostler.errors import ServiceError, StoreError

if TYPE_CHECKING:
    from ostler.daemon.messages import Messages
    from ostler.daemon.watchdog import Watchdog
    from ostler.service import Runtime, Service
    from ostler.store import Store

_log = logging.getLogger(__name__)
_RETRY_DELAY = 2.0


def add_evidence(watchdog: Watchdog, store: Store, messages: Messages, runtime: Runtime, clock: Clock) -> None:
    """Have the watchdog ask for evidence of everything that must be alive."""
    watchdog.add("the store", partial(prove_store, store))
    watchdog.add("the RPC socket", messages.prove)
    for service in runtime.group:
        watchdog.add(f"service {service.topic}", partial(_prove_current, runtime, service.topic, clock))


async def _prove_current(runtime: Runtime, topic: str, clock: Clock) -> None:
    await prove_service(runtime.group.services[topic], clock)  # an operator may have started it anew


async def prove_store(store: Store) -> None:
    """Return when the store's writer has answered."""
    try:
        await store.aping()
    except StoreError as error:
        # The writer thread answered: a full disk or a locked file is not cured by a restart.
        _log.debug("the store answered the watchdog with an error: %s", error)


async def retry_database(store: Store) -> None:
    """Try again every few seconds while the database cannot be written, so that the daemon goes on by itself."""
    while True:
        await asyncio.sleep(_RETRY_DELAY)
        if store.outage.active:
            await prove_store(store)


async def prove_service(service: Service, clock: Clock) -> None:
    """Return when a critical service makes progress; others, and those that are not at work, owe no evidence.

    A service that an operator has drained, or that has failed and is not required, says so in its state: a restart of
    the whole daemon is not the answer.

    Raises:
        ServiceError: Its checks have not come back for too long.
    """
    if not service.options.critical or not service.running:
        return
    allowed = service.options.report_interval + service.options.down_time
    idle = clock.monotonic() - service.progressed
    if idle > allowed:
        raise ServiceError(f"its checks have not come back for {idle:.0f} s", service=service.topic)
