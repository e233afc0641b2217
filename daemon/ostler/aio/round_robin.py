"""Shares the loop's time: deficit round robin by account, then by flow.

A *flow* is a source of work that its other side controls: a connection from which more has come than
could be handled at once, a generator that makes items. An *account* is who is charged for it: a user, a key. However
much work flows have, the loop gets back to its timers, signals and descriptors after `TURN_TIME` seconds.

The scheme is that of Shreedhar and Varghese (1996), with measured seconds instead of bytes: what a piece of work costs
is known only after it, so that an account may go into debt, and waits until its share has paid for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Protocol

TURN_TIME = 0.002
"""Seconds of work in one turn of the loop."""
SLICE_TIME = 0.0005
"""Seconds for which one flow works at once, and the share of an account in each round."""
_SAME_TURN_GAP = 20e-6
"""Two flows that begin work within so many seconds of each other are taken to be in the same turn of the loop."""
_MAX_DEBT = 1.0
"""Seconds; what a single piece of work costs above that is not remembered."""

HIGH_RANK, NORMAL_RANK = 0, 1
"""Ranks: all of `HIGH_RANK` is served before any of `NORMAL_RANK`."""

_log = logging.getLogger(__name__)


class Flow(Protocol):
    """Something that needs a share of the loop's time. On the loop's thread only."""

    account: Hashable
    """Who is charged."""
    rank: int
    """`HIGH_RANK` or `NORMAL_RANK`."""

    def run(self, until: float) -> bool:
        """Work until this moment of `time.monotonic`, or a little longer; return whether there is more to do."""
        ...


class _Account:
    """The flows of one account that wait, and how many seconds it may use before the others' turn."""

    __slots__ = ("deficit", "flows")

    def __init__(self) -> None:
        self.deficit = 0.0
        self.flows: deque[Flow] = deque()


class DeficitRoundRobin:
    """Has flows work in turns. On the loop's thread only.

    A flow that has something to do calls `run_or_queue`. When nobody waits it works at once, which costs two looks at
    the clock; what is left after its slice, and everything else meanwhile, waits for its turn.

    Args:
        monotonic: Returns the time in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = monotonic) -> None:
        self._monotonic = monotonic
        self.turn_count = 0
        """How many turns of the loop were used up."""
        self._loop = asyncio.get_running_loop()
        self._accounts_by_rank: tuple[dict[Hashable, _Account], ...] = ({}, {})
        self._waiting: set[Flow] = set()
        self._spent_by_rank = [0.0, 0.0]
        self._last_ended = 0.0
        self._extra_charge = 0.0
        self._is_scheduled = False
        # A flow's work does not belong to the request during which it was queued.
        self._context = contextvars.copy_context()

    def __len__(self) -> int:
        return len(self._waiting)

    def run_or_queue(self, flow: Flow) -> bool:
        """Have a flow work now, or when it is its turn; return whether it waits for that."""
        monotonic = self._monotonic
        began = monotonic()
        if not self.can_run(flow, began):
            return True
        more = self._run(flow, began + SLICE_TIME)
        ended = monotonic()
        if more:
            self._add_to_account(flow)
        self.charge_run(flow, began, ended)
        return more

    def can_run(self, flow: Flow, now: float) -> bool:
        """Return whether it is a flow's turn; if not, it is queued for one.

        For what has to work elsewhere than in `Flow.run`, such as a step of a task. It is told to `worked`.

        Args:
            flow: Who wants to work.
            now: The time.
        """
        if flow in self._waiting:
            return False
        rank = flow.rank
        if now - self._last_ended > _SAME_TURN_GAP:
            self._spent_by_rank[HIGH_RANK] = self._spent_by_rank[NORMAL_RANK] = 0.0
        if (
            self._accounts_by_rank[rank]
            or self._spent_by_rank[rank] > TURN_TIME
            or (rank and self._accounts_by_rank[HIGH_RANK])
        ):
            self._add_to_account(flow)
            return False
        return True

    def charge_run(self, flow: Flow, started_at: float, ended_at: float) -> None:
        """Charge a flow for work outside of a turn, from and until these moments."""
        self._last_ended = ended_at
        self._spent_by_rank[flow.rank] += ended_at - started_at
        account = self._accounts_by_rank[flow.rank].get(flow.account)
        if account is not None:
            account.deficit = max(account.deficit - (ended_at - started_at), -_MAX_DEBT)

    def enqueue(self, flow: Flow) -> None:
        """Have a flow work when it is its turn, and not before."""
        if flow not in self._waiting:
            self._add_to_account(flow)

    def charge_current(self, seconds: float) -> None:
        """Charge the flow that works now for what it has others do after it, such as a task that it wakes."""
        self._extra_charge += seconds

    def remove(self, flow: Flow) -> None:
        """Forget a flow that has nothing to do any more."""
        if flow not in self._waiting:
            return
        self._waiting.discard(flow)
        accounts = self._accounts_by_rank[flow.rank]
        account = accounts.get(flow.account)
        if account is not None and flow in account.flows:
            account.flows.remove(flow)
            if not account.flows:
                del accounts[flow.account]

    # ---------------------------------------------------------------- turns

    def _add_to_account(self, flow: Flow) -> None:
        self._waiting.add(flow)
        accounts = self._accounts_by_rank[flow.rank]
        account = accounts.get(flow.account)
        if account is None:
            account = accounts[flow.account] = _Account()
        account.flows.append(flow)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run_turn, context=self._context)

    def _run_turn(self) -> None:
        self.turn_count += 1
        until = self._monotonic() + TURN_TIME
        for accounts in self._accounts_by_rank:
            while accounts and self._monotonic() + self._extra_charge < until:
                self._serve(accounts)
        self._extra_charge = 0.0
        self._spent_by_rank[HIGH_RANK] = self._spent_by_rank[NORMAL_RANK] = 0.0
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            self._loop.call_soon(self._run_turn, context=self._context)

    def _serve(self, accounts: dict[Hashable, _Account]) -> None:
        """Have the account at the head use what it has, and put it behind the others."""
        key, account = next(iter(accounts.items()))
        if len(accounts) == 1:
            account.deficit = max(account.deficit, 0.0)  # no other account is waiting
        account.deficit = min(account.deficit + SLICE_TIME, SLICE_TIME)
        if account.deficit > 0.0:
            self._serve_flow(account)
        if accounts.get(key) is account:
            del accounts[key]
            if account.flows:
                accounts[key] = account

    def _serve_flow(self, account: _Account) -> None:
        flow = account.flows.popleft()
        self._waiting.discard(flow)
        began, before = self._monotonic(), self._extra_charge
        more = self._run(flow, began + account.deficit)
        used = self._monotonic() - began + self._extra_charge - before
        account.deficit = max(account.deficit - used, -_MAX_DEBT)
        if more and flow not in self._waiting:
            self._waiting.add(flow)
            account.flows.append(flow)

    def _run(self, flow: Flow, until: float) -> bool:
        try:
            return flow.run(until)
        except Exception:  # noqa: BLE001 - a bug in one flow must not stop the others
            _log.exception("%r failed", flow)
            return False
