"""What callers ask of operations: the methods `operation.…` on the topic `ostler`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from ostler.bounds import NAME_LIMIT
from ostler.errors import NotPermitted, check_length
from ostler.messaging import Context, exposed
from ostler.types import ROLE_ORDER, OperationState, OperationStatus, Role

if TYPE_CHECKING:
    from ostler.messaging.rpc.topic_registry import TopicRegistry
    from ostler.operations.operations import Operations
    from ostler.store import OperationRecord


class OperationControl:
    """Lists, shows, watches, cancels, retries and prunes operations. On the loop.

    Everybody with a role sees which operations there are. Arguments and results are shown to who submitted the
    operation, and to whoever has the role that its method requires.

    Another daemon may ask for any of its own callers, who have there the role that the method asked of here requires:
    `show` viewer, `inspect` operator. So a request that is passed on counts as one of that role, and no higher.

    Args:
        operations: The operations.
        registry: Knows the roles of methods.
    """

    rpc_version = "1.0"

    def __init__(self, operations: Operations, registry: TopicRegistry) -> None:
        self._operations = operations
        self._registry = registry

    @exposed(role="viewer", changes=False)
    async def list(
        self,
        ctx: Context,
        topic: str = "",
        states: list[OperationState] | None = None,
        mine: bool = False,
        limit: int = 100,
    ) -> list[OperationStatus]:
        """Return the newest operations that fit, oldest first; without arguments and results.

        Args:
            ctx: The request.
            topic: Only those of this service.
            states: Only those in one of these states.
            mine: Only those that the caller submitted.
            limit: The most operations; 10,000 at most.
        """
        check_length("`topic`", topic, NAME_LIMIT)
        return await self._operations.views.select(
            topic=topic, states=states or (), account=str(ctx.peer.account) if mine else "", limit=limit
        )

    @exposed(role="viewer", changes=False)
    async def find(self, ctx: Context, beginning: str) -> str:
        """Return the id of the operation whose id begins so, for commands: programs use whole ids.

        Args:
            ctx: The request.
            beginning: The id, or the beginning of it.

        Raises:
            NotFound: There is none.
            Conflict: There are several.
        """
        check_length("`beginning`", beginning, NAME_LIMIT)
        return await self._operations.views.find_id(beginning)

    @exposed(role="viewer", changes=False)
    async def show(self, ctx: Context, operation: str) -> OperationStatus:
        """Return one operation.

        Args:
            ctx: The request.
            operation: Its id.
        """
        check_length("`operation`", operation, NAME_LIMIT)
        return await self._operations.views.status(operation, show_values=lambda record: self._may_see(ctx, record))

    @exposed(role="operator", changes=False)
    async def inspect(self, ctx: Context, operation: str) -> OperationStatus:
        """Return one operation with its arguments and its result, for a caller on another host too.

        Args:
            ctx: The request.
            operation: Its id.
        """
        check_length("`operation`", operation, NAME_LIMIT)
        return await self._operations.views.status(
            operation, show_values=lambda record: self._may_see(ctx, record, Role.OPERATOR)
        )

    @exposed(role="viewer", changes=False)
    async def watch(self, ctx: Context, operation: str) -> AsyncIterator[OperationStatus]:
        """Yield an operation: now, and after each change, until it has ended.

        Args:
            ctx: The request.
            operation: Its id.
        """
        check_length("`operation`", operation, NAME_LIMIT)
        changes = self._operations.views.watch(operation, show_values=lambda record: self._may_see(ctx, record))
        async with aclosing(changes) as statuses:
            async for status in statuses:
                yield status

    @exposed(role="operator")
    async def cancel(self, ctx: Context, operation: str) -> OperationStatus:
        """Cancel an operation: one that waits ends at once, one that runs is asked to stop.

        Args:
            ctx: The request.
            operation: Its id.

        Raises:
            NotFound: There is none.
            Conflict: It has ended.
            NotPermitted: The caller lacks the role that its method requires.
        """
        record = await self._permitted(ctx, operation)
        await self._operations.cancel(record.id, ctx.peer.name)
        return await self.show(ctx, record.id)

    @exposed(role="operator")
    async def retry(self, ctx: Context, operation: str) -> OperationStatus:
        """Queue an operation again that has failed or was cancelled; its recorded steps are not repeated.

        Args:
            ctx: The request.
            operation: Its id.

        Raises:
            NotFound: There is none.
            Conflict: It has not failed.
            NotPermitted: The caller lacks the role that its method requires.
        """
        record = await self._permitted(ctx, operation)
        await self._operations.retry(record.id, ctx.peer.name)
        return await self.show(ctx, record.id)

    @exposed(role="admin")
    async def prune(self, ctx: Context, keep: int | None = None, age: float | None = None) -> int:
        """Remove ended operations; return how many. Operations that have not ended are never removed.

        Without arguments, those above the limits of the section `[operations]`.

        Args:
            ctx: The request.
            keep: How many of the newest ended ones are kept.
            age: Only those that ended more than so many seconds ago.
        """
        if keep is None and age is None:
            return await self._operations.retention.trim()
        return await self._operations.retention.prune(keep or 0, age or 0.0)

    async def _permitted(self, ctx: Context, operation: str) -> OperationRecord:
        """Return an operation that the caller may cancel and retry."""
        check_length("`operation`", operation, NAME_LIMIT)
        record = await self._operations.views.find(operation)
        needs = self._required_rank(record)
        if _rank(ctx, Role.OPERATOR) < needs:
            raise NotPermitted(
                f"operation {record.id} ({record.topic}.{record.method}) needs another role, {ctx.peer.name} has "
                f"{ctx.role}",
                hint="an administrator grants roles in [access]", has=str(ctx.role),
            )  # fmt: skip
        return record

    def _may_see(self, ctx: Context, record: OperationRecord, role: Role = Role.VIEWER) -> bool:
        is_own = not ctx.peer.key and str(ctx.peer.account) == record.account
        return is_own or _rank(ctx, role) >= self._required_rank(record)

    def _required_rank(self, record: OperationRecord) -> int:
        """Return the rank of the role that the method requires; of one that does not exist now, the highest."""
        method = self._registry.find_method(record.topic, record.method)
        return ROLE_ORDER[Role.ADMIN] if method is None else method.role_rank


def _rank(ctx: Context, role: Role) -> int:
    """Return the rank of a caller; of one on another host no more than what was asked of it there."""
    rank = ROLE_ORDER[ctx.role]
    return min(rank, ROLE_ORDER[role]) if ctx.peer.key else rank
