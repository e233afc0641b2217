"""What `ostler console` asks of the daemon: the methods `console.…` on the topic `ostler`, if they are switched on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ostler.errors import Busy, NotFound, NotPermitted, check_length
from ostler.manager_types import ConsoleText
from ostler.messaging import Context, exposed
from ostler.redaction import redact
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, Peer

if TYPE_CHECKING:
    from ostler.messaging.observers.audit_log import AuditLog

_log = logging.getLogger(__name__)
_MAX_SESSIONS = 4
_MAX_ENTRY_LENGTH = 900
"""Characters of an input that one entry of the audit log has; a longer one has several."""
_AUDIT_TIMEOUT = 2.0
"""Seconds that an input waits for its entry in the audit log; after that the entry is in the daemon's log."""
_MAX_SOURCE_LENGTH = 64 * 1024
"""Characters of one input: the parser of a longer one would hold up the loop, and cannot be interrupted."""


class ConsoleControl:
    """Lets root and the daemon's own user run Python in the daemon. On the loop.

    Args:
        find_names: Returns what statements find by name.
        audit: The audit log.
    """

    rpc_version = "1.0"

    def __init__(self, find_names: Callable[[], dict[str, Any]], audit: AuditLog) -> None:
        self._find_names = find_names
        self._audit = audit
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
        await self._record_source(ctx.peer, source)
        async with aclosing(found.run(source)) as parts:
            async for text in parts:
                yield ConsoleText(text)
        yield ConsoleText(failed=found.has_failed)

    def _note(self, peer: Peer, what: str, text: str) -> None:
        self._record(peer, what, text)
        _log.warning("console of %s pid %d: %s", peer.name, peer.pid, what)

    def _record(self, peer: Peer, what: str, text: str) -> None:
        self._audit.record_action(f"{peer.name} pid {peer.pid}", CONTROL_TOPIC, f"console.{what}", text=text)

    async def _record_source(self, peer: Peer, source: str) -> None:
        """Have all of an input in the audit log before it runs: it may end the daemon, or keep it for ever."""
        text = redact(source)
        parts = [text[start : start + _MAX_ENTRY_LENGTH] for start in range(0, len(text), _MAX_ENTRY_LENGTH)]
        for number, part in enumerate(parts, 1):
            self._record(peer, "line", part if len(parts) == 1 else f"({number} of {len(parts)}) {part}")
        try:
            async with asyncio.timeout(_AUDIT_TIMEOUT):
                await self._audit.flush()
        except TimeoutError:
            _log.warning("the audit log cannot be written now; a console input runs that may be in this log only")


def _check_peer(ctx: Context) -> None:
    """Refuse everybody but root and the daemon's own user, and what came another way than by the unix socket."""
    peer = ctx.peer
    is_direct = peer is not LOCAL_PEER and not (peer.key or peer.principal or peer.via)
    if not is_direct or peer.uid not in (0, os.geteuid()):
        raise NotPermitted(
            f"the console is for root and the daemon's user on the daemon's unix socket, not for {peer.name}",
            hint="run `ostler console` on this host, as root or as the daemon's user",
        )
