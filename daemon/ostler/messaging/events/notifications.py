"""Notifications: events of services, sent with a priority to the configured sinks.

A notification has a priority, an event type, a payload and the id of who publishes it. Which *sinks* get it, is
configured for each priority: `events` publishes it as an event, `log` writes a line, and plugins can provide more.
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
from ostler.errors import error_line, is_expected
from ostler.log.rate_limit import RateLimitedLog
from ostler.messaging.events.event_publisher import has_secrets, redact_payload
from ostler.messaging.wire.envelope import encode_value
from ostler.messaging.wire.request_context import Context, current_context
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.events import Publisher

_log = logging.getLogger(__name__)
_notification_log = logging.getLogger("ostler.notification")

SINK_KIND: Final = "notification_sink"
"""The kind under which plugins provide sinks, in `ostler_extensions`."""
BUILTIN_SINKS: Final = ("events", "log")
_LEVELS = {
    "debug": logging.DEBUG,
    "sample": logging.DEBUG,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_QUEUE_SIZE = 1000
_MAX_PAYLOAD_LENGTH = 2000
"""Characters of a payload in a line of the log."""


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a sink receives.

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
    """Where notifications go; a plugin provides one through `ostler_extensions` as `("notification_sink", name)`.

    It is made without arguments when the daemon starts, if the configuration names it. `open`, `send` and `close` run
    on a thread of its own, one after the other: it may block without delaying anything else. While it does,
    notifications wait in a queue of 1,000; more are dropped, which is counted and logged once a minute. What it raises
    is logged.
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
        """Release all resources, at the end."""


class _NotificationHub(Protocol):
    def notify(self, topic: str, priority: str, event_type: str, payload: Json, context: Context | None) -> None:
        """Send a notification to the sinks of its priority."""
        ...


class Notifier:
    """Sends the notifications of one service. Any thread; never waits.

    `event_type` names what happened, as the name of an event does: `create.end`, `delete.error`. The sink `events`
    publishes `topic.host.event_type` with the priority. The request that is being served is attached automatically.

    Every method raises `InvalidInput` for an event type that is none, `EncodeError` for a payload that cannot go over
    the wire and `MessageTooLarge` for one that is too large; errors in a sink are never raised here.

    Args:
        hub: The sinks; None sends nothing.
        topic: The service's topic.
    """

    def __init__(self, hub: _NotificationHub | None = None, topic: str = "") -> None:
        self._hub = hub
        self._topic = topic

    def audit(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification for the record: who did what."""
        self.notify("audit", event_type, payload, ctx=ctx)

    def debug(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification that helps to find a defect."""
        self.notify("debug", event_type, payload, ctx=ctx)

    def info(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification that something happened as expected."""
        self.notify("info", event_type, payload, ctx=ctx)

    def warn(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification that something is not as it should be."""
        self.notify("warn", event_type, payload, ctx=ctx)

    def error(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification that something failed."""
        self.notify("error", event_type, payload, ctx=ctx)

    def critical(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification that something failed which others depend on."""
        self.notify("critical", event_type, payload, ctx=ctx)

    def sample(self, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a measurement."""
        self.notify("sample", event_type, payload, ctx=ctx)

    def notify(self, priority: str, event_type: str, payload: Json = None, *, ctx: Context | None = None) -> None:
        """Send a notification with a priority that is chosen at run time; see the other methods."""
        if self._hub is not None:
            self._hub.notify(self._topic, priority, event_type, payload, ctx)


class Notifications:
    """The sinks of a daemon, and which priorities each receives.

    Args:
        publisher: What publishes events.
        clock: The source of time.
        sections: The options of plugins' own sections, for their sinks.
    """

    def __init__(self, publisher: Publisher, clock: Clock, sections: Mapping[str, Any]) -> None:
        self._publisher = publisher
        self._clock = clock
        self._sections = sections
        self._workers: dict[str, SinkWorker] = {}
        self._routes: dict[str, tuple[bool, bool, list[SinkWorker]]] = {}

    def configure(self, sinks_by_priority: Mapping[str, Sequence[str]], sinks: Mapping[str, Any]) -> None:
        """Say which sinks get which priority, at the start and after a reload.

        Args:
            sinks_by_priority: Priority to the names of its sinks; those that are not there are left out.
            sinks: What plugins bring: name to class, or whatever makes a sink. One that runs goes on.
        """
        for name in sinks.keys() - self._workers.keys():
            self._workers[name] = SinkWorker(name, sinks[name], self._sections, self._clock)
        for priority, names in sinks_by_priority.items():
            lanes = [self._workers[name] for name in names if name in self._workers]
            self._routes[priority] = ("events" in names, "log" in names, lanes)

    def make_notifier(self, topic: str) -> Notifier:
        """Return the notifier of a service."""
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
        """Send a notification to the sinks of a priority; see `Notifier`.

        Args:
            topic: Whose it is.
            priority: Its priority.
            event_type: What happened.
            payload: More of it.
            context: The request in which it happened; by default the one that is being served.
            in_log: Whether the log has a line of it already.
        """
        to_events, to_log, lanes = self._routes.get(priority, (False, False, ()))
        context = context or current_context()
        self._publisher.check_names(topic, event_type)
        packed = encode_value(payload, f"the payload of notification {event_type} of {topic}")
        if has_secrets(packed, context):
            payload = redact_payload(payload, context)
            packed = encode_value(payload, f"the payload of notification {event_type} of {topic}")
        if to_events:
            self._publisher.publish(topic, event_type, payload, priority=priority, context=context)
        if to_log and not in_log:
            _notification_log.log(
                _LEVELS.get(priority, logging.INFO), "%s %s.%s %s", priority, topic, event_type, _payload_text(payload)
            )
        for lane in lanes:
            lane.enqueue(
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
        return {name: lane.stats() for name, lane in self._workers.items()}

    def close(self) -> None:
        """Let the sinks end when they have sent what waits. Does not wait for them. May be called twice."""
        for lane in self._workers.values():
            lane.close()


def _payload_text(payload: Json) -> str:
    try:
        return msgspec.json.encode(payload)[:_MAX_PAYLOAD_LENGTH].decode(errors="replace")
    except (TypeError, ValueError):  # keys that messages know and JSON does not
        return repr(payload)[:_MAX_PAYLOAD_LENGTH]


class SinkWorker:
    """One sink of a plugin with its queue and its thread, which is started with the first notification.

    Args:
        name: The sink's name.
        make_sink: Makes the sink.
        sections: For `NotificationSink.open`.
        clock: The source of time.
    """

    def __init__(self, name: str, make_sink: Any, sections: Mapping[str, Any], clock: Clock) -> None:
        self._name = name
        self._make_sink = make_sink
        self._sections = sections
        self._queue: deque[Notification] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._rate_limited_log = RateLimitedLog(_log, clock)
        self._is_closing = False
        self._sent_count = self._failed_count = self._dropped_count = 0

    def stats(self) -> dict[str, int]:
        """Return the counters."""
        return {
            "told": self._sent_count,
            "failed": self._failed_count,
            "dropped": self._dropped_count,
            "waiting": len(self._queue),
        }

    def enqueue(self, notification: Notification) -> None:
        """Queue a notification. Any thread; never waits."""
        with self._changed:
            if self._is_closing:
                return
            if len(self._queue) >= _QUEUE_SIZE:
                self._dropped_count += 1
                self._rate_limited_log.warning(
                    "full", f"notification sink {self._name} is too slow: {self._dropped_count} notifications dropped"
                )
                return
            self._queue.append(notification)
            if (self._thread is None or not self._thread.is_alive()) and not self._ensure_started():
                return
            self._changed.notify()

    def close(self) -> None:
        """Accept nothing more; the thread ends when it has sent what waits."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def _ensure_started(self) -> bool:
        try:
            thread = threading.Thread(target=self._run, name=f"notify-{self._name}", daemon=True)
            thread.start()
        except RuntimeError as error:  # no memory for a thread: what waits is sent when there is
            self._rate_limited_log.warning(
                "thread", f"could not start a thread for notification sink {self._name}: {error_line(error)}"
            )
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        sink = self._open_sink()
        while (notification := self._next_notification()) is not None:
            if sink is None:
                sink = self._open_sink()
            if sink is None or not self._run_guarded(lambda sink=sink, what=notification: sink.send(what)):
                self._failed_count += 1
            else:
                self._sent_count += 1
        if sink is not None:
            self._run_guarded(sink.close)

    def _open_sink(self) -> NotificationSink | None:
        made: list[NotificationSink] = []

        def open_it() -> None:
            sink = self._make_sink()
            sink.open(self._sections)
            made.append(sink)

        self._run_guarded(open_it)
        return made[0] if made else None

    def _next_notification(self) -> Notification | None:
        with self._changed:
            while not self._queue:
                if self._is_closing:
                    return None
                self._changed.wait()
            return self._queue.popleft()

    def _run_guarded(self, work: Any) -> bool:
        try:
            work()
            fork.exit_if_child()
        except BaseException as error:  # noqa: BLE001 - whatever a plugin's sink does, its thread continues
            fork.exit_if_child(error)
            known = is_expected(error)
            text = f"notification sink {self._name} failed: {error_line(error)}"
            with self._changed:
                self._rate_limited_log.warning("failed", text)
            if not known:
                _log.debug("notification sink %s failed", self._name, exc_info=error)
            return False
        return True


__all__ = [
    "BUILTIN_SINKS", "SINK_KIND", "Notification", "NotificationSink", "Notifications", "Notifier",
]  # fmt: skip
