"""Resets the circuit breaker of a driver for an operator."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ostler.errors import NotFound
from ostler.types import DriverStatus

if TYPE_CHECKING:
    from ostler.service import Runtime

_log = logging.getLogger(__name__)


def reset_driver(runtime: Runtime, topic: str, driver: str, by: str) -> DriverStatus:
    """Forget that calls of a driver have failed, and let all calls through. On the loop.

    Args:
        runtime: The services of this host.
        topic: The service.
        driver: Its driver.
        by: Who asks for it, for the log.

    Returns:
        The status of the driver.

    Raises:
        NotFound: There is no such service, or it has no such driver (`DriverNotFound`).
    """
    service = runtime.group.services.get(topic)
    if service is None or service.drivers is None:
        hint = f"running here: {', '.join(sorted(runtime.group.services)) or 'none'}"
        raise NotFound(f"service {topic} is not running on {runtime.host}", hint=hint, topic=topic)
    was_refusing = service.drivers.reset_breaker(driver)
    text = "calls of driver %s of %s are let through again" if was_refusing else "failures of driver %s of %s are reset"
    _log.info(text + ", by %s", driver, topic, by)
    return service.drivers.status(driver)
