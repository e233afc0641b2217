"""The composition root: builds every part, starts and stops them in order, handles signals, reloads, watches itself.

`main` is `ostler run`, `build_daemon` its real ends, `daemon` the start and the stop: it creates the parts
(`daemon_parts`) and hands each what it needs, so that nothing below knows `daemon`. `load_configuration` reads the
configuration, `active_configuration` knows what is in effect, `reloader` handles SIGHUP, `progress_reporter` tells
systemd and the log what happens, `plugin_hooks` calls plugins at the start and stop, `watchdog` and `liveness_probes`
decide about pings to systemd. Sub-packages: `process`, `startup`, `connectivity`, `control`. Not here: what any
package below can do without the daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ostler.config.paths import Paths


def run_daemon(
    paths: Paths, overrides: Sequence[str] = (), log_level: str | None = None, *, is_safe: bool = False
) -> int:
    """Run a daemon; see `ostler.daemon.main.run_daemon`."""
    from ostler.daemon.main import run_daemon as run  # the command uses modules of this package without a daemon

    return run(paths, overrides, log_level, is_safe=is_safe)
