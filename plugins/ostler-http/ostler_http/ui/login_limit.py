"""`LoginLimit`: how often an address may fail to log in."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

from ostler import Clock

PERIOD = 60.0
"""Seconds within which failures are counted."""
_MAX_ADDRESSES = 1000


class LoginLimit:
    """Counts failed logins of each address in periods of a minute; of IPv6 of each network. On one loop.

    Args:
        clock: The source of time.
        failures: Failures of one address in a period, after which it has to wait.
    """

    def __init__(self, clock: Clock, failures: int) -> None:
        self._clock = clock
        self._failures = failures
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def seconds_to_wait(self, address: str) -> float:
        """Return how many seconds an address has to wait before its next attempt; 0 for not at all."""
        began, count = self._counted.get(_network(address), (0.0, 0))
        left = began + PERIOD - self._clock.monotonic()
        return left if count >= self._failures and left > 0 else 0.0

    def record_failure(self, address: str) -> None:
        """Count a failed login; the address that has not failed for longest is forgotten when there are too many."""
        now, network = self._clock.monotonic(), _network(address)
        began, count = self._counted.pop(network, (now, 0))
        if now >= began + PERIOD:
            began, count = now, 0
        self._counted[network] = (began, count + 1)
        while len(self._counted) > _MAX_ADDRESSES:
            self._counted.popitem(last=False)


def _network(address: str) -> str:
    """Return what an address counts as: whoever has one of IPv6 has all of its network of 64 bits."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # a unix socket
    if known.version == 4:
        return address
    mapped = known.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((known, 64), strict=False))
