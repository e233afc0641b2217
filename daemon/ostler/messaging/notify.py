"""Notifications: what happened, told with a priority to whoever is meant to hear of it.

A notification has a priority, an event type, a payload and the id of who publishes it. Which *sinks* get it, is
configured for each priority: `events` publishes it as an event, `log` writes a line, and plugins bring more.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from ostler import fork
from ostler.clock import Clock
from ostler.errors import describe, is_expected
from ostler.messaging.context import Context, current_context
from ostler.messaging.envelope import encode_value
from ostler.messaging.events.publisher import holds_secrets, without_secrets
from ostler.messaging.quiet import QuietLog
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.events import Publisher

_log = logging.getLogger(__name__)
_told = logging.getLogger("ostler.notification")

SINK_KIND: Final = "notification_sink"
"""The kind under which plugins bring sinks, in `ostler_extensions`."""
OWN_SINKS: Final = ("events", "log")
_LEVELS = {
    "debug": logging.DEBUG,
    "sample": logging.DEBUG,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_QUEUE = 1000
_LINE = 2000
"""Characters of a payload in a line of the log."""


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink is told.

    `publisher_id` is `topic.host`, `at` wall time in seconds; `request_id` and `trace` are those of the request in
    which it happened, empty outside of one. The payload is the sink's own copy.
    """

    priority: str
    event_type: str
    payload: Any
    publisher_id: str
    at: float
    request_id: str = ""
    trace: str = ""


class NotificationSink(ABC):
    """Where notifications go; a plugin brings one through `ostler_extensions` as `("notification_sink", name)`.

    It is made without arguments when the daemon starts, if the configuration names it. `open`, `send` and `close` run
    on a thread of its own, one after the other: it may block, and holds up nobody. While it does, notifications wait in
    a queue of 1,000; more are dropped, which is counted and said once a minute. What it raises is logged.
    """

    def open(self, sections: Mapping[str, Any]) -> None:
        """Set up what is needed, before the first `send`.

        Args:
            sections: The options of the configuration sections that plugins declared, by the section's name.
        """

    @abstractmethod
    def send(self, notification: Notification) -> None:
        """Tell it."""

    def close(self) -> None:
        """Let go of what is held, at the end."""


class _Hub(Protocol):
    def notify(self, topic: str, priority: str, event_type: str, payload: Json, context: Context | None) -> None:
        """Tell a notification to the sinks of its priority."""
        ...


class Notifier:
    """Tells what happens in one service. Any thread; never waits.

    `event_type` names what happened, as the name of an event does: `create.end`, `delete.error`. The sink `events`
    publishes `topic.host.event_type` with the priority. The request that is being served is named with it by itself.

    Every method raises `InvalidInput` for an event type that is none, `EncodeFailed` for a payload that cannot go over
    the wire and `MessageTooLarge` for one that is too large; what goes wrong in a sink never comes back.

    Args:
        hub: What knows the sinks; None tells nobody.
        topic: The service's topic.
    """

    def __init__(self, hub: _Hub | None = None, topic: str = "") -> None:
        self._hub = hub
        self._topic = topic

    def audit(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell for the record who did what."""
        self.notify("audit", event_type, payload, ctx=ctx)

    def debug(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell what helps to find a defect."""
        self.notify("debug", event_type, payload, ctx=ctx)

    def info(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell that something happened as it should."""
        self.notify("info", event_type, payload, ctx=ctx)

    def warn(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell that something is not as it should be."""
        self.notify("warn", event_type, payload, ctx=ctx)

    def error(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell that something failed."""
        self.notify("error", event_type, payload, ctx=ctx)

    def critical(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell that something failed which others depend on."""
        self.notify("critical", event_type, payload, ctx=ctx)

    def sample(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell a measurement."""
        self.notify("sample", event_type, payload, ctx=ctx)

    def notify(self, priority: str, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Tell with a priority that is chosen while the program runs; see the other methods."""
        if self._hub is not None:
            self._hub.notify(self._topic, priority, event_type, payload, ctx)


class Notifications:
    """The sinks of a daemon, and which of them hear of what.

    Args:
        publisher: What publishes events.
        clock: The source of time.
        sections: The options of plugins' own sections, for their sinks.
    """

    def __init__(self, publisher: Publisher, clock: Clock, sections: Mapping[str, Any]) -> None:
        self._publisher = publisher
        self._clock = clock
        self._sections = sections
        self._lanes: dict[str, Lane] = {}
        self._chosen: dict[str, tuple[bool, bool, list[Lane]]] = {}

    def configure(self, chosen: Mapping[str, Sequence[str]], sinks: Mapping[str, Any]) -> None:
        """Say which sinks get which priority, at the start and after a reload.

        Args:
            chosen: Priority to the names of its sinks; those that are not there are left out.
            sinks: What plugins bring: name to class, or whatever makes a sink. One that runs goes on.
        """
        for name in sinks.keys() - self._lanes.keys():
            self._lanes[name] = Lane(name, sinks[name], self._sections, self._clock)
        for priority, names in chosen.items():
            lanes = [self._lanes[name] for name in names if name in self._lanes]
            self._chosen[priority] = ("events" in names, "log" in names, lanes)

    def notifier(self, topic: str) -> Notifier:
        """Return what a service tells with."""
        return Notifier(self, topic)

    def notify(
        self,
        topic: str,
        priority: str,
        event_type: str,
        payload: Json,
        context: Context | None = None,
        *,
        in_log: bool = False,
    ) -> None:
        """Tell the sinks of a priority; see `Notifier`.

        Args:
            topic: Whose it is.
            priority: Its priority.
            event_type: What happened.
            payload: More of it.
            context: The request in which it happened; by default the one that is being served.
            in_log: Whether the log has a line of it already.
        """
        to_events, to_log, lanes = self._chosen.get(priority, (False, False, ()))
        context = context or current_context()
        self._publisher.check_names(topic, event_type)
        packed = encode_value(payload, f"the payload of notification {event_type} of {topic}")
        if holds_secrets(packed, context):
            payload = without_secrets(payload, context)
            packed = encode_value(payload, f"the payload of notification {event_type} of {topic}")
        if to_events:
            self._publisher.publish(topic, event_type, payload, priority=priority, context=context)
        if to_log and not in_log:
            _told.log(_LEVELS.get(priority, logging.INFO), "%s %s.%s %s", priority, topic, event_type, _text(payload))
        for lane in lanes:
            lane.put(
                Notification(
                    priority=priority,
                    event_type=event_type,
                    payload=msgspec.msgpack.decode(packed),
                    publisher_id=f"{topic}.{self._publisher.host}",
                    at=self._clock.wall(),
                    request_id=context.request_id if context is not None else "",
                    trace=context.trace if context is not None else "",
                )
            )

    def stats(self) -> dict[str, dict[str, int]]:
        """Return for each sink of a plugin what was told, failed, dropped, and waits."""
        return {name: lane.stats() for name, lane in self._lanes.items()}

    def close(self) -> None:
        """Have the sinks end when they have told what waits. Does not wait for them. May be called twice."""
        for lane in self._lanes.values():
            lane.end()


def _text(payload: Json) -> str:
    try:
        return msgspec.json.encode(payload)[:_LINE].decode(errors="replace")
    except (TypeError, ValueError):  # keys that messages know and JSON does not
        return repr(payload)[:_LINE]


class Lane:
    """One sink of a plugin with its queue and its thread, which is started with the first notification.

    Args:
        name: The sink's name.
        make: Makes the sink.
        sections: For `NotificationSink.open`.
        clock: The source of time.
    """

    def __init__(self, name: str, make: Any, sections: Mapping[str, Any], clock: Clock) -> None:
        self._name = name
        self._make = make
        self._sections = sections
        self._queue: deque[Notification] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._quiet = QuietLog(_log, clock)
        self._ending = False
        self._told = self._failed = self._dropped = 0

    def stats(self) -> dict[str, int]:
        """Return the counters."""
        return {"told": self._told, "failed": self._failed, "dropped": self._dropped, "waiting": len(self._queue)}

    def put(self, notification: Notification) -> None:
        """Have it told. Any thread; never waits."""
        with self._changed:
            if self._ending:
                return
            if len(self._queue) >= _QUEUE:
                self._dropped += 1
                self._quiet.warning(
                    "full", f"notification sink {self._name} does not keep up: {self._dropped} have been dropped"
                )
                return
            self._queue.append(notification)
            if (self._thread is None or not self._thread.is_alive()) and not self._started():
                return
            self._changed.notify()

    def end(self) -> None:
        """Take nothing more; the thread ends when it has told what waits."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _started(self) -> bool:
        try:
            thread = threading.Thread(target=self._run, name=f"notify-{self._name}", daemon=True)
            thread.start()
        except RuntimeError as error:  # no memory for a thread: what waits is told when there is
            self._quiet.warning("thread", f"notification sink {self._name} has got no thread: {describe(error)}")
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        sink = self._opened()
        while (notification := self._next()) is not None:
            if sink is None:
                sink = self._opened()
            if sink is None or not self._do(lambda sink=sink, what=notification: sink.send(what)):
                self._failed += 1
            else:
                self._told += 1
        if sink is not None:
            self._do(sink.close)

    def _opened(self) -> NotificationSink | None:
        made: list[NotificationSink] = []

        def open_it() -> None:
            sink = self._make()
            sink.open(self._sections)
            made.append(sink)

        self._do(open_it)
        return made[0] if made else None

    def _next(self) -> Notification | None:
        with self._changed:
            while not self._queue:
                if self._ending:
                    return None
                self._changed.wait()
            return self._queue.popleft()

    def _do(self, work: Any) -> bool:
        try:
            work()
            fork.leave_if_child()
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's sink does, its thread goes on
            fork.leave_if_child(error)
            known = is_expected(error)
            text = f"notification sink {self._name} failed: {describe(error)}"
            with self._changed:
                self._quiet.warning("failed", text)
            if not known:
                _log.debug("notification sink %s failed", self._name, exc_info=error)
            return False
        return True


__all__ = [
    "OWN_SINKS", "SINK_KIND", "Notification", "NotificationSink", "Notifications", "Notifier",
]  # fmt: skip
