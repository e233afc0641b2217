"""What a driver is, what is required of one, and how drivers are run.

`driver` is the base class for authors, `contract` compares a class with its base, `drivers` runs the drivers of a
service: each in threads of its own (`driver_executor`), with a state machine (`driver_runner`) and a proxy for the
manager (`proxy`). `process` has the drivers that run in processes of their own, and those processes. Not here: where a
driver comes from (`ostler.plugins`). The names are imported when first used: the process of a driver needs few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.lazy_names import lazy_names

if TYPE_CHECKING:
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

_EXPORTS = {
    "contract": ["check_contract", "require_contract"],
    "driver": [
        "Driver", "DriverEnvironment", "DriverOptions", "DriverOptionsT", "DriverSpec", "feature", "time_budget",
    ],
    "drivers": ["DriverT", "Drivers"],
}  # fmt: skip

__all__ = [
    "Driver", "DriverEnvironment", "DriverOptions", "DriverOptionsT", "DriverSpec", "DriverT", "Drivers",
    "check_contract", "feature", "require_contract", "time_budget",
]  # fmt: skip
__getattr__ = lazy_names(__name__, {name: module for module, names in _EXPORTS.items() for name in names})
