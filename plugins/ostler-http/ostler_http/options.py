"""The options of a service with `manager = "http"`, and the model for what one table mounts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal, cast

import msgspec
import pydantic

from ostler import Field, ManagerOptions, OptionsModel, Seconds, Secret, Size, ValidationContext
from ostler_http.addresses import ListenAddress, parse_address
from ostler_http.application import APP_KIND, FILTER_KIND, AppOptions, FilterOptions
from ostler_http.references import ReferenceFault, ResolvedApp, resolve_app, resolve_filter

_MAX_MODELS = 100
_is_mount = re.compile(r"/|(/[A-Za-z0-9._~-]+)+").fullmatch
_is_filter_name = re.compile(r"[a-z][a-z0-9_-]{0,63}").fullmatch


class TlsOptions(OptionsModel):
    """The table `tls` of a service."""

    certificate: str = Field(help="File with the certificate and those between it and the root, PEM", reload="live")
    key: Secret = Field(help="The private key, PEM, without a passphrase", reload="live")
    client_ca: str = Field(
        "",
        help="File with the root certificates of client certificates, PEM; empty: none are asked for",
        reload="live",
    )
    client_required: bool = Field(
        False, help="Whether a client without a certificate of `client_ca` is refused at the handshake", reload="live"
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", help="Lowest version of TLS that is accepted", reload="live")

    def validate_options(self) -> Iterator[tuple[str, str]]:
        """See `OptionsModel.validate_options`."""
        if self.client_required and not self.client_ca:
            yield "client_required", "needs client_ca, the file with the roots of the certificates that are accepted"


class LimitOptions(OptionsModel):
    """The table `limits` of a service: what bounds clients."""

    max_connections: int = Field(
        1000,
        ge=1,
        le=100_000,
        help="Most connections; further ones take the place of one that is idle, or are closed if all are in use",
    )
    max_connections_per_client: int = Field(
        500, ge=1, le=100_000, help="Most connections of one address, or of one user on a unix socket"
    )
    header_timeout: Seconds = Field(
        10, gt=0, help="Time for the TLS handshake, and from the first byte of a request to the end of its headers"
    )
    idle_timeout: Seconds = Field(60, gt=0, help="How long a connection may be idle between two requests")
    body_timeout: Seconds = Field(
        30, gt=0, help="Time without a byte of the body of a request after which the connection is closed (408)"
    )
    min_body_rate: Size = Field(
        "500B", help="Least bytes per second of the body of a request, on average after `body_timeout`; 0 for none"
    )
    send_timeout: Seconds = Field(
        30, gt=0, help="Time in which a client must take something of its response, else the connection is closed"
    )
    max_header_size: Size = Field("32KiB", help="Most bytes of the request line and headers of a request; else 431")
    max_headers: int = Field(100, ge=1, le=10_000, help="Most headers of a request; else 431")
    max_websocket_message: Size = Field("1MiB", help="Most bytes of a message of a WebSocket")
    failed_logins: int = Field(
        20, ge=1, help="Failed authentications of one address within a minute; then its attempts are refused (429)"
    )


class HttpOptions(ManagerOptions):
    """The options of a service with `manager = "http"`."""

    listen: list[str] = Field(
        ["127.0.0.1:0"],
        help="Where it listens: `127.0.0.1:8080`, `[::1]:8080`, `unix:/path`, `systemd:NAME` for sockets of that "
        "`FileDescriptorName=`; port 0 is a random port, see `ostler http address`",
    )
    tls: TlsOptions | None = Field(None, help="TLS on the addresses with a port", shown="none")
    plain_text: bool = Field(
        False,
        help="Whether other hosts may connect without TLS: for a trusted network, or behind a proxy that has TLS",
    )
    unix_mode: str = Field(
        "0660",
        pattern="^0?[0-7]{3}$",
        help="Permissions of unix sockets, octal",
        expects='an octal mode such as "0660"',
    )
    apps: dict[str, dict[str, Any]] = Field(
        {}, help="The mounts: path to `app`, `filters`, and the options of the application"
    )
    filters: dict[str, dict[str, Any]] = Field(
        {}, help="Filters with options: name to `filter` and its options; `filters` of mounts name them"
    )
    wsgi_threads: int = Field(8, ge=1, le=1024, help="Threads for WSGI applications; a reload restores this number")
    wsgi_queue: int = Field(
        100, ge=0, le=100_000, help="Requests that may wait for such a thread; one more is refused (503)"
    )
    stop_timeout: Seconds = Field(
        10, ge=0, help="How long a stop, and the end of a mount, wait for requests in progress"
    )
    limits: LimitOptions = Field(LimitOptions(), help="Limits for clients", shown="the defaults of its options")

    def validate_options(self) -> Iterator[tuple[str, str]]:
        """See `OptionsModel.validate_options`."""
        if not self.listen:
            yield "listen", 'names no address; the default is ["127.0.0.1:0"]'


class _Mounts(OptionsModel):
    """The table `apps` of one service; its fields are the mounts."""


class _Filters(OptionsModel):
    """The table `filters` of one service; its fields are the names."""


class _UnknownApp(AppOptions):
    """The options of an application that was not found, which is reported elsewhere."""

    model_config = pydantic.ConfigDict(extra="allow")


class _UnknownFilter(FilterOptions):
    """The options of a filter that was not found, which is reported elsewhere."""

    model_config = pydantic.ConfigDict(extra="allow")


def mounted_apps(options: HttpOptions) -> dict[str, AppOptions]:
    """Return the options of each mount, by its path."""
    return _parts_of(options.apps, AppOptions)


def named_filters(options: HttpOptions) -> dict[str, FilterOptions]:
    """Return the options of the filters that have a table, by name."""
    return _parts_of(options.filters, FilterOptions)


def listen_addresses(options: HttpOptions) -> list[ListenAddress]:
    """Return the addresses of `listen`; those that are not valid are left out."""
    found = []
    for text in options.listen:
        try:
            found.append(parse_address(text))
        except ValueError:
            continue
    return found


def _parts_of(table: Any, model: type[Any]) -> dict[str, Any]:
    if isinstance(table, OptionsModel):
        return {name: getattr(table, name) for name in type(table).model_fields}
    return {name: model.model_validate(part) if isinstance(part, dict) else part for name, part in table.items()}


def options_for(table: Mapping[str, Any], apps: Mapping[str, Any], filters: Mapping[str, Any]) -> type[HttpOptions]:
    """Return the model for one table: `HttpOptions` with the options of the applications and filters that it names.

    Args:
        table: The table of the service as it was read; nothing in it is checked.
        apps: The registered applications.
        filters: The registered filters.
    """
    mounts = [(path, _app_model(part.get("app"), apps)) for path, part in _tables(table, "apps")]
    named = [(name, _filter_model(part.get("filter") or name, filters)) for name, part in _tables(table, "filters")]
    return _model(tuple(mounts), tuple(named))


def _tables(table: Mapping[str, Any], name: str) -> list[tuple[str, dict[str, Any]]]:
    found = table.get(name)
    if not isinstance(found, dict):
        return []
    # Names with `_` at their beginning cannot be fields; they are reported as unknown.
    return [(key, part) for key, part in found.items() if isinstance(part, dict) and not key.startswith("_")]


def _app_model(reference: object, registered: Mapping[str, Any]) -> type[AppOptions]:
    try:
        return resolve_app(reference, registered).options if isinstance(reference, str) else _UnknownApp
    except ReferenceFault:
        return _UnknownApp


def _filter_model(reference: object, registered: Mapping[str, Any]) -> type[FilterOptions]:
    try:
        return resolve_filter(reference, registered).Options if isinstance(reference, str) else _UnknownFilter
    except ReferenceFault:
        return _UnknownFilter


@lru_cache(maxsize=_MAX_MODELS)
def _model(
    mounts: tuple[tuple[str, type[AppOptions]], ...], filters: tuple[tuple[str, type[FilterOptions]], ...]
) -> type[HttpOptions]:
    # The same class for the same parts: options of two classes are never equal, and a reload would find a change.
    apps_help, filters_help = (HttpOptions.model_fields[name].description or "" for name in ("apps", "filters"))
    apps = _table_model("Mounts", _Mounts, [(path, model, "An application") for path, model in mounts])
    named = _table_model("Filters", _Filters, [(name, model, "A filter") for name, model in filters])
    made = pydantic.create_model(
        "HttpOptions",
        __base__=HttpOptions,
        apps=(apps, Field(apps() if not mounts else ..., help=apps_help)),
        filters=(named, Field(named() if not filters else ..., help=filters_help)),
    )
    return cast("type[HttpOptions]", made)


def _table_model(name: str, base: type[OptionsModel], parts: list[tuple[str, type[Any], str]]) -> type[OptionsModel]:
    fields: dict[str, Any] = {path: (model, Field(help=text)) for path, model, text in parts}
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a mount may have the name of a method of models; it is read from `model_fields`
        return cast("type[OptionsModel]", pydantic.create_model(name, __base__=base, **fields))


class Faults(msgspec.Struct):
    """Collects mistakes: the path below the table of the service, and a sentence."""

    found: list[tuple[tuple[str | int, ...], str]] = []

    def add(self, path: tuple[str | int, ...], what: str) -> None:
        """Record one."""
        self.found.append((path, what))


def check_parts(options: HttpOptions, others: ValidationContext, faults: Faults) -> None:
    """Record names of applications and filters that lead nowhere."""
    apps, filters = (others.extensions.get(kind, {}) for kind in (APP_KIND, FILTER_KIND))
    named = named_filters(options)
    for name, table in named.items():
        if not _is_filter_name(name):
            faults.add(("filters", name), "is not a valid name: small letters, digits, `-` and `_`")
            continue
        try:
            resolve_filter(table.filter or name, filters)
        except ReferenceFault as error:
            where = ("filters", name, "filter") if table.filter else ("filters", name)
            faults.add(where, _sentence(error, others, FILTER_KIND, table.filter or name))
    for path, app in mounted_apps(options).items():
        if not _is_mount(path):
            faults.add(("apps", path), "is not a valid path of a mount: `/` or `/name`, without a slash at its end")
        try:
            resolve_app(app.app, apps)
        except ReferenceFault as error:
            faults.add(("apps", path, "app"), _sentence(error, others, APP_KIND, app.app))
        for number, name in enumerate(app.filters):
            if name in named:
                continue
            try:
                resolve_filter(name, filters)
            except ReferenceFault as error:
                faults.add(("apps", path, "filters", number), _sentence(error, others, FILTER_KIND, name))


def _sentence(fault: ReferenceFault, others: ValidationContext, kind: str, name: str) -> str:
    """Return the sentence; of a name that a broken plugin might provide, one that leaves out only this service."""
    return others.missing_extension(kind, name) if fault.is_missing else str(fault)


def check_addresses(topic: str, options: HttpOptions, others: Mapping[str, HttpOptions], faults: Faults) -> None:
    """Record addresses that are not valid, that are used twice, or that tokens would cross the network to in clear."""
    earlier: list[ListenAddress] = []
    for number, text in enumerate(options.listen):
        path = ("listen", number)
        try:
            address = parse_address(text)
        except ValueError as error:
            faults.add(path, str(error))
            continue
        if any(address.overlaps(one) for one in earlier):
            faults.add(path, f"{address} is named twice")
        earlier.append(address)
        for other, its_options in others.items():
            # Once for both: at the later of the two.
            if other < topic and any(address.overlaps(one) for one in listen_addresses(its_options)):
                faults.add(path, f"service {other} listens on {address} as well; give one of them another address")
        if not address.is_local and options.tls is None and not options.plain_text:
            faults.add(
                path,
                f"{address} can be reached by other hosts, and tokens would be sent in plain text; add `tls`, or set "
                "`plain_text = true` if the network is trusted or a proxy has TLS",
            )


__all__ = [
    "Faults",
    "HttpOptions",
    "LimitOptions",
    "ResolvedApp",
    "TlsOptions",
    "check_addresses",
    "check_parts",
    "listen_addresses",
    "mounted_apps",
    "named_filters",
    "options_for",
]
