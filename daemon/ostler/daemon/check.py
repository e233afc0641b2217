"""Reading a configuration whole: for the start, for a reload, and for `ostler check`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ostler.config import load
from ostler.config.layers import RawConfiguration, check_still_there
from ostler.config.paths import Paths
from ostler.log.journal import SOCKET
from ostler.service.assembly import Assembly, assemble
from ostler.spelling import nearest, suggest
from ostler.types import CONTROL_TOPIC

if TYPE_CHECKING:
    from ostler.config.configuration import Configuration
    from ostler.plugins import PluginHost


def read_configuration(
    paths: Paths,
    overrides: Sequence[str] = (),
    *,
    plugins: PluginHost | None = None,
    offline: bool = False,
    environ: Mapping[str, str] = os.environ,
    given: Mapping[Path, bytes] | None = None,
    before: RawConfiguration | None = None,
    step: Callable[[str], object] = lambda _name: None,
) -> Assembly:
    """Read, merge and check everything. Blocks; any thread.

    Args:
        paths: Where the files are.
        overrides: Values of the command line, each `table.key=VALUE`.
        plugins: Plugins that were discovered before; None to discover them.
        offline: Do not look for credentials, which exist only inside the unit.
        environ: The environment, for credentials.
        given: What files are to hold, instead of what they hold now; see `load`.
        before: What was read before, by a daemon that runs with it; see `check_still_there`.
        step: Told what is begun, before something that may never come back.

    Raises:
        ConfigurationError: With all problems.
    """
    step("reading the configuration files")
    raw = load(paths, overrides=overrides, given=given)
    if before is not None:
        check_still_there(before, raw)
    assembly = assemble(raw, environ, plugins=plugins, offline=offline, step=step)
    if warning := log_warning(assembly.configuration.log.format):
        assembly = replace(assembly, warnings=[*assembly.warnings, warning])
    if unused := unused_pins(assembly.configuration):
        assembly = replace(assembly, warnings=[*assembly.warnings, *unused])
    if not assembly.configuration.access.methods:
        return assembly
    from ostler.daemon.watching import policy_warnings

    return replace(assembly, warnings=[*assembly.warnings, *policy_warnings(assembly)])


def unused_pins(configuration: Configuration) -> list[str]:
    """Return what is to be said of pins for topics that no service here has; with peers they may be on other hosts.

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
            found.append(f"messaging.rpc_pins has {pin}, and no service here has the topic {topic}; {advice}")
    return found


def log_warning(log_format: str, socket: str = SOCKET) -> str:
    """Return what is to be said of where the log would go here; empty when it goes where it should.

    Args:
        log_format: The option `format` of [log].
        socket: The socket of journald.
    """
    if log_format != "journal" or os.path.exists(socket):  # noqa: PTH110 - a start imports no more than it needs
        return ""
    return f'[log] has format = "journal", and there is no journald here ({socket}): lines go to standard error'
