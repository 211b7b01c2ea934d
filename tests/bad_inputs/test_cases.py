"""The corpus of bad inputs, as expected: by its own runner, and what that one does not look at."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bad_inputs import corpus
from tests.bad_inputs.conftest import HEAD_SECONDS
from tests.bad_inputs.corpus import Case
from tests.bad_inputs.running import Answer, Running
from tests.requirements import missing

RUNNER_SECONDS = 120
MiB = 1024 * 1024

pytestmark = corpus.needed


def families() -> list[tuple[str, str]]:
    return sorted({(case["area"], case["family"]) for case in corpus.cases("http", "raw")})


def expecting(what: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in corpus.cases("http", "raw") if what in case["expect"]]


class Verdicts:
    """What the corpus's runner says of its cases; an area is run when the first of its families is asked for."""

    def __init__(self, running: Running, folder: Path) -> None:
        self._running = running
        self._folder = folder
        self._by_area: dict[str, list[Case]] = {}

    def of(self, area: str, family: str) -> list[Case]:
        if area not in self._by_area:
            self._by_area[area] = self._run(area)
        return [verdict for verdict in self._by_area[area] if verdict["family"] == family]

    def _run(self, area: str) -> list[Case]:
        cases, out = self._folder / f"{area}.jsonl", self._folder / f"{area}.out"
        lines = [json.dumps(case) for case in corpus.cases("http", "raw") if case["area"] == area]
        cases.write_text("\n".join(lines))
        at = ["--base", self._running.base, "--ctl", self._running.ctl, "--ctx", str(self._running.ctx_file)]
        command = [sys.executable, str(corpus.FOLDER / "run.py"), str(cases), *at, "--out", str(out)]
        subprocess.run(command, check=True, timeout=RUNNER_SECONDS, capture_output=True)
        return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture(scope="module")
def verdicts(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    if ":" in running.ctx["FX"]:
        missing("the right to listen on port 80, where the corpus's image host is")
    return Verdicts(running, tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize(("area", "family"), families())
def test_the_corpus_is_answered_as_expected(verdicts: Verdicts, area: str, family: str) -> None:
    found = verdicts.of(area, family)
    assert found
    assert [f"{case['id']} {case['title']}: {case['fails']}" for case in found if case["fails"]] == []


@pytest.mark.parametrize("case", expecting("echo"))
def test_a_prompt_comes_back_as_it_was_sent(running: Running, case: Case) -> None:
    answer = sent(running, case)
    assert answer.status == 200
    assert answer.json["prompt"] == json.loads(corpus.request(case, running.ctx).body)["prompt"]


@pytest.mark.parametrize("case", expecting("close"))
def test_a_broken_request_ends_its_connection(running: Running, case: Case) -> None:
    """It is closed at once, not by the limit for a request's head."""
    answer = running.say(corpus.raw(case, running.ctx), patience=HEAD_SECONDS / 2)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.count(b"HTTP/1.") == 1
    assert b"x-request-id: req_" in head
    assert json.loads(body)["error"]["code"] == "bad_request"


@pytest.mark.parametrize("case", expecting("must_not_contain_header"))
def test_no_other_origin_is_let_in(running: Running, case: Case) -> None:
    answer = sent(running, case)
    for name, values in case["expect"]["must_not_contain_header"].items():
        assert answer.header(name.lower()) not in values


@pytest.mark.parametrize("case", expecting("never_ports") + expecting("never_header"))
def test_a_refused_url_is_not_even_tried(running: Running, case: Case) -> None:
    running.fixture()
    assert sent(running, case).status == 400
    assert running.connects() == []


@pytest.mark.parametrize("case", expecting("max_rss_mb"))
def test_memory_stays_within_what_the_case_allows(running: Running, case: Case) -> None:
    running.forget_peak()
    before = running.resident()
    sent(running, case)
    assert running.peak() - before <= case["expect"]["max_rss_mb"] * MiB


def sent(running: Running, case: Case) -> Answer:
    request = corpus.request(case, running.ctx)
    return running.ask(request.method, request.path, key=None, body=request.body, headers=request.headers)
