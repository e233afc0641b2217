import asyncio
import logging
import threading

import pytest

from ostler.aio import WorkerPool
from ostler.log.defects import UnexpectedErrors
from ostler.service.hook_calls import HookFailed, call_hook

_log = logging.getLogger("ostler.test")


def run(hook, *args, timeout=5.0):
    pool = WorkerPool("lamp", 1)

    async def main():
        return await call_hook(
            "lamp",
            "init_host",
            hook,
            *args,
            pool=pool,
            timeout=timeout,
            defects=UnexpectedErrors(logging.getLogger("ostler.test")),
        )

    try:
        return asyncio.run(main())
    finally:
        pool.close()


def test_a_def_hook_runs_in_the_pool_and_an_async_one_on_the_loop() -> None:
    async def on_loop() -> str:
        return threading.current_thread().name

    assert run(lambda: threading.current_thread().name) == "lamp-1"
    assert run(on_loop) == "MainThread"


def test_an_error_names_service_and_hook_and_chains_its_cause() -> None:
    def hook(_name: str) -> None:
        raise OSError("no such disk")

    with pytest.raises(HookFailed, match="init_host of service lamp failed: OSError: no such disk") as caught:
        run(hook, "x")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.failure_mode("Life", "a manager that raises `SystemExit` or `KeyboardInterrupt`")
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("coroutine", [False, True])
def test_a_hook_that_raises_system_exit_or_keyboard_interrupt(kind: type[BaseException], coroutine: bool) -> None:
    def in_pool() -> None:
        raise kind("bye")

    async def on_loop() -> None:
        raise kind("bye")

    with pytest.raises(HookFailed, match=f"{kind.__name__} was raised: bye"):
        run(on_loop if coroutine else in_pool)


def test_a_hook_that_does_not_come_back_is_named_and_left_behind() -> None:
    gate = threading.Event()
    try:
        with pytest.raises(HookFailed, match=r"init_host of service lamp did not return within 50ms"):
            run(gate.wait, timeout=0.05)
    finally:
        gate.set()
