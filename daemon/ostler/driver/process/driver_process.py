"""Calls into the process of a driver."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from msgspec.msgpack import Decoder, Encoder

from ostler.aio import LoopQueue, WorkerPool
from ostler.driver.call_progress import report_progress
from ostler.driver.driver import DriverOptions, DriverSpec
from ostler.driver.process.channel import Channel, MessageBuffer, frame
from ostler.driver.process.child_process import ChildProcess
from ostler.driver.process.cpu_watch import CpuWatch, read_cpu_time
from ostler.driver.process.failures import pack_error, unpack_error
from ostler.driver.process.messages import (
    ATTRIBUTES,
    BUILD,
    Call,
    Cancel,
    Failure,
    LogLine,
    MetricReport,
    Notice,
    Order,
    ProgressReport,
    Reply,
    RequestFields,
    Result,
    SetOptions,
    Start,
    StoreReply,
    StoreRequest,
)
from ostler.driver.process.process_log import ProcessLog
from ostler.driver.process.values import MethodTypes, ValueType, encode_hook
from ostler.errors import DriverCrashed, DriverLimitExceeded, OstlerError
from ostler.messaging.wire.request_context import Context, current_context

_READ_SIZE = 65536
_MAX_UNSENT = 4 * 2**20
"""Bytes of orders that a process may leave unread."""
_PLAIN = ValueType(dict[str, Any], "the attributes of the driver")
_NOTHING = object()


class DriverProcess:
    """The process of one instance of a driver, and the calls into it.

    Args:
        spec: The specification of the driver.
        cls: Its class.
        label: The driver for messages: `driver local of volume`.
        loop: The loop; the process dies with its thread.
        loop_queue: Passes work to that loop.
        on_crash: Called with this and the error of calls when it has ended and nobody has asked for it, on the loop.

    Created on the loop.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(
        self,
        spec: DriverSpec,
        label: str,
        loop: asyncio.AbstractEventLoop,
        loop_queue: LoopQueue,
        on_crash: Callable[[DriverProcess, DriverCrashed], None],
    ) -> None:
        self._spec = spec
        self._cls = spec.cls or spec.contract
        self._label = label
        self._loop = loop
        self._loop_queue = loop_queue
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._idle: list[Channel] = []
        self._channels: set[Channel] = set()
        self._types: dict[str, MethodTypes] = {}
        self._calls: dict[int, tuple[str, Context | None, Context | None]] = {}
        self._numbers = itertools.count(1)
        self._is_building = False
        self._is_ending = False
        self._ended: asyncio.Future[None] = loop.create_future()
        self._log = ProcessLog(spec.environment.log, spec.environment.clock, loop)
        self._logger = spec.environment.log.logger
        self._encoder = Encoder(enc_hook=encode_hook)
        self._call_encoder = Encoder()
        self._decoder: Decoder[Reply] = Decoder(Reply)
        self._notice_decoder: Decoder[Notice] = Decoder(Notice)
        self._store_pool = WorkerPool(f"{spec.environment.topic}.{spec.name}-kv", 1)
        self._notices = MessageBuffer()
        self._unsent = bytearray()
        self._child = ChildProcess(f"{spec.environment.topic}/{spec.name}", loop, self._on_exit)
        self._exceeded_limit = ""
        self._cpu_watch = CpuWatch(loop, partial(read_cpu_time, self._child.pid), self._on_cpu_excess)
        self._begin()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._child.pid

    @property
    def is_in_transition(self) -> bool:
        """Whether it starts, ends or has been killed: what happens next is a matter of moments. Any thread."""
        return not self._ended.done() and (self._is_building or self._is_ending or self._child.is_killed)

    def calls_in_progress(self) -> list[int]:
        """Return the numbers of the calls that have no answer yet. Any thread."""
        return [] if self.is_lost else list(self._calls)

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended. Any thread."""
        return bool(self._child.outcome)

    def crash_error(self, method: str = "") -> DriverCrashed:
        """Return the error of a call whose process has ended. Any thread but the loop's: it may wait for the end."""
        return self._crash_error(self._child.outcome or self._child.wait_outcome(), method)

    def build(self) -> dict[str, Any]:
        """Create the instance; return its plain attributes. On a thread."""
        self._is_building = True
        try:
            attributes = self._call_special(BUILD)
        finally:
            self._is_building = False
        self._watch_limits(self._spec.options)  # imports do not count
        return attributes

    def attributes(self) -> dict[str, Any]:
        """Return the plain attributes of the instance. On a thread."""
        return self._call_special(ATTRIBUTES)

    def call(self, method: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call a method and wait for it. On a thread.

        Raises:
            EncodeError: An argument or the result cannot be sent.
            DriverCrashed: The process ended meanwhile.
            Exception: What the method raised.
        """
        types = self._types.get(method)
        if types is None:
            types = MethodTypes(self._cls, method, f"{method} of {self._label}")
            types.require_sendable_result()
            self._types[method] = types
        encoded, encoded_named = types.encode(arguments, named)
        context = next((each for each in (*arguments, *named.values()) if isinstance(each, Context)), current_context())
        reply = self._exchange(Call(0, method, 0, _fields_of(context), encoded, encoded_named), context)
        return types.result.decode(reply.value)

    def set_options(self, options: Any) -> None:
        """Replace the options of the instance. Any thread."""
        self._order(SetOptions(options))
        self._watch_limits(options)

    def cancel(self, method: str, context: Context | None) -> None:
        """Cancel the contexts of the calls of a method that serve this request. Any thread."""
        for number, call in list(self._calls.items()):
            if call[0] == method and call[1] is context:
                self._order(Cancel(number))

    def kill(self, why: str) -> None:
        """Kill the process and what it started; `why` becomes part of the errors of its calls. Any thread."""
        self._child.kill(why)

    async def end(self, timeout: float) -> bool:
        """Have the process end, by force after `timeout` seconds; return whether it had to be killed. On the loop."""
        self._is_ending = True
        if not self.is_lost:
            self._child.doorbell.close()
        done, _ = await asyncio.wait([self._ended], timeout=timeout)
        if done:
            return False
        self._child.kill("it did not end when it was asked to")
        await asyncio.wait([self._ended], timeout=timeout)
        return True

    # ---------------------------------------------------------------- calls; on threads

    def _call_special(self, method: str) -> dict[str, Any]:
        reply = self._exchange(Call(0, method, 0, None, [], {}), None)
        found: dict[str, Any] = _PLAIN.decode(reply.value)
        return found

    def _exchange(self, call: Call, context: Context | None) -> Result:
        call.number, call.log_level = next(self._numbers), self._logger.getEffectiveLevel()
        channel = self._take_channel(call.method)
        self._calls[call.number] = call.method, current_context(), context
        forget = context.on_cancel(partial(self._order, Cancel(call.number))) if context is not None else None
        reply = None
        try:
            reply = self._send_and_receive(channel, call, context)
        finally:
            if forget is not None:
                forget()
            del self._calls[call.number]
            self._give_back(channel, is_good=reply is not None)
        if isinstance(reply, Failure):
            raise unpack_error(reply)
        return reply

    def _send_and_receive(self, channel: Channel, call: Call, context: Context | None) -> Result | Failure:
        data = self._call_encoder.encode(call)
        try:
            channel.send(data)
            while True:
                message = channel.receive()
                if message is None:
                    break
                reply = self._decoder.decode(message)
                if not isinstance(reply, ProgressReport):
                    return reply
                if context is None:
                    report_progress(reply.done, reply.total, reply.text)  # starts the time budget again
                else:
                    context.progress(reply.done, reply.total, reply.text)
        except OSError:  # it has ended before it read the call
            pass
        except (msgspec.DecodeError, TypeError) as error:
            self.kill(f"it sent an invalid message: {error}")
        raise self.crash_error(call.method)

    def _take_channel(self, method: str) -> Channel:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        ours, theirs = socket.socketpair()
        channel = Channel(ours)
        with theirs:
            try:
                with self._lock:
                    if self._child.outcome:
                        raise OSError("it has ended")
                    socket.send_fds(self._child.doorbell, [b"c"], [theirs.fileno()])
                    self._channels.add(channel)
            except OSError:
                ours.close()
                raise self.crash_error(method) from None
        return channel

    def _give_back(self, channel: Channel, *, is_good: bool) -> None:
        with self._lock:
            if is_good and not self._child.outcome:
                self._idle.append(channel)
                return
            self._channels.discard(channel)
        channel.socket.close()

    def _crash_error(self, outcome: str, method: str) -> DriverCrashed:
        during = f" during {method}" if method and not method.startswith("<") else ""
        unknown = "; whether the call took effect is unknown" if during else ""
        details = {"limit": self._exceeded_limit} if self._exceeded_limit else {}
        return (DriverLimitExceeded if details else DriverCrashed)(
            f"{self._label} crashed: its process {outcome}{during}{unknown}",
            hint="it is started again automatically; its last output is in the log",
            driver=self._spec.name,
            topic=self._spec.environment.topic,
            method=method,
            reason=outcome,
            **details,
        )

    # ---------------------------------------------------------------- on the loop

    def _begin(self) -> None:
        child = self._child
        for stream, name in ((child.stdout, "stdout"), (child.stderr, "stderr")):
            os.set_blocking(stream.fileno(), False)
            self._loop.add_reader(stream.fileno(), self._read_output, stream.fileno(), name)
        child.control.setblocking(False)
        self._loop.add_reader(child.control.fileno(), self._read_notices)
        environment, options = self._spec.environment, self._spec.options
        start = Start(
            self._spec.name, environment.topic, environment.host, self._spec.import_path, options, list(sys.path),
            self._logger.getEffectiveLevel(), options.memory_limit or 0, options.descriptor_limit, options.nice,
        )  # fmt: skip
        self._send(start)

    def _watch_limits(self, options: DriverOptions) -> None:
        """Apply what the daemon watches itself. Any thread."""

        def set_limit() -> None:
            if not self.is_lost:
                self._cpu_watch.set_limit(options.cpu_limit, options.cpu_window)

        self._loop_queue.post(set_limit)

    def _on_cpu_excess(self, what: str) -> None:
        if not self.is_lost:
            self._exceeded_limit = "cpu_limit"
            self.kill(what)

    def _order(self, order: Order) -> None:
        self._loop_queue.post(lambda: self._send(order))

    def _send(self, order: Order | Start) -> None:
        if self.is_lost:
            return
        is_blocked = bool(self._unsent)
        self._unsent += frame(self._encoder.encode(order))
        if len(self._unsent) > _MAX_UNSENT:
            self.kill("it does not read what the daemon sends")
        elif not is_blocked:
            self._flush()

    def _flush(self) -> None:
        control = self._child.control
        try:
            del self._unsent[: control.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:  # it ends; its end is noticed elsewhere
            self._unsent.clear()
        if self._unsent:
            self._loop.add_writer(control.fileno(), self._flush)
        else:
            self._loop.remove_writer(control.fileno())

    def _read_output(self, descriptor: int, name: str) -> bool:
        """Log what was printed; return whether there may be more."""
        try:
            data = os.read(descriptor, _READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self._log.add_output(name, data)
        else:
            self._loop.remove_reader(descriptor)
        return bool(data)

    def _read_notices(self) -> bool:
        """Handle what the process sent on its own; return whether there may be more."""
        try:
            data = self._child.control.recv(_READ_SIZE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._child.control.fileno())
            return False
        self._notices.add(data)
        try:
            while (message := self._notices.pop()) is not None:
                self._handle(self._notice_decoder.decode(message))
        except (msgspec.DecodeError, OstlerError) as error:
            self._loop.remove_reader(self._child.control.fileno())
            self.kill(f"it sent an invalid message: {error}")
            return False
        return True

    def _handle(self, notice: Notice) -> None:
        if isinstance(notice, LogLine):
            if logging.DEBUG <= notice.level <= logging.CRITICAL:
                self._log.write(notice, self._calls.get(notice.call, ("", None, None))[2])
            return
        if isinstance(notice, MetricReport):
            self._spec.environment.make_metrics().take_report(notice.families, self._child.pid)
            return
        try:
            self._store_pool.submit(
                partial(self._use_store, notice), partial(self._on_store_reply, notice.number), label=notice.method
            )
        except OstlerError as error:  # too many requests wait
            self._on_store_reply(notice.number, None, error)

    def _use_store(self, request: StoreRequest) -> Any:
        store = self._spec.environment.kv
        match request.method, request.arguments:
            case "get", [str(key)]:
                found: Any = store.get(key, _NOTHING)  # type: ignore[arg-type]
                return [] if found is _NOTHING else [found]
            case "set", [str(key), value]:
                return store.set(key, value)
            case "delete", [str(key)]:
                return store.delete(key)
            case "items", [str(prefix)]:
                return store.items(prefix)
        raise TypeError(f"{request.method} takes other arguments")

    def _on_store_reply(self, number: int, result: Any, error: BaseException | None) -> None:
        self._order(StoreReply(number, result, pack_error(error) if error is not None else None))

    def _on_exit(self, outcome: str) -> None:
        self._cpu_watch.stop()
        with self._lock:
            idle, self._idle = self._idle, []
            busy = self._channels.difference(idle)
        for channel in idle:
            channel.socket.close()
        for channel in busy:  # closed by its thread
            channel.shut_down()
        self._drain()
        self._log.end()
        self._store_pool.close()
        self._child.close()
        self._ended.set_result(None)
        if not self._is_ending:
            self._on_crash(self, self._crash_error(outcome, ""))

    def _drain(self) -> None:
        """Take what the process has left behind, no more than a pipe holds: others may still write into it."""
        child = self._child
        for stream, name in ((child.stdout, "stdout"), (child.stderr, "stderr")):
            for _ in range(16):
                if stream.closed or not self._read_output(stream.fileno(), name):
                    break
            self._loop.remove_reader(stream.fileno())
        for _ in range(16):
            if not self._read_notices():
                break
        self._loop.remove_reader(child.control.fileno())
        self._loop.remove_writer(child.control.fileno())


def _fields_of(context: Context | None) -> RequestFields | None:
    if context is None:
        return None
    return RequestFields(
        context.topic, context.method, context.request_id, context.peer, context.role, context.remaining(),
        context.host, context.trace, context.operation is not None,
    )  # fmt: skip
