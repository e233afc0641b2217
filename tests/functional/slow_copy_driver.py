"""A `file` driver whose copies take long, so that a test can do something in the middle of one."""

from __future__ import annotations

import os
import time

from ostler import Context
from ostler_volume.copying import sparse_copy
from ostler_volume.file_driver import FileDriver


class SlowCopyDriver(FileDriver):
    """Rests after each piece, and never shares blocks."""

    def _copy_content(self, ctx: Context, source: int, target: int, length: int, size: int) -> None:
        def on_piece(done: int, total: int) -> None:
            ctx.check()
            ctx.progress(done, total, "copying")
            time.sleep(0.02)

        sparse_copy(source, target, length, on_piece)
        os.ftruncate(target, size)
