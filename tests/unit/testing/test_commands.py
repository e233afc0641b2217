"""Commands against a host in the same process."""

from __future__ import annotations

import sys

import pytest

from ostler import Context, Manager, NotFound, exposed
from ostler.testing import host

CONFIG = '[services.lamp]\nmanager = "lamp"\n'


class Lamp(Manager):
    @exposed(role="viewer", changes=False)
    def lamps(self, ctx: Context) -> list[str]:
        """Return the lamps."""
        return ["desk"]

    @exposed(role="operator")
    def switch(self, ctx: Context, lamp: str) -> None:
        """Switch one."""
        raise NotFound(f"lamp {lamp} not found", hint="available: desk")


def test_a_command_talks_to_the_host() -> None:
    streams = sys.stdin, sys.stdout, sys.stderr
    with host(config=CONFIG, managers={"lamp": Lamp}) as h:
        assert h.command("--json", "call", "lamp", "lamps").json() == ["desk"]
        assert "desk" in h.command("call", "lamp", "lamps").stdout
        failed = h.command("call", "lamp", "switch", "lamp=door")
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert "lamp door not found" in failed.stderr
    with pytest.raises(AssertionError, match=r"exit code 1: .*lamp door not found"):
        failed.json()
    assert (sys.stdin, sys.stdout, sys.stderr) == streams


def test_a_misspelt_command_is_a_usage_error() -> None:
    with host() as h:
        found = h.command("volum", "list")
    assert found.exit_code == 2
    assert "did you mean `ostler volume`" in found.stderr


def test_a_plugin_s_command_is_found_by_its_entry_point() -> None:
    config = '[services.volume]\nmanager = "volume"\n'
    with host(plugins=["ostler_volume.plugin"], config=config) as h:
        assert h.command("volume", "list", "--json").json() == []
        assert h.command("volume", "delete", "a", stdin="y\n").exit_code == 1
