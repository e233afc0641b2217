"""What runs by itself: `declare` marks methods, `scheduler` runs them on one heap and one timer for all services."""

from ostler.periodic.declare import Periodic, periodic, periodic_of
from ostler.periodic.scheduler import PeriodicScheduler

__all__ = ["Periodic", "PeriodicScheduler", "periodic", "periodic_of"]
