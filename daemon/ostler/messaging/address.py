"""Which daemon a client means."""

from __future__ import annotations

import os

from ostler.messaging.transport import Transport


def transport_to(address: str | None, root: str | None, max_message_size: int) -> Transport:
    """Return the transport to a daemon: the one at the address, else the one below the root, else the one here.

    Args:
        address: The daemon's address for calls; that of events is `events.sock` in the same folder.
        root: The folder of `--root`.
        max_message_size: The size limit in bytes.

    Raises:
        InvalidInput: The address cannot be used.
        ConfigurationError: The paths below the root cannot be used.
    """
    from ostler.messaging.transport import Limits
    from ostler.messaging.zmq import ZmqTransport
    from ostler.messaging.zmq.unix import path_of

    limits = Limits(max_message_size=max_message_size)
    if address is not None:
        events = path_of(address).with_name("events.sock")
        return ZmqTransport(address, f"ipc://{events}", limits=limits)
    from ostler.config.paths import Paths

    paths = Paths.for_client(root, os.environ)
    return ZmqTransport(paths.rpc_address, paths.events_address, limits=limits)
