"""What runs by itself: `declare` marks methods, `scheduler` runs them on one heap and one timer for all services.

`ostler.periodic` is this room and, for authors of plugins, the decorator: the import system hangs the room there, over
the public name, as soon as anybody has imported it. So the room can be called, and is the decorator as well.
"""

import sys
from types import ModuleType
from typing import Any

from ostler.periodic.declare import Periodic, periodic, periodic_of
from ostler.periodic.scheduler import PeriodicScheduler

__all__ = ["Periodic", "PeriodicScheduler", "periodic", "periodic_of"]


class _Room(ModuleType):
    def __call__(self, **options: Any) -> Any:
        return periodic(**options)


sys.modules[__name__].__class__ = _Room
