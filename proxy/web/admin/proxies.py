"""`/admin/proxies`: the ways out. No answer gives a password or a clearance back."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy.services.proxies import Edit, ShownProxy
from proxy.web.admin import cooldowns
from proxy.web.admin.context import PROXIES
from proxy.web.admin.fields import Credential, HeaderText, Text
from proxy.web.admin.requests import Body, Change, answer, flag, page, read
from proxy.web.context import ACTOR
from proxy.web.routes import Audience, Route


class NewProxy(Body):
    url: Credential
    name: Text = ""
    clearance: Credential | None = None
    user_agent: HeaderText | None = None


class ProxyChange(Change):
    url: Credential | None = None
    name: Text = ""
    clearance: Credential | None = None
    user_agent: HeaderText | None = None


async def create(request: web.Request) -> web.Response:
    body = await read(request, NewProxy)
    return answer(view(await request.app[PROXIES].add(request[ACTOR], edit(body))), 201)


async def list_proxies(request: web.Request) -> web.Response:
    wanted = page(request)
    found = await request.app[PROXIES].page(wanted.after, wanted.limit + 1)
    return wanted.cut(found, lambda shown: shown.proxy.id, view)


async def show(request: web.Request) -> web.Response:
    return answer(view(await request.app[PROXIES].show(request.match_info["id"])))


async def update(request: web.Request) -> web.Response:
    body = await read(request, ProxyChange)
    return answer(view(await request.app[PROXIES].update(request[ACTOR], request.match_info["id"], edit(body))))


async def enable(request: web.Request) -> web.Response:
    return answer(view(await request.app[PROXIES].enable(request[ACTOR], request.match_info["id"])))


async def disable(request: web.Request) -> web.Response:
    return answer(view(await request.app[PROXIES].disable(request[ACTOR], request.match_info["id"])))


async def clear(request: web.Request) -> web.Response:
    return answer(view(await request.app[PROXIES].clear(request[ACTOR], request.match_info["id"])))


async def remove(request: web.Request) -> web.Response:
    proxy_id = request.match_info["id"]
    await request.app[PROXIES].remove(request[ACTOR], proxy_id, flag(request, "force"))
    return answer({"id": proxy_id, "removed": True})


async def test(request: web.Request) -> web.Response:
    trial = await request.app[PROXIES].test(request[ACTOR], request.match_info["id"])
    return answer({"ok": trial.exit_address is not None} | asdict(trial))


def edit(body: NewProxy | ProxyChange) -> Edit:
    given = frozenset(body.model_fields_set)
    return Edit(given, body.name, body.url, body.clearance, body.user_agent)


def view(shown: ShownProxy) -> dict[str, Any]:
    proxy, live = shown.proxy, shown.live
    return {
        "id": proxy.id,
        "name": proxy.name,
        "url": proxy.url,
        "status": live.status,
        "cooling_until": live.cooling_until,
        "tokens": live.tokens,
        "exit_address": proxy.exit_address,
        "has_clearance": proxy.has_clearance,
        "user_agent": proxy.user_agent,
        "created_at": proxy.created_at,
        "cooldowns": [cooldowns.view(row) for row in live.cooldowns],
    }


ROUTES = [
    Route("POST", "/admin/proxies", create, Audience.ADMIN),
    Route("GET", "/admin/proxies", list_proxies, Audience.ADMIN),
    Route("GET", "/admin/proxies/{id}", show, Audience.ADMIN),
    Route("PATCH", "/admin/proxies/{id}", update, Audience.ADMIN),
    Route("DELETE", "/admin/proxies/{id}", remove, Audience.ADMIN),
    Route("POST", "/admin/proxies/{id}/enable", enable, Audience.ADMIN),
    Route("POST", "/admin/proxies/{id}/disable", disable, Audience.ADMIN),
    Route("POST", "/admin/proxies/{id}/clear", clear, Audience.ADMIN),
    Route("POST", "/admin/proxies/{id}/test", test, Audience.ADMIN),
]
