"""Many requests at once under one key. The limit is the key's, however the key is written; other keys don't feel it."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from tests.bad_inputs import corpus
from tests.bad_inputs.furnishing import TIGHT
from tests.bad_inputs.running import GENERATIONS, Answer, Running

BURST, TOGETHER = 150, 50
SPELLINGS = ["Bearer {}", "bearer {}", "BEARER   {}", "bearer  {} "]


def ask(running: Running, key: str, number: int = 0) -> Answer:
    """Ask for a video under the key, spelled in the `number`th way."""
    secret = running.ctx[key]
    spelling = {"Authorization": SPELLINGS[number % len(SPELLINGS)].format(secret)}
    if number % 5 == 4:
        spelling = {"x-api-key": secret}
    body = json.dumps({"image_url": running.ctx["GOOD_IMG"], "prompt": f"wave {number}"}).encode()
    headers = {"Prefer": "respond-async", **spelling}
    return running.ask("POST", GENERATIONS, key=None, body=body, headers=headers)


def test_all_spellings_of_a_key_share_one_allowance(running: Running) -> None:
    running.fixture()
    with ThreadPoolExecutor(TOGETHER) as threads:
        answers = list(threads.map(lambda number: ask(running, "KEY_TIGHT_A", number), range(BURST)))
    assert Counter(answer.status for answer in answers) == {
        202: TIGHT.requests_per_minute,
        429: BURST - (TIGHT.requests_per_minute or 0),
    }
    late = next(answer for answer in answers if answer.status == 429)
    assert late.code == "rate_limited"
    assert 1 <= int(late.header("retry-after") or 0) <= 60


def test_the_limit_of_one_key_touches_no_other(running: Running) -> None:
    running.fixture()
    while ask(running, "KEY_TIGHT_A2").status != 429:
        pass
    assert [ask(running, "KEY_TIGHT_B", number).status for number in range(2)] == [202, 202]


@corpus.needed
def test_the_corpus_has_no_other_burst() -> None:
    assert {case["expect"]["class"] for case in corpus.cases("burst")} <= {"429 seen", "B 2xx while A limited"}


def test_the_allowance_is_small_enough_to_be_spent() -> None:
    assert (TIGHT.requests_per_minute or BURST) < BURST / 2
