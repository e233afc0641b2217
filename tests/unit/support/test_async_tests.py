"""The plugin that runs async tests, in a pytest of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parents[2]

TESTS = """
import asyncio, time
import pytest
from support.async_tests import loop_fixture

seen = []
loops = set()

@pytest.fixture
def plain():
    return "plain"

@loop_fixture
async def outer(plain):
    seen.append(f"outer of {plain}")
    yield asyncio.current_task()
    seen.append("outer closed")

@loop_fixture
async def inner(outer):
    seen.append("inner")
    yield outer
    seen.append("inner closed")

async def test_fixtures_are_entered_in_the_task_of_the_test(inner, outer, plain):
    assert inner is outer is asyncio.current_task()
    assert seen == ["outer of plain", "inner"]

async def test_they_were_closed_in_reverse():
    assert seen == ["outer of plain", "inner", "inner closed", "outer closed"]

@pytest.mark.virtual_time
async def test_virtual_time():
    began = time.monotonic()
    await asyncio.sleep(3600)
    assert time.monotonic() - began < 60

@pytest.mark.loop(factory=asyncio.SelectorEventLoop)
async def test_loop_of_a_factory():
    assert type(asyncio.get_running_loop()) is asyncio.SelectorEventLoop

async def test_leaves_a_task():
    async def left():
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")
    task = asyncio.ensure_future(left())
    await asyncio.sleep(0)
    loops.add(asyncio.get_running_loop())

def test_the_task_was_cancelled_and_the_loop_closed():
    assert seen[-1] == "cancelled"
    assert loops.pop().is_closed()

class TestInAClass:
    async def test_method(self, plain):
        assert asyncio.get_running_loop().is_running()

@pytest.mark.parametrize("n", [1, 2])
async def test_fails(n):
    assert n == 2

def test_sync_with_a_loop_fixture(outer): ...

@pytest.mark.timeout(0.5)
async def test_hangs():
    await asyncio.Event().wait()

async def test_after_one_that_hung():
    await asyncio.sleep(0)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("async")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_them.py").write_text(TESTS)
    options = ["-p", "support.async_tests", "-p", "no:cacheprovider", "-v", "--strict-markers", "-W", "error"]
    command = [sys.executable, "-m", "pytest", *options, f"--basetemp={folder}/tmp", "test_them.py"]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    ).stdout


def test_what_has_to_fail_fails_and_nothing_else(said: str) -> None:
    failed = set(re.findall(r"::(\S+) FAILED", said))
    assert failed == {"test_fails[1]", "test_sync_with_a_loop_fixture", "test_hangs"}, said
    assert "3 failed, 9 passed" in said


def test_a_failure_shows_the_assertion_and_a_timeout_says_so(said: str) -> None:
    assert "assert 1 == 2" in said
    assert "Timeout (>0.5s)" in said
    assert "uses outer, which needs a loop: make it `async def`" in said
