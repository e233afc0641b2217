"""`Lifespan`: what an ASGI application does before its first request and after its last one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from ostler import ServiceError
from ostler_http.asgi import ASGIApp, Message, Receive, Scope, Send

_END_TIMEOUT = 1.0


class Lifespan:
    """Tells an ASGI application of its start and stop, as its specification wants it. On the loop of the service.

    An application that has no use for that raises, and is left alone.

    Args:
        name: The application, for errors.
        app: The application.
    """

    def __init__(self, name: str, app: ASGIApp) -> None:
        self._name = name
        self._app = app
        self._state: dict[str, Any] = {}
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, with the state that the application has set at its start."""
        scope["state"] = dict(self._state)
        await self._app(scope, receive, send)

    async def start(self) -> None:
        """Tell the application that it starts, and wait until it is ready.

        Raises:
            ServiceError: It says that it cannot start.
        """
        self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            failure = await self._ask("lifespan.startup")
        except BaseException:  # it took too long
            self._task.cancel()
            raise
        if failure:
            raise ServiceError(f"{self._name} did not start: {failure}", hint="see what it has logged")

    async def stop(self, timeout: float) -> None:
        """Tell the application that it stops, and wait until it has.

        Args:
            timeout: Seconds to wait.

        Raises:
            ServiceError: It says that it failed.
            TimeoutError: It took too long.
        """
        task = self._task
        if task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                self._answer = asyncio.get_running_loop().create_future()
                failure = "" if task.done() else await self._ask("lifespan.shutdown")
        finally:
            task.cancel()
            await asyncio.wait([task], timeout=_END_TIMEOUT)
        if failure:
            raise ServiceError(f"{self._name} did not stop: {failure}", hint="see what it has logged")

    async def _ask(self, kind: str) -> str:
        self._events.put_nowait({"type": kind})
        return await self._answer

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            # To raise is the way of an application to say that it has no lifespan.
            with contextlib.suppress(Exception, SystemExit):
                await self._app(scope, self._events.get, self._send)
        finally:
            self._resolve("")

    async def _send(self, message: Message) -> None:
        kind = str(message["type"])
        if not kind.startswith("lifespan."):
            raise RuntimeError(f"{kind} was sent in the lifespan of an application")
        self._resolve(str(message.get("message") or "no reason given") if kind.endswith(".failed") else "")

    def _resolve(self, failure: str) -> None:
        if not self._answer.done():
            self._answer.set_result(failure)
