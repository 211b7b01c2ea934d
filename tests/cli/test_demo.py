import http.client
import json
import shlex
import signal
from pathlib import Path
from urllib.parse import urlsplit

import av
import pytest

from tests.cli.commands import PATIENCE, Grokpool, read_json


def test_the_demo_saves_a_playable_video_and_cleans_up(grokpool: Grokpool) -> None:
    told = grokpool.run("demo", "--seconds", "1").stdout
    assert str(grokpool.folder / "grokpool-demo.mp4") in told
    assert "100 %" in told
    assert play(grokpool.folder / "grokpool-demo.mp4") == pytest.approx(6, abs=0.2)
    assert [path.name for path in grokpool.folder.iterdir()] == ["grokpool-demo.mp4"]


def test_the_demo_ignores_the_settings_around_it(grokpool: Grokpool) -> None:
    (grokpool.folder / "config.toml").write_text("[server]\npublic_url = 'https://video.example.com'\n")
    made = grokpool.json("demo", "--seconds", "0", "--out", "mine.mp4", "--prompt", "a kite")
    assert made["path"] == str(grokpool.folder / "mine.mp4")
    assert made["bytes"] == (grokpool.folder / "mine.mp4").stat().st_size
    assert made["url"].startswith("http://127.0.0.1:")


def test_a_picture_that_is_none_is_refused(grokpool: Grokpool) -> None:
    (grokpool.folder / "no.jpg").write_text("no picture")
    grokpool.run("demo", "--image", "no.jpg", code=1)
    grokpool.run("demo", "--image", "nowhere.jpg", code=1)
    assert not (grokpool.folder / "grokpool-demo.mp4").exists()


def test_a_demo_kept_running_answers_its_curl_line_until_it_is_interrupted(grokpool: Grokpool) -> None:
    words = ("demo", "--seconds", "0", "--keep-running", "--json")
    with grokpool.running(*words, stop=signal.SIGINT) as process:
        read_json(process)
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("curl "))
        assert order(shlex.split(line))["status"] == "completed"


def order(curl: list[str]) -> dict[str, str]:
    """Do what the curl line does."""
    url = urlsplit(curl[1])
    headers = dict(word.split(": ", 1) for word in curl if ": " in word)
    body = Path(curl[-1].removeprefix("@")).read_bytes()
    connection = http.client.HTTPConnection(url.netloc, timeout=PATIENCE)
    connection.request("POST", url.path, body, headers)
    answer: dict[str, str] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def play(path: Path) -> float:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return len(frames) / 24
