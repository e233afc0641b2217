"""Managers and a driver whose every step is looked at: what they log, keep secret, fail with and call."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from ostler import (
    Context,
    Driver,
    InvalidInput,
    Manager,
    NoCapacity,
    SecretText,
    current_trace,
    exposed,
)

_library = logging.getLogger("some.library")
_quiet = logging.getLogger("some.library.debug")


class Login(msgspec.Struct):
    user: str
    password: SecretText


class VaultDriver(Driver):
    """A driver that logs."""

    @abstractmethod
    def look(self, text: str) -> str:
        """Log, and say what is traced here."""


class LoggingDriver(VaultDriver):
    """The one there is."""

    def look(self, text: str) -> str:
        _library.warning("the driver looks at %s", text)
        return current_trace()


class VaultManager(Manager):
    """Takes secrets, and does all that would let them out."""

    driver_type = VaultDriver

    @exposed(role="operator")
    def put(self, ctx: Context, name: str, password: SecretText) -> str:
        """Log it and fail or not, as the name says; in a thread."""
        return _handle(self, name, password)

    @exposed(role="operator")
    async def put_async(self, ctx: Context, name: str, password: SecretText) -> str:
        """The same on the loop."""
        await asyncio.sleep(0)
        return _handle(self, name, password)

    @exposed(role="operator", secret=["key"])
    def put_key(self, ctx: Context, name: str, key: bytes) -> str:
        """The same, with bytes and by name."""
        return _handle(self, name, key.decode())

    @exposed(role="operator")
    def login(self, ctx: Context, name: str, login: Login) -> str:
        """The same, deep in a struct."""
        return _handle(self, name, login.password)

    @exposed(role="operator")
    def pass_on(self, ctx: Context, name: str, password: SecretText) -> str:
        """Hand it to another service, which does not know that it is a secret."""
        return str(self.client.call("echo", "say", text=password))

    @exposed(role="operator")
    def walk(self, ctx: Context) -> dict[str, str]:
        """Log from everywhere, and return what is traced there."""
        _library.warning("walk in a thread of the pool")
        found = {"thread": current_trace(), "driver": self.drivers["one"].look("walk")}
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(_library.warning, "walk in a thread of its own"))
        thread.start()
        thread.join()
        found["nested"] = self.client.call("echo", "where")
        self.client.cast("echo", "note", text="walk in what was cast")
        self.client.fanout("echo", "note", text="walk in what was fanned out")
        return found

    @exposed(role="operator")
    async def walk_async(self, ctx: Context) -> str:
        """The same on the loop, in a task that the method begins, and in a thread of asyncio's."""
        _library.warning("walk on the loop")
        await asyncio.create_task(_log_later())
        await asyncio.to_thread(_library.warning, "walk in a thread of asyncio's")
        found = await self.client.acall("echo", "where")
        return str(found)

    @exposed(role="operator")
    def items(self, ctx: Context, password: SecretText) -> Iterator[int]:
        """Yield, log at each step, and fail with the secret."""
        for number in range(3):
            _library.warning("item %d with %s", number, password)
            yield number
        raise RuntimeError(f"no more for {password}")

    @exposed(role="operator")
    async def items_async(self, ctx: Context, password: SecretText) -> AsyncIterator[int]:
        """The same on the loop."""
        for number in range(3):
            await asyncio.sleep(0)
            _library.warning("item %d with %s", number, password)
            yield number
        raise RuntimeError(f"no more for {password}")

    @exposed(role="operator")
    async def wait_with(self, ctx: Context, password: SecretText, seconds: float) -> None:
        """Take as long as is wanted, with a secret."""
        await asyncio.sleep(seconds)

    @exposed(role="viewer", changes=False)
    async def look(self, ctx: Context) -> str:
        """Change nothing."""
        return ctx.trace


async def _log_later() -> None:
    await asyncio.sleep(0)
    _library.warning("walk in a task")


def _handle(manager: Any, name: str, secret: str) -> str:
    _library.warning("storing %s for %s", secret, name)
    _quiet.debug("storing %r", {"deep": [secret]})
    manager.client.publish("stored", {"name": name})
    if name == "raise":
        raise RuntimeError(f"cannot keep {secret!r}")
    if name == "chain":
        try:
            raise ValueError(secret)
        except ValueError as error:
            raise KeyError(f"after {secret}") from error
    if name == "refuse":
        raise InvalidInput(f"{secret} is too short", hint=f"not {secret}", given={"password": [secret]})
    return "kept"


class AuditedEchoManager(Manager):
    """Is called by others."""

    @exposed(role="operator")
    def say(self, ctx: Context, text: str) -> str:
        """Log a text and return how long it is."""
        _library.warning("saying %s", text)
        return str(len(text))

    @exposed(role="operator")
    def note(self, ctx: Context, text: str) -> None:
        """Log a text."""
        _library.warning("%s", text)
        if text == "fail":
            raise NoCapacity("no room for notes")

    @exposed(role="operator")
    async def wait(self, ctx: Context, seconds: float) -> None:
        """Take as long as is wanted."""
        await asyncio.sleep(seconds)

    @exposed(role="operator")
    async def where(self, ctx: Context) -> str:
        """Return what is traced here."""
        _library.warning("walk in another service")
        return current_trace()
