"""A manager whose acknowledged work can be counted: in the database, and in a file of acts."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ostler import Context, Durable, Manager, ManagerOptions, exposed, periodic


class RecordManager(Manager):
    """Keeps what it is told, and works in steps."""

    class Options(ManagerOptions):
        """Where the acts are written."""

        acts: str

    @exposed()
    def keep(self, ctx: Context, key: str, size: int = 100) -> str:
        """Keep a key; what is answered is on disk."""
        self.store.kv("kept").set(key, "x" * size)
        return key

    @exposed(role="viewer", changes=False)
    def kept(self, ctx: Context) -> list[str]:
        """Return all keys."""
        return sorted(self.store.kv("kept").items())

    @exposed(role="viewer", changes=False)
    def echo(self, ctx: Context, text: str) -> str:
        """Return the text, without the database."""
        return text

    @exposed()
    def pause(self, ctx: Context, seconds: float) -> None:
        """Hold a thread for a while."""
        time.sleep(seconds)

    @exposed(durable=Durable(on_restart="resume"))
    def work(self, ctx: Context, name: str, steps: int = 3, seconds: float = 0.0) -> str:
        """Do step after step."""
        for number in range(steps):
            ctx.step(f"step {number}", self._act, f"{name} {number}")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                ctx.check()
                time.sleep(0.01)
        return name.upper()

    def _act(self, what: str) -> str:
        with Path(self.options.acts).open("a", encoding="utf-8") as file:
            file.write(f"{what}\n")
            file.flush()
            os.fsync(file.fileno())
        return what

    @periodic(spacing=0.2)
    def tick(self, ctx: Context) -> None:
        """Run now and then, to be seen running."""
