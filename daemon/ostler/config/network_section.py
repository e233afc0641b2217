"""`[network]`: where this daemon listens for other hosts, their keys and their addresses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

import pydantic

from ostler.config.options import Expects, Field, OptionsModel, Seconds, Secret
from ostler.config.secret_references import PLACEHOLDER

_Z85_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
KEY_LENGTH = 40


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def is_curve_key(text: str) -> bool:
    """Return whether a text is a key: 32 bytes in Z85."""
    if len(text) != KEY_LENGTH or not set(text) <= set(_Z85_ALPHABET):
        return False
    groups = [text[start : start + 5] for start in range(0, KEY_LENGTH, 5)]
    return all(_decode_z85_group(group) < 2**32 for group in groups)


def _decode_z85_group(group: str) -> int:
    number = 0
    for letter in group:
        number = number * 85 + _Z85_ALPHABET.index(letter)
    return number


def _validate_public_key(text: str) -> str:
    if not is_curve_key(text):
        raise ValueError("expected a public key of 40 characters, as `ostler keys show` prints it")
    return text


PublicKey: TypeAlias = Annotated[
    str,
    pydantic.AfterValidator(_validate_public_key),
    Expects("a public key of 40 characters, as `ostler keys show` prints it"),
]
_PORT_MAX = 65535


def _validate_port(address: str) -> str:
    port = address.rpartition(":")[2]
    if address and int(port) > _PORT_MAX:
        raise ValueError(f"expected a port of at most {_PORT_MAX}, got {port} in {address}")
    return address


def _validate_peer_address(address: str) -> str:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if int(port) == 0 or host in _ANY_HOST:
        raise ValueError(f"expected the address of one host and port, got {address}, which is not a destination")
    return address


_ANY_HOST = {"*", "0.0.0.0", "[::]"}  # noqa: S104 - compared with, not bound
_TCP_PATTERN = r"tcp://(\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}"
TcpAddress: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=rf"^{_TCP_PATTERN}$"),
    pydantic.AfterValidator(_validate_port),
    pydantic.AfterValidator(_validate_peer_address),
    Expects('an address such as "tcp://node2:7890" or "tcp://[fd00::2]:7890"'),
]
ListenAddress: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=rf"^({_TCP_PATTERN})?$"),
    pydantic.AfterValidator(_validate_port),
    Expects('an address such as "tcp://0.0.0.0:7890", or "" for none'),
]
HostName: TypeAlias = Annotated[
    str,
    pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"),
    Expects("a name of letters, digits, - and _"),
]


class PeerOptions(OptionsModel):
    """`[network.peers.NAME]`: another daemon. Its public key has the same name in `[network.keys]`."""

    rpc: TcpAddress = Field(help="The address on which the other daemon listens for calls: its `rpc` in [network]")


class NetworkSection(OptionsModel):
    """`[network]`: calls and events between hosts, always encrypted with CURVE; by default nothing listens."""

    rpc: ListenAddress = Field(
        "", help='Address on which to listen for calls of other hosts, such as "tcp://0.0.0.0:7890"', reload="daemon"
    )
    events: ListenAddress = Field(
        "",
        help="Address on which to listen for subscribers on other hosts; by default the port after that of `rpc`",
        reload="daemon",
    )
    secret_key: Secret | None = Field(
        None, help="This daemon's secret key, created with `ostler keys new`", reload="daemon"
    )
    keys: dict[HostName, PublicKey | list[PublicKey]] = Field(
        {},
        help='Public keys that may connect, by name: `node2 = "…"`, or a list while a key is being replaced. '
        '[access] sets their roles, as `"key:node2"`',
    )
    peers: dict[HostName, PeerOptions] = Field(
        {}, help="Other daemons by host, to which calls of services on this host are sent"
    )
    address_wait: Seconds = Field(
        120,
        ge=0,
        le=3600,
        help="How long a start waits for an address of `rpc` or `events` that this machine does not have yet, "
        "or for a name that cannot be resolved yet",
    )
    heartbeat: Seconds = Field(
        1, ge=0.1, le=60, help="How often each end of a connection between hosts sends a heartbeat", reload="daemon"
    )
    heartbeat_timeout: Seconds = Field(
        4,
        ge=0.2,
        le=600,
        help="A connection between hosts is closed after this time without a heartbeat",
        reload="daemon",
    )
    poll_interval: Seconds = Field(
        5, ge=0.1, le=600, help="How often the services of each peer are queried", reload="live"
    )

    def public_keys(self, name: str) -> list[str]:
        """Return the public keys of a name, the one to try first at the front."""
        found = self.keys.get(name, [])
        return [found] if isinstance(found, str) else list(found)

    def names_by_key(self) -> dict[str, str]:
        """Return the names of all public keys."""
        return {key: name for name in self.keys for key in self.public_keys(name)}

    def ports(self) -> set[int]:
        """Return the TCP ports of this daemon and of its peers, including those of events."""
        addresses = (self.rpc, *(peer.rpc for peer in self.peers.values()))
        calls = {_port_of(address) for address in addresses if address} - {0}  # 0: the kernel chooses, for tests
        return calls | {port + 1 for port in calls} | ({_port_of(self.events)} - {0} if self.events else set())

    def validate_options(self) -> Iterable[tuple[str, str]]:
        """Require keys for all connections, and one name for each key."""
        secret = self.secret_key.get_secret_value() if self.secret_key is not None else None
        if secret is not None and secret != PLACEHOLDER and not is_curve_key(secret):
            yield "secret_key", "expected a secret key of 40 characters, as created by `ostler keys new`"
        for option in ("rpc", "peers"):
            if getattr(self, option) and secret is None:
                yield option, "needs a `secret_key`: hosts must authenticate each other; see `ostler keys new`"
        if self.events and not self.rpc:
            yield "events", "needs `rpc` as well"
        if self.events and self.events == self.rpc and not self.events.endswith(":0"):
            yield "events", "is the address of `rpc`; use another port"
        seen: dict[str, str] = {}
        for name in self.keys:
            for key in self.public_keys(name):
                if seen.setdefault(key, name) != name:
                    yield "keys", f"{seen[key]} and {name} have the same key; each host needs its own"
        for name in sorted(self.peers.keys() - self.keys.keys()):
            yield "peers", f"{name} has no public key; add it as `{name}` to [network.keys]"
