import asyncio

import pytest

from ostler.service.hook_calls import problem_lines

pytestmark = pytest.mark.virtual_time(stall_timeout=0.15)


def test_lines_are_bounded_and_can_be_sent():
    lines = problem_lines([f"lamp {number} is dark \udcf6" for number in range(50)])
    assert len(lines) == 21
    assert lines[-1] == "... (30 more)"
    "".join(lines).encode()
    assert len(problem_lines(("x" * 8_000_000,))[0]) < 3000
    assert problem_lines(None) == []


def test_what_is_no_list_is_refused():
    with pytest.raises(TypeError, match="17 is not a list"):
        problem_lines(17)


async def test_problems_of_a_managers_own_objects_are_told_until_they_are_gone(bench, manager):
    class Honest(manager):
        found = ("2 lamps are dark",)

        def problems(self):
            if isinstance(self.found, Exception):
                raise self.found
            return self.found

    async with bench('[services.lamp]\nmanager = "odd"\n', odd=Honest) as b:
        await b.runtime.start()
        await asyncio.sleep(30)
        assert b.runtime.problems() == ["service lamp: 2 lamps are dark"]
        assert b.state() == "up"
        b.service().manager.found = OSError("no idea")
        await asyncio.sleep(30)
        assert b.state() == "degraded"
        assert "problems of service lamp failed: OSError: no idea" in b.why()
        b.service().manager.found = ()
        await asyncio.sleep(30)
        assert b.runtime.problems() == []
        assert b.state() == "up"
