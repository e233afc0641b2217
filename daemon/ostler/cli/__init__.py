"""The command: `ostler run` is the daemon, every other verb talks to one.

`main` is the console script. What a verb needs is imported when that verb is typed: this package's own import costs
nothing, and `ostler run` never sees typer or rich. `ostler.cli.kit` is public, for the sub-commands of plugins.
"""

from __future__ import annotations


def main() -> int:
    """Run the command with the arguments of this process and return its exit code."""
    import os
    import sys

    from ostler.cli.descriptors import open_standard_descriptors

    open_standard_descriptors()
    if os.getpid() == 1:
        from ostler.cli.container import supervise

        supervise()

    from ostler.cli.entry import run_command

    code = run_command(sys.argv[1:], os.environ)
    if "ostler.plugins.reference" in sys.modules:
        # Code of plugins has been loaded, and may have left threads that would keep the command.
        from ostler.daemon.process_exit import Outcome, ProcessEnd

        ProcessEnd(Outcome(code, [])).run()
    return code
