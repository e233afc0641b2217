"""`file` drivers that say something odd of themselves, take their time, or hang."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ostler_volume.file_driver import FileDriver


class OddReportDriver(FileDriver):
    """Says what cannot be sent."""

    def capabilities(self) -> dict[str, Any]:
        return {**super().capabilities(), "ratio": float("inf")}


class SlowReportDriver(FileDriver):
    """Takes a minute to say what it has."""

    def capabilities(self) -> dict[str, Any]:
        time.sleep(60)
        return super().capabilities()


class HangingDeleteDriver(FileDriver):
    """Deletes nothing as long as there is a file `hang`."""

    def delete(self, name: str) -> None:
        while Path(self.options.path, "hang").exists():
            time.sleep(0.02)
        super().delete(name)
