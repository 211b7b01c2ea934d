"""The shapes of the admin API, which programs outside rely on."""

from datetime import UTC, datetime

from proxy.domain.cooldowns import SubjectKind
from tests.services.house import NOW
from tests.upstream.xai_script import Reply
from tests.web.admin.conftest import Desk


async def test_a_key_is_made_shown_changed_rotated_and_revoked(desk: Desk) -> None:
    made = await desk.key(concurrency=None, expires_at="2099-01-31T12:00:00+00:00")
    assert made["key"].startswith("gp_")
    assert made | {"key": "", "id": "", "secrets": []} == {
        "id": "",
        "key": "",
        "name": "shop",
        "tenant": "default",
        "status": "active",
        "requests_per_minute": 60,
        "concurrency": None,
        "created_at": NOW,
        "expires_at": datetime(2099, 1, 31, 12, tzinfo=UTC).timestamp(),
        "revoked_at": None,
        "secrets": [],
    }
    path = f"/admin/keys/{made['id']}"
    assert await desk.ask("GET", path) == {name: value for name, value in made.items() if name != "key"}
    assert (await desk.ask("PATCH", path, {"expires_at": None, "concurrency": 2}))["concurrency"] == 2
    rotated = await desk.ask("POST", f"{path}/rotate", {"grace": 60})
    assert rotated["key"] != made["key"]
    assert [secret["expires_at"] for secret in rotated["secrets"]] == [NOW + 60, None]
    assert (await desk.ask("DELETE", path))["status"] == "revoked"
    await desk.refused("POST", f"{path}/rotate", {}, status=409)


async def test_a_key_past_its_end_is_expired(desk: Desk) -> None:
    made = await desk.key(expires_at=NOW + 1)
    desk.house.clock.advance(1.0)
    assert (await desk.ask("GET", f"/admin/keys/{made['id']}"))["status"] == "expired"


async def test_a_token_is_shown_with_what_it_does(desk: Desk) -> None:
    made = await desk.token(name="first", models=["grok-imagine-video"], tier="gold", team="team-1")
    assert made | {"id": ""} == {
        "id": "",
        "name": "first",
        "driver": "xai",
        "status": "ready",
        "cooling_until": None,
        "in_flight": 0,
        "concurrency": 3,
        "proxy": None,
        "pinned_proxy": None,
        "tier": "gold",
        "team": "team-1",
        "base_url": None,
        "models": ["grok-imagine-video"],
        "disabled_cause": None,
        "created_at": NOW,
        "cooldowns": [],
    }
    row = await desk.house.rest(SubjectKind.TOKEN, made["id"], "forbidden")
    (shown,) = (await desk.ask("GET", "/admin/tokens"))["data"]
    assert (shown["status"], shown["cooling_until"]) == ("cooling", row.until)
    assert shown["cooldowns"] == [
        {
            "kind": "token",
            "id": made["id"],
            "scope": "",
            "cause": "forbidden",
            "evidence": "429 slow down",
            "since": NOW,
            "until": row.until,
            "strikes": 1,
            "attempt_id": None,
        }
    ]
    assert (await desk.ask("POST", f"/admin/tokens/{made['id']}/clear"))["status"] == "ready"


async def test_a_token_is_disabled_enabled_drained_and_removed(desk: Desk) -> None:
    path = f"/admin/tokens/{(await desk.token())['id']}"
    off = await desk.ask("POST", f"{path}/disable")
    assert (off["status"], off["disabled_cause"]) == ("disabled", "operator")
    on = await desk.ask("POST", f"{path}/enable")
    assert (on["status"], on["disabled_cause"]) == ("ready", None)
    assert (await desk.ask("POST", f"{path}/drain"))["in_flight"] == 0
    assert (await desk.ask("DELETE", path))["removed"] is True
    await desk.ask("GET", path, status=404)
    assert (await desk.ask("GET", "/admin/tokens"))["data"] == []


async def test_a_token_is_pinned_moved_and_unpinned(desk: Desk) -> None:
    proxy = await desk.proxy(name="paris")
    token = await desk.token(proxy="paris")
    assert (token["proxy"], token["pinned_proxy"]) == (proxy["id"], proxy["id"])
    changed = await desk.ask("PATCH", f"/admin/tokens/{token['id']}", {"proxy": None, "models": None})
    assert changed["pinned_proxy"] is None


async def test_a_test_of_a_token_says_what_the_upstream_said(desk: Desk) -> None:
    path = f"/admin/tokens/{(await desk.token())['id']}/test"
    good = await desk.ask("POST", path)
    assert (good["ok"], good["outcome"], good["proxy"]) == (True, "ok", None)
    assert good["team"]
    desk.upstream.script("key", Reply(401, {"code": "unauthenticated", "error": "Invalid API key"}))
    bad = await desk.ask("POST", path)
    assert (bad["ok"], bad["outcome"]) == (False, "unauthorized")
    assert "401" in bad["evidence"]


async def test_a_proxy_is_shown_masked(desk: Desk) -> None:
    made = await desk.proxy(clearance="CANARY-cf", user_agent="Firefox")
    assert made | {"id": ""} == {
        "id": "",
        "name": "127.0.0.1:9",
        "url": "socks5h://alice:•••@127.0.0.1:9",
        "status": "ready",
        "cooling_until": None,
        "tokens": 0,
        "exit_address": None,
        "has_clearance": True,
        "user_agent": "Firefox",
        "created_at": NOW,
        "cooldowns": [],
    }
    path = f"/admin/proxies/{made['id']}"
    assert (await desk.ask("POST", f"{path}/disable"))["status"] == "disabled"
    assert (await desk.ask("POST", f"{path}/enable"))["status"] == "ready"
    assert (await desk.ask("PATCH", path, {"clearance": None}))["has_clearance"] is False
    trial = await desk.ask("POST", f"{path}/test")
    assert (trial["ok"], trial["exit_address"], trial["changed"], trial["clearance_dropped"]) == (
        False,
        None,
        False,
        False,
    )
    assert trial["reason"]
    await desk.refused("DELETE", path, status=409)
    assert (await desk.ask("DELETE", f"{path}?force=true"))["removed"] is True


async def test_jobs_are_listed_shown_and_cancelled(desk: Desk) -> None:
    key = await desk.key()
    await desk.house.job(key["id"])
    (listed,) = (await desk.ask("GET", f"/admin/jobs?state=queued&key={key['id']}"))["data"]
    assert (listed["id"], listed["state"], listed["model"]) == ("video-1", "queued", "grok-imagine-video")
    assert (await desk.ask("GET", "/admin/jobs?state=running"))["data"] == []
    await desk.refused("GET", "/admin/jobs?state=lost")
    cancelled = await desk.ask("POST", "/admin/jobs/video-1/cancel")
    assert (cancelled["state"], cancelled["attempts"], cancelled["cost"]) == ("cancelled", [], None)
    assert await desk.ask("GET", "/admin/jobs/video-1") == cancelled


async def test_an_attempt_is_shown_by_the_words_of_the_api(desk: Desk) -> None:
    key, token = await desk.key(), await desk.token()
    await desk.house.job(key["id"])
    with desk.house.shop.wakeups.waiter("video-1") as woken:
        await desk.house.worker.start()
        await woken
    (attempt,) = (await desk.ask("GET", "/admin/jobs/video-1"))["attempts"]
    assert set(attempt) == {
        "id", "number", "token", "proxy", "why", "upstream_id", "started_at", "ended_at", "outcome", "blame",
        "evidence", "possible_cost",
    }  # fmt: skip
    assert (attempt["token"], attempt["outcome"]) == (token["id"], "ok")


async def test_pauses_are_set_and_lifted(desk: Desk) -> None:
    body = {"kind": "model", "id": "grok-imagine-0.9", "reason": "the invoice"}
    paused = await desk.ask("POST", "/admin/pause", body)
    assert paused["data"] == [{"kind": "model", "id": "grok-imagine-video", "since": NOW, "reason": "the invoice"}]
    assert await desk.ask("GET", "/admin/pauses") == paused
    assert (await desk.ask("POST", "/admin/resume", {"kind": "model", "id": "grok-imagine-video"}))["data"] == []
    await desk.refused("POST", "/admin/resume", {"kind": "all"}, status=409)
    await desk.refused("POST", "/admin/pause", {"kind": "tenant", "id": "x", "reason": "y"})
    await desk.refused("POST", "/admin/pause", {"kind": "all"})


async def test_the_status_is_one_page(desk: Desk) -> None:
    await desk.token()
    page = await desk.ask("GET", "/admin/status")
    assert set(page) == {
        "now", "started_at", "version", "sandbox", "draining", "jobs", "tokens", "proxies", "keys", "models", "pauses",
        "cooldowns", "cooldowns_total", "problems",
    }  # fmt: skip
    assert page["tokens"] == {
        "total": 1, "ready": 1, "cooling": 0, "full": 0, "disabled": 0, "slots": 3, "in_flight": 0,
    }  # fmt: skip
    assert page["jobs"] == {
        "queued": 0, "sending": 0, "running": 0, "waiting": 0, "oldest_queued_at": None,
        "completed_last_hour": 0, "failed_last_hour": 0, "cancelled_last_hour": 0,
    }  # fmt: skip
    assert page["models"][0] == {
        "model": "grok-imagine-video", "names": ["grok-imagine-0.9", "grok-imagine-video"],
        "wait": 0.0, "paused": False,
    }  # fmt: skip
    (problem,) = page["problems"]
    assert set(problem) == {"severity", "code", "message", "fix", "subject"}
    assert problem["code"] == "no_key"


async def test_the_gateways_own_keys_are_changed_online(desk: Desk) -> None:
    rotated = await desk.ask("POST", "/admin/master-key/rotate")
    assert set(rotated) == {"key_id", "resealed", "note"}
    reset = await desk.ask("POST", "/admin/admin-key/reset")
    assert set(reset) == {"admin_key", "file"}
    await desk.ask("GET", "/admin/status", status=401)
    await desk.ask("GET", "/admin/status", headers={"Authorization": f"Bearer {reset['admin_key']}"})
