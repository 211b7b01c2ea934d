"""`/admin/jobs`: what was asked for, and what became of it. Prompts are the tenants' own: none is shown."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.domain.errors import InvalidParameter
from proxy.domain.jobs import Attempt, JobState
from proxy.services.jobs import ShownJob
from proxy.web.admin.context import JOBS
from proxy.web.admin.requests import answer, page
from proxy.web.context import ACTOR
from proxy.web.routes import Audience, Route


async def list_jobs(request: web.Request) -> web.Response:
    wanted = page(request, ("state", "key"))
    state = read_state(wanted.filters.get("state"))
    found = await request.app[JOBS].page(wanted.after, wanted.limit + 1, state, wanted.filters.get("key"))
    return wanted.cut(found, lambda shown: shown.job.id, view)


async def show(request: web.Request) -> web.Response:
    return answer(detail(await request.app[JOBS].show(request.match_info["id"])))


async def cancel(request: web.Request) -> web.Response:
    return answer(detail(await request.app[JOBS].cancel(request[ACTOR], request.match_info["id"])))


def read_state(value: str | None) -> JobState | None:
    if value is not None and value not in tuple(JobState):
        raise InvalidParameter("state", f"must be one of {', '.join(JobState)}")
    return None if value is None else JobState(value)


def view(shown: ShownJob) -> dict[str, Any]:
    job, order = shown.job, shown.job.order
    return {
        "id": job.id,
        "state": job.state,
        "dialect": job.dialect,
        "tenant": job.tenant_id,
        "key": job.key_id,
        "kind": order.kind,
        "model": order.model,
        "upstream_model": order.upstream_model,
        "duration": order.duration,
        "resolution": order.resolution,
        "aspect_ratio": order.aspect_ratio,
        "progress": shown.progress,
        "priority": job.priority,
        "synchronous": job.synchronous,
        "created_at": job.created_at,
        "deadline": job.deadline,
        "finished_at": job.finished_at,
        "seen_at": job.seen_at,
        "error": job.error,
        "token": job.token_id,
        "proxy": job.proxy_id,
        "upstream_id": job.upstream_id,
        "file": job.file_id,
    }


def detail(shown: ShownJob) -> dict[str, Any]:
    money = shown.money
    return view(shown) | {
        "attempts": [attempt_view(attempt) for attempt in shown.attempts],
        "cost": None if money is None else money.cost,
        "charge": None if money is None else money.charge,
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    values = asdict(attempt)
    del values["work_id"]
    return values | {"token": values.pop("token_id"), "proxy": values.pop("proxy_id")}


ROUTES = [
    Route("GET", "/admin/jobs", list_jobs, Audience.ADMIN),
    Route("GET", "/admin/jobs/{id}", show, Audience.ADMIN),
    Route("POST", "/admin/jobs/{id}/cancel", cancel, Audience.ADMIN),
]
