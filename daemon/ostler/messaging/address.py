"""Which daemon a client means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ostler.errors import InvalidInput, NotPermitted
from ostler.messaging.transport import Transport

if TYPE_CHECKING:
    from ostler.messaging.zmq.curve import Network

_LONGEST_KEY = 4096
"""Bytes of a file with a key."""


def transport_to(
    address: str | None,
    root: str | None,
    max_message_size: int,
    server_key: str | None = None,
    secret_key: str | Path | None = None,
) -> Transport:
    """Return the transport to a daemon: the one at the address, else the one below the root, else the one here.

    Args:
        address: The daemon's address for calls; that of events is `events.sock` in the same folder, or the next port.
        root: The folder of `--root`.
        max_message_size: The size limit in bytes.
        server_key: The public key of a daemon on a network.
        secret_key: The client's own secret key there, or the path of its file.

    Raises:
        InvalidInput: The address or a key cannot be used.
        NotPermitted: The file of the secret key may not be read.
        ConfigurationError: The paths below the root cannot be used.
    """
    from ostler.messaging.transport import Limits
    from ostler.messaging.zmq import ZmqTransport

    limits = Limits(max_message_size=max_message_size)
    if address is not None and address.startswith("tcp://"):
        from ostler.messaging.zmq.tcp import next_port

        network = _network(address, server_key, secret_key)
        return ZmqTransport(address, next_port(address), limits=limits, network=network)
    if server_key or secret_key:
        raise InvalidInput("keys are for addresses on a network", hint="give an address such as tcp://node2:7890")
    if address is not None:
        from ostler.messaging.zmtp.unix import path_of

        events = path_of(address).with_name("events.sock")
        return ZmqTransport(address, f"ipc://{events}", limits=limits)
    from ostler.config.paths import Paths

    paths = Paths.for_client(root, os.environ)
    return ZmqTransport(paths.rpc_address, paths.events_address, limits=limits)


def _network(address: str, server_key: str | None, secret_key: str | Path | None) -> Network:
    from ostler.messaging.zmq.curve import Network, check_public, keys_of

    if not server_key or not secret_key:
        raise InvalidInput(
            f"{address} is on a network, where nobody talks without keys",
            hint="give `server_key`, which `ostler keys show` prints there, and `secret_key`, from `ostler keys new`",
        )
    secret = _read(secret_key) if isinstance(secret_key, Path) else secret_key
    return Network(keys_of(secret), check_public(server_key, address))


def _read(file: Path) -> str:
    from ostler.files import read_bounded

    try:
        return read_bounded(file, _LONGEST_KEY).decode("ascii").strip()
    except PermissionError as error:
        raise NotPermitted(f"the secret key {file} cannot be read: {error.strerror}", path=file) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the secret key {file} cannot be read: {error}", path=file) from None
