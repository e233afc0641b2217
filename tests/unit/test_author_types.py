"""What authors of plugins are handed has types: `mypy --strict` on a plugin, with what it reveals."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = """\
from __future__ import annotations

from abc import abstractmethod

from ostler import (
    Context, Driver, DriverOptions, DriverOptionsT, Event, Field, Gap, Manager, ManagerOptions, Seconds, exposed,
    hookimpl, on_event, periodic, time_budget,
)


class LampDriver(Driver[DriverOptionsT]):
    @abstractmethod
    def switch(self, lamp: str, on: bool) -> int: ...


class GpioOptions(DriverOptions):
    chip: str = Field("chip0", help="The chip")


class GpioDriver(LampDriver[GpioOptions]):
    @time_budget(5)
    def switch(self, lamp: str, on: bool) -> int:
        reveal_type(self.options.chip)  # str
        reveal_type(self.options.call_timeout)  # float
        return 1


class LampOptions(ManagerOptions):
    poll: Seconds = Field(30, help="How often the lamps are read")


class LampManager(Manager[LampOptions, LampDriver]):
    @exposed(role="operator")
    def switch(self, ctx: Context, lamp: str, on: bool = True) -> int:
        reveal_type(self.options)  # LampOptions
        reveal_type(self.options.poll)  # float
        reveal_type(self.drivers["desk"].switch(lamp, on))  # int
        reveal_type(self.drivers.ready())  # list[str]
        reveal_type(self.clock.wall())  # float
        self.client.publish("switched", {"lamp": lamp})
        return self.drivers["desk"].switch(lamp, on)

    @periodic(spacing="poll")
    def refresh(self, ctx: Context) -> None: ...

    @on_event("volume.*.created")
    def created(self, ctx: Context, event: Event | Gap) -> None: ...


class PlainManager(Manager):
    class Options(ManagerOptions):
        poll: Seconds = Field(30, help="How often")

    driver_type = LampDriver

    def poll(self) -> None:
        reveal_type(self.options)  # Any


@hookimpl
def ostler_managers() -> dict[str, type[Manager]]:
    return {"lamp": LampManager, "plain": PlainManager}


@hookimpl
def ostler_drivers() -> dict[tuple[str, str], type[Driver]]:
    return {("lamp", "gpio"): GpioDriver}


def wrong(manager: LampManager, driver: GpioDriver) -> None:
    manager.options.pol  # error: "LampOptions" has no attribute "pol"; maybe "poll"?
    manager.drivers["desk"].switch(1, True)  # error: Argument 1 to "switch" of "LampDriver" has incompatible type
    driver.options.chips  # error: "GpioOptions" has no attribute "chips"; maybe "chip"?
"""
COMMENT = re.compile(r"  # (error: )?(.+)$")


@pytest.mark.timeout(180)
def test_a_plugin_is_typed_throughout(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT}/daemon\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", sample.name]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said: dict[int, str] = {}
    for line in ended.stdout.splitlines():
        if match := re.match(r"sample\.py:(\d+): (?:note: Revealed type is (.+)|(error: .+))$", line):
            said[int(match[1])] = match[2] or match[3]
    wanted = {
        n: m for n, line in enumerate(SAMPLE.splitlines(), 1) if (m := COMMENT.search(line)) and "type:" not in line
    }
    assert wanted.keys() == said.keys(), ended.stdout + ended.stderr
    for number, match in wanted.items():
        revealed = re.sub(r"builtins\.|sample\.", "", said[number]).strip('"')
        expected = f"error: {match[2]}" if match[1] else match[2]
        assert revealed.startswith(expected), (SAMPLE.splitlines()[number - 1], said[number])
