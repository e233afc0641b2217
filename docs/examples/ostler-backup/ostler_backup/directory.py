"""A driver that stores archives as signed tar files in a directory."""

from __future__ import annotations

import hashlib
import hmac
import os
import tarfile
from pathlib import Path

from ostler import DriverError, DriverOptions, Field, Secret

from ostler_backup.driver import BackupDriver


class DirectoryOptions(DriverOptions):
    """Options of `driver = "directory"`."""

    path: Path = Field(help="Directory of the archives", reload="driver")
    key: Secret = Field(help="Key that signs the archives", reload="driver")


class DirectoryDriver(BackupDriver[DirectoryOptions]):
    """Archives in a directory, each with a file `NAME.sig` that shows whether it was changed."""

    def initialise(self) -> None:
        """Check the directory, and remove what a crash has left."""
        if not self.options.path.is_dir():
            raise DriverError(f"directory {self.options.path} not found", hint="create or mount it")
        for partial in self.options.path.glob(".*.part"):
            partial.unlink()

    def store(self, archive: str, source: Path) -> int:
        """Write to a temporary file, which gets its name when it is complete and on disk."""
        target, partial = self._file(archive), self.options.path / f".{archive}.part"
        files = sorted(source.rglob("*"))
        try:
            with partial.open("wb") as raw, tarfile.open(fileobj=raw, mode="w") as tar:
                for number, file in enumerate(files, 1):
                    tar.add(file, file.relative_to(source), recursive=False)
                    self.progress(number, len(files), f"storing {file.name}")
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            self._signature_file(archive).write_text(self._sign(partial))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target.stat().st_size

    def verify(self, archive: str) -> None:
        """Compare the signature."""
        try:
            expected = self._signature_file(archive).read_text()
            found = self._sign(self._file(archive))
        except FileNotFoundError:
            raise DriverError(f"archive {archive} is missing", hint="back up its source again") from None
        if not hmac.compare_digest(expected, found):
            raise DriverError(f"archive {archive} was changed", hint="do not restore it; back up its source again")

    def remove(self, archive: str) -> None:
        """Remove both files."""
        self._file(archive).unlink(missing_ok=True)
        self._signature_file(archive).unlink(missing_ok=True)

    def _file(self, archive: str) -> Path:
        return self.options.path / archive

    def _signature_file(self, archive: str) -> Path:
        return self.options.path / f"{archive}.sig"

    def _sign(self, file: Path) -> str:
        digest = hmac.new(self.options.key.get_secret_value().encode(), digestmod=hashlib.sha256)
        with file.open("rb") as raw:
            while block := raw.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
