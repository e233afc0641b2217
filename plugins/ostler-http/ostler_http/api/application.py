"""The application `api`: its options, its routes, and the way of a request through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from ostler import Field, InternalError, OstlerError, Seconds, Size
from ostler_http.api.context import ApiContext
from ostler_http.api.document import DocumentHandlers
from ostler_http.api.events import EventHandlers
from ostler_http.api.frames import StreamSender
from ostler_http.api.index import IndexHandlers
from ostler_http.api.interfaces import Interfaces
from ostler_http.api.methods import MethodHandlers
from ostler_http.api.operations import OperationHandlers
from ostler_http.api.problems import HttpError
from ostler_http.api.request import BodyLimits, ClientGone, Departures, Request
from ostler_http.api.resources import ResourceHandlers
from ostler_http.api.responses import Response, problem_response, send_response
from ostler_http.api.routes import Routes
from ostler_http.application import Application, AppOptions

if TYPE_CHECKING:
    from ostler_http.application import AppEnvironment
    from ostler_http.asgi import ASGIApp, Receive, Scope, Send


class ApiOptions(AppOptions):
    """The options of a mount with `app = "api"`."""

    timeout: Seconds = Field(60.0, help="Deadline of requests that name none in `Request-Timeout`", reload="live")
    response_timeout: Seconds = Field(
        0, ge=0, help="Time until a response must have begun; 0 for no limit: requests have deadlines of their own"
    )
    max_body_size: Size = Field(
        "2MiB", help="Most bytes of the body of a request; a mebibyte of content has 1.4 of them as base64"
    )
    max_depth: int = Field(64, ge=1, le=500, help="How deeply a body may be nested", reload="live")
    max_streams: int = Field(2000, ge=1, help="How many streams may be open at once", reload="live")
    max_streams_per_caller: int = Field(1000, ge=1, help="How many of them one caller may have", reload="live")
    keepalive: Seconds = Field(
        15, gt=0, help="Time without a frame after which a comment keeps proxies from closing a stream", reload="live"
    )


_HANDLERS = (
    IndexHandlers, MethodHandlers, OperationHandlers, EventHandlers, ResourceHandlers, DocumentHandlers,
)  # fmt: skip


class ApiApplication(Application):
    """Serves methods, events, operations and the daemon's own status over HTTP.

    Everybody may ask for the page of the documentation, which has no facts; all else is refused without a role, here
    and by the daemon.
    """

    Options: ClassVar[type[AppOptions]] = ApiOptions
    needs_role: ClassVar[bool] = False

    def __init__(self, environment: AppEnvironment, options: Any) -> None:
        super().__init__(environment, options)
        self._limits = BodyLimits(int(options.max_body_size), options.max_depth)
        self.streams = StreamSender(options.max_streams, options.max_streams_per_caller, float(options.keepalive))
        self._departures = Departures()
        context = ApiContext(
            environment.gateway, Interfaces(environment.clock), self.streams, float(options.timeout), environment.host
        )
        self.routes = Routes()
        for handlers in _HANDLERS:
            handlers(context).add_to(self.routes)

    def build(self) -> ASGIApp:
        """See `Application.build`."""
        return self._serve

    async def stop(self, timeout: float) -> None:
        """See `Application.stop`: clients of streams are told."""
        self.streams.stop()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003, "reason": "the API has no WebSockets"})
            return
        request = Request(scope, receive, send, self._limits, self._departures)
        try:
            response = await self._respond(request)
            if response is not None:
                await request.discard_body()
                await send_response(request, response)
        except (ClientGone, OSError):
            return  # nobody reads what would be sent

    async def _respond(self, request: Request) -> Response | None:
        try:
            route, request.parameters = self.routes.find(request.method, request.parts)
            if not route.is_public:
                request.check_role()
                request.check_origin()
            return await route.handler(request)
        except (OstlerError, HttpError) as error:
            return problem_response(error, request)
        except (ClientGone, OSError):
            raise
        except Exception:  # the daemon's errors are all known; this is one of the API itself
            self.environment.log.exception("%s %s failed", request.method, request.path)
            return problem_response(InternalError("the API failed", hint="see the log of the daemon"), request)
