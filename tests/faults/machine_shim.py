"""Faults that no file system here has and loses again while files are open: put between the daemon and libc."""

from __future__ import annotations

import errno
import mmap
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")
_CONTROL = struct.Struct("=qii")


class Shim:
    """Moves the wall clock of a daemon and has its database fail; `cannot` says why there is none.

    Args:
        folder: Where it is compiled.
    """

    def __init__(self, folder: Path) -> None:
        self._library, control = folder / "shim.so", folder / "control"
        control.write_bytes(bytes(mmap.PAGESIZE))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._path = control
        self.cannot = self._compile()

    def _compile(self) -> str:
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            return "needs a C compiler"
        done = subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", self._library, _SOURCE],
            capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
        return f"cannot compile {_SOURCE.name}: {done.stderr}" if done.returncode else ""

    def environ(self) -> Mapping[str, str]:
        """Return the environment of a daemon that has it."""
        return {"LD_PRELOAD": str(self._library), "OSTLER_TEST_CONTROL": str(self._path)}

    def set(self, *, wall_offset: int = 0, writes: str = "", reads: str = "") -> None:
        """Set all faults at once; without arguments there are none.

        Args:
            wall_offset: Seconds by which the wall clock is ahead.
            writes: The name of an errno, such as `EROFS`, for all writes to the database.
            reads: The same for reads.
        """
        codes = [getattr(errno, name) if name else 0 for name in (writes, reads)]
        _CONTROL.pack_into(self._control, 0, wall_offset, *codes)

    def close(self) -> None:
        """Give the memory back."""
        self._control.close()
