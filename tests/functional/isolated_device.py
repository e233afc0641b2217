"""A manager of devices that harm their process, and one that holds the daemon's interpreter to compare with."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from abc import abstractmethod

from ostler import Context, Driver, Manager, exposed


class DeviceDriver(Driver):
    @abstractmethod
    def do(self, what: str, number: int = 0) -> str:
        """Do something."""


class IsolatedDevice(DeviceDriver):
    """Does what no driver should do."""

    def do(self, what: str, number: int = 0) -> str:
        match what:
            case "segfault":
                ctypes.string_at(0)
            case "exit":
                os._exit(number)
            case "hold":
                ctypes.PyDLL(None).sleep(number)
            case "print":
                print("\n".join(f"chatter {each}" for each in range(number)))
            case "fill":
                return str(len(bytearray(number * 2**20)))
            case "child":
                return str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
            case "count":
                self.kv.set("count", (self.kv.get("count", 0) or 0) + 1)
                return str(self.kv.get("count"))
        return str(os.getpid())


class DeviceManager(Manager):
    driver_type = DeviceDriver

    @exposed(role="operator")
    def do(self, ctx: Context, driver: str, what: str = "pid", number: int = 0) -> str:
        """Have a driver do something."""
        return str(self.drivers[driver].do(what, number))
