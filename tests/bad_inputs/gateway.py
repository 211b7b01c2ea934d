"""The real gateway with a control door beside it, as the corpus's own `run.py` wants it:

    python -m tests.bad_inputs.gateway FOLDER

It furnishes FOLDER, starts on a free port, writes FOLDER/ctx.json (the values of the corpus's placeholders) and prints
one line of JSON: `base` and `ctl` for run.py, `ctx`, `pid`. It ends with its standard input. Options of the gateway
come from the environment as ever. The loop is asyncio's own: uvloop raises no audit event when it connects.
"""

import asyncio
import json
import os
import secrets
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from proxy.app import Gateway
from proxy.config import load
from proxy.domain.tenants import DEFAULT
from proxy.logs import Redactor, setup
from tests.bad_inputs.door import Door, Names, Witness
from tests.bad_inputs.furnishing import (
    PROXY_PASSWORD,
    UPSTREAM_TOKEN,
    Furnishing,
    Secrets,
    variants_of_key,
    variants_of_link,
)
from tests.bad_inputs.image_host import ADDRESS, ImageHost
from tests.upstream.certificates import self_signed

OPTIONS: dict[str, Any] = {
    "server.port": 0,
    "media.min_free": 1,
    "upstream.sandbox.seconds": 0.0,
    "upstream.xai.poll_min": 0.05,
    "fetch.allow_networks": [f"{ADDRESS}/32"],
    "models": {"grok-imagine-0.9": {"duration": 1}},  # a film of one second is soon rendered
}


async def run(root: Path, certificates: Path) -> None:
    """Serve until the end of standard input."""
    known = Furnishing(root).furnish()
    admin_key = secrets.token_urlsafe(36)
    names, witness = Names(), Witness()
    async with ImageHost(self_signed(certificates, "fx.test")) as host:
        ports = sorted({80, 443, host.port, host.secure_port})
        environment = {"GROKPOOL_ADMIN_KEY": admin_key, **os.environ}
        settings = load(None, OPTIONS | {"data_dir": str(root), "fetch.allow_ports": ports}, environment)
        redactor = Redactor()
        setup(settings.log.format, settings.log.level, redactor)
        gateway = Gateway(settings, redactor, sandbox=True, resolve=names)
        await gateway.start()
        runner, port = await Door(names, host, witness).open()
        context = await placeholders(gateway, host, known, admin_key)
        (root / "ctx.json").write_text(json.dumps(context))
        ready = {"base": context["HOST"], "ctl": f"127.0.0.1:{port}", "ctx": str(root / "ctx.json"), "pid": os.getpid()}
        print(json.dumps(ready), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()
        await gateway.stop()


async def placeholders(gateway: Gateway, host: ImageHost, known: Secrets, admin_key: str) -> dict[str, str]:
    """Return the value of every placeholder of the corpus; to have a file, make a first video."""
    port = "" if host.port == 80 else f":{host.port}"
    secure_port = "" if host.secure_port == 443 else f":{host.secure_port}"
    good = f"http://fx.test{port}/good.png"
    video = await make_video(gateway.url, known.keys["KEY_A"], good)
    return {
        "HOST": gateway.url.removeprefix("http://"),
        "FX": f"fx.test{port}",
        "FX2": f"fx2.test{port}",
        "FX_TLS": f"fx.test{secure_port}",
        "FX_IP": ADDRESS,
        "SINK_PORT": "18099",
        "GOOD_IMG": good,
        "ADMIN_TOKEN": admin_key,
        "ADMIN_PASSWORD": admin_key,
        "ADMIN_COOKIE": f"__Host-session={admin_key}",
        "UPSTREAM_TOKEN": UPSTREAM_TOKEN,
        "PROXY_PASSWORD": PROXY_PASSWORD,
        "JOB_A": video["id"],
        **known.keys,
        **variants_of_key(known.keys["KEY_A"]),
        **variants_of_link(video["video_url"], DEFAULT, known.signing),
    }


async def make_video(url: str, key: str, image_url: str) -> dict[str, str]:
    async with (
        aiohttp.ClientSession() as client,
        client.post(
            f"{url}/v1/videos/generations",
            json={"image_url": image_url, "prompt": "a cat waves its hand"},
            headers={"Authorization": f"Bearer {key}"},
        ) as response,
    ):
        video: dict[str, str] = await response.json()
        assert response.status == 200, video
        return video


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(run(Path(sys.argv[1]), Path(folder)))
