"""What a driver finds in its own process: a log and a key-value store that are the daemon's, reached by messages."""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from msgspec.msgpack import Decoder, Encoder

from ostler.bounds import safe_str
from ostler.clock import Clock
from ostler.driver.process.channel import Channel
from ostler.driver.process.failures import unpack_error
from ostler.driver.process.messages import (
    Cancel,
    LogLine,
    MetricReport,
    Notice,
    Order,
    SetOptions,
    StoreReply,
    StoreRequest,
)
from ostler.driver.process.values import encode_hook
from ostler.errors import DriverError, InvalidInput
from ostler.log.fields import fields_of
from ostler.messaging.wire.request_context import Context
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.metrics.families import MetricFamily
    from ostler.metrics.registry import MetricRegistry, Metrics

_TEXT_LIMIT = 16_000
"""Characters of a log message or traceback that are sent."""
_QUEUE_SIZE = 1000
"""Log lines that wait for the daemon; further ones are counted and left out."""
_METRIC_INTERVAL = 1.0
"""Seconds between two reports of the driver's metrics."""
_EARLY_CANCELS = 256
"""Cancelled calls that are remembered: an order may come before the call that it is about."""
current_call: contextvars.ContextVar[int] = contextvars.ContextVar("ostler_driver_call", default=0)
"""The number of the call that this thread serves; 0 outside of one."""


class ControlLink:
    """The control channel in the process: sends notices of any thread, receives orders on one.

    Args:
        channel: The channel.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._encoder = Encoder(enc_hook=encode_hook)
        self._waiting: dict[int, queue.SimpleQueue[StoreReply]] = {}
        self._number = 0
        self._contexts: dict[int, Context] = {}
        self._early_cancels: deque[int] = deque(maxlen=_EARLY_CANCELS)

    def send(self, notice: Notice) -> None:
        """Send a notice; blocks while the daemon does not read. Any thread."""
        data = self._encoder.encode(notice)
        with self._lock:
            self._channel.send(data)

    def request(self, method: str, arguments: list[Any]) -> Any:
        """Have the daemon call a method of the key-value store, and wait for the result. Any thread."""
        answer: queue.SimpleQueue[StoreReply] = queue.SimpleQueue()
        with self._lock:
            self._number += 1
            number = self._number
            self._waiting[number] = answer
        try:
            self.send(StoreRequest(number, method, arguments))
            reply = answer.get()
        finally:
            del self._waiting[number]
        if reply.failure is not None:
            raise unpack_error(reply.failure)
        return reply.value

    def add_context(self, number: int, context: Context) -> None:
        """Cancel this context when the daemon says so of the call of this number."""
        self._contexts[number] = context
        if number in self._early_cancels:
            context.cancel()

    def remove_context(self, number: int) -> None:
        """Forget the context of a call that has ended."""
        del self._contexts[number]

    def receive_forever(self, set_options: Any) -> None:
        """Follow the orders of the daemon until it is gone. On a thread of its own."""
        decoder: Decoder[Order] = Decoder(Order)
        while (message := self._channel.receive()) is not None:
            order = decoder.decode(message)
            if isinstance(order, SetOptions):
                set_options(order.options)
            elif isinstance(order, Cancel):
                self._early_cancels.append(order.number)  # first: the call may be about to begin
                if (context := self._contexts.get(order.number)) is not None:
                    context.cancel()
            elif (answer := self._waiting.get(order.number)) is not None:
                answer.put(order)


class RemoteKeyValue:
    """The driver's key-value store; see `ostler.KeyValue`. Each method is a message to the daemon and back.

    Args:
        link: The control channel.
        namespace: The owner of the values.
    """

    def __init__(self, link: ControlLink, namespace: str) -> None:
        self._link = link
        self.namespace = namespace

    def get(self, key: str, default: Json = None) -> Json:
        """Return the value of `key`, or `default` when there is none."""
        found = self._request("get", [key])
        return found[0] if found else default

    def set(self, key: str, value: Json) -> None:
        """Set the value of `key`; it is committed when this returns."""
        self._request("set", [key, value])

    def delete(self, key: str) -> bool:
        """Remove `key`; return whether it existed."""
        return bool(self._request("delete", [key]))

    def items(self, prefix: str = "") -> dict[str, Json]:
        """Return all keys that begin with `prefix` and their values, in order of the keys."""
        found: dict[str, Json] = self._request("items", [prefix])
        return found

    def _request(self, method: str, arguments: list[Any]) -> Any:
        try:
            return self._link.request(method, arguments)
        except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError) as error:
            raise InvalidInput(
                f"the arguments of {method} of {self.namespace} are not plain JSON: {error}",
                hint="use numbers, strings, lists, and dictionaries with string keys",
            ) from error
        except OSError as error:
            raise DriverError(f"the key-value store of {self.namespace} cannot be reached: {error}") from error


class MetricReporter:
    """Sends the metrics of the driver to the daemon while they change.

    Args:
        link: The control channel.
        topic: The topic of the service.
        driver: The driver's name.
        clock: The source of time.
    """

    def __init__(self, link: ControlLink, topic: str, driver: str, clock: Clock) -> None:
        self._link = link
        self._topic, self._driver = topic, driver
        self._clock = clock
        self._registry: MetricRegistry | None = None
        self._sent: dict[str, MetricFamily] = {}
        self._lock = threading.Lock()

    def make_metrics(self) -> Metrics:
        """Return the metrics of the driver, and begin to report them. Any thread."""
        from ostler.messaging.wire.request_context import current_trace  # 2 ms: few drivers count anything
        from ostler.metrics.registry import MetricRegistry  # as above

        with self._lock:
            if self._registry is None:
                self._registry = MetricRegistry(self._clock, current_trace)
                threading.Thread(target=self._send_forever, daemon=True, name="metrics").start()
        return self._registry.metrics_of(self._topic, self._driver)

    def _send_forever(self) -> None:
        while True:
            time.sleep(_METRIC_INTERVAL)
            try:
                self.send()
            except OSError:  # the daemon has gone, and so does this process
                return

    def send(self) -> None:
        """Send the metrics that have changed since the last time. Any thread."""
        if self._registry is None:
            return
        with self._lock:
            changed = [family for family in self._registry.read() if family != self._sent.get(family.name)]
            if changed:
                self._link.send(MetricReport(changed))
                self._sent |= {family.name: family for family in changed}


class DaemonLogHandler(logging.Handler):
    """Sends log records to the daemon; a thread that logs does not wait for it.

    Args:
        link: The control channel.
    """

    def __init__(self, link: ControlLink) -> None:
        super().__init__()
        self._link = link
        self._queue: queue.Queue[LogLine] = queue.Queue(_QUEUE_SIZE)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; what the daemon does not take fast enough is counted and left out."""
        try:
            self._queue.put_nowait(self._line(record))
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - as handlers do: a log line must not break what it tells of
            self.handleError(record)

    def send_forever(self) -> None:
        """Send what is queued. On a thread of its own."""
        while True:
            line = self._queue.get()
            try:
                self._link.send(line)
                if self._dropped and self._queue.empty():
                    count, self._dropped = self._dropped, 0
                    self._link.send(LogLine(logging.WARNING, "", f"{count:,} log lines were left out", "", 0, {}))
            except OSError:  # the daemon has gone, and so does this process
                return
            finally:
                self._queue.task_done()

    def flush_queue(self) -> None:
        """Wait until all that is queued has been sent; for the end of the process."""
        self._queue.join()

    def _line(self, record: logging.LogRecord) -> LogLine:
        formatter = self.formatter or logging.Formatter()
        trace = formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
        return LogLine(
            record.levelno,
            safe_str(record.name),
            safe_str(record.getMessage(), _TEXT_LIMIT),
            safe_str(trace, _TEXT_LIMIT),
            current_call.get(),
            {safe_str(name): safe_str(value, _TEXT_LIMIT) for name, value in fields_of(record).items()},
        )
