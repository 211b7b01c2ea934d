"""`/admin/tokens`: upstream credentials. No answer gives a secret back."""

from typing import Any

from aiohttp import web
from pydantic import field_validator

from proxy.domain.outcomes import Outcome
from proxy.services.tokens import ShownToken
from proxy.web.admin import cooldowns
from proxy.web.admin.context import TOKENS
from proxy.web.admin.fields import BaseUrl, Credential, Limit, Models, Text
from proxy.web.admin.requests import Body, Change, answer, flag, page, read
from proxy.web.context import ACTOR
from proxy.web.routes import Audience, Route


class NewToken(Body):
    """`proxy` is an id or a name; without a `concurrency` it is the driver's, of the settings."""

    driver: Text
    secret: Credential
    name: Text = ""
    concurrency: Limit = 1
    base_url: BaseUrl | None = None
    proxy: Text | None = None
    tier: Text = ""
    team: Text | None = None
    models: Models | None = None


class TokenChange(Change):
    secret: Credential | None = None
    name: Text = ""
    concurrency: Limit = 1
    base_url: BaseUrl | None = None
    proxy: Text | None = None
    tier: Text = ""
    team: Text | None = None
    models: Models | None = None

    @field_validator("secret", mode="before")
    @classmethod
    def need_a_secret(cls, value: object) -> object:
        if value is None:
            raise ValueError("must be a text: a token is never without one")
        return value


async def create(request: web.Request) -> web.Response:
    body = await read(request, NewToken)
    shown = await request.app[TOKENS].add(request[ACTOR], body.driver, body.secret, fields(body))
    return answer(view(shown), 201)


async def list_tokens(request: web.Request) -> web.Response:
    wanted = page(request)
    found = await request.app[TOKENS].page(wanted.after, wanted.limit + 1)
    return wanted.cut(found, lambda shown: shown.token.id, view)


async def show(request: web.Request) -> web.Response:
    return answer(view(await request.app[TOKENS].show(request.match_info["id"])))


async def update(request: web.Request) -> web.Response:
    body = await read(request, TokenChange)
    shown = await request.app[TOKENS].update(request[ACTOR], request.match_info["id"], body.secret, fields(body))
    return answer(view(shown))


async def enable(request: web.Request) -> web.Response:
    return answer(view(await request.app[TOKENS].enable(request[ACTOR], request.match_info["id"])))


async def disable(request: web.Request) -> web.Response:
    """Give a token no more work. Draining is that, and looking at its `in_flight` until it is 0."""
    return answer(view(await request.app[TOKENS].disable(request[ACTOR], request.match_info["id"])))


async def clear(request: web.Request) -> web.Response:
    return answer(view(await request.app[TOKENS].clear(request[ACTOR], request.match_info["id"])))


async def remove(request: web.Request) -> web.Response:
    token_id = request.match_info["id"]
    await request.app[TOKENS].remove(request[ACTOR], token_id, flag(request, "force"))
    return answer({"id": token_id, "removed": True})


async def test(request: web.Request) -> web.Response:
    trial = await request.app[TOKENS].test(request[ACTOR], request.match_info["id"])
    return answer(
        {
            "ok": trial.outcome is Outcome.OK,
            "outcome": trial.outcome,
            "reason": trial.reason,
            "evidence": trial.evidence,
            "team": trial.team,
            "proxy": trial.proxy_id,
            "ms": trial.ms,
        }
    )


def fields(body: NewToken | TokenChange) -> dict[str, Any]:
    """Return what the body gives of a token, by the names of the domain."""
    given = {name: value for name, value in body.given().items() if name not in ("driver", "secret")}
    if "proxy" in given:
        given["proxy_id"] = given.pop("proxy")
    if given.get("models") is not None:
        given["models"] = tuple(given["models"])
    return given


def view(shown: ShownToken) -> dict[str, Any]:
    token, live = shown.token, shown.live
    return {
        "id": token.id,
        "name": token.name,
        "driver": token.driver,
        "status": live.status,
        "cooling_until": live.cooling_until,
        "in_flight": live.in_flight,
        "concurrency": token.concurrency,
        "proxy": live.proxy_id,
        "pinned_proxy": token.proxy_id,
        "tier": token.tier,
        "team": token.team,
        "base_url": token.base_url,
        "models": token.models,
        "disabled_cause": token.disabled_cause,
        "created_at": token.created_at,
        "cooldowns": [cooldowns.view(row) for row in live.cooldowns],
    }


ROUTES = [
    Route("POST", "/admin/tokens", create, Audience.ADMIN),
    Route("GET", "/admin/tokens", list_tokens, Audience.ADMIN),
    Route("GET", "/admin/tokens/{id}", show, Audience.ADMIN),
    Route("PATCH", "/admin/tokens/{id}", update, Audience.ADMIN),
    Route("DELETE", "/admin/tokens/{id}", remove, Audience.ADMIN),
    Route("POST", "/admin/tokens/{id}/enable", enable, Audience.ADMIN),
    Route("POST", "/admin/tokens/{id}/disable", disable, Audience.ADMIN),
    Route("POST", "/admin/tokens/{id}/drain", disable, Audience.ADMIN),
    Route("POST", "/admin/tokens/{id}/clear", clear, Audience.ADMIN),
    Route("POST", "/admin/tokens/{id}/test", test, Audience.ADMIN),
]
