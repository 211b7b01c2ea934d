import time
import urllib.error
import urllib.request

import pytest

from tests.cli.commands import Grokpool


def test_a_key_lives_from_create_to_revoke(either: Grokpool) -> None:
    made = either.json("keys", "create", "shop", "--concurrency", "none", "--expires-at", "30d")
    assert made["key"].startswith("gp_")
    assert (made["name"], made["concurrency"]) == ("shop", None)
    assert made["expires_at"] == pytest.approx(made["created_at"] + 30 * 86_400, abs=5)

    changed = either.json("keys", "update", made["id"], "--requests-per-minute", "7", "--expires-at", "none")
    assert (changed["requests_per_minute"], changed["concurrency"], changed["expires_at"]) == (7, None, None)

    rotated = either.json("keys", "rotate", made["id"], "--grace", "1h")
    assert rotated["key"] != made["key"]
    assert len(either.json("keys", "show", made["id"])["secrets"]) == 2

    assert either.json("keys", "revoke", made["id"])["status"] == "revoked"
    assert made["id"] in [key["id"] for key in either.json("keys", "list")["data"]]


def test_a_key_is_shown_once_and_to_people_on_a_line_of_its_own(served: Grokpool) -> None:
    made = served.run("keys", "create", "for people").stdout
    assert made.startswith("gp_")
    assert made.count("\n") == 1
    secret = made.strip()
    assert secret not in served.run("keys", "list").stdout + served.run("keys", "list", "--json").stdout


def test_what_the_gateway_refuses_exits_with_1_and_one_line(served: Grokpool) -> None:
    done = served.run("keys", "show", "key_nobody", code=1)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("grokpool: ")


def test_a_list_goes_on_past_a_page_and_stops_at_the_limit(served: Grokpool) -> None:
    for name in ("one", "two", "three"):
        served.run("keys", "create", name)
    cut = served.json("keys", "list", "--limit", "2")
    assert len(cut["data"]) == 2
    assert cut["next"] is not None
    assert "--limit" in served.run("keys", "list", "--limit", "2").stderr
    whole = served.json("keys", "list")
    assert whole["next"] is None
    assert {"one", "two", "three"} <= {key["name"] for key in whole["data"]}


def test_a_key_revoked_beside_a_running_server_is_refused_within_a_second(grokpool: Grokpool) -> None:
    with grokpool.serving() as url:
        key = grokpool.json("keys", "create", "short-lived")
        assert status(url, key["key"]) == 404
        grokpool.run("keys", "revoke", key["id"])
        revoked_at = time.monotonic()
        while status(url, key["key"]) != 401:
            assert time.monotonic() < revoked_at + 1


def test_a_remote_gateway_is_reached_by_url_and_admin_key(grokpool: Grokpool) -> None:
    with grokpool.serving() as url:
        elsewhere = Grokpool(grokpool.folder.parent, {"GROKPOOL_ADMIN_KEY": (grokpool.data / "admin.key").read_text()})
        key = elsewhere.json("--url", url, "keys", "create", "from afar")
        file = str(grokpool.data / "admin.key")
        assert key["id"] in [
            row["id"] for row in grokpool.json("keys", "list", "--url", url, "--admin-key-file", file)["data"]
        ]
        refused = grokpool.run("keys", "list", "--url", url, "--admin-key-file", "-", stdin="wrong\n", code=1)
        assert "does not know this key" in refused.stderr


def status(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/v1/videos/video-nobody", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
