"""One driver without a manager, for tests of its methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from ostler.config.layers import dotted
from ostler.config.option_reference import toml_value
from ostler.driver import Driver
from ostler.errors import ServiceError
from ostler.manager import Manager
from ostler.testing.driver_faults import DriverHandle
from ostler.testing.in_process import WAIT_TIMEOUT, host
from ostler.types import DriverState, DriverStatus

_TOPIC = "driver"


async def _first_attempt(drivers: Any) -> DriverStatus:
    await drivers.wait(WAIT_TIMEOUT, retries=False)
    status: DriverStatus = drivers.status("one")
    return status


@contextmanager
def run_driver(
    driver: type[Driver],
    options: Mapping[str, Any] | None = None,
    *,
    isolation: Literal["thread", "process"] = "thread",
) -> Iterator[DriverHandle]:
    """Run one driver inside a `with` block, as a service would: initialised, with budgets, cleaned up at the end.

        @pytest.fixture(params=["thread", "process"])
        def desk(request):
            with run_driver(GpioLampDriver, {"chip": "/dev/gpiochip0"}, isolation=request.param) as driver:
                yield driver

        def test_a_lamp_is_switched(desk):
            desk.switch("desk", on=True)

    Args:
        driver: The class.
        options: Its options, as they would be in the configuration.
        isolation: Where it runs: in threads, or in a process of its own.

    Returns:
        The driver: its methods, called as a manager calls them, and faults.

    Raises:
        ConfigurationError: The options or the class are invalid.
        ServiceError: The driver could not be initialised.
    """

    class OneDriverManager(Manager):
        driver_type = driver

    values = {"driver": "one", **(options or {})}
    lines = [f"{dotted((name,))} = {toml_value(value)}" for name, value in values.items()]
    config = "\n".join(
        [f'[services.{_TOPIC}]\nmanager = "{_TOPIC}"', f"[services.{_TOPIC}.drivers.one]", *lines, ""],
    )
    with host(
        config=config, managers={_TOPIC: OneDriverManager}, drivers={(_TOPIC, "one"): driver},
        isolation=isolation,
    ) as h:  # fmt: skip
        status = h.run(_first_attempt(h.service(_TOPIC).drivers))
        if status.state is not DriverState.READY:
            raise ServiceError(f"{driver.__name__} is {status.state}: {status.why}")
        yield h.driver(_TOPIC, "one")
