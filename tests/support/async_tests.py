"""Runs `async def test_…`: each on one fresh event loop that is closed as `asyncio.run` closes it.

A test chooses its loop by a marker, perhaps for a whole file: `virtual_time(stall_timeout=…)` or `loop(factory=…)`;
without one it gets an ordinary loop. Fixtures stay sync; one that needs the loop of the test is a `loop_fixture`.

A test runs a loop by itself only where that is its subject: what comes after a loop has closed, how a loop ends or is
started, a coroutine that runs from a callback (`test_eager.py`), sync and async use beside each other; and the examples
of Hypothesis, which are functions.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from ostler.testing.virtual_time import VirtualTimeLoop


class _OnLoop:
    """The value of a loop fixture before there is a loop: what makes it, and with which other fixtures."""

    def __init__(self, make: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self.make = make
        self.arguments = arguments


class _Fixtures:
    """The loop fixtures of one test, each entered once, in the task of the test."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._entered: dict[_OnLoop, Any] = {}

    async def value(self, fixture: Any) -> Any:
        """Return what a fixture stands for; a loop fixture is entered, after those that it needs."""
        if not isinstance(fixture, _OnLoop):
            return fixture
        if fixture not in self._entered:
            arguments = await self.values(fixture.arguments)
            self._entered[fixture] = await self._stack.enter_async_context(fixture.make(**arguments))
        return self._entered[fixture]

    async def values(self, fixtures: dict[str, Any]) -> dict[str, Any]:
        return {name: await self.value(fixture) for name, fixture in fixtures.items()}


def loop_fixture(generator: Callable[..., AsyncIterator[Any]]) -> Any:
    """Make a fixture of an async generator: it is set up and torn down in the task of the test, around the test.

    It can use other fixtures, loop fixtures as well; sync fixtures and sync tests cannot use it.
    """
    make = asynccontextmanager(generator)

    def fixture(**arguments: Any) -> _OnLoop:
        return _OnLoop(make, arguments)

    fixture.__signature__ = inspect.signature(generator)  # type: ignore[attr-defined]  # what pytest asks for
    fixture.__name__, fixture.__doc__, fixture.__module__ = generator.__name__, generator.__doc__, generator.__module__
    return pytest.fixture(fixture)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers that choose a loop."""
    config.addinivalue_line("markers", "virtual_time(stall_timeout=0.5): run an async test on a loop in virtual time")
    config.addinivalue_line("markers", "loop(factory=…): run an async test on a loop that the factory makes")


def loop_factory_of(item: pytest.Item) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop of a test: None for an ordinary one. The marker that stands closest counts."""
    for marker in item.iter_markers():
        if marker.name == "virtual_time":
            return functools.partial(VirtualTimeLoop, **{"stall_timeout": 0.5, **marker.kwargs})
        if marker.name == "loop":
            return marker.kwargs["factory"]
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an async test to its end; others are left to pytest, and may not use loop fixtures."""
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        wrong = [name for name, value in arguments.items() if isinstance(value, _OnLoop)]
        if wrong:
            pytest.fail(f"{pyfuncitem.name} uses {', '.join(wrong)}, which needs a loop: make it `async def`")
        return None

    async def main() -> None:
        async with AsyncExitStack() as stack:
            test: Callable[..., Coroutine[Any, Any, None]] = pyfuncitem.obj
            await test(**await _Fixtures(stack).values(arguments))

    with asyncio.Runner(loop_factory=loop_factory_of(pyfuncitem)) as runner:
        runner.run(main())
    return True
