"""`HttpManager`: a service that listens for HTTP and mounts applications at paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ostler import Manager, ManagerOptions, ValidationContext
from ostler_http.application import APP_KIND, FILTER_KIND, PAGE_KIND, Filter
from ostler_http.options import Faults, HttpOptions, check_addresses, check_parts, options_for


class HttpManager(Manager[HttpOptions]):
    """Serves applications over HTTP."""

    Options = HttpOptions
    rpc_version = "1.0"
    extension_kinds = {APP_KIND: object, FILTER_KIND: Filter, PAGE_KIND: object}

    @classmethod
    def options_model(
        cls, table: Mapping[str, Any], extensions: Mapping[str, Mapping[str, Any]]
    ) -> type[ManagerOptions]:
        """Return the options with those of the applications and filters that the table names."""
        return options_for(table, extensions.get(APP_KIND, {}), extensions.get(FILTER_KIND, {}))

    @classmethod
    def validate(cls, options: HttpOptions, others: ValidationContext) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Find applications and filters that do not exist, and addresses and certificates that cannot be used."""
        faults = Faults()
        check_parts(options, others.extensions.get(APP_KIND, {}), others.extensions.get(FILTER_KIND, {}), faults)
        services = {topic: found for topic, found in others.services.items() if isinstance(found, HttpOptions)}
        check_addresses(others.topic, options, services, faults)
        if options.tls is not None:
            from ostler_http.tls import tls_faults  # ssl, 10 ms and 3 MiB: not for a service without TLS

            for option, what in tls_faults(options.tls):
                faults.add(("tls", option), what)
        yield from faults.found
