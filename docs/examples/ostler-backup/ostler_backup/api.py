"""`BackupApi`: a typed client of backups, for programs and other managers."""

# A stub has a docstring and no body.
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from ostler import RpcApi, remote

from ostler_backup.manager import Backup


class BackupApi(RpcApi):
    """The calls of `BackupManager`: `BackupApi(client).back_up("home")`."""

    topic = "backup"
    rpc_version = "1.0"

    @remote()
    def back_up(self, source: str) -> Backup:
        """Back up a source now."""

    @remote()
    def backups(self, source: str = "") -> list[Backup]:
        """Return all backups, or those of a source, the last one first."""

    @remote()
    def verify(self, archive: str) -> Backup:
        """Check that an archive is as it was stored."""
