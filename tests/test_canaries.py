"""No secret shows: canaries are planted everywhere, everything is run at DEBUG, and all that is left is searched."""

import asyncio
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from proxy.app import Gateway
from proxy.logs import Redactor, setup
from tests.gateway import ADMIN_KEY, IMAGE, Api, client, settings_of
from tests.upstream.xai_server import XaiServer

TOKEN, PASSWORD, CLEARANCE, PROMPT = "xai-Canary7token0000", "Canary7password", "Canary7clearance", "Canary7prompt"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that is logged, at the lowest level."""
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    stream = io.StringIO()
    yield stream
    root.handlers[:] = before
    root.setLevel(logging.WARNING)
    structlog.reset_defaults()


async def everything(api: Api, xai: XaiServer) -> tuple[str, str]:
    """Use the gateway well and badly; return a client's key and all the bodies that came back."""
    proxy = await api.admin(
        "POST", "/proxies", {"url": f"http://user:{PASSWORD}@127.0.0.1:9", "clearance": CLEARANCE, "user_agent": "ua"}
    )
    key = await api.key()
    bodies = [proxy, await api.admin("POST", "/tokens", {"driver": "xai", "secret": TOKEN, "base_url": xai.base_url})]
    waited = await api.generate(key, PROMPT, {"Prefer": "wait=1"})  # the proxy is not there
    bodies.append(waited.body)
    await api.admin("DELETE", f"/proxies/{proxy['id']}?force=true")
    bodies.append(await api.ended(key, waited.body["id"]))  # direct, now that there is no proxy
    bodies.append((await api.generate(key, PROMPT, image_url="http://127.0.0.1/Canary7")).body)
    bodies.append((await api.call("POST", "/v1/videos/generations", key, {"prompt": 5, "image_url": IMAGE})).body)
    bodies.append((await api.generate(key + "x", PROMPT)).body)
    bodies += [await api.admin("GET", path) for path in ("/keys", "/tokens", "/proxies", "/status", "/audit")]
    bodies += [await api.job(job["id"]) for job in await api.jobs()]
    return key, repr(bodies)


async def test_no_secret_shows_anywhere(tmp_path: Path, log: io.StringIO) -> None:
    redactor = Redactor()
    setup("json", "debug", redactor, log)
    gateway = Gateway(settings_of(tmp_path, {}), redactor)
    async with XaiServer(seconds=0.05) as xai:
        await gateway.start()
        async with client(gateway.url) as api:
            key, bodies = await everything(api, xai)
            metrics = gateway._metrics.render().decode()
        await gateway.stop()
    stored = await asyncio.to_thread(contents, tmp_path)
    secrets = (TOKEN, PASSWORD, CLEARANCE, key, ADMIN_KEY)
    for place, text in {"log": log.getvalue(), "metrics": metrics, "bodies": bodies.replace(key, "", 1)}.items():
        assert len(text) > 500, f"nothing to search in the {place}"
        assert [secret for secret in secrets if secret in text] == [], place
    assert [secret for secret in secrets if secret.encode() in stored] == []
    assert "Canary7prompt" not in log.getvalue() + metrics
    assert "Canary7prompt" in stored.decode("latin-1")  # a job must keep its prompt: the search itself works


def contents(folder: Path) -> bytes:
    """Return all bytes of the data folder but those of the key files."""
    keys = {"master.key", "admin.key"}
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in keys)
