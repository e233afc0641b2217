"""Reading of forms, with limits."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from ostler import InvalidInput

_MAX_SIZE = 64 * 1024
_MAX_FIELDS = 100


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of an URL-encoded form; of two with one name the last.

    Raises:
        InvalidInput: It is too large, or not such a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidInput(f"a form must be application/x-www-form-urlencoded, not {kind or 'nothing'}")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_SIZE:
            raise InvalidInput(f"the form is larger than {_MAX_SIZE} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise InvalidInput("the form cannot be decoded") from None
    return dict(pairs)
