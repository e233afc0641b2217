"""`@on_event`: marks methods of a manager that are called with events."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from ostler.messaging.events.event import Event

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS_ATTRIBUTE = "__ostler_on_event__"
_MAX_PATTERNS = 20
_MAX_QUEUE = 100_000
_match_pattern = re.compile(r"[A-Za-z0-9_*][A-Za-z0-9_.:@*-]{0,254}").fullmatch


class EventHandlerSettings(msgspec.Struct, frozen=True):
    """The arguments of `@on_event`, which a plugin may have given other types; see there."""

    patterns: tuple[Any, ...]
    queue: Any

    def follows(self, host: str) -> bool:
        """Return whether events of a host may match one of the patterns."""
        return any(_may_match_host(pattern, host) for pattern in self.patterns)


def _may_match_host(pattern: str, host: str) -> bool:
    topic, dot, rest = pattern.partition(".")
    if "*" in topic or not dot:
        return True
    wanted, more, _ = rest.partition(".")
    # A `*` stands for dots as well: behind one, anything may be the host.
    literal = wanted.partition("*")[0]
    if "*" in wanted:
        return host.startswith(literal)
    return host == wanted if more else (host == wanted or host.startswith(f"{wanted}."))


def on_event(*patterns: str, queue: int = 1000) -> Callable[[F], F]:
    """Call a manager's method with each event that matches, while its service is up.

    The method takes `ctx: Context` and `event: Event | Gap`, in this order. A `def` runs in the service's pool, an
    `async def` on the loop; one event at a time, in the order of their numbers. A `Gap` stands for events that are
    missing, as in `client.events`. An error of the method is logged and counted, and the next event follows.

    Of journaled topics every event comes at least once, over restarts too: the position is stored after the method has
    returned. The first start of a handler begins with what is published from then on. Of other topics a handler sees
    what is published while it runs. Events of the other hosts in `[network.peers]` come as well when the pattern
    allows it; the role `viewer` is needed there.

    Args:
        patterns: Which events: `volume.*.created`, see `client.events`.
        queue: How many events wait for the method, from 1 to 100,000. More are dropped: of a journaled topic they are
            read from the journal later, of another one they are a `Gap`.
    """
    settings = EventHandlerSettings(patterns, queue)

    def apply(method: F) -> F:
        setattr(method, _SETTINGS_ATTRIBUTE, settings)
        return method

    return apply


def event_handlers_of(manager: type) -> dict[str, EventHandlerSettings]:
    """Return the event handlers of a manager class: the names of the methods with what they were marked with."""
    found: dict[str, EventHandlerSettings] = {}
    for cls in reversed(manager.__mro__):
        for name, member in vars(cls).items():
            function = member.__func__ if isinstance(member, staticmethod | classmethod) else member
            settings = getattr(function, _SETTINGS_ATTRIBUTE, None)
            if isinstance(settings, EventHandlerSettings):
                found[name] = settings
    return dict(sorted(found.items()))


def event_handler_faults(service: str, manager: type) -> Iterator[str]:
    """Yield the faults of the event handlers of a manager class, a sentence each: patterns, queues and signatures.

    Args:
        service: The topic, for messages.
        manager: The class.
    """
    for name, settings in event_handlers_of(manager).items():
        for fault in (*_settings_faults(settings), *_signature_faults(manager, name)):
            yield f"the event handler {name} of {service} cannot run: {fault}"


def _settings_faults(settings: EventHandlerSettings) -> Iterator[str]:
    if not 1 <= len(settings.patterns) <= _MAX_PATTERNS:
        yield f'`@on_event` takes 1 to {_MAX_PATTERNS} patterns, as in `@on_event("volume.*.created")`'
    for pattern in settings.patterns:
        if not isinstance(pattern, str) or not _match_pattern(pattern):
            yield f"{pattern!r} is not a valid pattern of events, write `topic.host.event`, with `*` for any characters"
    if isinstance(settings.queue, bool) or not isinstance(settings.queue, int) or not 1 <= settings.queue <= _MAX_QUEUE:
        yield f"its queue must be a number from 1 to {_MAX_QUEUE}, not {settings.queue!r}"


def _signature_faults(manager: type, name: str) -> Iterator[str]:
    static, method = inspect.getattr_static(manager, name), getattr(manager, name)
    if isinstance(static, staticmethod | classmethod) or not callable(method):
        yield "it must be a method"
        return
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        yield "it is a generator, its items would never be consumed"
        return
    try:
        inspect.signature(method).bind(None, None, None)
    except TypeError:
        yield "it must take two arguments, `ctx: Context` and `event: Event | Gap`"
        return
    except ValueError:  # written in C, without a signature
        return
    if _event_annotation(method) is Event:
        yield "it gets gaps as well: annotate its argument with `Event | Gap`, and look which of them it is"


def _event_annotation(method: Any) -> object:
    """Return the type that the method states for the event; None if there is none, or it cannot be told."""
    try:
        parameter = list(inspect.signature(method).parameters.values())[2]
        return typing.get_type_hints(method).get(parameter.name)
    except (IndexError, NameError, TypeError, AttributeError):
        return None
