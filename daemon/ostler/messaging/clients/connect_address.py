"""Finds the daemon that a client connects to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ostler.errors import InvalidInput, NotPermitted
from ostler.messaging.wire.transport import Transport

if TYPE_CHECKING:
    from ostler.messaging.tcp.curve import CurveOptions

_MAX_KEY_FILE_SIZE = 4096
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
        address: The daemon's address for calls; that of events is `events.sock` in the same directory, or the next
            port.
        root: The directory of `--root`.
        max_message_size: The size limit in bytes.
        server_key: The public key of a daemon on a network.
        secret_key: The client's own secret key there, or the path of its file.

    Raises:
        InvalidInput: The address or a key cannot be used.
        NotPermitted: The file of the secret key is not readable.
        ConfigurationError: The paths below the root cannot be used.
    """
    # Not for a client that is given a transport.
    from ostler.messaging.socket_transport import SocketTransport
    from ostler.messaging.wire.transport import TransportLimits

    limits = TransportLimits(max_message_size=max_message_size)
    if address is not None and address.startswith("tcp://"):
        from ostler.messaging.tcp.bind import next_port  # only with a network

        network = _curve_options(address, server_key, secret_key)
        return SocketTransport(address, next_port(address), limits=limits, curve=network)
    if server_key or secret_key:
        raise InvalidInput("keys apply to network addresses only", hint="use an address such as tcp://node2:7890")
    if address is not None:
        from ostler.messaging.unix.bind import socket_path  # only for the path of a socket

        events = socket_path(address).with_name("events.sock")
        return SocketTransport(address, f"ipc://{events}", limits=limits)
    from ostler.config.paths import Paths  # 15 ms: not for a client that is given an address

    paths = Paths.for_client(root, os.environ)
    return SocketTransport(paths.rpc_address, paths.events_address, limits=limits)


def _curve_options(address: str, server_key: str | None, secret_key: str | Path | None) -> CurveOptions:
    # libzmq, 12 ms: only with a network.
    from ostler.messaging.tcp.curve import CurveOptions, check_public_key, keys_from_secret

    if not server_key or not secret_key:
        raise InvalidInput(
            f"{address} is a network address, which requires keys",
            hint="set `server_key` (from `ostler keys show` on that host) and `secret_key` (from `ostler keys new`)",
        )
    secret = _read_key(secret_key) if isinstance(secret_key, Path) else secret_key
    return CurveOptions(keys_from_secret(secret), check_public_key(server_key, address))


def _read_key(file: Path) -> str:
    from ostler.files import read_bounded  # 1 ms: only for keys in files

    try:
        return read_bounded(file, _MAX_KEY_FILE_SIZE).decode("ascii").strip()
    except PermissionError as error:
        raise NotPermitted(f"the secret key {file} cannot be read: {error.strerror}", path=file) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the secret key {file} cannot be read: {error}", path=file) from None
