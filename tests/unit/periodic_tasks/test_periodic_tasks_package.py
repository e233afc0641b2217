from __future__ import annotations

import subprocess
import sys


def test_the_public_name_is_the_decorator_before_and_after_the_package_is_imported():
    code = (
        "from ostler import periodic as before\n"
        "import ostler.periodic_tasks\n"
        "from ostler import periodic as after\n"
        "from ostler.periodic_tasks import periodic_settings\n"
        "for decorate in (before, after):\n"
        "    @decorate(spacing=5)\n"
        "    def task(): ...\n"
        "    assert periodic_settings(task).spacing == 5\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
