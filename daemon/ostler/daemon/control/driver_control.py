"""Operations on single drivers of this host: `ostler driver restart` and `ostler driver abandon`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.bounds import NAME_LIMIT
from ostler.errors import Conflict, InvalidInput, NotFound, check_length, join_words
from ostler.messaging import Context, exposed
from ostler.types import DriverState, DriverStatus

if TYPE_CHECKING:
    from ostler.service import Runtime
    from ostler.service.service_drivers import ServiceDrivers


class DriverControl:
    """The methods `driver.…` of the topic `ostler`. On the loop.

    Args:
        runtime: The services of this host.
    """

    rpc_version = "1.0"

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @exposed(role="admin")
    async def restart(self, ctx: Context, service: str, name: str) -> DriverStatus:
        """Clean a driver up and initialise it again with the same options; returns its state after the first attempt.

        Calls in progress are waited for, and new ones wait meanwhile. One that waits for its next attempt is
        initialised at once.

        Raises:
            NotFound: There is no such service here, or it has no such driver.
            Conflict: The driver is stuck.
        """
        drivers = self._drivers(service, name)
        status = drivers.drivers.status(name)
        if status.state is DriverState.STUCK:
            raise Conflict(
                f"driver {name} of service {service} is stuck: {status.why}",
                hint=f"`ostler driver abandon {service}/{name}` gives the hanging instance up and creates another one",
                driver=name,
            )
        return await drivers.drivers.reinitialise(name)

    @exposed(role="admin")
    async def abandon(self, ctx: Context, service: str, name: str) -> DriverStatus:
        """Give a stuck driver up, with the threads that hang in it, and create another instance.

        The threads cannot be ended; they stay until what they wait for returns, or the daemon ends.

        Raises:
            NotFound: There is no such service here, or it has no such driver.
            Conflict: The driver is not stuck, or too many instances hang already.
        """
        return await self._drivers(service, name).drivers.abandon(name)

    def _drivers(self, topic: str, name: str) -> ServiceDrivers:
        check_length("`service`", topic, NAME_LIMIT)
        check_length("`name`", name, NAME_LIMIT)
        if not name:
            raise InvalidInput(f"{topic!r} is not a driver", hint="write SERVICE/NAME, such as volume/local")
        service = self._runtime.group.services.get(topic)
        if service is None or service.service_drivers is None or service.has_ended:
            state = f" ({service.state_tracker.state})" if service is not None else ""
            raise NotFound(
                f"service {topic} is not running on this host{state}", hint="see `ostler service list`", topic=topic
            )
        if name not in service.service_drivers.drivers:
            known = join_words(service.service_drivers.driver_names()) or "none"
            raise NotFound(f"service {topic} has no driver {name}", hint=f"available: {known}", topic=topic)
        return service.service_drivers
