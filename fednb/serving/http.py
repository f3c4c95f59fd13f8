"""The service over HTTP: who may ask, how much may be said, and answers as JSON.

Whatever a caller sends is bytes until it has passed here: a token first, where there is one, then the declared type of
the body, its size, and the model's own schema. Nothing that was sent is ever sent back.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fednb.errors import FednbError
from fednb.serving import requests
from fednb.serving.openapi import Model, Problem, Ready, document, page
from fednb.serving.service import Service

log = logging.getLogger("fednb.serving")

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


class Guard:
    """Lets nobody through without the token; /health says nothing and needs none."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health" and not self._knows(scope):
            answer = _json(401, Problem("a token is needed: Authorization: Bearer …."))
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], b"Bearer " + self._token)


def app_of(
    service: Service, table: str | None, model: Model, *, token: str = "", hosts: Sequence[str] = ()
) -> Starlette:
    """The application; `hosts` are the names by which it is reached, none: any."""
    applicant = requests.schema_of(model.features, table)
    described = document(applicant, bool(token))

    async def score(request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # a browser sends this to another site only after it was allowed to
            return _json(415, Problem("declare the body as Content-Type: application/json."))
        try:
            body = await _body(request)
        except ClientDisconnect:
            return _json(400, Problem("the request was not sent to its end."))
        if body is None:
            return _json(413, Problem(f"a request has {requests.MOST_BYTES:,} bytes at most."))
        try:
            id, features = requests.read(body, applicant)
        except requests.Wrong as error:
            return _json(422, Problem(str(error), error.field))
        try:
            code, answer = await run_in_threadpool(service.score, id, features)
        except Exception as error:  # here: further out its text, which may quote what was sent, would be logged
            return _failed(error)
        found = _json(code, answer)
        if code == 503:
            found.headers["Retry-After"] = "5"
        return found

    def ready(request: Request) -> Response:
        state, spare = service.state(), service.deployed.fallback is not None
        can = state.open or spare
        said = Ready(can, state.open, spare, "" if state.open else state.why, state.run, state.since)
        return _json(200 if can else 503, said)

    return Starlette(
        routes=[
            Route("/v1/score", score, methods=["POST"]),
            Route("/v1/model", lambda request: _json(200, model)),
            Route("/health", lambda request: _json(200, {"alive": True})),
            Route("/ready", ready),
            Route("/openapi.json", lambda request: _json(200, described)),
            Route("/docs", lambda request: Response(page(described), media_type="text/html", headers=HEADERS)),
        ],
        middleware=[
            *([Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))] if hosts else []),
            *([Middleware(Guard, token=token)] if token else []),
        ],
        exception_handlers={404: _nothing_here, 405: _nothing_here},
    )


async def _body(request: Request) -> bytes | None:
    """None for one that is too large; it is not read to its end."""
    body = bytearray()
    async for some in request.stream():
        body += some
        if len(body) > requests.MOST_BYTES:
            return None
    return bytes(body)


def _json(code: int, found: Any) -> Response:
    return Response(msgspec.json.encode(found), code, HEADERS, "application/json")


def _nothing_here(request: Request, error: Exception) -> Response:
    code = getattr(error, "status_code", 404)
    return _json(code, Problem("there is nothing here; /openapi.json says what there is."))


def _failed(error: Exception) -> Response:
    """Only fednb's own words; those of other errors can quote what was sent."""
    log.error("a request failed: %s", error if isinstance(error, FednbError) else type(error).__name__)
    why = str(error) if isinstance(error, FednbError) else "an internal error; the service's own log has the details."
    return _json(500, Problem(why))
