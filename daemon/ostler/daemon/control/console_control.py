"""What `ostler console` asks of the daemon: the methods `console.…` on the topic `ostler`, if they are switched on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from ostler.errors import Busy, NotFound, NotPermitted, check_length
from ostler.messaging import Context, exposed
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, Peer

_log = logging.getLogger(__name__)
_MAX_SESSIONS = 4
_MAX_SOURCE_LENGTH = 64 * 1024
"""Characters of one input: the parser of a longer one would hold up the loop, and cannot be interrupted."""


class ConsoleText(msgspec.Struct, frozen=True):
    """A part of what an input has printed; `failed` in the last part says whether it raised."""

    text: str = ""
    failed: bool = False


class ConsoleControl:
    """Lets root and the daemon's own user run Python in the daemon. On the loop.

    Args:
        find_names: Returns what statements find by name.
        record: Writes to the audit log: who, topic, method, the error's name (empty for none), text.
    """

    rpc_version = "1.0"

    def __init__(
        self, find_names: Callable[[], dict[str, Any]], record: Callable[[str, str, str, str, str], None]
    ) -> None:
        self._find_names = find_names
        self._record = record
        self._sessions: dict[str, tuple[Peer, Any]] = {}

    @exposed(role="admin", changes=False)
    async def attach(self, ctx: Context) -> AsyncIterator[str]:
        """Yield the id of a new session, which lasts for as long as this is read; then lines for people.

        Raises:
            NotPermitted: The caller is not root or the daemon's user on the daemon's own unix socket.
            Busy: There are as many sessions as there may be.
        """
        _check_peer(ctx)
        if len(self._sessions) >= _MAX_SESSIONS:
            raise Busy(f"there are {_MAX_SESSIONS} consoles, which is the limit", hint="close one", retry_after=60.0)
        from ostler.daemon.control.console_session import ConsoleSession  # only where a console is used

        number = os.urandom(8).hex()
        names = self._find_names()
        session = ConsoleSession(names)
        self._sessions[number] = (ctx.peer, session)
        self._note(ctx.peer, "start", f"session {number}")
        try:
            yield number
            yield ", ".join(sorted(names))
            await asyncio.Event().wait()
        finally:
            del self._sessions[number]
            session.close()
            self._note(ctx.peer, "end", f"session {number}")

    @exposed(role="admin", changes=False)
    async def run(self, ctx: Context, session: str, source: str) -> AsyncIterator[ConsoleText]:
        """Run Python statements on the loop, and yield what they print; closing this interrupts them.

        Args:
            ctx: The request.
            session: The id of a session of the same process.
            source: The statements; `await` is allowed outside of functions.

        Raises:
            NotPermitted: The caller is not root or the daemon's user on the daemon's own unix socket.
            NotFound: There is no such session of this process.
            InvalidInput: The statements are longer than 65536 characters.
        """
        _check_peer(ctx)
        check_length("the input", source, _MAX_SOURCE_LENGTH)
        peer, found = self._sessions.get(session, (None, None))
        if found is None or peer != ctx.peer:
            raise NotFound("this process has no console with that id", hint="run `ostler console`")
        self._note(ctx.peer, "line", source)  # before it runs: it may end the daemon
        async with aclosing(found.run(source)) as parts:
            async for text in parts:
                yield ConsoleText(text)
        yield ConsoleText(failed=found.has_failed)

    def _note(self, peer: Peer, what: str, text: str) -> None:
        who = f"{peer.name} pid {peer.pid}"
        self._record(who, CONTROL_TOPIC, f"console.{what}", "", text)
        if what != "line":
            _log.warning("console of %s: %s", who, what)


def _check_peer(ctx: Context) -> None:
    """Refuse everybody but root and the daemon's own user, and what came another way than by the unix socket."""
    peer = ctx.peer
    is_direct = peer is not LOCAL_PEER and not (peer.key or peer.principal or peer.via)
    if not is_direct or peer.uid not in (0, os.geteuid()):
        raise NotPermitted(
            f"the console is for root and the daemon's user on the daemon's unix socket, not for {peer.name}",
            hint="run `ostler console` on this host, as root or as the daemon's user",
        )
