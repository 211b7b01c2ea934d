"""`POST /v1/videos/generations` and `GET /v1/videos/{id}`."""

import asyncio
import hashlib
import math
import re
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import hdrs, web

from proxy.domain.errors import (
    GatewayError,
    GenerationTimeout,
    InvalidParameter,
    JobError,
    StorageBusy,
    StorageFull,
    UnsupportedMediaType,
)
from proxy.domain.jobs import Job, JobState
from proxy.services.generations import Request
from proxy.web.bodies import body_of, json_object
from proxy.web.context import CALLER, GENERATIONS, MODELS, OPTIONS
from proxy.web.dialects import document
from proxy.web.errors import answer
from proxy.web.media import LINKS
from proxy.web.middleware import language, refusal
from proxy.web.responses import json_response
from proxy.web.routes import Audience, Route

IDEMPOTENCY_KEY = re.compile(r'"?([\x21\x23-\x7e][\x20\x21\x23-\x7e]{0,253})"?', re.ASCII)
WAIT = re.compile(r"wait=([0-9]{1,4})", re.ASCII)
ASYNC_RETRY = 5  # seconds, told to a client that will look again


@dataclass(frozen=True, slots=True)
class Preference:
    """What the client wants of the answer (RFC 7240)."""

    applied: str | None = None  # for Preference-Applied
    wait: float | None = None  # seconds; 0: not at all; None: as long as the gateway waits


async def create_video(request: web.Request) -> web.StreamResponse:
    """Make a video and answer with it; or with the job (202), if `Prefer` says so."""
    began = asyncio.get_running_loop().time()
    preference = _preference(request)
    try:
        job = await _accept(request, synchronous=preference.wait is None)
        if preference.wait == 0:
            return _accepted(request, job, preference)
        return await _finished(request, job, preference, began)
    except document.SchemaError as error:
        return json_response(error.body, 400)
    except JobError as error:
        return refusal(request, error)
    except GatewayError as error:
        response = refusal(request, error)
        _show_standing(request, response)
        return response


async def get_video(request: web.Request) -> web.StreamResponse:
    """Answer with a job of this tenant, whatever its state. Counts against no limit."""
    job = await request.app[GENERATIONS].find(request.match_info["id"], request[CALLER].tenant_id)
    response = json_response(_view(request, job))
    if job.state.is_final:
        return await _deliver(request, response, job)
    return response


async def _accept(request: web.Request, *, synchronous: bool) -> Job:
    """Read the body and submit it. The body is dropped with the end of this function."""
    if request.content_type != "application/json":
        raise UnsupportedMediaType
    idempotency_key = _idempotency_key(request)
    models = request.app[MODELS]
    async with body_of(request) as body:
        read = document.read_order(json_object(body), models, next(iter(models)))
        order = Request(
            dialect=document.NAME,
            job_prefix=document.JOB_PREFIX,
            order=read.order,
            image_url=read.image_url,
            body_hash=hashlib.sha256(body).digest(),
            idempotency_key=idempotency_key,
            synchronous=synchronous,
            is_connected=lambda: request.transport is not None and not request.transport.is_closing(),
        )
        return await request.app[GENERATIONS].submit(request[CALLER], order)


async def _finished(request: web.Request, job: Job, preference: Preference, began: float) -> web.StreamResponse:
    """Wait for the end of the job and answer with it."""
    limit = request.app[OPTIONS].wait
    wait = limit if preference.wait is None else min(preference.wait, limit)
    try:
        elapsed = asyncio.get_running_loop().time() - began
        job = await request.app[GENERATIONS].wait(job, max(0.0, wait - elapsed))
    except GenerationTimeout as error:
        return _timed_out(request, job, error) if preference.wait is None else _accepted(request, job, preference)
    return await _deliver(request, _result(request, job, preference), job)


def _result(request: web.Request, job: Job, preference: Preference) -> web.Response:
    if job.state is JobState.COMPLETED:
        response = json_response(document.video_view(job, _link(request, job)))
    else:
        response = answer(document.failure(job), language(request))
    if preference.applied:
        response.headers["Preference-Applied"] = preference.applied
    response.headers[hdrs.LOCATION] = f"/v1/videos/{job.id}"
    _show_standing(request, response)
    return response


async def _deliver(request: web.Request, response: web.Response, job: Job) -> web.StreamResponse:
    """Send the result, and note that its client has it."""
    await response.prepare(request)
    await response.write_eof()
    if job.seen_at is None and request.transport is not None:
        with suppress(StorageFull, StorageBusy):
            await request.app[GENERATIONS].seen(job)
    return response


def _accepted(request: web.Request, job: Job, preference: Preference) -> web.Response:
    response = json_response(_view(request, job), 202)
    response.headers[hdrs.LOCATION] = f"/v1/videos/{job.id}"
    response.headers[hdrs.RETRY_AFTER] = str(ASYNC_RETRY)
    if preference.applied:
        response.headers["Preference-Applied"] = preference.applied
    _show_standing(request, response)
    return response


def _timed_out(request: web.Request, job: Job, error: GenerationTimeout) -> web.Response:
    response = answer(error, language(request), job_id=job.id)
    response.headers[hdrs.LOCATION] = f"/v1/videos/{job.id}"
    return response


def _view(request: web.Request, job: Job) -> dict[str, object]:
    progress = request.app[GENERATIONS].progress(job)
    link = _link(request, job) if job.state is JobState.COMPLETED else None
    return document.job_view(job, progress, link, language(request))


def _link(request: web.Request, job: Job) -> str:
    return request.app[LINKS].link(job.file_id or "", job.tenant_id)


def _show_standing(request: web.Request, response: web.Response) -> None:
    """Tell where the key stands (draft-ietf-httpapi-ratelimit-headers-11)."""
    standing = request.app[GENERATIONS].standing(request[CALLER])
    if standing is not None:
        response.headers["RateLimit-Policy"] = f'"default";q={standing.limit};w=60'
        response.headers["RateLimit"] = f'"default";r={standing.remaining};t={math.ceil(standing.reset)}'


def _preference(request: web.Request) -> Preference:
    """Read `Prefer: respond-async`, `Prefer: wait=N`; others are ignored, as RFC 7240 wants it."""
    wait: Preference = Preference()
    for header in request.headers.getall("Prefer", []):
        for part in header.lower().split(","):
            word = part.split(";")[0].strip()
            if word == "respond-async":
                return Preference("respond-async", 0.0)
            if (match := WAIT.fullmatch(word.replace(" ", ""))) is not None:
                wait = Preference(f"wait={match[1]}", float(match[1]))
    return wait


def _idempotency_key(request: web.Request) -> str | None:
    """Return the Idempotency-Key, quoted (a structured-field string) or not. Raises `InvalidParameter`."""
    values = request.headers.getall("Idempotency-Key", [])
    if not values:
        return None
    match = IDEMPOTENCY_KEY.fullmatch(values[0].strip())
    if match is None or len(values) > 1:
        raise InvalidParameter("Idempotency-Key", "must be 1 to 254 printable ASCII characters, given once")
    return match[1]


ROUTES = [
    Route("POST", "/v1/videos/generations", create_video, Audience.CLIENT),
    Route("GET", "/v1/videos/{id}", get_video, Audience.CLIENT),
]
