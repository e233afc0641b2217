"""What those are told who wait for operations."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from ostler.messaging.wire.envelope import PROGRESS
from ostler.messaging.wire.request_context import Progress
from ostler.operations.operation_views import OperationViews
from ostler.types import OperationState


class Caller:
    """A request that waits for an operation."""

    def __init__(self, flags: int = PROGRESS) -> None:
        self.request = SimpleNamespace(flags=flags)
        self.reports: list[Progress] = []

    def send_progress(self, progress: Progress) -> None:
        self.reports.append(progress)


def operation(state: OperationState, done: float = 0) -> Any:
    return SimpleNamespace(
        id="id-1", state=state, why="", result=b"", error=b"", done=done, total=2 if done else 0, text=""
    )


class Records:
    """The table, with one operation that has ended."""

    def find(self, operation_id: str) -> Any:
        return operation(OperationState.SUCCEEDED, done=2)


class Store:
    """A store whose reads take a turn of the loop."""

    async def aread(self, function: Any, label: str = "") -> Any:
        await asyncio.sleep(0)
        return function()


def views_of(**attempts: Progress) -> OperationViews:
    running: Any = {key.replace("_", "-"): SimpleNamespace(progress=at) for key, at in attempts.items()}
    made: Any = OperationViews
    return made(Store(), Records(), running, lambda name, payload: None, lambda: None)


@pytest.mark.parametrize(
    ("progress", "flags", "reports"),
    [(Progress(1, 2, "x"), PROGRESS, [(1, 2, "x")]), (Progress(1, 2, "x"), 0, []), (Progress(0, 0, ""), PROGRESS, [])],
)
async def test_who_comes_late_is_told_how_far_it_is(progress, flags, reports) -> None:
    views, caller = views_of(id_1=progress), Caller(flags)
    waiting = asyncio.ensure_future(views.wait(caller, operation(OperationState.RUNNING)))
    await asyncio.sleep(0)
    views.answer("id-1", views_outcome())
    assert (await waiting).state is OperationState.SUCCEEDED
    assert caller.reports == reports


async def test_who_comes_after_the_end_is_told_how_far_it_came() -> None:
    caller = Caller()
    assert (await views_of().wait(caller, operation(OperationState.RUNNING))).state is OperationState.SUCCEEDED
    assert caller.reports == [(2, 2, "")]


def views_outcome() -> Any:
    return SimpleNamespace(state=OperationState.SUCCEEDED)
