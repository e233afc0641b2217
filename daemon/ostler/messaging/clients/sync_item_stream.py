"""The items of a method that yields, for programs without a loop. Imports no asyncio."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

P = TypeVar("P")


class StreamSource(Protocol[P]):
    """Where a stream comes from; `P` is what it knows an open one by."""

    def open(self) -> P:
        """Ask for the stream."""
        ...

    def take(self, handle: P) -> list[Any] | None:
        """Wait for the next items; None at the end. Raises what the stream ended with."""
        ...

    def close(self, handle: P) -> None:
        """Tell the server that nobody reads on; nothing when the stream has ended."""
        ...


class _SyncStreamState:
    """Whether a stream is open.

    Apart from `ItemStream`, so that a loop that is left behind is closed at once: the generator knows this, and not the
    object that holds the generator, and no collector is waited for.
    """

    def __init__(self, source: StreamSource[Any]) -> None:
        self._source = source
        self._handle: Any = None
        self._is_closed = False

    def open(self) -> None:
        if self._handle is None and not self._is_closed:
            self._handle = self._source.open()

    def close(self) -> None:
        self._is_closed = True
        opened, self._handle = self._handle, None
        if opened is not None:
            self._source.close(opened)

    def read(self) -> Generator[Any, None, None]:
        try:
            self.open()
            while not self._is_closed and (items := self._source.take(self._handle)) is not None:
                yield from items
        finally:
            self.close()


class ItemStream(Iterator[Any]):
    """What a method yields, item by item; iterate it once, on one thread.

    It is asked for when it is entered or iterated. Leaving the block, the end of the loop (a `break` too) and `close`
    end the generator on the server: its `finally` blocks run. An error comes after all items that were made before it.

    Args:
        source: Where it comes from.
    """

    def __init__(self, source: StreamSource[Any]) -> None:
        self._state = _SyncStreamState(source)
        self._items = self._state.read()

    def __enter__(self) -> Self:
        self._state.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:  # noqa: PYI034 - a generator is much faster than our own `next`
        return self._items

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        """End the stream. May be called twice."""
        self._state.close()
