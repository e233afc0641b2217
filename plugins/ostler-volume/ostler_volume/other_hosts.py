"""The volumes of other hosts: names are shared by all services on the topic.

A name means the local volume if there is one; `NAME@HOST` means the one on that host. An unreachable host may have a
volume of the same name: this is reported, and such volumes have to be addressed as `NAME@HOST`.
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import msgspec

from ostler import Conflict, InvalidInput, NotFound, OstlerError
from ostler_volume.argument_validation import parse_name
from ostler_volume.errors import VolumeNotFound

_QUERY_TIMEOUT = 5.0
"""Time-out in seconds for a query of another host; one that is known to be unreachable is skipped at once."""


class HostAnswers(NamedTuple):
    """The results of other hosts, and the reasons of unreachable ones, each by host."""

    found: dict[str, Any]
    unreachable: dict[str, str]


class OtherHosts:
    """The services on the same topic of other hosts. On the loop.

    Args:
        client: The client for the calls.
        topic: The topic.
        host: This host.
    """

    def __init__(self, client: Any, topic: str, host: str) -> None:
        self._client = client
        self._topic = topic
        self._host = host

    async def ask(self, method: str, kind: Any, **arguments: Any) -> HostAnswers:
        """Query all of them concurrently.

        Args:
            method: A method that returns the data of one host if called with `on_host`.
            kind: The type of its result.
            arguments: Its other arguments.
        """
        hosts = await self._host_names()
        calls = (
            self._client.on(host=host, type=kind, timeout=_QUERY_TIMEOUT).acall(
                self._topic, method, on_host=host, **arguments
            )
            for host in hosts
        )
        answers = HostAnswers({}, {})
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

    async def _host_names(self) -> list[str]:
        rows = await self._client.on(type=list[_ServiceRow]).acall("ostler", "service_list")
        return sorted({row.host for row in rows if row.topic == self._topic and row.host != self._host})


class _ServiceRow(msgspec.Struct):
    """The part of the daemon's view of a service that is used here."""

    topic: str
    host: str


def parse_volume_address(text: str, on_host: str = "") -> tuple[str, str]:
    """Return name and host of a volume that is written `NAME` or `NAME@HOST`; an empty host means any.

    Args:
        text: The text.
        on_host: The host, if given separately.

    Raises:
        BadName: The name is not valid.
        InvalidInput: Two different hosts were given.
    """
    name, at, host = text.partition("@")
    parse_name(name)
    if not at:
        return name, on_host
    if not host or on_host not in ("", host):
        raise InvalidInput(
            f"{text!r} is not a valid volume name on {on_host or 'a host'}", hint="write NAME@HOST, or give one host"
        )
    return name, host


def only_host_with(name: str, answers: HostAnswers) -> str:
    """Return the host that has a volume which is not on this one.

    Args:
        name: Its name.
        answers: The results of the query of other hosts.

    Raises:
        VolumeNotFound: No reachable host has it.
        Conflict: Several have one of that name.
    """
    if len(answers.found) > 1:
        listed = ", ".join(answers.found)
        raise Conflict(
            f"several hosts have a volume {name}: {listed}",
            hint=f"give the host, for example {name}@{next(iter(answers.found))}",
            name=name,
        )
    if answers.found:
        return next(iter(answers.found))
    away = f"; unreachable hosts: {describe_unreachable(answers.unreachable)}" if answers.unreachable else ""
    raise VolumeNotFound(f"volume {name} not found{away}", hint="`ostler volume list` shows all volumes", name=name)


def describe_unreachable(unreachable: dict[str, str]) -> str:
    """Return the unreachable hosts with their reasons as one text."""
    return "; ".join(f"{host} ({why})" for host, why in unreachable.items())
