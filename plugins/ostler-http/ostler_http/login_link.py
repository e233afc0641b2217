"""The link that logs a browser in once: `ostler http login-link`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ostler import NotFound, NotPermitted, Peer
from ostler_http.server.mounts import Mount

_WILDCARDS = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}


def make_login_link(mounts: Iterable[Mount], addresses: Sequence[str], peer: Peer) -> str:
    """Return a link to the first mount with a web page, valid once and for minutes. On the loop of the service.

    Args:
        mounts: The mounts of the service.
        addresses: Where it listens, as clients write it.
        peer: The local user as whom its bearer will act.

    Raises:
        NotPermitted: The caller is no local user.
        NotFound: There is no web page, or no address that a browser can use.
    """
    if peer.uid < 0:
        raise NotPermitted(
            f"a login link is for users of this host, and {peer.name} is none", hint="log in with a token instead"
        )
    mount = next((mount for mount in mounts if hasattr(mount.app, "login_link")), None)
    if mount is None:
        raise NotFound("this service has no web page", hint='mount one: [services.TOPIC.apps."/"] app = "ui"')
    address = next((address for address in addresses if address.startswith("http")), None)
    if address is None:
        raise NotFound("this service has no address for a browser", hint='add one to `listen`: "127.0.0.1:8080"')
    for wildcard, loopback in _WILDCARDS.items():
        address = address.replace(wildcard, loopback)
    app: Any = mount.app
    return f"{address.rstrip('/')}{mount.root_path}{app.login_link(peer)}"
