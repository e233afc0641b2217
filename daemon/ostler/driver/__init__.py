"""What a driver is, what is demanded of one, and how drivers are run.

`base` is what authors derive from, `contract` holds a class against its base, `drivers` runs a service's drivers: each
in its own lane of threads (`lane`), with a state machine (`runner`) and a proxy for the manager (`proxy`). Nothing here
knows where a driver comes from: that is the plugin host's.
"""

from ostler.driver.base import Driver, DriverEnvironment, DriverOptions, DriverSpec, feature, time_budget
from ostler.driver.contract import check_contract, require_contract
from ostler.driver.drivers import Drivers

__all__ = [
    "Driver", "DriverEnvironment", "DriverOptions", "DriverSpec", "Drivers", "check_contract", "feature",
    "require_contract", "time_budget",
]  # fmt: skip
