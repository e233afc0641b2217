from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from ostler_volume import loop_device

# private: _prepare: of the scenario in this directory, which otherwise runs as a process

PROGRAM = Path(__file__).with_name("crash_scenario.py")


@pytest.fixture(scope="module")
def scenario():
    spec = importlib.util.spec_from_file_location("crash_scenario", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def template(scenario, tmp_path_factory):
    root = tmp_path_factory.mktemp("template")
    scenario._prepare(root)
    return root


class Crash(BaseException):
    """The process dies here, as far as the code under test can see."""


def die(name):
    raise Crash(name)


@pytest.mark.failure_mode("State", "a crash at any step of an operation")
@pytest.mark.parametrize(
    "operation",
    ["create", "create from image", "clone", "from snapshot", "extend", "delete", "create snapshot", "delete snapshot"],
)
def test_a_crash_at_any_step_of_an_operation_ends_in_a_correct_state(scenario, template, tmp_path, operation):
    for number in range(1, 100):
        root = scenario.copy_of(template, tmp_path / "root")
        steps = scenario.Steps(number, die)
        house = scenario.CrashSubject(root, steps)
        steps.on = True
        try:
            scenario.OPERATIONS[operation](house)
            finished = True
        except Crash:
            finished = False
        steps.on = False
        house.close()
        scenario.recover(root, operation, finished)
        if finished:
            assert number > 4  # there are two commits at least
            return
    pytest.fail("the operation has no end")


def run_until_crash(scenario, root, operation, number, *, is_resumed, is_reconciled):
    """Start, and run an operation; die at the step of a number. Return whether it has ended."""
    steps = scenario.Steps(number, die)
    house = scenario.CrashSubject(root, steps, is_reconciled=is_reconciled)
    steps.on = True
    try:
        house.run_as_operation(operation, is_resumed=is_resumed)
    except Crash:
        return False
    finally:
        steps.on = False
        house.close()
    return True


@pytest.mark.failure_mode("State", "a crash at any step of an operation")
@pytest.mark.parametrize("is_reconciled", [True, False], ids=["reconciled", "not reconciled"])
@pytest.mark.parametrize(
    "operation",
    ["create", "create from image", "clone", "from snapshot", "extend", "delete", "create snapshot", "delete snapshot"],
)
def test_an_operation_that_crashed_twice_is_resumed_to_its_end(scenario, template, tmp_path, operation, is_reconciled):
    for number in range(1, 100):
        root = scenario.copy_of(template, tmp_path / "root")
        done = run_until_crash(scenario, root, operation, number, is_resumed=False, is_reconciled=True)
        for _ in range(0 if done else 2):
            run_until_crash(scenario, root, operation, number, is_resumed=True, is_reconciled=is_reconciled)
        assert run_until_crash(scenario, root, operation, 0, is_resumed=True, is_reconciled=is_reconciled)
        scenario.recover(root, operation, finished=True)
        if done:
            assert number > 4  # there are two commits at least
            return
    pytest.fail("the operation has no end")


@pytest.mark.failure_mode("State", "a crash at any step of an operation")
def test_a_killed_process_leaves_a_correct_state_at_each_step(tmp_path):
    done = subprocess.run([sys.executable, PROGRAM, tmp_path], capture_output=True, text=True, timeout=55, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 60
    assert any(line.startswith("after a commit, attach") for line in lines) or loop_device.unusable_reason()
