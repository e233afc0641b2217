"""Makes `docs/reference.md` from the declarations: errors, environment variables, metrics and methods of the daemon."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ostler import errors
from ostler.cli.reference import EXIT_CODES
from ostler.daemon.control.console_control import ConsoleControl
from ostler.daemon.control.control_endpoint import ControlEndpoint
from ostler.daemon.control.driver_control import DriverControl
from ostler.daemon.control.metrics.catalogue import CATALOGUE
from ostler.daemon.control.token_control import TokenControl
from ostler.errors import join_words
from ostler.messaging.interface.introspection import list_exposed
from ostler.messaging.observers.opentelemetry import OtelTracer
from ostler.operations import OperationControl
from ostler.testing import FakeClock
from ostler_http.manager import HttpManager
from ostler_scheduler.manager import SchedulerManager
from ostler_volume.manager import VolumeManager

INTERFACES: list[tuple[str, str, type]] = [
    ("ostler", "", ControlEndpoint),
    ("ostler", "operation.", OperationControl),
    ("ostler", "driver.", DriverControl),
    ("ostler", "token.", TokenControl),
    ("ostler", "console.", ConsoleControl),
    ("volume", "", VolumeManager),
    ("scheduler", "", SchedulerManager),
    ("web", "", HttpManager),
]
"""Topic, prefix of the methods' names, and the class."""

ENVIRONMENT = {
    "OSTLER_ROOT": "The directory of the daemon, as `--root`.",
    "OSTLER_ADDRESS": "The address of a daemon on another host, as `--address`.",
    "OSTLER_SERVER_KEY": "The public key of that daemon, as `--server-key`.",
    "OSTLER_SECRET_KEY": "The file of the own secret key, as `--secret-key`.",
    "OSTLER_TOKEN_FILE": "The file of the token for an address with https://, as `--token-file`.",
    "OSTLER_CA_FILE": "The authorities that may have signed the certificate of that address, as `--ca-file`.",
    "OSTLER_CERTIFICATE": "The own certificate for such an address, as `--certificate`.",
    "OSTLER_CERTIFICATE_KEY": "The key of that certificate, as `--certificate-key`.",
    "OSTLER_TRUST_OWNER": "`1` accepts files of other users, as `--trust-owner`.",
    "OSTLER_TRACEBACK": "Anything in it shows where an error comes from.",
    "_OSTLER_COMPLETE": "Set by the scripts of `ostler completion`: the command prints completions.",
    "NO_COLOR": "Anything in it, also nothing: no colours.",
    "TERM": "Unset, `dumb` or `unknown`: plain lines instead of tables and bars.",
    "OSTLER_PAGER": "The pager for output that is longer than the terminal, before `PAGER`; `cat` or nothing: none.",
    "HOME": "The home of the user, for the directories of a daemon of a user.",
    "XDG_CONFIG_HOME": "The directory of the configuration of a daemon of a user, `~/.config` by default.",
    "XDG_STATE_HOME": "The directory of its state, `~/.local/state` by default.",
    "XDG_DATA_HOME": "The directory of its installed plugins, `~/.local/share` by default.",
    "XDG_RUNTIME_DIR": "The directory of its sockets.",
    "SQLITE_TMPDIR": "Where SQLite writes temporary files, for the check whether `db vacuum` has room.",
    "TMPDIR": "The same, when that is not set.",
    "NOTIFY_SOCKET": "Set by systemd: where READY, STATUS and the watchdog's pings go. Children do not inherit it.",
    "WATCHDOG_USEC": "Set by systemd: the time within which it expects a ping.",
    "WATCHDOG_PID": "Set by systemd: the process that is meant.",
    "LISTEN_FDS": "Set by systemd: how many sockets are handed over.",
    "LISTEN_PID": "Set by systemd: the process that is meant.",
    "LISTEN_FDNAMES": "Set by systemd: the names of these sockets.",
    "MALLOC_ARENA_MAX": "For the processes of drivers, `2` by default: how many arenas the C library may use.",
    "LISTEN_PIDFDID": "Set by systemd: the process that is meant; not needed, and not inherited by children.",
    "STATE_DIRECTORY": "Set by systemd (`StateDirectory=`): the directory of the state.",
    "RUNTIME_DIRECTORY": "Set by systemd (`RuntimeDirectory=`): the directory of the sockets.",
    "CREDENTIALS_DIRECTORY": "Set by systemd (`LoadCredential=`): where secrets of the configuration are found.",
    "INVOCATION_ID": "Set by systemd: the start shows no introduction.",
    "JOURNAL_STREAM": "Set by systemd: the log goes to the journal with its fields.",
}
"""Each environment variable that is read, and what it does. What plugins and libraries read is theirs."""

_HEAD = """# Reference

Errors, environment variables, metrics and methods. This page is generated from the declarations (`OSTLER_REGENERATE=1
make test` updates it), and a test fails when something is missing. Elsewhere: [commands and exit codes](cli.md),
[options](configuration.md), [hooks](hooks.md), [events](messaging.md#changes-of-state), [wire format](wire.md).
"""


def error_classes() -> list[type[errors.OstlerError]]:
    """Return all errors that Ostler declares, by name."""
    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.OstlerError)]
    return sorted({cls for cls in found if cls.__module__ == errors.__name__}, key=lambda cls: cls.__name__)


def reference_page() -> str:
    """Return the text of the page."""
    return "".join([_HEAD, *_errors(), *_environment(), *_metrics(), *_methods()])


def _errors() -> Iterator[str]:
    yield "\n## Errors\n\nAll can be imported from `ostler`. The exit code is that of a command that ends with it.\n\n"
    yield "| error | is a | exit code | meaning |\n|---|---|---|---|\n"
    for cls in error_classes():
        base = next(each for each in cls.__mro__[1:] if issubclass(each, Exception)).__name__
        yield f"| `{cls.__name__}` | `{base}` | {cls.exit_code} | {_first_sentence(cls)} |\n"
    unused = sorted(set(EXIT_CODES) - {cls.exit_code for cls in error_classes()})
    yield f"\nWithout an error of their own: {join_words(map(str, unused))}; see [cli.md](cli.md#exit-codes).\n"


def _environment() -> Iterator[str]:
    yield "\n## Environment variables\n\n| variable | meaning |\n|---|---|\n"
    for name, meaning in ENVIRONMENT.items():
        yield f"| `{name}` | {meaning} |\n"
    yield "\nSettings of pip (`PIP_…`) apply to [`ostler plugin install`](installing-plugins.md), those of\n"
    yield "OpenTelemetry (`OTEL_…`) to [traces](access.md).\n"


class _Meters:
    """A provider of meters, and a meter, that records what is created with it."""

    def __init__(self) -> None:
        self.created: list[tuple[str, str, str, str]] = []

    def get_meter(self, *_: object, **_options: object) -> _Meters:
        return self

    def __getattr__(self, name: str) -> Any:
        kind = name.removeprefix("create_").removeprefix("observable_").replace("_", " ").replace("up down", "up-down")

        def create(name: str, *, unit: str, description: str, **_: object) -> None:
            self.created.append((name, kind, unit, description))

        return create


def metrics() -> list[tuple[str, str, str, str]]:
    """Return what the daemon measures for OpenTelemetry: name, kind, unit and meaning."""
    meters: Any = _Meters()
    OtelTracer(FakeClock(), meters=meters).add_memory_gauge(lambda: 0)
    return sorted(meters.created)


def _metrics() -> Iterator[str]:
    yield "\n## Metrics\n\nWhat `ostler metrics` shows and [Prometheus](monitoring.md) reads, with the metrics of\n"
    yield "managers and drivers.\n\n"
    yield "| metric | kind | labels | meaning |\n|---|---|---|---|\n"
    for declared in CATALOGUE.values():
        labels = ", ".join(f"`{label}`" for label in declared.labels)
        yield f"| `{declared.name}` | {declared.kind} | {labels} | {declared.help} |\n"
    yield "\n### OpenTelemetry\n\nWith `otel = true` in `[telemetry]`, with the metrics of managers\n"
    yield "and drivers; see [access.md](access.md#request-ids-and-traces).\n\n"
    yield "| metric | kind | unit | meaning |\n|---|---|---|---|\n"
    for name, kind, unit, meaning in metrics():
        yield f"| `{name}` | {kind} | `{unit}` | {meaning} |\n"


def _methods() -> Iterator[str]:
    yield "\n## Methods\n\nWhat can be called (`ostler call TOPIC METHOD`), with the role that is needed unless\n"
    yield "`[access]` says otherwise. `ostler describe TOPIC METHOD` says more of each.\n"
    for topic in dict.fromkeys(topic for topic, _, _ in INTERFACES):
        yield f"\n### `{topic}`\n\n| method | role | kind | meaning |\n|---|---|---|---|\n"
        for prefix, cls in [(prefix, cls) for each, prefix, cls in INTERFACES if each == topic]:
            for method in list_exposed(topic, cls):
                arguments = ", ".join(
                    each.name if each.is_required else f"{each.name}=…" for each in method.signature.arguments
                )
                kind = _kind(method)
                yield f"| `{prefix}{method.name}({arguments})` | {method.exposure.role} | {kind} | "
                yield f"{_first_line(method.doc)} |\n"


def _kind(method: Any) -> str:
    kinds = ["stream" if method.signature.is_streaming else "", "operation" if method.exposure.durable else ""]
    kinds.append("changes something" if method.exposure.changes else "reads")
    return ", ".join(filter(None, kinds))


def _first_sentence(cls: type) -> str:
    return _first_line(inspect.getdoc(cls) or "")


def _first_line(doc: str) -> str:
    return " ".join(inspect.cleandoc(doc).partition("\n\n")[0].split()).replace("|", "\\|")
