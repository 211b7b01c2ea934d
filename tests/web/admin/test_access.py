"""Who may use the admin API, and what no answer of it ever holds."""

import pytest

from proxy.web.admin.routes import ROUTES
from proxy.web.routes import Audience
from tests.services.house import ADMIN_KEY, OPERATOR, PROMPT
from tests.web.admin.conftest import Desk

CANARIES = ("CANARY", PROMPT)


def test_every_route_is_the_operators_alone() -> None:
    assert {route.audience for route in ROUTES} == {Audience.ADMIN}


async def test_without_the_admin_key_no_route_answers_nor_acts(desk: Desk) -> None:
    client_key = (await desk.key())["key"]
    before = await desk.house.actions()
    for route in ROUTES:
        path = route.path.replace("{id}", "key_1")
        for authorization in ("", "Bearer wrong", f"Bearer {client_key}", f"Basic {ADMIN_KEY}", f"Bearer {ADMIN_KEY}x"):
            async with desk.client.request(
                route.method, path, headers={"Authorization": authorization}, json={"name": "x"}
            ) as response:
                assert response.status == 401, (route.method, route.path, authorization)
    assert await desk.house.actions() == before


async def test_secrets_are_in_no_answer_but_the_one_that_made_them_and_in_no_log(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything is called once, with canaries in every secret; all answers are read, and the log."""
    key = await desk.key()
    token = await desk.token(name="t")
    proxy = await desk.proxy(clearance="CANARY-cf", user_agent="Firefox")
    await desk.house.job(key["id"])
    await desk.ask("PATCH", f"/admin/tokens/{token['id']}", {"secret": "CANARY-newer", "proxy": proxy["id"]})
    await desk.ask("PATCH", f"/admin/proxies/{proxy['id']}", {"url": "socks5h://bob:CANARY-pw2@127.0.0.1:9"})
    await desk.refused("POST", "/admin/tokens", {"driver": "xai", "secret": "CANARY-newer"}, status=409)
    await desk.refused("POST", "/admin/tokens", {"driver": "xai", "secret": ["CANARY-list"]})
    await desk.refused("POST", "/admin/tokens", {"driver": "xai", "secret": "CANARY-\n-header"})
    await desk.refused("POST", "/admin/proxies", {"url": "ftp://a:CANARY-pw3@h"})
    await desk.refused("POST", "/admin/proxies", {"url": "socks5h://bob:CANARY-pw2@127.0.0.1:9"}, status=409)
    await desk.ask("POST", f"/admin/proxies/{proxy['id']}/test")
    await desk.ask("POST", f"/admin/tokens/{token['id']}/test")
    for path in ("keys", "tokens", "proxies", "jobs", "status", "audit", "pauses"):
        await desk.ask("GET", f"/admin/{path}")
    for path in (f"keys/{key['id']}", f"tokens/{token['id']}", f"proxies/{proxy['id']}", "jobs/video-1"):
        await desk.ask("GET", f"/admin/{path}")
    assert key["key"] in desk.answers.pop(0)
    written = "".join(capsys.readouterr())
    assert "/admin/tokens/{id}/test" in written
    assert not any(canary in text for text in [*desk.answers, written] for canary in [*CANARIES, key["key"][12:]])


async def test_the_audit_names_the_actor_and_pages_backwards(desk: Desk) -> None:
    key = await desk.key()
    await desk.ask("POST", f"/admin/keys/{key['id']}/revoke")
    first = await desk.ask("GET", "/admin/audit?limit=1")
    assert [(line["actor"], line["action"], line["subject"]) for line in first["data"]] == [
        (OPERATOR, "key.revoke", key["id"])
    ]
    second = await desk.ask("GET", f"/admin/audit?limit=1&cursor={first['next']}")
    assert [line["action"] for line in second["data"]] == ["key.create"]
    assert second["next"] is None


@pytest.mark.parametrize("path", ["/admin/nothing", "/admin/keys/a/b", "/admin"])
async def test_what_is_not_there_is_404_as_json(desk: Desk, path: str) -> None:
    assert (await desk.ask("GET", path, status=404))["error"]["code"] == "not_found"


async def test_nothing_of_it_is_for_a_cache(desk: Desk) -> None:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with desk.client.get("/admin/status", headers=headers) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["x-request-id"]
