"""Reads and checks a whole configuration: for the start, for a reload, and for `ostler check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.config import load
from ostler.config.layers import RawConfiguration, check_not_removed
from ostler.config.paths import Paths
from ostler.daemon.policy_check import policy_warnings
from ostler.log.journald import JOURNALD_SOCKET
from ostler.plugins.plugin_records import read_records
from ostler.service.resolve import ResolvedConfiguration, resolve_configuration
from ostler.spelling import nearest, suggest
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.plugins import PluginHost


def load_configuration(  # noqa: PLR0913 - what distinguishes a start, a reload and a check
    paths: Paths,
    overrides: Sequence[str] = (),
    *,
    plugins: PluginHost | None = None,
    offline: bool = False,
    as_daemon: bool = False,
    environ: Mapping[str, str] = os.environ,
    given: Mapping[Path, bytes] | None = None,
    previous: RawConfiguration | None = None,
    on_step: Callable[[str], object] = lambda _name: None,
    is_safe: bool = False,
    may_leave_out: Callable[[str], bool] = lambda _part: False,
) -> ResolvedConfiguration:
    """Read, merge and check everything. Blocks; any thread.

    Args:
        paths: Where the files are.
        overrides: Values of the command line, each `table.key=VALUE`.
        plugins: Plugins that were discovered before; None to discover them.
        offline: Do not need credentials, which exist only inside the unit, nor secret files that only others can read.
        as_daemon: With `offline`: this user is the daemon's, and must be able to read all secret files.
        environ: The environment, for credentials.
        given: New content of files, used instead of their content on disk; see `load`.
        previous: The configuration that the running daemon has read before; see `check_not_removed`.
        on_step: Called with each step before it starts, as it may never return.
        is_safe: Whether only plugins that come with Ostler are loaded.
        may_leave_out: Whether a service, driver or table whose plugin is broken is left out instead of being an error;
            see `BrokenParts`.

    Raises:
        ConfigurationError: With all problems.
    """
    on_step("reading the configuration files")
    raw = load(paths, overrides=overrides, replacements=given)
    if previous is not None:
        check_not_removed(previous, raw)
    assembly = resolve_configuration(
        raw,
        environ,
        plugins=plugins,
        offline=offline,
        as_daemon=as_daemon,
        on_step=on_step,
        records=read_records(paths.state_dir),
        is_safe=is_safe,
        may_leave_out=may_leave_out,
    )
    if warning := log_target_warning(assembly.configuration.log.format):
        assembly = replace(assembly, warnings=[*assembly.warnings, warning])
    if unused := pin_warnings(assembly.configuration):
        assembly = replace(assembly, warnings=[*assembly.warnings, *unused])
    if not assembly.configuration.access.methods:
        return assembly
    return replace(assembly, warnings=[*assembly.warnings, *policy_warnings(assembly)])


def pin_warnings(configuration: Configuration) -> list[str]:
    """Return warnings about pins for topics that no service of this host has; with peers they may be on other hosts.

    Args:
        configuration: The whole configuration.
    """
    topics = {CONTROL_TOPIC, *configuration.services}
    found = []
    for pin in configuration.messaging.rpc_pins:
        topic = pin.partition(".")[0]
        if topic in topics:
            continue
        if not configuration.network.peers or nearest(topic, topics):
            advice = suggest(topic, topics)
            found.append(f"messaging.rpc_pins has {pin}, but no service on this host has the topic {topic}; {advice}")
    return found


def log_target_warning(log_format: str, socket: str = JOURNALD_SOCKET) -> str:
    """Return a warning about where the log would go on this host; empty when it goes where it should.

    Args:
        log_format: The option `format` of [log].
        socket: The socket of journald.
    """
    if log_format != "journal" or os.path.exists(socket):  # noqa: PTH110 - a start imports no more than it needs
        return ""
    return f'[log] has format = "journal", but journald is not available ({socket}): logging to standard error'
