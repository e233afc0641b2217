"""The options of a call, which `client.on(…)` sets: how it is made, apart from what is called and with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec

from ostler.bounds import NAME_LIMIT
from ostler.errors import InvalidInput
from ostler.messaging.clients.retry import Retry
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT, check_credit
from ostler.spelling import suggest

if TYPE_CHECKING:
    from ostler.messaging.wire.request import ProgressCallback


class StubKeywords(TypedDict, total=False):
    """The keyword arguments of `RpcApi.on`; see `CallOptions`."""

    host: str | None
    timeout: float | None
    on_progress: ProgressCallback | None
    retry: Retry | None
    credit: int
    time_limit: float | None
    request_id: str


class CallKeywords(StubKeywords, total=False):
    """The keyword arguments of `Client.on`; see `CallOptions`."""

    type: Any


class CallOptions(msgspec.Struct, frozen=True):
    """How calls are made. Each client has one such object, and what its `on` returns has another one.

    Attributes:
        host: The service's host; None for the one of the daemon, or one that has such a service.
        timeout: Seconds that a call may take at most, all its attempts together; of a stream, seconds to wait for each
            item. None for what is left of the request that is being served, else the client's default (of a stream: no
            limit).
        type: The type that the result, or each item of a stream, is decoded to; None for plain values.
        on_progress: Called with each progress report of a call, on the thread or loop that waits for the result. If it
            raises, the call is cancelled and raises that.
        retry: When a call, cast or fanout is sent again, and after which errors; None for the client's own policy. A
            stream is not retried.
        credit: The most items of a stream that are on their way or wait for the reader; the method makes no more
            meanwhile.
        time_limit: Seconds in which a submitted operation must end; None for no limit.
        request_id: The id of a submitted operation, or of a call that is retried; empty to have the client choose one.

    Raises:
        InvalidInput: A value is not one that the option can have.
    """

    host: str | None = None
    timeout: float | None = None
    type: Any = None
    on_progress: ProgressCallback | None = None
    retry: Retry | None = None
    credit: int = DEFAULT_CREDIT
    time_limit: float | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        # Programs without type checks get an error as well. The usual cases come first: this runs for each `on`.
        host: object = self.host
        if host is not None and not isinstance(host, str):
            raise _refused("host", "the name of a host", host)
        timeout: object = self.timeout
        if timeout is not None and not _is_time(timeout):
            raise _refused("timeout", "a number of seconds, 0 or more", timeout)
        on_progress: object = self.on_progress
        if on_progress is not None and not callable(on_progress):
            raise _refused("on_progress", "a function that takes a Progress", on_progress)
        retry: object = self.retry
        if retry is not None:
            if not isinstance(retry, Retry):
                raise _refused("retry", "a Retry", retry)
            retry.check()
        if self.credit is not DEFAULT_CREDIT:
            check_credit(self.credit, "a stream")
        if self.time_limit is not None or self.request_id != "":
            self._check_operation()

    def _check_operation(self) -> None:
        time_limit: object = self.time_limit
        if time_limit is not None and not _is_time(time_limit):
            raise _refused("time_limit", "a number of seconds, 0 or more", time_limit)
        request_id: object = self.request_id
        if not isinstance(request_id, str) or len(request_id) > NAME_LIMIT:
            raise _refused("request_id", f"a text of at most {NAME_LIMIT} characters", request_id)

    def updated(self, given: Mapping[str, Any]) -> CallOptions:
        """Return these options with some of them changed.

        Args:
            given: Their new values by name.

        Raises:
            TypeError: The option does not exist.
            InvalidInput: See the class.
        """
        try:
            return msgspec.structs.replace(self, **given)
        except TypeError:
            known = self.__struct_fields__
            unknown = next((name for name in given if name not in known), None)
            if unknown is None:
                raise
            hint = suggest(unknown, known)
            raise TypeError(f"on() has no option {unknown!r}{f'; {hint}' if hint else ''}") from None


DEFAULT_OPTIONS = CallOptions()
"""Those of a client itself."""


def check_fanout(options: CallOptions, topic: str, method: str) -> None:
    """Refuse a fanout that is for one host.

    Raises:
        InvalidInput: The options name a host.
    """
    if options.host:
        raise InvalidInput(
            f"a fanout of {topic}.{method} goes to every host, but the option host is {options.host!r}",
            hint="leave host out of on(…), or use cast for that host",
            method=f"{topic}.{method}",
        )


def _is_time(value: object) -> bool:
    return isinstance(value, _NUMBERS) and not isinstance(value, bool) and value >= 0


_NUMBERS = (int, float)


def _refused(option: str, wanted: str, given: object) -> InvalidInput:
    return InvalidInput(f"the option {option} of a call must be {wanted}, not {given!r:.60}", option=option)
