"""The API document's promises, row by row, on a running gateway with the sandbox behind it."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
import structlog
from aiohttp import ClientResponse, ClientSession
from PIL import Image

from proxy.app import steady_clock
from tests.gateway import Api, running

REPOSITORY = Path(__file__).parents[2]
PHOTO = (REPOSITORY / "proxy" / "assets" / "photo.jpg").read_bytes()
CHINESE = "让图片中的人物挥手微笑，背景有轻微的摇曳"


def data_uri(content: bytes = PHOTO, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture(form: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 120, 200)).save(buffer, form)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class House:
    """A gateway with the sandbox, and a client that says nothing of languages."""

    api: Api
    client: ClientSession
    clock: Callable[[], float]

    @property
    def url(self) -> str:
        return self.api.url


@asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[House]:
    options = {"upstream__sandbox__seconds": 0.05} | options
    async with running(folder, sandbox=True, **options) as gateway, ClientSession() as client:
        yield House(gateway.api, client, steady_clock())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


async def post(house: House, secret: str, headers: dict[str, str] | None = None, /, **body: Any) -> ClientResponse:
    order = {"image_url": data_uri(), "prompt": CHINESE} | body
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"} | (headers or {})
    body_file = io.BytesIO(json.dumps(order).encode())
    return await house.client.post(house.url + "/v1/videos/generations", data=body_file, headers=headers)


async def refused(answer: ClientResponse) -> tuple[int, Any]:
    body = await answer.json()
    assert answer.headers["x-request-id"].startswith("req_")
    return answer.status, body.get("error", body)


def pictures(film: bytes) -> int:
    """Decode an H.264 film and count its pictures."""
    with av.open(io.BytesIO(film), "r") as opened_film:
        assert opened_film.streams.video[0].codec_context.name == "h264"
        return len(list(opened_film.decode(video=0)))


async def test_rows_1_to_6_and_17_a_video_that_plays_comes_in_the_documents_body(house: House) -> None:
    secret = await house.api.key()
    before = int(house.clock())
    answer = await post(house, secret)
    body = await answer.json()
    assert answer.status == 200
    assert list(body) == ["id", "model", "created", "video_url", "status", "prompt"]
    assert body["id"].startswith("video-")
    assert (body["model"], body["status"], body["prompt"]) == ("grok-imagine-0.9", "completed", CHINESE)
    assert before <= body["created"] <= house.clock() + 1
    assert body["video_url"].startswith(house.url + "/media/")
    async with ClientSession() as browser:  # no key
        got = await browser.get(body["video_url"])
        content = await got.read()
    assert got.status == 200
    assert pictures(content) == 6 * 24


async def test_row_1_the_key_is_taken_from_either_header(house: House) -> None:
    secret = await house.api.key()
    for headers in ({"x-api-key": secret}, {"Authorization": f"bearer {secret}"}):
        answer = await house.client.get(house.url + "/v1/videos/video-absent", headers=headers)
        assert (await refused(answer))[1]["code"] == "video_not_found"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
async def test_row_10_images_are_taken_by_content_not_by_name(house: House, form: str) -> None:
    secret = await house.api.key()
    answer = await post(house, secret, image_url=data_uri(picture(form), "image/x-anything"), duration=1)
    assert answer.status == 200


async def test_row_10_an_image_over_10_mib_is_413(house: House) -> None:
    secret = await house.api.key()
    answer = await post(house, secret, image_url=data_uri(bytes(10 * 1024 * 1024 + 1)))
    status, error = await refused(answer)
    assert (status, error["code"]) == (413, "image_too_large")


PRINTED = "图片URL必须是http/https链接或base64格式（data:image/...）"


@pytest.mark.parametrize(
    "image_url",
    ["ftp://example.com/a.jpg", "a.jpg", "data:image/png;base64,!!!!", data_uri(b"<svg/>"), "http://127.0.0.1/a.png",
     "https://nowhere.invalid/a.png", "data:text/html;base64,AAAA", " "],
)  # fmt: skip
async def test_rows_8_and_9_one_text_for_every_cause(house: House, image_url: str) -> None:
    secret = await house.api.key()
    expected = {"message": PRINTED, "type": "validation_error", "code": "invalid_image_url"}
    assert await refused(await post(house, secret, image_url=image_url)) == (400, expected)
    empty = {"message": "图片URL不能为空", "type": "validation_error", "code": "invalid_image_url"}
    assert await refused(await post(house, secret, image_url="")) == (400, empty)


async def test_row_20_the_log_has_the_cause_that_the_client_is_not_told(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with opened(tmp_path) as house:
            answer = await post(house, await house.api.key(), image_url="http://127.0.0.1/a.png")
            assert "denied" not in await answer.text()
    (line,) = [line for line in lines if line["event"] == "request" and line["status"] == 400]
    assert line["code"] == "invalid_image_url"
    assert line["cause"] == "the address is denied"


async def test_row_11_a_model_that_makes_no_videos(house: House) -> None:
    expected = {
        "message": "模型 'xxx' 不是视频生成模型，请使用 grok-imagine-0.9",
        "type": "validation_error",
        "code": "invalid_model",
    }
    assert await refused(await post(house, await house.api.key(), model="xxx")) == (400, expected)


async def test_row_12_an_empty_prompt_is_the_documents_detail(house: House) -> None:
    secret = await house.api.key()
    detail = {
        "type": "string_too_short",
        "loc": ["body", "prompt"],
        "msg": "String should have at least 1 character",
        "input": "",
        "ctx": {"min_length": 1},
    }
    for prompt in ("", "  \n"):
        answer = await post(house, secret, prompt=prompt)
        assert answer.status == 400
        assert await answer.json() == {"detail": [detail]}


async def test_row_12_schema_errors_come_first_all_at_once_and_echo_little(house: House) -> None:
    secret = await house.api.key()
    answer = await post(house, secret, prompt=["x" * 5000], model=5, image_url=None)
    details = (await answer.json())["detail"]
    assert {tuple(detail["loc"]) for detail in details} == {("body", name) for name in ("prompt", "model", "image_url")}
    assert {detail["type"] for detail in details} == {"string_type"}
    assert len(await answer.read()) < 1000
    bare = await house.client.post(
        house.url + "/v1/videos/generations", json={}, headers={"Authorization": f"Bearer {secret}"}
    )
    assert [detail["type"] for detail in (await bare.json())["detail"]] == ["missing", "missing"]


async def test_row_3_a_long_prompt(house: House) -> None:
    secret = await house.api.key()
    assert (await post(house, secret, prompt="字" * 4096, duration=1)).status == 200
    assert (await refused(await post(house, secret, prompt="字" * 4097)))[1]["code"] == "invalid_prompt"


@pytest.mark.parametrize(
    ("name", "value"),
    [("duration", 0), ("duration", 16), ("duration", "6"), ("duration", True), ("duration", 1.5),
     ("resolution", "4k"), ("aspect_ratio", "2:1"), ("aspect_ratio", 1)],
)  # fmt: skip
async def test_row_4_other_fields_are_checked_and_named(house: House, name: str, value: object) -> None:
    status, error = await refused(await post(house, await house.api.key(), **{name: value}))
    assert (status, error["code"]) == (400, "invalid_parameter")
    assert f"'{name}'" in error["message"]


async def test_row_13_no_key_no_access(house: House) -> None:
    good = await house.api.key()
    for headers in ({}, {"Authorization": "Bearer gp_wrong"}, {"Authorization": f"Basic {good}"}, {"x-api-key": ""}):
        for method, path in (("POST", "/v1/videos/generations"), ("GET", "/v1/videos/video-x"), ("GET", "/v1/nothing")):
            answer = await house.client.request(method, house.url + path, headers=headers)
            assert answer.status == 401
            assert await answer.text() == '{"detail":"未授权访问"}'
            assert answer.headers["WWW-Authenticate"] == "Bearer"


BLOCKED = "请求失败: 403 - 您的IP被拦截，请尝试以下方法之一: 1.更换IP 2.使用代理 3.配置CF值"


@pytest.mark.parametrize(
    ("day", "status", "error"),
    [
        ("no-result", 500, ("视频生成失败：未能获取视频URL", "video_generation_error", "no_video_url")),
        ("challenge", 500, (BLOCKED, "HTTP_ERROR", "HTTP_ERROR")),
        ("moderated", 400, ("视频生成失败：内容未通过审核", "video_generation_error", "content_moderated")),
        ("rejected", 400, ("视频生成失败：上游拒绝了请求参数", "video_generation_error", "upstream_rejected")),
        ("lost", 502, (None, "upstream_error", "submit_ambiguous")),
    ],
)
async def test_rows_14_and_15_how_the_upstream_fails(
    house: House, day: str, status: int, error: tuple[str | None, str, str]
) -> None:
    answer = await post(house, await house.api.key(), prompt=f"[sandbox:{day}] a cat")
    got_status, got = await refused(answer)
    assert (got_status, got["type"], got["code"]) == (status, error[1], error[2])
    assert list(got) == ["message", "type", "code"]
    if error[0] is not None:
        assert got["message"] == error[0]
    assert answer.headers["x-should-retry"] == "false"  # a job exists: OpenAI's clients must not pay twice


async def test_row_6_a_wait_that_runs_out_is_504_with_the_job_and_the_job_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path, server__wait=0.5, upstream__sandbox__seconds=1.5) as house:
        secret = await house.api.key()
        answer = await post(house, secret, duration=1)
        status, error = await refused(answer)
        assert (status, error["code"]) == (504, "generation_timeout")
        assert answer.headers["Location"] == f"/v1/videos/{error['job_id']}"
        job = await house.api.ended(secret, error["job_id"])
        assert job["status"] == "completed"
        assert list(job) == ["id", "model", "created", "prompt", "status", "progress", "video_url"]
        assert job["progress"] == 100


async def test_row_6_prefer_decides_whether_to_wait(house: House) -> None:
    secret = await house.api.key()
    answer = await post(house, secret, {"Prefer": "respond-async"}, duration=1)
    body = await answer.json()
    assert answer.status == 202
    assert answer.headers["Location"] == f"/v1/videos/{body['id']}"
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert list(body) == ["id", "model", "created", "prompt", "status", "progress"]
    assert body["status"] in ("queued", "running")
    assert (await house.api.ended(secret, body["id"]))["status"] == "completed"

    never = await post(house, secret, {"Prefer": "wait=1"}, prompt="[sandbox:never]")
    assert (never.status, never.headers["Preference-Applied"]) == (202, "wait=1")
    soon = await post(house, secret, {"Prefer": "wait=60"}, duration=1)
    assert (soon.status, (await soon.json())["status"]) == (200, "completed")


async def test_a_job_is_its_tenants_alone(house: House) -> None:
    mine, other = await house.api.key(), await house.api.key(tenant="another")
    made = await (await post(house, mine, duration=1)).json()
    for job_id in (made["id"], "video-absent"):
        answer = await house.client.get(f"{house.url}/v1/videos/{job_id}", headers={"Authorization": f"Bearer {other}"})
        status, error = await refused(answer)
        assert (status, error) == (
            404,
            {"message": "视频任务不存在", "type": "not_found_error", "code": "video_not_found"},
        )


async def test_row_17_media_serves_ranges_and_refuses_what_is_not_signed(house: House) -> None:
    url = (await (await post(house, await house.api.key(), duration=1)).json())["video_url"]
    async with ClientSession() as browser:
        whole = await (await browser.get(url)).read()
        head = await browser.head(url)
        assert (head.status, int(head.headers["Content-Length"])) == (200, len(whole))
        part = await browser.get(url, headers={"Range": "bytes=10-19"})
        assert (part.status, await part.read()) == (206, whole[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
        beyond = await browser.get(url, headers={"Range": f"bytes={len(whole)}-"})
        assert beyond.status == 416
        same = await browser.get(url, headers={"If-None-Match": head.headers["ETag"]})
        assert same.status == 304
        assert head.headers["Content-Type"] == "video/mp4"
        assert head.headers["X-Content-Type-Options"] == "nosniff"
        assert head.headers["Access-Control-Allow-Origin"] == "*"
        assert head.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        assert not head.headers["ETag"].startswith("W/")
        for wrong in (url[:-2] + "xx", url.split("?")[0], url + "&exp=1", url.replace("exp=1", "exp=2")):
            assert (await browser.get(wrong)).status in (400, 403)


async def test_row_18_a_spent_allowance_is_429_and_says_until_when(house: House) -> None:
    secret = await house.api.key(requests_per_minute=2, concurrency=None)
    bad = {"image_url": "http://127.0.0.1/x.png"}
    assert (await post(house, secret, **bad)).status == 400  # a bad image spends one request
    second = await post(house, secret, **bad)
    assert second.headers["RateLimit-Policy"] == '"default";q=2;w=60'
    assert second.headers["RateLimit"].startswith('"default";r=0;t=')
    answer = await post(house, secret)
    status, error = await refused(answer)
    assert (status, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    job = await house.client.get(house.url + "/v1/videos/video-x", headers={"Authorization": f"Bearer {secret}"})
    assert job.status == 404  # looking counts against nothing


async def test_row_18_concurrent_generations_are_bounded(house: House) -> None:
    secret = await house.api.key(concurrency=1)
    first = await post(house, secret, {"Prefer": "respond-async"}, prompt="[sandbox:never]")
    assert first.status == 202
    second = await post(house, secret)
    assert (await refused(second))[1]["code"] == "too_many_concurrent"
    assert int(second.headers["Retry-After"]) >= 1


async def test_messages_are_english_where_that_is_asked_for(house: House) -> None:
    answer = await post(house, await house.api.key(), {"Accept-Language": "en"}, image_url="")
    assert (await refused(answer))[1]["message"] == "The image URL must not be empty."


async def test_only_json_is_taken(house: House) -> None:
    secret = await house.api.key()
    url, headers = house.url + "/v1/videos/generations", {"Authorization": f"Bearer {secret}"}
    form = await house.client.post(url, data={"prompt": "x"}, headers=headers)
    assert (await refused(form))[1]["code"] == "unsupported_media_type"
    zipped = headers | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await house.client.post(url, data=b"x", headers=zipped)).status == 415
    broken = headers | {"Content-Type": "application/json"}
    assert (await refused(await house.client.post(url, data=b"{", headers=broken)))[1]["code"] == "invalid_json"
    large = await house.client.post(url, data=io.BytesIO(b" " * (15 * 1024 * 1024 + 1)), headers=broken)
    assert (await refused(large))[1]["code"] == "body_too_large"


async def test_what_is_no_http_gets_the_envelope_and_an_id_and_is_echoed_nowhere(house: House) -> None:
    host, port = house.url.removeprefix("http://").split(":")
    for request in (b"GE\x01T / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: canary\r\nCanary\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        raw = await asyncio.wait_for(reader.read(), 10)
        head, _, body = raw.partition(b"\r\n\r\n")
        assert b" 400 " in head.splitlines()[0]
        assert b"x-request-id: req_" in head.lower()
        assert json.loads(body)["error"]["code"] == "bad_request"
        assert b"anary" not in raw
        writer.close()
