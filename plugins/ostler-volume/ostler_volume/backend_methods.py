"""What callers may ask for about backends and their records; a part of `VolumeManager`."""

from __future__ import annotations

from typing import TypeVar

from ostler import Context, Manager, exposed
from ostler_volume.backends import BackendWork
from ostler_volume.wire import Volume

T = TypeVar("T")


class BackendMethods(Manager):
    """The methods that bring records and backends together again, on the host that is asked or on `on_host`."""

    _backends: BackendWork

    def _locate(self, name: str, on_host: str) -> tuple[str, str]:
        """Return name and host of the volume that is meant."""
        raise NotImplementedError

    def _forward(self, host: str, method: str, kind: type[T], **arguments: object) -> T:
        """Have the service on another host do what was asked for here."""
        raise NotImplementedError

    @exposed(role="operator", version="1.1")
    def manage_volume(self, ctx: Context, name: str, backend: str = "", on_host: str = "") -> Volume:
        """Take over a file without a record: it becomes a volume, with the snapshots that are there of it.

        Args:
            ctx: The request.
            name: The name of the file, and of the volume.
            backend: Where it is; empty to look on all that are ready.
            on_host: The host that it is on; empty for the one that is asked.

        Raises:
            NotFound: There is no such file.
            Conflict: There is a volume of that name already.
            InvalidInput: Several backends have one; say which.
            DriverNotReady: The backend is not ready.
        """
        if on_host not in ("", self.host):
            return self._forward(on_host, "manage_volume", Volume, name=name, backend=backend)
        return self._backends.manage(ctx, name, backend)

    @exposed(role="operator", version="1.1")
    def forget_volume(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Drop the record of a volume and those of its snapshots; what is on the backend is left as it is.

        Args:
            ctx: The request.
            name: The volume, as for `get_volume`.
            on_host: See `get_volume`.

        Raises:
            NotFound: There is none of that name.
            Conflict: It is being worked on, or attached.
        """
        name, host = self._locate(name, on_host)
        if host != self.host:
            self._forward(host, "forget_volume", type(None), name=name)
            return
        self._backends.forget(ctx, name)

    @exposed(role="operator", version="1.1")
    def move_backend(self, ctx: Context, old: str, new: str, force: bool = False, on_host: str = "") -> int:
        """Have the records of a backend follow it to another name; return how many volumes there are.

        Args:
            ctx: The request.
            old: The name in the records; a backend that is not in the configuration any more, or has failed.
            new: The backend that has the files now.
            force: Move the records also if it has not all of the files.
            on_host: The host of both; empty for the one that is asked.

        Raises:
            InvalidInput: Nothing is recorded on the old one, or the new one is not in the configuration.
            Conflict: The old one is ready, or the new one has not the files.
            DriverNotReady: The new one is not ready.
        """
        if on_host not in ("", self.host):
            return self._forward(on_host, "move_backend", int, old=old, new=new, force=force)
        return self._backends.move(old, new, force=force)

    @exposed(role="operator", version="1.1")
    def accept_backend(self, ctx: Context, name: str, on_host: str = "") -> None:
        """Let a backend that is not the one it was take its directory as it is, at its next try.

        Its records are compared with what is there then: a volume whose file is not there is in error.

        Args:
            ctx: The request.
            name: The backend.
            on_host: Its host; empty for the one that is asked.

        Raises:
            InvalidInput: It is not in the configuration.
            Conflict: It is ready.
        """
        if on_host not in ("", self.host):
            self._forward(on_host, "accept_backend", type(None), name=name)
            return
        self._backends.accept(name)
