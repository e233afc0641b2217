"""Has the requests of a client become spans; works without OpenTelemetry as far as to say that it is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.errors import OstlerError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from ostler.messaging.clients.async_client import AsyncClient
    from ostler.messaging.clients.sync_client import Client


def instrument(client: Client | AsyncClient, tracers: TracerProvider | None = None) -> None:
    """Have every request of a client become a span of OpenTelemetry.

    Args:
        client: The client.
        tracers: Where spans go; by default what the SDK of this process has set.

    Raises:
        OstlerError: OpenTelemetry is not installed.
    """
    try:
        from ostler.messaging.observers.opentelemetry import OtelClientTracer  # an extra, which few install
    except ImportError as error:
        raise OstlerError(f"OpenTelemetry is not installed: {error}", hint="pip install 'ostler[otel]'") from error
    client._core.tracer = OtelClientTracer(tracers)  # noqa: SLF001 - ours; a client without spans pays for none
