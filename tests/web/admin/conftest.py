"""The admin API over HTTP, on real services and a real database."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from proxy.services.metrics import Metrics
from proxy.web import context, routes
from proxy.web.admin import context as admin
from proxy.web.admin.routes import ROUTES
from proxy.web.bodies import BODIES, BodyMemory
from proxy.web.middleware import admit, explain, observe, stamp
from tests.services.house import ADMIN_KEY, House, house
from tests.upstream.xai_server import XaiServer


class Desk:
    """An operator with the admin key, who reads JSON."""

    def __init__(self, client: TestClient[web.Request, web.Application], house: House, upstream: XaiServer) -> None:
        self.client = client
        self.house = house
        self.upstream = upstream
        self.answers: list[str] = []  # every body seen

    async def ask(self, method: str, path: str, body: Any = None, *, status: int = 200, **kwargs: Any) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Accept-Language": "en"} | kwargs.pop("headers", {})
        async with self.client.request(method, path, json=body, headers=headers, **kwargs) as response:
            text = await response.text()
            self.answers.append(text)
            assert response.status == status, text
            assert response.headers["Content-Type"].startswith("application/json")
            return await response.json()

    async def refused(self, method: str, path: str, body: Any = None, *, status: int = 400) -> str:
        """Ask for what is a mistake; return its message."""
        answer = await self.ask(method, path, body, status=status)
        message: str = answer["error"]["message"]
        return message

    async def key(self, **fields: Any) -> Any:
        return await self.ask("POST", "/admin/keys", {"name": "shop"} | fields, status=201)

    async def token(self, secret: str = "CANARY-xai-token", **fields: Any) -> Any:
        body = {"driver": "xai", "secret": secret} | fields
        return await self.ask("POST", "/admin/tokens", body, status=201)

    async def proxy(self, url: str = "socks5h://alice:CANARY-pw@127.0.0.1:9", **fields: Any) -> Any:
        return await self.ask("POST", "/admin/proxies", {"url": url} | fields, status=201)


@pytest.fixture
async def upstream() -> AsyncIterator[XaiServer]:
    async with XaiServer() as server:
        yield server


@pytest.fixture
async def here(tmp_path: Path, upstream: XaiServer) -> AsyncIterator[House]:
    async with house(tmp_path, base_url=upstream.base_url) as built:
        yield built


@pytest.fixture
async def desk(here: House, upstream: XaiServer, aiohttp_client: AiohttpClient) -> Desk:
    return Desk(await aiohttp_client(application(here)), here, upstream)


def application(house: House) -> web.Application:
    app = web.Application(middlewares=[observe, explain, admit])
    app[context.OPTIONS] = context.WebOptions(
        language="en", wait=10.0, max_body=512 * 1024, body_grace=10.0, body_rate=1024
    )
    app[context.CLOCK] = house.clock.__call__
    app[context.ENTROPY] = secrets.token_bytes
    app[context.METRICS] = Metrics()
    app[context.GATEKEEPER] = house.gatekeeper
    app[BODIES] = BodyMemory(16 * 1024 * 1024)
    app[admin.KEYS] = house.keys
    app[admin.TOKENS] = house.tokens
    app[admin.PROXIES] = house.proxies
    app[admin.JOBS] = house.jobs
    app[admin.PAUSES] = house.pauses
    app[admin.STATUS] = house.status
    app[admin.AUDIT] = house.audit
    app[admin.ADMIN_KEY] = house.admin_key
    app[admin.MASTER_KEY] = house.master_key
    app.on_response_prepare.append(stamp)
    routes.add(app, ROUTES)
    return app
