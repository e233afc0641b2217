"""A manager whose backend fails as a test wants; named in configurations by import path."""

from __future__ import annotations

import time
from pathlib import Path

from ostler import Context, Driver, DriverOptions, Field, Manager, exposed


class PlacementDriver(Driver):
    """Works unless there is a file `broken`, and hangs while there is a file `hangs`."""

    class Options(DriverOptions):
        """The options of the driver."""

        directory: str = Field(help="Where these files are", reload="service")
        free: int = Field(help="Bytes that are free", reload="service")

    def is_working(self) -> bool:
        return not (Path(self.options.directory) / "broken").exists()

    def capabilities(self) -> dict[str, int]:
        return {"free_bytes": self.options.free}

    def hang(self) -> None:
        while (Path(self.options.directory) / "hangs").exists():
            time.sleep(0.01)


class PlacementManager(Manager):
    """Has one backend."""

    driver_type = PlacementDriver

    @exposed(role="operator")
    def hang(self, ctx: Context) -> None:
        """Call the backend until it comes back."""
        self.drivers["one"].hang()
