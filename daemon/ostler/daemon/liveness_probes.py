"""The watchdog's probes: the store writes, the RPC socket answers, and critical services make progress."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from ostler.clock import Clock
from ostler.errors import ServiceError, StoreError
from ostler.time_text import format_duration

if TYPE_CHECKING:
    from ostler.daemon.connectivity.messaging_stack import MessagingStack
    from ostler.daemon.watchdog import Watchdog
    from ostler.service import Runtime, Service
    from ostler.store import Store

_log = logging.getLogger(__name__)
_RETRY_DELAY = 2.0
_SERVICE_PREFIX = "service "


def register_probes(watchdog: Watchdog, store: Store, messages: MessagingStack, runtime: Runtime, clock: Clock) -> None:
    """Register a probe for everything that must be alive."""
    watchdog.add_probe("the store", partial(probe_store, store))
    watchdog.add_probe("the RPC socket", messages.self_check)
    probe_services(watchdog, runtime, clock)


def probe_services(watchdog: Watchdog, runtime: Runtime, clock: Clock) -> None:
    """Register a probe for each service, and remove those of services that are gone."""
    wanted = {f"{_SERVICE_PREFIX}{service.topic}": service.topic for service in runtime.group}
    known = {name for name in watchdog.probe_names() if name.startswith(_SERVICE_PREFIX)}
    for name in known - wanted.keys():
        watchdog.remove_probe(name)
    for name in wanted.keys() - known:
        watchdog.add_probe(name, partial(_probe_current_service, runtime, wanted[name], clock))


async def _probe_current_service(runtime: Runtime, topic: str, clock: Clock) -> None:
    service = runtime.group.services.get(topic)  # an operator may have started it again, or a reload removed it
    if service is not None:
        await probe_service(service, clock)


async def probe_store(store: Store) -> None:
    """Return when the store's writer has answered."""
    try:
        await store.aping()
    except StoreError as error:
        # The writer thread answered: a full disk or a locked file is not cured by a restart.
        _log.debug("the store answered the watchdog with an error: %s", error)


async def retry_store(store: Store) -> None:
    """Try again every few seconds while the database cannot be written, so that the daemon recovers automatically."""
    while True:
        await asyncio.sleep(_RETRY_DELAY)
        if store.outage.is_active:
            await probe_store(store)


async def probe_service(service: Service, clock: Clock) -> None:
    """Return when a critical service makes progress, or when it is not critical or not running.

    A service that an operator has drained, or that has failed and is not required, says so in its state: a restart of
    the whole daemon is not the answer.

    Raises:
        ServiceError: Its checks have not returned for too long.
    """
    if not service.options.critical or not service.is_running:
        return
    allowed = service.options.report_interval + service.options.down_time
    idle = clock.monotonic() - service.last_progress
    if idle > allowed:
        raise ServiceError(f"its checks have not returned for {format_duration(idle)}", service=service.topic)
