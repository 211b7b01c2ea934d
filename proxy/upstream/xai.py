"""The driver for xAI's REST API, https://docs.x.ai: videos by submit and poll."""

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import orjson
from yarl import URL

from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Outcome, Phase, Signal, Trouble, UpstreamFailed
from proxy.upstream.driver import Access, Done, Ended, Image, Running, Verified
from proxy.upstream.transport import Answer, Transport, place, place_of

BASE_URL = "https://api.x.ai/v1"
MEDIA_HOSTS = ("vidgen.x.ai", "imgen.x.ai")
REQUEST_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._~-]{0,199}", re.ASCII)  # it becomes a part of a URL
# The words of the API's errors. They are no contract: what they do not match is decided by the status.
MODERATED = re.compile(r"content[- _]moderat|rejected by .{0,40}moderation", re.IGNORECASE)
WRONG_KEY = re.compile(r"(?:incorrect|invalid|malformed) api[ _]key", re.IGNORECASE)
LARGE_IMAGE = 256 * 1024  # bytes; a larger one is encoded beside the event loop
DETAIL = 300  # characters of the upstream's own words
MAX_TICKS = 2**63 - 1


class XaiDriver:
    """Implements `driver.Driver`. `base_url` ends in `/v1`.

    Results come from `media_hosts` and from the base URL's own host. A token with a base URL of its own is sent there
    and nowhere else.
    """

    name = "xai"
    kinds = frozenset({Kind.VIDEO})

    def __init__(
        self, transport: Transport, *, base_url: str = BASE_URL, media_hosts: Collection[str] = MEDIA_HOSTS
    ) -> None:
        self._transport = transport
        self._base_url = base_url
        self._media_places = frozenset(map(place, media_hosts))

    async def submit(self, order: Order, image: Image | None, access: Access) -> str:
        """Send the order once; return its `request_id`. Raises `UpstreamFailed`."""
        large = image is not None and len(image.content) > LARGE_IMAGE
        body = await asyncio.to_thread(_body, order, image) if large else _body(order, image)
        answer = await self._call("POST", "/videos/generations", access, body)
        request_id = _accepted(answer).get("request_id")
        if not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id):
            raise _malformed(answer, "no usable request_id")
        return request_id

    async def poll(self, upstream_id: str, access: Access) -> Running | Done | Ended:
        """Look at a job. A 404 is `GONE`, as it may be for a moment right after the submit. Raises `UpstreamFailed`."""
        answer = await self._call("GET", f"/videos/{upstream_id}", access)
        if answer.status == 202:  # often with an empty body
            return Running(_progress(_object(answer)))
        if answer.status in (400, 404, 422):
            return _ending(answer)
        return _state(answer, _accepted(answer))

    @asynccontextmanager
    async def fetch(self, done: Done, access: Access) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Open the video. It is asked for without the token's key. Raises `UpstreamFailed`."""
        if not self._may_name(done.url, URL(self._root(access))):
            raise UpstreamFailed(
                Signal(Phase.ANSWERED, trouble=Trouble.MALFORMED, detail="result on a host that is not allowed")
            )
        async with self._transport.download(done.url, proxy_id=access.proxy_id) as pieces:
            yield pieces

    async def verify(self, access: Access) -> Verified:
        """Ask for the key's own record, which is free. Raises `UpstreamFailed`."""
        answer = await self._call("GET", "/api-key", access)
        record = _accepted(answer)
        team = record.get("team_id")
        flags = [name for name in ("api_key_blocked", "api_key_disabled", "team_blocked") if record.get(name) is True]
        return Verified(team if isinstance(team, str) and team else None, bool(flags), ", ".join(flags))

    async def _call(self, method: str, path: str, access: Access, body: bytes | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {access.secret.reveal()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        url = self._root(access) + path
        return await self._transport.exchange(method, url, proxy_id=access.proxy_id, headers=headers, body=body)

    def _root(self, access: Access) -> str:
        return (access.base_url or self._base_url).rstrip("/")

    def _may_name(self, url: str, base: URL) -> bool:
        """Return whether the upstream at `base` may name `url` as a result: https, or what the base URL itself is."""
        try:
            target = URL(url, encoded=True)
        except ValueError:
            return False
        if not url.isascii() or not target.raw_host or target.raw_user is not None or target.raw_password is not None:
            return False
        if target.scheme == base.scheme and place_of(target) == place_of(base):
            return True
        return target.scheme == "https" and place_of(target) in self._media_places


def _body(order: Order, image: Image | None) -> bytes:
    fields: dict[str, Any] = {
        **order.extra,
        "model": order.upstream_model,
        "prompt": order.prompt,
        "duration": order.duration,
        "resolution": order.resolution,
    }
    optional = {"aspect_ratio": order.aspect_ratio, "user": order.user}
    fields.update({name: value for name, value in optional.items() if value is not None})
    if image:
        encoded = b64encode(image.content).decode("ascii")
        fields["image"] = {"url": f"data:{image.media_type};base64,{encoded}"}
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError:  # a field that is passed on may be an integer of more than 64 bits
        return json.dumps(fields).encode()


def _object(answer: Answer) -> dict[str, Any] | None:
    """Return the answer's JSON object, or None where it is none."""
    try:
        value = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) and not answer.truncated else None


def _accepted(answer: Answer) -> dict[str, Any]:
    """Return the object of a 2xx answer. Raises `UpstreamFailed` for every other."""
    if not 200 <= answer.status < 300:
        raise UpstreamFailed(answer.signal())
    fields = _object(answer)
    if fields is None:
        raise _malformed(answer, "the answer is larger than any" if answer.truncated else "not a JSON object")
    return fields


def _malformed(answer: Answer, detail: str) -> UpstreamFailed:
    return UpstreamFailed(answer.signal(Trouble.MALFORMED, detail))


def _state(answer: Answer, fields: dict[str, Any]) -> Running | Done | Ended:
    """Read a poll's 200. A status that is not known yet is one of a running job."""
    video = fields.get("video")
    video = video if isinstance(video, dict) else {}
    status = fields.get("status") or ("done" if video.get("url") else None)
    if not isinstance(status, str):
        raise _malformed(answer, "no status")
    cost = _cost(fields)
    if status == "done":
        return _finished(video, cost)
    if status == "failed":
        words = _words(fields)
        return Ended(Outcome.MODERATED if MODERATED.search(words) else Outcome.FAILED, cost, words[:DETAIL])
    return Ended(Outcome.GONE, cost, "expired") if status == "expired" else Running(_progress(fields))


def _finished(video: dict[str, Any], cost: int | None) -> Done | Ended:
    if video.get("respect_moderation") is False:
        return Ended(Outcome.MODERATED, cost, "respect_moderation is false")
    url = video.get("url")
    if not isinstance(url, str) or not url:
        return Ended(Outcome.NO_RESULT, cost, "done without a url")
    return Done(url, _seconds(video.get("duration")), cost)


def _ending(answer: Answer) -> Ended:
    """Read a poll's 400, 404 or 422: the job's end, if the upstream itself says so and does not mean the key."""
    fields = _object(answer)
    words = _words(fields) if fields else ""
    if fields is None or "error" not in fields or WRONG_KEY.search(words):
        raise UpstreamFailed(answer.signal())
    outcome = Outcome.GONE if answer.status == 404 else Outcome.FAILED
    if MODERATED.search(words):
        outcome = Outcome.MODERATED
    return Ended(outcome, _cost(fields), words[:DETAIL])


def _words(fields: dict[str, Any]) -> str:
    """Return code and message of either envelope: `{"code", "error"}`, `{"error": {"code", "message"}}`."""
    error = fields.get("error")
    parts = (error.get("code"), error.get("message")) if isinstance(error, dict) else (fields.get("code"), error)
    return unquote(": ".join(str(part) for part in parts if isinstance(part, str | int) and part))


def _cost(fields: dict[str, Any]) -> int | None:
    usage = fields.get("usage")
    ticks = usage.get("cost_in_usd_ticks") if isinstance(usage, dict) else None
    return ticks if type(ticks) is int and 0 <= ticks <= MAX_TICKS else None


def _progress(fields: dict[str, Any] | None) -> int | None:
    progress = _number(fields.get("progress")) if fields else None
    return None if progress is None else int(min(progress, 100))


def _seconds(value: object) -> float | None:
    return _number(value) or None


def _number(value: object) -> float | None:
    """Return a number that is not negative; JSON's true is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None
