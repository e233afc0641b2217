"""The addresses of `listen`: parsed, compared and written as URLs."""

from __future__ import annotations

import ipaddress

import msgspec

_MAX_UNIX_PATH = 100
"""The kernel takes 107 bytes; a socket is bound under a name with the id of the process first."""
_FORMS = "write `127.0.0.1:8080`, `[::1]:8080`, `unix:/path/of/socket` or `systemd:NAME`; port 0 is a random port"


class ListenAddress(msgspec.Struct, frozen=True):
    """Where a service listens.

    Attributes:
        kind: `tcp`, `unix` or `systemd`.
        host: The IP address, without brackets; the path of a unix socket; the name of a socket of systemd.
        port: The port; 0 for a random one.
    """

    kind: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.kind != "tcp":
            return f"{self.kind}:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this host can connect, as far as the address says it."""
        return self.kind != "tcp" or ipaddress.ip_address(self.host).is_loopback

    def overlaps(self, other: ListenAddress) -> bool:
        """Return whether both cannot be listened on at once."""
        if self.kind != other.kind:
            return False
        if self.kind != "tcp":
            return self.host == other.host
        if self.port != other.port or not self.port or (":" in self.host) != (":" in other.host):
            return False
        addresses = ipaddress.ip_address(self.host), ipaddress.ip_address(other.host)
        return addresses[0] == addresses[1] or any(address.is_unspecified for address in addresses)


def parse_address(text: str) -> ListenAddress:
    """Return the address that an item of `listen` stands for.

    Raises:
        ValueError: It is not valid; the text is a sentence that says what is.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in ("unix", "systemd"):
        return _parse_named(kind, rest)
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets; {_FORMS}")
    try:
        address = str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host))
    except ValueError:
        raise ValueError(f'"{text}" is not a valid address; {_FORMS}') from None
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f'"{port}" is not a valid port; {_FORMS}')
    return ListenAddress("tcp", address, int(port))


def _parse_named(kind: str, name: str) -> ListenAddress:
    if kind == "systemd":
        if not name:
            raise ValueError("the name of the socket is missing: it is the `FileDescriptorName=` of the socket unit")
        return ListenAddress(kind, name)
    if not name.startswith("/") or "\0" in name:
        raise ValueError("the path of a unix socket must be absolute")
    if len(name.encode()) > _MAX_UNIX_PATH:
        raise ValueError(f"the path of a unix socket must not be longer than {_MAX_UNIX_PATH} bytes")
    return ListenAddress(kind, name)
