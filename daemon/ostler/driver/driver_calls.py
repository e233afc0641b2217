"""A driver and its calls without its state: its instance, budgets of methods, the error of a refusal."""

from __future__ import annotations

import asyncio
import math
from typing import NamedTuple

from ostler.aio import WorkerPool
from ostler.driver.contract import require_contract
from ostler.driver.driver import BUDGET_ATTRIBUTE, Driver, DriverOptions, DriverSpec
from ostler.driver.driver_executor import DriverLabel
from ostler.errors import DriverNotReady, DriverStuck, PluginError
from ostler.time_text import format_duration, format_moment
from ostler.types import DriverState


class StuckCall(NamedTuple):
    """The call for which a driver is stuck: its method, the wall time of its start, and what to do."""

    method: str
    since: float
    hint: str


def build_driver(spec: DriverSpec, label: str) -> Driver:
    """Return a new instance. On a thread of the driver; runs code of the plugin.

    Raises:
        PluginError: There is nothing to build it from.
        ContractError: The product of a factory does not fulfil its contract.
        Exception: Any exception of the plugin's code.
    """
    if spec.build is None and spec.cls is None:
        raise PluginError(f"{label} has neither a class nor a factory", driver=spec.name)
    driver = (spec.build or spec.cls)(spec.environment)  # type: ignore[misc]  # one of them is there, see above
    if type(driver) is not spec.cls:  # a factory's product: its class is only known now
        require_contract(type(driver), spec.contract, what=label)
    return driver


def method_budget(cls: type, options: DriverOptions, method: str) -> tuple[float, bool]:
    """Return the seconds that a method of a driver may take, and whether it usually takes long."""
    for kind in cls.__mro__:
        mark = getattr(vars(kind).get(method), BUDGET_ATTRIBUTE, None)
        if mark is not None:
            budget = getattr(options, mark[0]) if isinstance(mark[0], str) else mark[0]
            return (math.inf if budget is None else float(budget)), mark[1]
    return float(options.call_timeout), False


async def run_cleanup(driver: Driver, pool: WorkerPool, timeout: float) -> tuple[bool, BaseException | None]:
    """Run `cleanup` in a pool, which is closed; return whether it ended within `timeout` seconds, and its error."""
    try:
        work = asyncio.ensure_future(pool.run(driver.cleanup, label="cleanup"))
        done, _ = await asyncio.wait([work], timeout=timeout)
        if not done:
            work.cancel()
            return False, None
        return True, work.exception()
    finally:
        pool.close()


def not_ready_error(
    label: DriverLabel,
    method: str,
    state: DriverState,
    why: str,
    *,
    stuck: StuckCall,
    retry_in: float | None = None,
) -> DriverStuck | DriverNotReady:
    """Return the error of a call to a driver that is not ready.

    Args:
        label: The driver.
        method: The method that is called.
        state: Its state; stopped for one that is being stopped.
        why: The reason of that state, may be empty.
        stuck: The call for which it is stuck, if it is.
        retry_in: Seconds until it is initialised again, None when that is not planned.
    """
    facts = {"driver": label.driver, "topic": label.topic, "method": method, "state": str(state)}
    if state is DriverState.STUCK:
        return DriverStuck(
            f"{label} is stuck: {why}, since {format_moment(stuck.since)}",
            hint=stuck.hint,
            **{**facts, "method": stuck.method or method, "since": stuck.since},
        )
    if state is DriverState.STOPPED:
        return DriverNotReady(f"{label} has been stopped", **facts)
    what = "is still initialising" if state is DriverState.INITIALISING else "is not ready"
    after = f", next attempt in {format_duration(retry_in)}" if retry_in is not None else ""
    return DriverNotReady(f"{label} {what}{after}{f': {why}' if why else ''}", hint="see `ostler status`", **facts)
