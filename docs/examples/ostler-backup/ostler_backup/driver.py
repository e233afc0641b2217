"""The contract of backup drivers: where archives are stored."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from ostler import Driver, DriverOptionsT


class BackupDriver(Driver[DriverOptionsT]):
    """Stores archives. An archive is there whole or not at all."""

    @abstractmethod
    def store(self, archive: str, source: Path) -> int:
        """Store a directory as an archive, replacing one of this name; return its size in bytes.

        Reports progress in files with `self.progress`, and removes what it has written when that raises.
        """

    @abstractmethod
    def verify(self, archive: str) -> None:
        """Check an archive; raise `DriverError` if it is missing or was changed."""

    @abstractmethod
    def remove(self, archive: str) -> None:
        """Remove an archive; one that is missing is no error."""
