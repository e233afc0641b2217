"""The hooks of this distribution. Its applications use the same hook as those of third parties.

They return import paths, so that a daemon without an HTTP service does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ostler import hookimpl

ostler_api = "1.0"

_APPLICATIONS = {
    "api": "ostler_http.api.application:ApiApplication",
    "ui": "ostler_http.ui.application:UiApplication",
    "metrics": "ostler_http.metrics.application:MetricsApplication",
    "health": "ostler_http.health.application:HealthApplication",
}
_FILTERS = {
    "auth": "ostler_http.filters.auth:AuthFilter",
    "limit": "ostler_http.filters.limit:LimitFilter",
    "cors": "ostler_http.filters.cors:CorsFilter",
    "log": "ostler_http.filters.log:LogFilter",
}


@hookimpl
def ostler_managers() -> Mapping[str, str]:
    """Return the manager `http`."""
    return {"http": "ostler_http.manager:HttpManager"}


@hookimpl
def ostler_extensions() -> Mapping[tuple[str, str], str]:
    """Return the bundled applications and filters."""
    here = Path(__file__).parent
    apps = {
        ("http.app", name): path for name, path in _APPLICATIONS.items() if (here / name / "application.py").is_file()
    }
    return apps | {("http.filter", name): path for name, path in _FILTERS.items()}
