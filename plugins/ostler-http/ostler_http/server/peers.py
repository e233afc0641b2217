"""Who is at the other end of a connection."""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import msgspec

_CREDENTIALS = struct.Struct("3i")
_IPV6_PREFIX = 64


class ConnectionPeer(msgspec.Struct, frozen=True):
    """The other end of a connection.

    Attributes:
        kind: `tcp` or `unix`.
        client: What bounds go by: the IPv4 address, the network of an IPv6 address, of which one host has many, or
            `uid N`.
        pid: The process, of a unix socket.
        uid: The user, of a unix socket.
        gid: The user's group, of a unix socket.
    """

    kind: str
    client: str
    pid: int = -1
    uid: int = -1
    gid: int = -1


def peer_of(connection: socket.socket) -> ConnectionPeer:
    """Return who is at the other end. The kernel says it, for unix sockets as of the time of its `connect`.

    Raises:
        OSError: The connection is gone.
    """
    if connection.family == socket.AF_UNIX:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(found)
        return ConnectionPeer("unix", f"uid {uid}", pid, uid, gid)
    return ConnectionPeer("tcp", client_of(connection.getpeername()[0]))


def client_of(address: str) -> str:
    """Return what bounds go by for an IP address: itself, or its network of 64 bits."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    if parsed.ipv4_mapped is not None:  # of a socket for both: all of IPv4 is one network there
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed, _IPV6_PREFIX), strict=False))


def certificate_name(certificate: dict[str, Any] | None) -> str:
    """Return the name in a verified client certificate: its common name, else its first alternative name.

    Args:
        certificate: The certificate as the module ssl decodes it.
    """
    if not certificate:
        return ""
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName" and value:
                return str(value)
    return next((str(value) for _, value in certificate.get("subjectAltName", ()) if value), "")
