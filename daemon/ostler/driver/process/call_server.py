"""Serves the calls of the daemon in the process of a driver: one instance, and a thread for each channel."""

from __future__ import annotations

import inspect
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from msgspec.msgpack import Decoder, Encoder

from ostler import log
from ostler.clock import SystemClock
from ostler.driver.call_progress import set_current_call
from ostler.driver.driver import Driver, DriverEnvironment
from ostler.driver.process.channel import Channel
from ostler.driver.process.child_services import (
    ControlLink,
    DaemonLogHandler,
    MetricReporter,
    RemoteKeyValue,
    current_call,
)
from ostler.driver.process.failures import pack_error
from ostler.driver.process.messages import (
    ATTRIBUTES,
    BUILD,
    Call,
    ProgressReport,
    Reply,
    RequestFields,
    Result,
    Start,
)
from ostler.driver.process.values import MethodTypes, ValueType, plain_attributes, sendable_features
from ostler.errors import DriverError, OstlerError, PluginError, error_line
from ostler.messaging.wire.request_context import Context, Progress, serving_to_end

_PLAIN = ValueType(Any, "the attributes of the driver")


class CallServer:
    """Runs the driver of this process.

    Args:
        start: What the daemon said about the driver.
        link: The control channel.
    """

    def __init__(self, start: Start, link: ControlLink) -> None:
        self._start = start
        self._link = link
        self._label = f"driver {start.name} of {start.topic}"
        self._clock = SystemClock()
        self.metric_reporter = MetricReporter(link, start.topic, start.name, self._clock)
        self._driver: Driver | None = None
        self._methods: dict[str, MethodTypes] = {}
        self._special = {BUILD: self._build, ATTRIBUTES: self._attributes}

    def add_channel(self, channel: Channel) -> None:
        """Serve calls on a channel, on a thread of its own."""
        threading.Thread(target=self._serve, args=(channel,), daemon=True, name="call").start()

    def set_options(self, values: Any) -> None:
        """Replace the options of the instance."""
        if self._driver is not None:
            self._driver.options = _validated(type(self._driver), values)

    def _serve(self, channel: Channel) -> None:
        decoder, encoder = Decoder(Call), Encoder()
        while (message := channel.receive()) is not None:
            call = decoder.decode(message)
            if call.log_level != logging.root.level:
                logging.root.setLevel(call.log_level)
            number = current_call.set(call.number)
            reply = self._answer(call, lambda report: channel.send(encoder.encode(report)))
            current_call.reset(number)
            try:
                channel.send(encoder.encode(reply))
            except OstlerError as error:  # a result that is too large
                channel.send(encoder.encode(pack_error(error)))
            except OSError:
                return

    def _answer(self, call: Call, report: Callable[[Reply], None]) -> Reply:
        try:
            if special := self._special.get(call.method):
                return Result(_PLAIN.encode(special()))
            if call.context is None:
                set_current_call(lambda: report(ProgressReport(0, 0, "")))
                return self._run(call, None)
            set_current_call(lambda: None)  # its context reports the progress
            context = self._make_context(call.context, report)
            self._link.add_context(call.number, context)
            try:
                with serving_to_end(context):
                    return self._run(call, context)
            finally:
                self._link.remove_context(call.number)
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises is its answer
            return pack_error(error)

    def _run(self, call: Call, context: Context | None) -> Result:
        types = self._methods.get(call.method)
        if types is None:
            types = MethodTypes(type(self._driver), call.method, f"{call.method} of {self._label}")
            self._methods[call.method] = types
        arguments, named = types.decode(call.arguments, call.named, context)
        result = getattr(self._driver, call.method)(*arguments, **named)
        if isinstance(result, CoroutineType | GeneratorType | AsyncGeneratorType):
            if not isinstance(result, AsyncGeneratorType):
                result.close()
            raise DriverError(
                f"{call.method} of {self._label} returned a {type(result).__name__} instead of a result",
                hint="methods of a driver must be `def` and return when their work is done",
                driver=self._start.name, method=call.method,
            )  # fmt: skip
        return Result(types.result.encode(result))

    def _make_context(self, fields: RequestFields, report: Callable[[Reply], None]) -> Context:
        def send_progress(progress: Progress) -> None:
            report(ProgressReport(progress.done, progress.total, progress.text))

        remaining = fields.remaining
        context = Context(
            fields.topic, fields.method, request_id=fields.request_id, peer=fields.peer, role=fields.role,
            deadline=None if remaining is None else self._clock.monotonic() + remaining,
            clock=self._clock, on_progress=send_progress,
        )  # fmt: skip
        context.host, context.trace = fields.host, fields.trace
        if fields.is_operation:
            context.operation = _NoSteps(self._label)
        return context

    def _build(self) -> dict[str, Any]:
        """Import the driver and create the instance; return its plain attributes."""
        start = self._start
        made = _import_object(start.path)
        environment = DriverEnvironment(
            name=start.name,
            topic=start.topic,
            host=start.host,
            options=_validated(made, start.options),
            clock=self._clock,
            log=log.adapter(logging.getLogger(f"ostler.driver.{start.topic}.{start.name}")),
            kv=RemoteKeyValue(self._link, f"driver/{start.topic}/{start.name}"),
            make_metrics=self.metric_reporter.make_metrics,
        )
        product = made(environment) if _takes_environment(made) else made()
        self._driver = product(environment) if isinstance(product, type) else product
        if not isinstance(self._driver, Driver):
            raise PluginError(f"{start.path} returned a {type(self._driver).__name__}, not a driver", driver=start.name)
        vars(self._driver)["features"] = sendable_features(type(self._driver))  # as the daemon sees them
        return self._attributes()

    def _attributes(self) -> dict[str, Any]:
        return plain_attributes(vars(self._driver))


class _NoSteps:
    """The operation of a context in the process of a driver: its steps are recorded by managers only."""

    attempt, is_resumed, is_handed_over = 1, False, False

    def __init__(self, label: str) -> None:
        self._label = label

    def is_recorded(self, name: str) -> bool:
        raise self._error(name)

    def step(self, context: Context, name: str, function: Any, result_type: Any) -> Any:
        raise self._error(name)

    async def astep(self, context: Context, name: str, function: Any, result_type: Any) -> Any:
        raise self._error(name)

    def _error(self, name: str) -> DriverError:
        return DriverError(
            f"{self._label} cannot record the step {name}: it runs in a process of its own",
            hint="call `ctx.step` in the manager, or set `isolation` of the driver to `thread`",
        )


def _import_object(path: str) -> Any:
    module, _, names = path.partition(":")
    try:
        found: Any = import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise PluginError(f"{path} cannot be imported in a process of its own: {error_line(error)}") from error
    return found


def _validated(made: Any, values: Any) -> Any:
    """Return options as the driver's own model; the daemon has validated them."""
    if not isinstance(made, type):
        made = inspect.get_annotations(made, eval_str=True).get("return", Driver)
    model: Any = getattr(made, "Options", Driver.Options)
    return model.model_validate(values)


def _takes_environment(made: Any) -> bool:
    if isinstance(made, type):
        return True
    parameters = inspect.signature(made).parameters.values()
    return any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)


def serve(start: Start, control: Channel, doorbell: socket.socket) -> None:
    """Serve calls until the daemon closes the socket over which it sends the channels. On the main thread.

    Args:
        start: What the daemon said about the driver.
        control: The control channel.
        doorbell: Over which channels come, as descriptors.
    """
    link = ControlLink(control)
    handler = DaemonLogHandler(link)
    logging.basicConfig(handlers=[handler], level=start.log_level, force=True)
    logging.captureWarnings(capture=True)
    server = CallServer(start, link)
    for name, work in (("log", handler.send_forever), ("control", lambda: link.receive_forever(server.set_options))):
        threading.Thread(target=work, daemon=True, name=name).start()
    while descriptors := socket.recv_fds(doorbell, 1, 1)[1]:
        os.set_inheritable(descriptors[0], False)
        server.add_channel(Channel(socket.socket(fileno=descriptors[0])))
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    handler.flush_queue()
    with suppress(OSError):
        server.metric_reporter.send()
