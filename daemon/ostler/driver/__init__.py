"""What a driver is, what is required of one, and how drivers are run.

`driver` is the base class for authors, `contract` compares a class with its base, `drivers` runs the drivers of a
service: each in threads of its own (`driver_executor`), with a state machine (`driver_runner`) and a proxy for the
manager (`proxy`). Not here: where a driver comes from (`ostler.plugins`).
"""

from ostler.driver.contract import check_contract, require_contract
from ostler.driver.driver import (
    Driver,
    DriverEnvironment,
    DriverOptions,
    DriverOptionsT,
    DriverSpec,
    feature,
    time_budget,
)
from ostler.driver.drivers import Drivers, DriverT

__all__ = [
    "Driver", "DriverEnvironment", "DriverOptions", "DriverOptionsT", "DriverSpec", "DriverT", "Drivers",
    "check_contract", "feature", "require_contract", "time_budget",
]  # fmt: skip
