"""What happens around every request: its id, its line in the log, who calls, and errors in the right shape."""

import socket
import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web

from proxy.domain.errors import (
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
)
from proxy.domain.ids import make_id
from proxy.web.context import ACTOR, CALLER, CLOCK, ENTROPY, GATEKEEPER, METRICS, OPTIONS, REFUSAL, REQUEST_ID
from proxy.web.errors import UNAUTHORIZED_BODY, answer
from proxy.web.messages import Language, language_of
from proxy.web.responses import json_response
from proxy.web.routes import Audience, audience_of

log = structlog.get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
NO_ROUTE = "-"  # what an unknown path is called in logs and metrics


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id and a line in the log; count it."""
    started = time.perf_counter()
    request_id = make_id("req_", request.app[CLOCK](), request.app[ENTROPY](16))
    request[REQUEST_ID] = request_id
    with structlog.contextvars.bound_contextvars(request_id=request_id):
        response = await handler(request)
        seconds = time.perf_counter() - started
        resource = request.match_info.route.resource
        route = NO_ROUTE if resource is None else resource.canonical
        request.app[METRICS].answered(request.method, route, response.status, seconds)
        caller, refused = request.get(CALLER), request.get(REFUSAL)
        log.info(
            "request",
            method=request.method,
            route=route,
            status=response.status,
            ms=round(seconds * 1000, 1),
            key=None if caller is None else caller.id,
            code=None if refused is None else refused.code,
            cause=getattr(refused, "cause", None),
        )
    return response


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure into the answer the API document, or the envelope, has for it."""
    try:
        return await handler(request)
    except Unauthorized as error:
        if audience_of(request) is Audience.CLIENT or request.path.startswith("/v1/"):
            return json_response(UNAUTHORIZED_BODY, 401, {hdrs.WWW_AUTHENTICATE: "Bearer"})
        return answer(error, language(request))
    except GatewayError as error:
        return refusal(request, error)
    except web.HTTPException as error:
        return _routing(error, language(request))
    except ConnectionError:
        raise  # the client is gone
    except Exception:
        log.exception("request_crashed")
        return answer(InternalError(), language(request))


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let in whom the route is for. Raises `Unauthorized`."""
    match audience_of(request):
        case Audience.CLIENT:
            caller = request.app[GATEKEEPER].caller(_secret(request), request.app[CLOCK]())
            if caller is None:
                raise Unauthorized
            request[CALLER] = caller
        case Audience.ADMIN:
            request[ACTOR] = _admin(request)
        case Audience.PUBLIC:
            pass
        case None if request.path.startswith("/v1/"):
            if request.app[GATEKEEPER].caller(_secret(request), request.app[CLOCK]()) is None:
                raise Unauthorized  # what is there and what is not is told to clients alone
        case None if request.path.startswith("/admin/"):
            _admin(request)  # and here to the operator
        case None:
            pass
    return await handler(request)


def refusal(request: web.Request, error: GatewayError) -> web.Response:
    """Return the answer to a request that failed, and note why for its line in the log."""
    request[REFUSAL] = error
    return answer(error, language(request))


def _routing(error: web.HTTPException, spoken: Language) -> web.StreamResponse:
    """Return the answer where no route matched."""
    if not isinstance(error, web.HTTPMethodNotAllowed):
        return answer(NotFound(), spoken)
    response = answer(MethodNotAllowed(), spoken)
    response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    return response


def language(request: web.Request) -> Language:
    return language_of(request.headers.get(hdrs.ACCEPT_LANGUAGE), request.app[OPTIONS].language)


def _secret(request: web.Request) -> str:
    """Return the key of `Authorization: Bearer KEY` or `x-api-key: KEY`; empty where there is none.

    No key has a character beyond ASCII, least of all one of the bytes that are not even text.
    """
    scheme, _, secret = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "bearer":
        secret = request.headers.get("x-api-key", "")
    return secret.strip() if secret.isascii() else ""


def _admin(request: web.Request) -> str:
    """Return who acts: the machine's operator on the socket in the data folder, or the holder of the admin key."""
    listener = request.transport.get_extra_info("socket") if request.transport is not None else None
    if listener is not None and listener.family == socket.AF_UNIX:
        return "operator"
    if not request.app[GATEKEEPER].is_admin(_secret(request)):
        raise Unauthorized
    return "admin"


async def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Put the request's id on every answer, and keep browsers from guessing types."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
