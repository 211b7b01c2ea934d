"""The gateway as a whole: its status, its brake, its own two keys."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from aiohttp import web
from pydantic import Field

from proxy.services.problems import Figures
from proxy.services.status import Page
from proxy.storage.pauses import Pause
from proxy.web.admin import cooldowns
from proxy.web.admin.context import ADMIN_KEY, MASTER_KEY, PAUSES, STATUS
from proxy.web.admin.fields import Text
from proxy.web.admin.requests import Body, answer, read
from proxy.web.context import ACTOR
from proxy.web.routes import Audience, Route

MAX_COOLDOWNS = 100  # on the status page

Id = Annotated[str, Field(max_length=160)]


class Brake(Body):
    """What is meant: everything, or the driver or the model `id`."""

    kind: Literal["all", "driver", "model"]
    id: Id = ""


class NewPause(Brake):
    reason: Text


async def status(request: web.Request) -> web.Response:
    return answer(status_view(await request.app[STATUS].page()))


async def list_pauses(request: web.Request) -> web.Response:
    return answer(pauses_view(await request.app[PAUSES].page()))


async def pause(request: web.Request) -> web.Response:
    body = await read(request, NewPause)
    return answer(pauses_view(await request.app[PAUSES].pause(request[ACTOR], body.kind, body.id, body.reason)))


async def resume(request: web.Request) -> web.Response:
    body = await read(request, Brake)
    return answer(pauses_view(await request.app[PAUSES].resume(request[ACTOR], body.kind, body.id)))


async def reset_admin_key(request: web.Request) -> web.Response:
    """Answer with the new admin key, this once: who asked by the old one could not come back to read its file."""
    service = request.app[ADMIN_KEY]
    key = await service.reset(request[ACTOR])
    return answer({"admin_key": key.reveal(), "file": str(service.file)})


async def rotate_master_key(request: web.Request) -> web.Response:
    return answer(asdict(await request.app[MASTER_KEY].rotate(request[ACTOR])))


def pauses_view(found: Sequence[Pause]) -> dict[str, Any]:
    return {"data": [asdict(each) for each in found], "next": None}


def status_view(page: Page) -> dict[str, Any]:
    figures, running = page.figures, page.running
    return {
        "now": figures.now,
        "started_at": running.started_at,
        "version": running.version,
        "sandbox": figures.sandbox,
        "draining": figures.draining,
        "jobs": jobs_view(page),
        "tokens": asdict(figures.tokens),
        "proxies": proxies_view(figures),
        "keys": {"active": figures.active_keys},
        "models": [asdict(outlook) for outlook in figures.outlooks],
        "pauses": [asdict(each) for each in figures.pauses],
        "cooldowns": [cooldowns.view(row) for row in figures.cooldowns[:MAX_COOLDOWNS]],
        "cooldowns_total": len(figures.cooldowns),
        "problems": [asdict(problem) for problem in page.problems],
    }


def jobs_view(page: Page) -> dict[str, Any]:
    ended = page.figures.ended
    last_hour = {f"{state}_last_hour": ended.get(state, 0) for state in ("completed", "failed", "cancelled")}
    queue = {"waiting": page.waiting, "oldest_queued_at": page.figures.oldest_queued_at}
    return {**page.unfinished, **queue, **last_hour}


def proxies_view(figures: Figures) -> dict[str, int]:
    proxies = figures.proxies
    return {name: getattr(proxies, name) for name in ("total", "ready", "cooling", "disabled")}


ROUTES = [
    Route("GET", "/admin/status", status, Audience.ADMIN),
    Route("GET", "/admin/pauses", list_pauses, Audience.ADMIN),
    Route("POST", "/admin/pause", pause, Audience.ADMIN),
    Route("POST", "/admin/resume", resume, Audience.ADMIN),
    Route("POST", "/admin/admin-key/reset", reset_admin_key, Audience.ADMIN),
    Route("POST", "/admin/master-key/rotate", rotate_master_key, Audience.ADMIN),
]
