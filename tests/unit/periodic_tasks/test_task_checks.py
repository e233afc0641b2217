"""What keeps periodic tasks from running is found on the class, without an object of it."""

from types import SimpleNamespace

import pytest

from ostler.periodic_tasks import periodic
from ostler.periodic_tasks.task_checks import periodic_faults


def faults(method, **options):
    return list(periodic_faults("lamp", type("Lamp", (), {"task": method}), SimpleNamespace(**options)))


def test_a_task_that_can_run_has_no_fault() -> None:
    assert faults(periodic(spacing="poll", enabled="on", cron="")(lambda self, ctx: None), poll=5, on=True) == []
    assert faults(staticmethod(periodic(spacing=5, name="still")(lambda ctx: None))) == []


def test_a_periodic_static_method_is_found() -> None:
    (fault,) = faults(staticmethod(periodic(spacing=5, name="still")(lambda: None)))
    assert fault == "the periodic task still of lamp cannot run: it must take one argument, `ctx: Context`"


@pytest.mark.parametrize(
    ("task", "what"),
    [
        (periodic(spacing="poll", name="t")(lambda self, ctx: None), "which the service does not have"),
        (periodic(spacing=0, name="t")(lambda self, ctx: None), "must be a number of seconds above 0"),
        (periodic(cron="every day", name="t")(lambda self, ctx: None), "its cron expression 'every day' is not valid"),
        (periodic(cron="0 0 31 2 *", name="t")(lambda self, ctx: None), "its cron expression"),
        (periodic(spacing=5, name="t")(lambda self: None), "it must take one argument, `ctx: Context`"),
        (periodic(spacing=5, name="t")(lambda self, ctx, more: None), "it must take one argument, `ctx: Context`"),
        (
            periodic(spacing=5, name="t")(lambda self, ctx: (yield)),
            "it is a generator, its items would never be consumed",
        ),
    ],
)
def test_a_task_that_can_never_run_is_named(task, what) -> None:
    (fault,) = faults(task)
    assert fault.startswith("the periodic task t of lamp cannot run: ")
    assert what in fault
