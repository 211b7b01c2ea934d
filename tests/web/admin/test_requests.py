"""How the admin API reads what it is asked: strictly, and with a name for every mistake."""

import pytest

from tests.services.house import ADMIN_KEY
from tests.web.admin.conftest import Desk

HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}", "Accept-Language": "en"}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": None}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x", "nmae": "y"}, "nmae"),
        ({"name": "x", "concurrency": "3"}, "concurrency"),
        ({"name": "x", "concurrency": True}, "concurrency"),
        ({"name": "x", "concurrency": 0}, "concurrency"),
        ({"name": "x", "concurrency": 2.5}, "concurrency"),
        ({"name": "x", "requests_per_minute": -1}, "requests_per_minute"),
        ({"name": "x", "requests_per_minute": 10**20}, "requests_per_minute"),
        ({"name": "x", "tenant": "no body"}, "tenant"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ({"name": "x", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "expires_at": 1}, "expires_at"),
        ({"name": "x", "expires_at": 1e18}, "expires_at"),
        ({"name": "x", "expires_at": True}, "expires_at"),
        ([], "body"),
        ("x", "body"),
    ],
)
async def test_a_mistake_in_a_body_is_400_by_its_name(desk: Desk, body: object, named: str) -> None:
    answer = await desk.ask("POST", "/admin/keys", body, status=400)
    assert answer["error"]["code"] == "invalid_parameter"
    assert f"'{named}'" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("secret", ""),
        ("secret", " \n "),
        ("secret", "x" * 8193),
        ("secret", "with a\nline"),
        ("secret", "ключ"),
        ("secret", None),
        ("driver", "telex"),
        ("base_url", "ftp://x.example"),
        ("base_url", "https://user:pw@x.example/v1"),
        ("base_url", "https://x.example/v1?key=1"),
        ("base_url", "//x.example"),
        ("proxy", "nobody"),
        ("models", []),
        ("models", "grok"),
        ("concurrency", 0),
        ("team", ""),
        ("tier", None),
    ],
)
async def test_a_mistake_in_a_token_is_400_by_its_name(desk: Desk, field: str, value: object) -> None:
    body = {"driver": "xai", "secret": "CANARY"} | {field: value}
    assert f"'{field}'" in await desk.refused("POST", "/admin/tokens", body)


async def test_a_secret_is_taken_without_its_files_last_line_break(desk: Desk) -> None:
    token = await desk.token("CANARY-from-a-file\n")
    assert desk.house.catalog.secret_of(token["id"]).reveal() == "CANARY-from-a-file"


@pytest.mark.parametrize("path", ["keys", "tokens", "proxies"])
async def test_a_change_of_nothing_is_a_mistake(desk: Desk, path: str) -> None:
    made = {"keys": desk.key, "tokens": desk.token, "proxies": desk.proxy}[path]
    id_ = (await made())["id"]
    assert "nothing to change" in await desk.refused("PATCH", f"/admin/{path}/{id_}", {})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/keys/{}"),
        ("PATCH", "/admin/keys/{}"),
        ("DELETE", "/admin/keys/{}"),
        ("POST", "/admin/keys/{}/rotate"),
        ("POST", "/admin/keys/{}/revoke"),
        ("GET", "/admin/tokens/{}"),
        ("PATCH", "/admin/tokens/{}"),
        ("DELETE", "/admin/tokens/{}"),
        ("POST", "/admin/tokens/{}/enable"),
        ("POST", "/admin/tokens/{}/disable"),
        ("POST", "/admin/tokens/{}/drain"),
        ("POST", "/admin/tokens/{}/clear"),
        ("POST", "/admin/tokens/{}/test"),
        ("GET", "/admin/proxies/{}"),
        ("PATCH", "/admin/proxies/{}"),
        ("DELETE", "/admin/proxies/{}"),
        ("POST", "/admin/proxies/{}/enable"),
        ("POST", "/admin/proxies/{}/disable"),
        ("POST", "/admin/proxies/{}/clear"),
        ("POST", "/admin/proxies/{}/test"),
        ("GET", "/admin/jobs/{}"),
        ("POST", "/admin/jobs/{}/cancel"),
    ],
)
async def test_an_unknown_id_is_404(desk: Desk, method: str, path: str) -> None:
    body = {"name": "x"} if method == "PATCH" else None
    for unknown in ("nobody", "%00", "..%2f..", "ü" * 300):
        await desk.refused(method, path.format(unknown), body, status=404)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", "limit=-1", "limit=x", "limit=", "limit=1e2", "limit=٣", "limit=1&limit=2",
        "cursor=", "cursor=!!!", "cursor=%00", "cursor=a", "cursor=" + "A" * 500, "cursor=JyBPUiAxPTE", "unknown=1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["keys", "tokens", "proxies", "jobs", "audit"])
async def test_a_garbled_page_is_400(desk: Desk, path: str, query: str) -> None:
    await desk.refused("GET", f"/admin/{path}?{query}")


async def test_a_body_that_is_not_json_or_not_said_to_be_is_refused(desk: Desk) -> None:
    for content, kind, status in (
        (b'{"name": "x"}', "text/plain", 415),
        (b'{"name": "x"}', "application/x-www-form-urlencoded", 415),
        (b'{"name": ', "application/json", 400),
        (b"", "application/json", 400),
        (b'{"name": NaN}', "application/json", 400),
        (b'{"name": "' + b"x" * 600_000 + b'"}', "application/json", 413),
    ):
        async with desk.client.post("/admin/keys", data=content, headers=HEADERS | {"Content-Type": kind}) as response:
            assert response.status == status, content[:20]
            assert "error" in await response.json()


async def test_an_action_needs_no_body(desk: Desk) -> None:
    key = await desk.key()
    async with desk.client.post(f"/admin/keys/{key['id']}/rotate", headers=HEADERS) as response:
        assert response.status == 200


@pytest.mark.parametrize("force", ["1", "yes", "", "TRUE"])
async def test_force_is_true_or_false(desk: Desk, force: str) -> None:
    token = await desk.token()
    await desk.refused("DELETE", f"/admin/tokens/{token['id']}?force={force}")


async def test_pages_join_without_a_gap(desk: Desk) -> None:
    made = []
    for _ in range(5):
        desk.house.clock.advance(0.01)
        made.append((await desk.key())["id"])
    seen, cursor = [], ""
    while True:
        page = await desk.ask("GET", f"/admin/keys?limit=2{cursor}")
        seen += [key["id"] for key in page["data"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == made
    assert (await desk.ask("GET", "/admin/keys?limit=5"))["next"] is None
