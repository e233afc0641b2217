"""A plugin whose errors fail to describe themselves, and that does to the daemon's process what it should not."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator

from ostler import Context, Manager, OstlerError, exposed


class Asked(Exception):
    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"asked for {name}")


class Riddle(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=Riddle):
    def __repr__(self) -> str:
        raise KeyboardInterrupt

    __str__ = __repr__


class Bare(OstlerError):
    def __init__(self) -> None:
        pass


class Text(str):
    __slots__ = ()

    def __len__(self) -> int:
        raise SystemExit(7)

    __str__ = __format__ = encode = isascii = __len__  # type: ignore[assignment]


class Odd(OstlerError):
    def __init__(self) -> None:
        super().__init__(Text("odd"), of=Text("odd"))
        self.message = Text("odd")

    @property
    def hint(self) -> str:  # type: ignore[override]
        raise RuntimeError("no hint")

    @hint.setter
    def hint(self, _value: str) -> None:
        pass


KINDS: dict[str, type[BaseException]] = {kind.__qualname__.lower(): kind for kind in (Asked, Bare, Odd)} | {
    "nameless": Nameless
}


class HostileManager(Manager):
    @exposed(role="operator")
    def plain(self, ctx: Context, kind: str) -> None:
        raise KINDS[kind]

    @exposed(role="operator")
    async def loop(self, ctx: Context, kind: str) -> None:
        raise KINDS[kind]

    @exposed(role="operator")
    def items(self, ctx: Context, kind: str) -> Iterator[int]:
        yield 1
        raise KINDS[kind]

    @exposed(role="operator")
    async def loop_items(self, ctx: Context, kind: str) -> AsyncIterator[int]:
        yield 1
        raise KINDS[kind]

    @exposed(role="operator")
    def elsewhere(self, ctx: Context, kind: str) -> None:
        def fail() -> None:
            raise KINDS[kind]

        threading.Thread(target=fail).start()
        log = logging.getLogger("hostile")
        log.warning("made %s of %s", KINDS[kind](), kind, extra={"kind": KINDS[kind]()})
        log.warning(Text("of a text"))

    @exposed(role="operator")
    async def exit(self, ctx: Context) -> None:
        async def fail() -> None:
            raise SystemExit(3)

        def interrupt() -> None:
            raise KeyboardInterrupt

        self.task = asyncio.get_running_loop().create_task(fail())
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.sleep(0.05)

    @exposed(role="operator")
    async def cancel_all(self, ctx: Context) -> None:
        for task in asyncio.all_tasks():
            task.cancel()
