"""ASGI applications that want to know of their start and stop, as those of Starlette and FastAPI do."""

from __future__ import annotations

import contextlib

import pytest
from http_harness import configuration, send_text
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ostler import ServiceError

MOUNTS = '[services.web.apps."/app"]\napp = "app"\nfilters = []'


def starlette_app(happened, fails_at=""):
    @contextlib.asynccontextmanager
    async def lifespan(app):
        if fails_at == "start":
            raise ValueError("no database")
        happened.append("start")
        yield {"pool": "of this mount"}
        happened.append("stop")
        if fails_at == "stop":
            raise ValueError("no database")

    def answer(request):
        return PlainTextResponse(request.state.pool)

    return Starlette(routes=[Route("/", answer)], lifespan=lifespan)


def test_an_application_is_told_of_its_start_and_stop(serve):
    happened = []
    with serve(MOUNTS, apps={"app": starlette_app(happened)}) as web:
        assert web.get("/app/")[2] == b"of this mount"
        assert happened == ["start"]
        web.host.reload(configuration())
        web.host.wait_for(lambda: happened == ["start", "stop"], "the stop of the application")


def test_an_application_that_does_not_start_fails_the_reload(serve):
    with serve(apps={"app": starlette_app([], "start")}) as web:
        with pytest.raises(ServiceError, match="no database"):
            web.host.reload(configuration(MOUNTS))
        assert web.get("/open")[0] == 200


def test_an_application_that_fails_at_its_stop_harms_nobody(serve, caplog):
    happened = []
    with serve(MOUNTS, apps={"app": starlette_app(happened, "stop")}) as web:
        web.host.reload(configuration())
        web.host.wait_for(lambda: "no database" in caplog.text, "the line of the log")
        assert web.get("/open")[0] == 200


class Raises:
    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        await send_text(send, "done")


class Returns:
    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            await send_text(send, "done")


class TakesAllForRequests:
    async def __call__(self, scope, receive, send):
        await send_text(send, "done")


@pytest.mark.parametrize("app", [Raises, Returns, TakesAllForRequests])
def test_an_application_without_a_lifespan_is_left_alone(serve, app):
    with serve(MOUNTS, apps={"app": app()}) as web:
        assert web.get("/app")[2] == b"done"
