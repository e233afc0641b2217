"""A manager that lets callers in, as a plugin for HTTP does, on a loop of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from typing import Any

from ostler import Caller, Context, Json, Manager, exposed


class DoorManager(Manager):
    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, name="door", daemon=True).start()
        self.waits: list[Any] = []

    def cleanup_host(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def _caller(self, who: str) -> Caller:
        kind, _, name = who.partition(":")
        if kind == "cert":
            return self.gateway.caller_of_certificate(name)
        if kind == "uid":
            return self.gateway.caller_of_user(int(name), int(name), 1)
        return self.gateway.caller_of_token(name, origin="192.0.2.7")

    @exposed(role="viewer", changes=False, secret=["who"])
    def role(self, ctx: Context, who: str) -> str:
        """Return name and role of a caller."""
        caller = self._caller(who)
        return f"{caller.name} {caller.role}"

    @exposed(role="viewer", secret=["who"])
    def ask(self, ctx: Context, who: str, topic: str, method: str, arguments: dict[str, Json] | None = None) -> Json:
        """Call a method as somebody."""
        result: Json = self._run(self.gateway.client(self._caller(who)).call(topic, method, arguments))
        return result

    @exposed(role="viewer", secret=["who"])
    def begin_wait(self, ctx: Context, who: str) -> None:
        """Begin a request that lasts."""
        work = self.gateway.client(self._caller(who)).call("door", "sleep")
        # Not within this request, with which it would be cancelled.
        self.waits.append(contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, self.loop))

    @exposed(role="viewer", changes=False)
    def end_of_wait(self, ctx: Context) -> str:
        """Return what the request ended with."""
        error = self.waits.pop().exception(20)
        return f"{type(error).__name__}: {error}"

    @exposed(role="operator")
    async def sleep(self, ctx: Context) -> None:
        """Take long."""
        await asyncio.sleep(3600)

    @exposed(role="viewer", secret=["who"])
    async def first_item(
        self, ctx: Context, who: str, topic: str, method: str, arguments: dict[str, Json] | None = None
    ) -> Json:
        """Return the first item of a stream as somebody, or as this manager: `local`."""
        if who == "local":
            stream = self.client.astream(topic, method, **(arguments or {}))
            item: Json = await anext(stream)
            return item
        stream = self.gateway.client(self._caller(who)).stream(topic, method, arguments)
        found: Json = await anext(stream)
        return found
