"""Sockets that systemd opened for the daemon (socket activation)."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from ostler.errors import ServiceError

FIRST_FD = 3
_VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def listen_fds(environ: MutableMapping[str, str], pid: int | None = None, first: int = FIRST_FD) -> dict[str, int]:
    """Return the descriptors that systemd handed over, by name; empty when there are none for this process.

    The variables are taken out of the environment and the descriptors are closed on exec, so that no child process
    takes them for its own. Call once, before anything is spawned.

    Args:
        environ: The environment; changed.
        pid: The process that asks; this one by default.
        first: The number of the first descriptor.

    Returns:
        `FileDescriptorName=` of the socket unit to descriptor. Several of one name are `name`, `name-2`, `name-3`; one
        without a name is `unknown`.

    Raises:
        ServiceError: The variables promise descriptors that are not there.
    """
    count, meant_for, names = (environ.get(name, "") for name in _VARIABLES[:3])
    for name in _VARIABLES:
        environ.pop(name, None)
    if meant_for != str(os.getpid() if pid is None else pid) or not count.isdecimal():
        return {}
    descriptors: dict[str, int] = {}
    for number, name in enumerate(_names(names, int(count))):
        descriptors[_unique_name(name, descriptors)] = _adopt_descriptor(first + number, name)
    return descriptors


def _names(text: str, count: int) -> list[str]:
    given = text.split(":") if text else []
    return [(given[number] if number < len(given) else "") or "unknown" for number in range(count)]


def _unique_name(name: str, used: dict[str, int]) -> str:
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _adopt_descriptor(descriptor: int, name: str) -> int:
    try:
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise ServiceError(
            f"systemd passed the socket {name!r} as descriptor {descriptor}, which is not open ({error.strerror})",
            hint="start the daemon through its socket unit, or unset LISTEN_FDS",
            descriptor=descriptor,
            name=name,
        ) from None
    return descriptor
