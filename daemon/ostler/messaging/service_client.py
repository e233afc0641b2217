"""`ServiceClient`: what a manager is handed to reach other services and to publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ostler.messaging.rpc.incoming import DEFAULT_CREDIT
from ostler.types import Json

if TYPE_CHECKING:
    from ostler.messaging.async_item_stream import AsyncItemStream
    from ostler.messaging.item_stream import ItemStream
    from ostler.messaging.rpc.core import Ask
    from ostler.messaging.rpc.retry import Retry
    from ostler.messaging.versions import Upgrades


class ServiceClient(Protocol):
    """Calls other services, in this daemon directly, with the same promises as over the wire.

    Arguments and results are converted, never shared. The work of the called method is done with the role of the
    daemon itself. A call made while a request is served has what is left of that request's deadline, and stops when
    that request is cancelled. The plain methods block and are for threads of a pool, those that start with `a` are for
    the loop.
    """

    @property
    def upgrades(self) -> Upgrades:
        """Which version of a topic's calls may be used; see `RpcApi`."""
        ...

    def call(
        self,
        topic: str,
        method: str,
        /,
        *,
        host: str | None = None,
        timeout: float | None = None,
        type: Any = None,  # noqa: A002 - the word that msgspec uses for the same thing
        retry: Retry | None = None,
        **arguments: Any,
    ) -> Any:
        """Call a method and wait for its result. Any thread but the loop's.

        Args:
            topic: The service's topic.
            method: The exposed method.
            host: The service's host; None for this one, or one that has such a service.
            timeout: Seconds to wait at most; None for what is left of the current request, else the default.
            type: The type the result is decoded to; None for plain values.
            retry: When to send the request again, and after which errors; None for never. A further attempt may go to
                another member of the topic.
            arguments: The method's arguments, by name.

        Returns:
            The result, as `type`.

        Raises:
            RuntimeError: It was called on the loop's thread, which it would block.
            MessagingError: The call did not go as asked; each kind has its class in `ostler.errors`.
            OstlerError: What the method raised.
        """
        ...

    async def acall(
        self,
        topic: str,
        method: str,
        /,
        *,
        host: str | None = None,
        timeout: float | None = None,
        type: Any = None,  # noqa: A002 - the word that msgspec uses for the same thing
        retry: Retry | None = None,
        **arguments: Any,
    ) -> Any:
        """Call a method and wait for its result, on the loop; see `call`."""
        ...

    def cast(
        self, topic: str, method: str, /, *, host: str | None = None, retry: Retry | None = None, **arguments: Any
    ) -> None:
        """Have a method run; return when the service has accepted it. Any thread but the loop's."""
        ...

    async def acast(
        self, topic: str, method: str, /, *, host: str | None = None, retry: Retry | None = None, **arguments: Any
    ) -> None:
        """Have a method run, on the loop; see `cast`."""
        ...

    def fanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method; return how many accepted it. Any thread but the loop's."""
        ...

    async def afanout(self, topic: str, method: str, /, **arguments: Any) -> int:
        """Have every service on the topic run a method, on the loop; see `fanout`."""
        ...

    def stream(
        self,
        topic: str,
        method: str,
        /,
        *,
        host: str | None = None,
        timeout: float | None = None,
        type: Any = None,  # noqa: A002 - the word that msgspec uses for the same thing
        credit: int = DEFAULT_CREDIT,
        **arguments: Any,
    ) -> ItemStream:
        """Return what a method yields, item by item; iterate it, best inside `with`. Any thread but the loop's.

        The method makes no more than `credit` items that the reader has not done with. Leaving the block, or the loop,
        ends the generator: its `finally` blocks run.

        Args:
            topic: The service's topic.
            method: The exposed method; one that yields.
            host: The service's host; None for this one, or one that has such a service.
            timeout: Seconds to wait for each item at most; None for no limit but what is left of the current request.
            type: The type that each item is decoded to; None for plain values.
            credit: The most items that wait for the reader.
            arguments: The method's arguments, by name.

        Raises:
            RuntimeError: It was entered or iterated on the loop's thread, which it would block.
            OstlerError: As `call`; when it is entered or iterated.
        """
        ...

    def astream(
        self,
        topic: str,
        method: str,
        /,
        *,
        host: str | None = None,
        timeout: float | None = None,
        type: Any = None,  # noqa: A002 - the word that msgspec uses for the same thing
        credit: int = DEFAULT_CREDIT,
        **arguments: Any,
    ) -> AsyncItemStream:
        """Return what a method yields, for `async for` on the loop, best inside `async with`; see `stream`."""
        ...

    def ask(self, ask: Ask, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, and wait: for `RpcApi`. Any thread but the loop's."""
        ...

    async def aask(self, ask: Ask, retry: Retry | None = None) -> Any:
        """Send a request that is put together already, on the loop; see `ask`."""
        ...

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """Publish `topic.host.event` to whoever listens; by default the service's own topic. Any thread."""
        ...
