"""Checks a manager's periodic tasks without running or creating anything."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

from ostler.errors import ContractError
from ostler.periodic_tasks.decorator import periodic_settings
from ostler.periodic_tasks.task import PeriodicTask


def periodic_faults(service: str, manager: type, options: Any) -> Iterator[str]:
    """Yield the faults of the periodic tasks of a manager class, a sentence each.

    Checked are the options that tasks name, spacings, jitter, cron expressions, names, and whether a task can be called
    with its one argument.

    Args:
        service: The topic, for messages.
        manager: The class.
        options: The validated options of the service.
    """
    seen: set[str] = set()
    for attribute in sorted({name for each in manager.__mro__ for name in vars(each)}):
        mark = next(
            (found for each in manager.__mro__ if (found := periodic_settings(vars(each).get(attribute)))), None
        )
        if mark is None:
            continue
        if mark.name in seen:
            yield f"two periodic tasks of {service} have the name {mark.name}"
        seen.add(mark.name)
        method = getattr(manager, attribute)
        try:
            PeriodicTask(service, method, mark, options).check_window(time.time())
        except ContractError as error:
            yield error.message
        except (TypeError, ValueError, OverflowError) as error:  # an invalid cron expression, a spacing that is a list
            yield f"the periodic task {mark.name} of {service} cannot run: {error}"
        if wrong := signature_fault(inspect.getattr_static(manager, attribute), method):
            yield f"the periodic task {mark.name} of {service} cannot run: {wrong}"


def declared_names(manager: object) -> frozenset[str]:
    """Return the names of the tasks that a manager class declares with `@periodic`; none of what is no class."""
    marks = [periodic_settings(value) for each in getattr(manager, "__mro__", ()) for value in vars(each).values()]
    return frozenset(mark.name for mark in marks if mark is not None)


def signature_fault(static: object, method: Any, *, is_bound: bool = False) -> str:
    """Return why a method cannot be called with a context; empty when it can.

    Args:
        static: The method as it is found in the class, without being bound.
        method: The method.
        is_bound: Whether it is called as it is, not as a method of an instance.
    """
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return "it is a generator, its items would never be consumed"
    bound = is_bound or isinstance(static, staticmethod | classmethod)
    try:
        inspect.signature(method).bind(*([None] if bound else [None, None]))
    except TypeError:
        return "it must take one argument, `ctx: Context`"
    except ValueError:  # written in C, without a signature
        return ""
    return ""
