"""A manager whose work is durable: each act is a line of a file, so that a test can count them from the outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ostler import Context, Durable, Manager, ManagerOptions, exposed


class PaintManager(Manager):
    """Paints in steps; how long each takes is said by the caller."""

    class Options(ManagerOptions):
        """Where the acts are written."""

        acts: str

    def act(self, what: str) -> str:
        """Write an act to the file, at once and whole."""
        file = os.open(Path(self.options.acts), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(file, f"{what}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        return what

    @exposed(durable=Durable(on_restart="resume"))
    def paint(self, ctx: Context, name: str, coats: int = 3, seconds: float = 0.0) -> str:
        """Paint coat after coat."""
        for coat in range(coats):
            ctx.step(f"coat {coat}", self.act, f"{name} {coat}")
            ctx.progress(coat + 1, coats, f"coat {coat}")
            self._pause(ctx, seconds)
        return name.upper()

    @exposed(durable=Durable(on_restart="clean up", clean_up="take_down"))
    def put_up(self, ctx: Context, name: str, seconds: float = 0.0) -> str:
        """Put something up."""
        self.act(f"put up {name}")
        self._pause(ctx, seconds)
        return name

    def take_down(self, ctx: Context, name: str, seconds: float = 0.0) -> None:
        """Undo `put_up`."""
        self.act(f"take down {name}")

    @exposed()
    def once(self, ctx: Context, name: str, seconds: float = 0.0) -> str:
        """Do what must not be done twice."""
        self.act(f"once {name}")
        self._pause(ctx, seconds)
        return name

    @staticmethod
    def _pause(ctx: Context, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            ctx.check()
            time.sleep(0.01)
