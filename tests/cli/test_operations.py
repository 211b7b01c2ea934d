"""pause, resume, status, doctor, jobs, db, admin."""

import json
import sqlite3
from contextlib import closing

from tests.cli.commands import Grokpool

TOKEN = "xai-0123456789abcdef"


def test_a_pause_is_seen_in_the_status_until_it_is_lifted(served: Grokpool) -> None:
    paused = served.json("pause", "model", "grok-imagine-video", "--reason", "rain")
    assert [(pause["kind"], pause["reason"]) for pause in paused["data"]] == [("model", "rain")]
    assert "rain" in served.run("status").stdout
    assert served.json("resume", "model", "grok-imagine-video")["data"] == []
    served.run("resume", code=1)


def test_the_status_is_a_page_for_people_and_json_for_programs(served: Grokpool) -> None:
    page = served.run("status").stdout
    assert "Grokpool" in page
    assert "upstream traffic goes direct" in page
    assert "not running" not in page
    assert served.json("status")["jobs"]["running"] == 0


def test_a_job_is_listed_and_shown_with_its_attempts_and_without_its_prompt(grokpool: Grokpool) -> None:
    words = ("--data-dir", str(grokpool.data), "--seconds", "0", "--prompt", "a canary", "--json")
    id_ = json.loads(grokpool.run("demo", *words).stdout)["id"]
    with grokpool.serving():
        assert [job["id"] for job in grokpool.json("jobs", "list", "--state", "completed")["data"]] == [id_]
        assert grokpool.json("jobs", "list", "--state", "failed")["data"] == []
        shown = grokpool.run("jobs", "show", id_).stdout
        detail = grokpool.json("jobs", "show", id_)
        assert [attempt["token"] for attempt in detail["attempts"]] == ["tok_sandbox"]
        assert "tok_sandbox" in shown
        assert "canary" not in shown + json.dumps(detail)
        grokpool.run("jobs", "cancel", id_, code=1)


def test_a_new_admin_key_is_let_in_and_the_old_one_is_not(grokpool: Grokpool) -> None:
    with grokpool.serving() as url:
        file = grokpool.data / "admin.key"
        old = file.read_text()
        assert "admin.key" in grokpool.run("admin", "reset").stdout
        grokpool.run("status", "--url", url, "--admin-key-file", str(file))
        grokpool.run("status", "--url", url, "--admin-key-file", "-", stdin=old, code=1)


def test_a_backup_is_a_whole_database_and_never_written_over(either: Grokpool) -> None:
    either.run("keys", "create", "in the backup")
    copy = either.folder / "copy.db"
    assert either.json("db", "backup", str(copy))["bytes"] == copy.stat().st_size
    with closing(sqlite3.connect(copy)) as database:
        assert ("in the backup",) in database.execute("select name from keys").fetchall()
    either.run("db", "backup", str(copy), code=1)


def test_the_database_is_upgraded_once(grokpool: Grokpool) -> None:
    assert grokpool.json("db", "upgrade")["backup"] is None
    assert "up to date" in grokpool.run("db", "upgrade").stdout


def test_the_master_key_is_rotated_and_secrets_still_open(grokpool: Grokpool) -> None:
    grokpool.run("tokens", "add", "--secret-file", "-", stdin=TOKEN)
    before = (grokpool.data / "master.key").read_text()
    assert grokpool.json("db", "rotate-master-key")["resealed"] >= 3
    assert (grokpool.data / "master.key").read_text() != before
    grokpool.run("tokens", "add", "--secret-file", "-", stdin=TOKEN, code=1)  # known, so the pepper opens still


def test_the_doctor_says_what_is_wrong_and_what_to_do(grokpool: Grokpool) -> None:
    grokpool.run("proxies", "add", "--secret-file", "-", stdin="socks5://127.0.0.1:9")
    grokpool.run("tokens", "add", "--secret-file", "-", stdin=TOKEN)
    grokpool.data.chmod(0o755)
    told = grokpool.run("doctor", code=1).stdout
    assert f"chmod go-rwx {grokpool.data}" in told
    assert "wrong    proxy 127.0.0.1:9: " in told


def test_the_doctor_says_where_the_settings_are_wrong(grokpool: Grokpool) -> None:
    (grokpool.folder / "config.toml").write_text("[server]\nprot = 1\n")
    assert results(grokpool.json("doctor", code=1)) == {"settings": "wrong"}


def test_the_status_says_that_no_server_runs(grokpool: Grokpool) -> None:
    assert "not running" in grokpool.run("status").stdout


def test_the_doctor_makes_no_data_folder(grokpool: Grokpool) -> None:
    grokpool.run("doctor", code=1)
    assert not grokpool.data.exists()


def test_the_doctor_finds_nothing_wrong_and_makes_a_live_video_only_if_its_price_allows(grokpool: Grokpool) -> None:
    with grokpool.serving("--sandbox"):
        checks = results(grokpool.json("doctor", "--live", "--max-usd", "0.001"))
        assert checks["live"] == "warning"
        assert checks.keys() >= {"settings", "data folder", "disk", "gateway", "clock"}
        assert "wrong" not in checks.values()
        assert grokpool.json("jobs", "list")["data"] == []
        assert results(grokpool.json("doctor", "--live"))["live"] == "ok"
        assert [job["duration"] for job in grokpool.json("jobs", "list")["data"]] == [1]
        assert [key["status"] for key in grokpool.json("keys", "list")["data"]] == ["revoked"]


def results(report: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {check["name"]: check["result"] for check in report["checks"]}
