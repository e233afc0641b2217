"""The command: `ostler run` is the daemon, every other command talks to one.

`main` is the console script. The modules that a command needs are imported when that command runs: the import of this
package costs nothing, and `ostler run` never imports typer or rich. `ostler.cli.kit` is public, for the commands of
plugins. Not here: what the daemon does for a command (`ostler.daemon.control`).
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command with the arguments of this process and return its exit code."""
    from ostler.cli.descriptors import open_standard_descriptors  # as little as possible is imported before

    open_standard_descriptors()
    if os.getpid() == 1:
        from ostler.cli.init_process import fork_and_supervise  # only in a container

        fork_and_supervise()

    from ostler.cli.command_line import run_command  # the parent of a container does not need it

    code = run_command(sys.argv[1:], os.environ)
    if "ostler.plugins.import_path" in sys.modules:
        # Code of plugins has been loaded, and may have left threads that would keep the command.
        from ostler.daemon.process.process_exit import ExitOutcome, ProcessExit

        ProcessExit(ExitOutcome(code, [])).run()
    return code
