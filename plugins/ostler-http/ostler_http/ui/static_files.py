"""The style sheet, the script and the icon. There are few, so that their names are a list and not paths."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "ui.css": "text/css; charset=utf-8",
    "ui.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def _read(name: str) -> tuple[bytes, str]:
    data = files("ostler_http.ui").joinpath("static", name).read_bytes()
    return data, f'"{hashlib.sha256(data).hexdigest()[:16]}"'


async def static_file(request: Request) -> Response:
    """Return a file, or that the browser's copy is still right."""
    name = request.path_params["name"]
    if name not in _TYPES:
        return Response(status_code=404)
    data, tag = _read(name)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=_TYPES[name], headers=headers)
