"""What the gateway is measured against, each as small as it can be.

`python -m benchmarks.baselines NAME UPSTREAM FOLDER`

`reverse` is a bare aiohttp reverse proxy: no key, no limit, no pool, nothing kept. `constant` is an aiohttp server that
answers everything with the same JSON: what the framework itself costs. `poller` makes videos as one writes it first:
submit, a look every two seconds, download, answer; it checks nothing, and forgets everything when it dies.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from benchmarks.loop import runner
from benchmarks.probe import Probe, say
from benchmarks.standins import ANSWER

HOP_BY_HOP = {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
LOOK = 2.0  # seconds between two looks of `poller`
CHUNK = 256 * 1024  # bytes
MAX_BODY = 16 * 1024 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def reverse(upstream: str, session: ClientSession, _folder: Path) -> Handler:
    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        body = await request.read() if request.can_read_body else None
        async with session.request(request.method, upstream + request.path_qs, headers=headers, data=body) as response:
            content = await response.read()
            kept = {name: value for name, value in response.headers.items() if name.lower() not in HOP_BY_HOP}
            return web.Response(status=response.status, headers=kept, body=content)

    return forward


def constant(_upstream: str, _session: ClientSession, _folder: Path) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(body=ANSWER, content_type="application/json")

    return answer


def poller(upstream: str, session: ClientSession, folder: Path) -> Handler:
    async def make(request: web.Request) -> web.StreamResponse:
        order = await request.json()
        body = {"model": "grok-imagine-video", "prompt": order["prompt"], "image": {"url": order["image_url"]}}
        async with session.post(f"{upstream}/videos/generations", json=body) as response:
            job = (await response.json())["request_id"]
        while True:
            await asyncio.sleep(LOOK)
            async with session.get(f"{upstream}/videos/{job}") as response:
                state = await response.json()
            if state["status"] == "done":
                break
        path = folder / str(uuid4())
        async with session.get(state["video"]["url"]) as response:
            with path.open("wb") as file:
                async for piece in response.content.iter_chunked(CHUNK):
                    file.write(piece)
        return web.json_response({"id": job, "video_url": f"http://127.0.0.1/{path.name}", "status": "completed"})

    return make


BASELINES = {"reverse": reverse, "constant": constant, "poller": poller}


async def main(name: str, upstream: str, folder: str) -> None:
    async with ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar()) as session:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", BASELINES[name](upstream, session, Path(folder)))
        web_runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await web_runner.setup()
        await web.TCPSite(web_runner, "127.0.0.1", 0, backlog=1024).start()
        Probe()
        say({"url": f"http://127.0.0.1:{web_runner.addresses[0][1]}"})
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    with runner() as running:
        running.run(main(*sys.argv[1:]))
