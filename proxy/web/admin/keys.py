"""`/admin/keys`: clients' keys. A secret is shown once, where it is made."""

from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from proxy.domain.keys import Key
from proxy.domain.secret import Secret
from proxy.domain.tenants import DEFAULT
from proxy.services.keys import ShownKey
from proxy.web.admin.context import KEYS
from proxy.web.admin.fields import Limit, Moment, TenantId, Text
from proxy.web.admin.requests import Body, Change, answer, page, read, read_optional
from proxy.web.context import ACTOR, CLOCK
from proxy.web.routes import Audience, Route

MAX_GRACE = 30 * 86_400  # seconds


class NewKey(Body):
    """A limit that is absent is the setting's; null is none."""

    name: Text
    tenant: TenantId = DEFAULT
    requests_per_minute: Limit | None = None
    concurrency: Limit | None = None
    expires_at: Moment | None = None


class KeyChange(Change):
    name: Text = ""
    requests_per_minute: Limit | None = None
    concurrency: Limit | None = None
    expires_at: Moment | None = None


class Rotation(Body):
    """For how many seconds the older secrets stay valid."""

    grace: Annotated[float, Field(ge=0, le=MAX_GRACE)] = 86_400


async def create(request: web.Request) -> web.Response:
    body = await read(request, NewKey)
    limits = {name: value for name, value in body.given().items() if name in ("requests_per_minute", "concurrency")}
    shown, secret = await request.app[KEYS].create(
        request[ACTOR], name=body.name, tenant_id=body.tenant, limits=limits, expires_at=body.expires_at
    )
    return answer(view(request, shown, secret), 201)


async def list_keys(request: web.Request) -> web.Response:
    wanted = page(request)
    found = await request.app[KEYS].page(wanted.after, wanted.limit + 1)
    return wanted.cut(found, lambda shown: shown.key.id, lambda shown: view(request, shown))


async def show(request: web.Request) -> web.Response:
    return answer(view(request, await request.app[KEYS].show(request.match_info["id"])))


async def update(request: web.Request) -> web.Response:
    body = await read(request, KeyChange)
    shown = await request.app[KEYS].update(request[ACTOR], request.match_info["id"], body.given())
    return answer(view(request, shown))


async def rotate(request: web.Request) -> web.Response:
    body = await read_optional(request, Rotation)
    shown, secret = await request.app[KEYS].rotate(request[ACTOR], request.match_info["id"], body.grace)
    return answer(view(request, shown, secret))


async def revoke(request: web.Request) -> web.Response:
    """End a key. Its row stays, for the jobs that name it: this is what DELETE does, too."""
    shown = await request.app[KEYS].revoke(request[ACTOR], request.match_info["id"])
    return answer(view(request, shown))


def view(request: web.Request, shown: ShownKey, secret: Secret | None = None) -> dict[str, Any]:
    key = shown.key
    once = {} if secret is None else {"key": secret.reveal()}
    return once | {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant_id,
        "status": status(key, request.app[CLOCK]()),
        "requests_per_minute": key.limits.requests_per_minute,
        "concurrency": key.limits.concurrency,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "secrets": [
            {"shown": each.shown, "scheme": each.scheme, "created_at": each.created_at, "expires_at": each.expires_at}
            for each in shown.secrets
        ],
    }


def status(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "active" if key.is_valid(now) else "expired"


ROUTES = [
    Route("POST", "/admin/keys", create, Audience.ADMIN),
    Route("GET", "/admin/keys", list_keys, Audience.ADMIN),
    Route("GET", "/admin/keys/{id}", show, Audience.ADMIN),
    Route("PATCH", "/admin/keys/{id}", update, Audience.ADMIN),
    Route("DELETE", "/admin/keys/{id}", revoke, Audience.ADMIN),
    Route("POST", "/admin/keys/{id}/rotate", rotate, Audience.ADMIN),
    Route("POST", "/admin/keys/{id}/revoke", revoke, Audience.ADMIN),
]
