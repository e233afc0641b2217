"""The volumes of other hosts: names are the topic's, so that whoever asks here finds them wherever they are.

A name that is here is meant first, whatever there is elsewhere; `NAME@HOST` means the one on that host. A host that
cannot be reached may have a volume of the same name: that is said, and afterwards each goes by `NAME@HOST`.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from ostler import Conflict, InvalidInput, NotFound, OstlerError
from ostler_volume.door import name_of
from ostler_volume.errors import VolumeNotFound

_LOOK_TIMEOUT = 5.0
"""Seconds that another host has to say what it has; one that is known to be away is passed by at once."""


class Answers(NamedTuple):
    """What other hosts answered, and why others did not, each by host."""

    found: dict[str, Any]
    unreachable: dict[str, str]


class OtherHosts:
    """The services on the same topic of other hosts. On the loop.

    Args:
        client: Calls them.
        topic: The topic.
        host: This host.
    """

    def __init__(self, client: Any, topic: str, host: str) -> None:
        self._client = client
        self._topic = topic
        self._host = host

    async def ask(self, method: str, kind: Any, **arguments: Any) -> Answers:
        """Ask all of them at once.

        Args:
            method: A method that says what one host has when it is called with `on_host`.
            kind: The type of its result.
            arguments: Its other arguments.
        """
        hosts = await self._names()
        calls = (
            self._client.on(host=host, type=kind, timeout=_LOOK_TIMEOUT).acall(
                self._topic, method, on_host=host, **arguments
            )
            for host in hosts
        )
        answers = Answers({}, {})
        for host, answer in zip(hosts, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(answer, NotFound):
                continue
            if isinstance(answer, OstlerError):
                answers.unreachable[host] = answer.message
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.found[host] = answer
        return answers

    async def _names(self) -> list[str]:
        rows = await self._client.on(type=list[_Row]).acall("ostler", "service_list")
        return sorted({row.host for row in rows if row.topic == self._topic and row.host != self._host})


class _Row(msgspec.Struct):
    """What is looked at of a service that the daemon knows."""

    topic: str
    host: str


def address_of(text: str, on_host: str = "") -> tuple[str, str]:
    """Return name and host of a volume that is written `NAME` or `NAME@HOST`; an empty host for wherever it is.

    Args:
        text: What was written.
        on_host: The host, if it was given apart.

    Raises:
        BadName: The name is not allowed.
        InvalidInput: Two hosts were given.
    """
    name, at, host = text.partition("@")
    name_of(name)
    if not at:
        return name, on_host
    if not host or on_host not in ("", host):
        raise InvalidInput(
            f"{text!r} names no volume on {on_host or 'a host'}", hint="write NAME@HOST, or give one host"
        )
    return name, host


def the_one(name: str, answers: Answers) -> str:
    """Return the host that has a volume which is not on this one.

    Args:
        name: Its name.
        answers: What other hosts answered when they were asked for it.

    Raises:
        VolumeNotFound: No host that could be asked has it.
        Conflict: Several have one of that name.
    """
    if len(answers.found) > 1:
        listed = " and on ".join(answers.found)
        raise Conflict(
            f"there is a volume {name} on {listed}", hint=f"say which: {name}@{next(iter(answers.found))}", name=name
        )
    if answers.found:
        return next(iter(answers.found))
    away = f"; not asked: {not_asked(answers.unreachable)}" if answers.unreachable else ""
    raise VolumeNotFound(f"there is no volume {name}{away}", hint="`ostler volume list` shows them", name=name)


def not_asked(unreachable: dict[str, str]) -> str:
    """Return which hosts could not be asked, and why, as one text."""
    return "; ".join(f"{host} ({why})" for host, why in unreachable.items())
