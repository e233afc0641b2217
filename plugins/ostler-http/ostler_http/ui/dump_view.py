"""The dump as a file, to be sent to whoever helps."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from ostler import OstlerError
from ostler_http.ui.live_view import require_role
from ostler_http.ui.page_view import to_login
from ostler_http.ui.pages.dump import DumpPage
from ostler_http.ui.responses import error_page
from ostler_http.ui.visit import Visits

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts


class DumpView:
    """Answers `/dump.json`.

    Args:
        parts: What requests share.
    """

    def __init__(self, parts: Parts) -> None:
        self._visits = Visits(parts)
        self._parts = parts

    async def download(self, request: Request) -> Response:
        """Return the dump as `ostler dump --json` prints it, with a name that says of which host and when it is."""
        visit, page = self._visits.of(request), DumpPage()
        if visit is None:
            return to_login(self._parts, request)
        try:
            await visit.learn_methods("ostler")
            require_role(visit, page)
            dump = (await page.load(visit))["dump"]
        except OstlerError as error:
            return await error_page(visit, error)
        environment = self._parts.environment
        host = "".join(each if each.isascii() and each.isalnum() else "-" for each in environment.host)
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(environment.clock.wall()))
        headers = {"content-disposition": f'attachment; filename="ostler-dump-{host}-{at}.json"'}
        text = json.dumps(dump, ensure_ascii=False, default=str, indent=2)
        return Response(text.encode("utf-8", "backslashreplace"), media_type="application/json", headers=headers)
