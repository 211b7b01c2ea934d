"""A whole gateway for tests, in this process, with a client that speaks its APIs.

    async with XaiServer(seconds=0.1) as xai, running(tmp_path, upstream__xai__base_url=xai.base_url) as house:
        key = await house.api.key()
        await house.api.token("xai-1")
        answer = await house.api.generate(key)

Gateways in processes that may die are in `tests.crash.processes`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientSession, ClientTimeout

from proxy.app import Gateway
from proxy.config import load
from proxy.logs import Redactor
from proxy.settings import Settings

T = TypeVar("T")

ADMIN_KEY = "Kq3vT9xZ1mB7nL5cR8wY2dF6hJ4gP0sA-uE_iOkQzXj"
IMAGE = (  # a PNG of one pixel
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
QUICK: dict[str, Any] = {
    "server.port": 0,
    "media.min_free": 1,
    "upstream.xai.poll_min": 0.02,
    "upstream.xai.poll_max": 0.1,
    "policy.backoff_base": 0.05,
}
VIDEOS = "/v1/videos/generations"


def settings_of(folder: Path, options: Mapping[str, Any]) -> Settings:
    """Return the settings of a gateway on `folder`; an option is named like `server__drain`."""
    flags = QUICK | {name.replace("__", "."): value for name, value in options.items()}
    return load(None, flags | {"data_dir": str(folder)}, {"GROKPOOL_ADMIN_KEY": ADMIN_KEY})


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]  # as aiohttp gives them: names in any case
    body: Any  # parsed JSON

    @property
    def code(self) -> str:
        """The code of an error in the envelope."""
        return str(self.body["error"]["code"])


class Api:
    """What a test asks of the gateway at `url`, as an operator and as a client."""

    def __init__(self, url: str, http: ClientSession) -> None:
        self.url = url
        self._http = http

    async def call(
        self, method: str, path: str, secret: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        headers = {"Authorization": f"Bearer {secret}", "Accept-Language": "en"} | dict(headers or {})
        async with self._http.request(method, self.url + path, json=body, headers=headers) as response:
            return Answer(response.status, response.headers, await response.json())

    # The operator

    async def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Return the body of an answer of the admin API, which must be a 2xx."""
        answer = await self.call(method, f"/admin{path}", ADMIN_KEY, body)
        assert 200 <= answer.status < 300, answer
        return answer.body

    async def key(self, **fields: Any) -> str:
        """Make a key, without limits where none are given; return its secret."""
        fields = {"name": "test", "requests_per_minute": None, "concurrency": None} | fields
        return str((await self.admin("POST", "/keys", fields))["key"])

    async def token(self, secret: str = "xai-1", **fields: Any) -> str:
        """Put a token into the pool; return its id."""
        return str((await self.admin("POST", "/tokens", {"driver": "xai", "secret": secret} | fields))["id"])

    async def proxy(self, url: str, **fields: Any) -> str:
        """Register a proxy; return its id."""
        return str((await self.admin("POST", "/proxies", {"url": url} | fields))["id"])

    async def job(self, job_id: str) -> Any:
        return await self.admin("GET", f"/jobs/{job_id}")

    async def jobs(self) -> list[Any]:
        """Return all jobs (at most 500), the oldest first."""
        return list(reversed((await self.admin("GET", "/jobs?limit=500"))["data"]))

    async def cancel(self, job_id: str) -> Answer:
        return await self.call("POST", f"/admin/jobs/{job_id}/cancel", ADMIN_KEY)

    # The client

    async def generate(
        self, key: str, prompt: str = "a wave", headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Answer:
        """Ask for a video and wait for the answer. Cancelled, it closes its connection, as a client that leaves."""
        return await self.call("POST", VIDEOS, key, {"image_url": IMAGE, "prompt": prompt} | fields, headers)

    async def order(self, key: str, prompt: str = "a wave", **fields: Any) -> str:
        """Ask for a video without waiting; return the job's id."""
        answer = await self.generate(key, prompt, {"Prefer": "respond-async"}, **fields)
        assert answer.status == 202, answer
        return str(answer.body["id"])

    async def video(self, key: str, job_id: str) -> Answer:
        return await self.call("GET", f"/v1/videos/{job_id}", key)

    async def ended(self, key: str, job_id: str, within: float = 20.0) -> Any:
        """Return the body of a job once it has ended."""

        async def look() -> Any:
            body = (await self.video(key, job_id)).body
            return body if body["status"] in ("completed", "failed", "cancelled") else None

        return await until(look, within)

    async def download(self, url: str) -> bytes:
        async with self._http.get(url) as response:
            assert response.status == 200
            return await response.read()


class Steps:
    """The named steps that a gateway has passed."""

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self._actions: dict[str, Callable[[], object]] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, step: str) -> None:
        """A gateway, in whichever thread, tells of a step."""
        self.passed[step] += 1
        self._loop.call_soon_threadsafe(self._news.set)
        if (action := self._actions.pop(step, None)) is not None:
            action()

    def at(self, step: str, action: Callable[[], object]) -> None:
        """Do something at the next such step, before the gateway goes on."""
        self._actions[step] = action

    async def until(self, step: str, times: int = 1, within: float = 20.0) -> None:
        async with asyncio.timeout(within):
            while self.passed[step] < times:
                self._news.clear()
                await self._news.wait()


@dataclass(frozen=True, slots=True)
class Running:
    gateway: Gateway
    api: Api
    steps: Steps
    folder: Path


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Api]:
    async with ClientSession(timeout=ClientTimeout(total=60)) as http:
        yield Api(url, http)


@asynccontextmanager
async def running(folder: Path, *, sandbox: bool = False, **options: Any) -> AsyncIterator[Running]:
    """Run a gateway on `folder`, on a free port; an option is named like `upstream__xai__base_url`."""
    steps = Steps()
    gateway = Gateway(settings_of(folder, options), Redactor(), sandbox=sandbox, reached=steps)
    await gateway.start()
    try:
        async with client(gateway.url) as api:
            yield Running(gateway, api, steps, folder)
    finally:
        await gateway.stop()


async def until(look: Callable[[], Awaitable[T]], within: float = 20.0) -> T:
    """Look until it shows something; return that. For what tells nobody when it comes true."""
    async with asyncio.timeout(within):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.02)
