"""Runs the first step of a coroutine at once, without a task; most methods on the loop have ended by then.

A task costs an allocation and one more turn of the loop for each call. So the first step runs in the callback that
decoded the request; only a coroutine that then waits for something gets a task, which takes over where it stands. Code
that asks for the current task in that first step (`asyncio.timeout` and `ServiceTasks` do) is given a stand-in, which
becomes that task.

What follows is work for the same caller as what was before: a task of a caller who is not served before others goes on
when it is the turn of that caller, however many of its requests wake up at once.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Hashable
from time import monotonic
from typing import Any, Protocol

import msgspec

from ostler import fork
from ostler.aio.round_robin import NORMAL_RANK, DeficitRoundRobin

_STEP_TIME = 0.0002
"""Seconds that a step of a task is taken to cost until it has been measured."""

WorkDoneCallback = Callable[[Any, "BaseException | None"], None]


class WorkOwner(Protocol):
    """Whose work it is."""

    @property
    def account(self) -> Hashable:
        """Who is charged for it."""
        ...

    @property
    def takes_turns(self) -> bool:
        """Whether what follows the first step waits for the turn of its account."""
        ...

    def enter_context(self) -> None:
        """Set the context variables of the work, which are its own from then on."""
        ...

    def task_name(self) -> str:
        """Return the name of the task, if there will be one."""
        ...

    def on_work_done(self, result: Any, error: BaseException | None) -> None:
        """Record that the work has ended, whatever it raised."""
        ...


def start_eagerly(
    work: Coroutine[Any, Any, Any],
    loop: asyncio.AbstractEventLoop,
    owner: WorkOwner,
    turns: DeficitRoundRobin | None = None,
) -> asyncio.Task[Any] | None:
    """Run the first step; return the task that runs the rest, None when there is none.

    Args:
        work: A coroutine that has not begun.
        loop: The running loop.
        owner: Told when the work has ended: before the return when the first step was all.
        turns: Who says when the task may go on; None for at once.
    """
    context = contextvars.copy_context()
    stand_in = _TaskProxy(loop)
    try:
        _enter_task(loop, stand_in)  # type: ignore[arg-type]  # it acts as the task that it becomes
    except RuntimeError:  # somebody's task runs already, and asks us
        context.run(owner.enter_context)
        return _run_remainder(work, None, loop, context, owner, turns)
    result, fault = None, None
    try:
        waits_for = context.run(_first_step, work, owner.enter_context)
    except StopIteration as end:
        result = end.value
    except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not stop the loop
        fault = error
    else:
        if fork.in_child:
            fork.exit_child(_no_loop())
        _leave_task(loop, stand_in)  # type: ignore[arg-type]  # as above
        task = _run_remainder(work, _Suspended(waits_for), loop, context, owner, turns)
        stand_in.attach_task(task)
        return task
    if fork.in_child:
        fork.exit_child(fault)
    _leave_task(loop, stand_in)  # type: ignore[arg-type]  # as above
    owner.on_work_done(result, fault)
    return None


def _first_step(work: Coroutine[Any, Any, Any], enter: Callable[[], object]) -> Any:
    enter()
    return work.send(None)


def _no_loop() -> RuntimeError:
    return RuntimeError("a forked process must not await on the daemon's event loop; run an event loop of its own")


class _Suspended(msgspec.Struct, frozen=True):
    future: Any


def _run_remainder(
    work: Coroutine[Any, Any, Any],
    waiting: _Suspended | None,
    loop: asyncio.AbstractEventLoop,
    context: contextvars.Context,
    owner: WorkOwner,
    turns: DeficitRoundRobin | None,
) -> asyncio.Task[Any]:
    if turns is None or not owner.takes_turns:
        rest = _Remainder(work, waiting, owner.on_work_done)
    else:
        rest = _ScheduledRemainder(work, waiting, owner, turns)
    return _LateCancelTask(rest, loop=loop, name=owner.task_name(), context=context)


class _LateCancelTask(asyncio.Task[Any]):
    """A task whose cancellation waits for its first step: before that it is not yet where the work stands."""

    def cancel(self, msg: Any | None = None) -> bool:
        rest = self.get_coro()
        if isinstance(rest, _Remainder) and not rest.is_started:
            self.get_loop().call_soon(self.cancel, msg)
            return True
        return super().cancel(msg)


class _Remainder(Coroutine[Any, Any, Any]):
    """The rest of a coroutine, from where its first step left it; nothing that it raises reaches the loop."""

    def __init__(self, work: Coroutine[Any, Any, Any], waiting: _Suspended | None, ended: WorkDoneCallback) -> None:
        self._work = work
        self._suspended = waiting
        self._on_done = ended
        self.is_started = False
        # What shows a task (its repr, a dump of the stacks) looks for these.
        self.__qualname__ = getattr(work, "__qualname__", type(work).__name__)

    @property
    def cr_frame(self) -> Any:
        return getattr(self._work, "cr_frame", None)

    @property
    def cr_code(self) -> Any:
        return getattr(self._work, "cr_code", None)

    @property
    def cr_await(self) -> Any:
        return getattr(self._work, "cr_await", None)

    @property
    def cr_running(self) -> bool:
        return bool(getattr(self._work, "cr_running", False))

    def send(self, value: Any) -> Any:
        self.is_started = True
        if self._suspended is not None:
            future, self._suspended = self._suspended.future, None
            return future
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        self.is_started = True
        return self._step(self._work.throw, *error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        raise NotImplementedError

    def _step(self, step: Callable[..., Any], *values: Any) -> Any:
        try:
            waits_for = step(*values)
        except StopIteration as end:
            fork.exit_if_child()
            self._on_done(end.value, None)
        except BaseException as error:  # noqa: BLE001 - SystemExit of a plugin must not stop the loop
            fork.exit_if_child(error)
            self._on_done(None, error)
        else:
            if fork.in_child:
                fork.exit_child(_no_loop())
            return waits_for
        raise StopIteration


class _ScheduledRemainder(_Remainder):
    """The rest of a coroutine that works when it is the turn of its account: a `Flow` of steps."""

    rank = NORMAL_RANK

    def __init__(
        self, work: Coroutine[Any, Any, Any], waiting: _Suspended | None, owner: WorkOwner, turns: DeficitRoundRobin
    ) -> None:
        super().__init__(work, waiting, owner.on_work_done)
        self.account = owner.account
        self._turns = turns
        self._turn: asyncio.Future[None] | None = None

    def send(self, value: Any) -> Any:
        if self._suspended is not None:
            return super().send(value)
        began = monotonic()
        if self._turn is not None:
            self._turn = None
        elif not self._turns.can_run(self, began):
            self.is_started = True
            self._turn = asyncio.get_running_loop().create_future()
            return next(self._turn.__await__())
        try:
            return super().send(value)
        finally:
            self._turns.charge_run(self, began, monotonic())

    def throw(self, *error: Any) -> Any:
        self._turn = None
        self._turns.remove(self)
        return super().throw(*error)

    def run(self, _until: float) -> bool:
        """Let the task go on; see `Flow`."""
        if self._turn is not None and not self._turn.done():
            self._turns.charge_current(_STEP_TIME)
            self._turn.set_result(None)
        return False


class _TaskProxy:
    """What the current task is during the first step; afterwards it hands everything to the task."""

    __slots__ = ("__weakref__", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[Any] | None = None

    # A task may have asked who it is in its first step, and compare that with what it is told later.
    def __eq__(self, other: object) -> bool:
        return other is self or (self._task is not None and other is self._task)

    def __hash__(self) -> int:
        return id(self)

    def attach_task(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    def cancel(self, msg: Any | None = None) -> bool:
        if self._task is not None:
            return self._task.cancel(msg)
        self._loop.call_soon(self._cancel_later, msg)
        return True

    def _cancel_later(self, msg: Any | None) -> None:
        if self._task is not None:
            self._task.cancel(msg)

    def cancelling(self) -> int:
        return self._task.cancelling() if self._task is not None else 0

    def uncancel(self) -> int:
        return self._task.uncancel() if self._task is not None else 0

    def done(self) -> bool:
        return self._task is not None and self._task.done()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def get_name(self) -> str:
        return self._task.get_name() if self._task is not None else "starting"

    def __getattr__(self, name: str) -> Any:
        if self._task is None:
            raise AttributeError(f"a task that has just started has no {name!r} yet")
        return getattr(self._task, name)
