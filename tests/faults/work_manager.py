"""A manager and a driver whose every act is one line of a file, so that what ran can be counted from the outside."""

from __future__ import annotations

import os
import time
from abc import abstractmethod

from ostler import Context, Driver, DriverOptions, Durable, Field, Manager, ManagerOptions, Seconds, exposed, periodic


class ActDriver(Driver):
    """Does what the manager is asked for."""

    @abstractmethod
    def act(self, what: str) -> str:
        """Do it, and return it."""


class FileActDriver(ActDriver):
    """Appends each act to a file, with one write: a daemon that is killed has done an act whole or not at all."""

    class Options(DriverOptions):
        """Where the acts are written."""

        path: str = Field(help="The file")

    def initialise(self) -> None:
        self._file = os.open(self.options.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def cleanup(self) -> None:
        os.close(self._file)

    def act(self, what: str) -> str:
        os.write(self._file, f"{what}\n".encode())
        return what


class WorkManager(Manager):
    """Has a method of each kind that a restart treats in another way."""

    driver_type = ActDriver
    journal_events = True

    class Options(ManagerOptions):
        """How often the periodic task runs."""

        spacing: Seconds = Field(0.1, gt=0, help="Seconds between two runs of `tick`", reload="live")

    def post_start_hook(self) -> None:
        self._run = f"{os.getpid()}-{time.monotonic_ns()}"
        self._values = self.store.kv(f"service/{self.topic}")

    def _act(self, what: str) -> str:
        return str(self.drivers["acts"].act(what))

    @exposed(durable=Durable(on_restart="resume"))
    def resumed(self, ctx: Context, name: str, steps: int = 3, pause: float = 0.0) -> str:
        """Do steps, each of which is recorded."""
        for step in range(steps):
            ctx.step(f"s{step}", self._act, f"{name} s{step}")
            self._pause(ctx, pause)
        return f"{name}:{steps}"

    @exposed(durable=Durable(on_restart="retry"))
    def retried(self, ctx: Context, name: str, steps: int = 3, pause: float = 0.0) -> str:
        """Do steps from the start again after a restart."""
        for step in range(steps):
            ctx.step(f"s{step}", self._act, f"{name} s{step}")
            self._pause(ctx, pause)
        return f"{name}:{steps}"

    @exposed(durable=Durable(on_restart="clean up", clean_up="undo"))
    def undone(self, ctx: Context, name: str, steps: int = 3, pause: float = 0.0) -> str:
        """Do what is undone when it was cut off."""
        self._act(f"{name} begin")
        self._pause(ctx, pause * steps)
        self._act(f"{name} end")
        return f"{name}:{steps}"

    def undo(self, ctx: Context, name: str, steps: int = 3, pause: float = 0.0) -> None:
        """Undo `undone`."""
        self._act(f"{name} undo")

    @exposed()
    def once(self, ctx: Context, name: str, steps: int = 3, pause: float = 0.0) -> str:
        """Do what must not be done twice."""
        self._act(f"{name} once")
        self._pause(ctx, pause)
        return f"{name}:{steps}"

    @exposed(role="operator")
    def set_value(self, ctx: Context, key: str, value: int) -> int:
        """Set a value; it is committed when this returns."""
        self._values.set(key, value)
        return value

    @exposed(role="operator")
    def set_pair(self, ctx: Context, key: str, value: int) -> int:
        """Set two values in one write: both or none."""

        def write() -> None:
            self._values.set(f"{key}.left", value)
            self._values.set(f"{key}.right", value)

        self.store.write(write, label="set a pair")
        return value

    @exposed(role="operator", changes=False)
    def get_values(self, ctx: Context) -> dict[str, int]:
        """Return all values."""
        return dict(self._values.items())

    @exposed(role="operator")
    def tell(self, ctx: Context, name: str, count: int) -> int:
        """Publish so many events, which are journaled."""
        for number in range(count):
            self.client.publish("told", {"name": name, "n": number})
        return count

    @periodic(spacing="spacing")
    def tick(self, ctx: Context) -> None:
        """Write the begin and the end of a run; it never runs twice at once."""
        self._act(f"tick {self._run} begin")
        self._act(f"tick {self._run} end")

    @staticmethod
    def _pause(ctx: Context, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            ctx.check()
            time.sleep(min(left, 0.01))
