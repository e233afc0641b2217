from __future__ import annotations

import pytest

from ostler.cli import invocation, kit
from ostler.cli.operation_output import format_progress
from ostler.errors import DaemonNotRunning
from ostler.types import OperationState, OperationStatus


def status(state=OperationState.RUNNING, **fields):
    return OperationStatus(id="abc", topic="lamp", host="here", method="paint", state=state, **fields)


class FakeOperation:
    """An operation that reports some statuses, and then has a result; `interrupted` is what Ctrl-C does."""

    id = "abc"

    def __init__(self, *, interrupted=False, cancel_error=None):
        self.interrupted, self.cancel_error, self.cancelled = interrupted, cancel_error, 0

    def watch(self, timeout=None):
        yield status(done=1, total=2)
        if self.interrupted:
            raise KeyboardInterrupt
        yield status(OperationState.SUCCEEDED)

    def result(self, timeout=None):
        return "painted"

    def cancel(self):
        self.cancelled += 1
        if self.cancel_error:
            raise self.cancel_error


class FakeClient:
    def __init__(self, operation, **options):
        self.operation, self.options, self.submitted = operation, options, []

    def on(self, **options):
        return FakeClient(self.operation, **options)

    def submit(self, topic, method, /, **arguments):
        self.operation.submitted = (topic, method, arguments, self.options)
        return self.operation


def run(operation, **fields):
    with invocation.use_invocation(invocation.Invocation(**fields)):
        return kit.run_operation(FakeClient(operation), "lamp", "paint", "painting", lamp="a")


def test_an_operation_is_submitted_and_its_result_returned():
    operation = FakeOperation()
    assert run(operation) == "painted"
    assert operation.submitted == ("lamp", "paint", {"lamp": "a"}, {})
    assert operation.cancelled == 0


def test_the_timeout_of_the_command_line_limits_the_operation():
    operation = FakeOperation()
    run(operation, timeout=5.0)
    assert operation.submitted[3] == {"time_limit": 5.0}


def test_ctrl_c_cancels_the_operation():
    operation = FakeOperation(interrupted=True)
    with pytest.raises(KeyboardInterrupt):
        run(operation)
    assert operation.cancelled == 1


def test_a_cancellation_that_fails_is_reported(capsys):
    operation = FakeOperation(interrupted=True, cancel_error=DaemonNotRunning("no daemon is\x1b[2J running"))
    with pytest.raises(KeyboardInterrupt):
        run(operation)
    shown = capsys.readouterr().err
    assert "operation abc was not cancelled: no daemon is" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, ""),
        ({"done": 3}, "3"),
        ({"done": 3, "total": 8}, "3 of 8"),
        ({"done": 500, "total": 1000, "text": "copying"}, "50 %, copying"),
    ],
)
def test_progress_is_a_count_or_a_share(fields, text):
    assert format_progress(status(**fields)) == text
