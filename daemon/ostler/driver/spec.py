"""What `Drivers` is told about one driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ostler.driver.base import Driver, DriverEnvironment, DriverOptions


@dataclass(frozen=True, kw_only=True)
class DriverSpec:
    """One driver to be run.

    Args:
        name: Its name in the configuration, `[services.TOPIC.drivers.NAME]`.
        cls: Its class; None when `build` is a factory whose product is not known yet.
        options: Its validated options.
        environment: What it is handed.
        build: Makes the driver, on a thread of its lane; by default `cls(environment)`.
        contract: What a driver that `build` made is held against when `cls` is None.
    """

    name: str
    cls: type[Driver] | None
    options: DriverOptions
    environment: DriverEnvironment
    build: Callable[[DriverEnvironment], Driver] | None = None
    contract: type[Driver] = Driver
