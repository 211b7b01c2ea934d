"""Orders over a pool of tokens, from the client to the ledger of the upstream."""

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.crash import books
from tests.gateway import Running, running, until
from tests.upstream.proxy_servers import SmallProxy
from tests.upstream.xai_script import Reply, Reset, Serve, Step
from tests.upstream.xai_server import XaiServer

UNAUTHORIZED = Reply(401, {"code": "unauthenticated", "error": "Invalid bearer token."})
SICK = Reply(503, {"code": "unavailable", "error": "try again"})


def throttled(seconds: int) -> Reply:
    return Reply(429, {"code": "resource-exhausted", "error": "slow down"}, {"Retry-After": str(seconds)})


@asynccontextmanager
async def house(
    folder: Path, xai: XaiServer, *, tokens: int, concurrency: int = 1, proxies: int = 0, **options: Any
) -> AsyncIterator[Running]:
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(SmallProxy("http")) for _ in range(proxies)]
        gateway = await stack.enter_async_context(running(folder, upstream__xai__base_url=xai.base_url, **options))
        for number, way in enumerate(ways):
            await gateway.api.proxy(f"http://127.0.0.1:{way.address.port}", user_agent=f"way {number}")
        for number in range(tokens):
            await gateway.api.token(f"xai-{number}", concurrency=concurrency)
        yield gateway


async def token_named(gateway: Running, secret: str) -> Any:
    """Return the token with a secret: they were added in the order of their numbers."""
    tokens = (await gateway.api.admin("GET", "/tokens"))["data"]
    return tokens[int(secret.removeprefix("xai-"))]


async def all_completed(gateway: Running, key: str, ids: list[str]) -> None:
    for job_id in ids:
        body = await gateway.api.ended(key, job_id, within=30)
        assert body["status"] == "completed", body


async def test_no_token_ever_does_more_than_its_concurrency_allows(tmp_path: Path) -> None:
    options = {"policy__max_attempts": 9, "policy__max_free_attempts": 9}
    async with XaiServer(seconds=0.1) as xai, house(tmp_path, xai, tokens=5, concurrency=2, **options) as gateway:
        key = await gateway.api.key()
        steps: list[Step] = [Serve(), throttled(1), Serve(), SICK, Serve()]
        xai.script("submit", *steps * 4)
        ids = [await gateway.api.order(key, f"order {number}") for number in range(50)]
        await all_completed(gateway, key, ids)
        assert set(xai.peaks.values()) == {2}
        assert sum(call.request_id is not None for call in xai.calls("submit")) == 50
        books.audit(tmp_path, xai)


async def test_work_is_spread_evenly_and_in_the_order_of_the_queue(tmp_path: Path) -> None:
    async with XaiServer(seconds=None) as xai, house(tmp_path, xai, tokens=5) as gateway:
        key = await gateway.api.key()
        ids = [await gateway.api.order(key, f"order {number:02}") for number in range(30)]
        for done in range(5, 30, 5):
            await xai.called("submit", done)
            xai.finish()
        await xai.called("submit", 30)
        xai.finish()
        await all_completed(gateway, key, ids)
        sent = xai.calls("submit")
        assert Counter(call.token for call in sent) == {f"xai-{number}": 6 for number in range(5)}
        for round_ in range(0, 30, 5):  # of those sent at the same time any may be the first
            together = {call.body["prompt"] for call in sent[round_ : round_ + 5]}
            assert together == {f"order {number:02}" for number in range(round_, round_ + 5)}


async def test_waiting_orders_are_sent_in_the_order_of_their_acceptance(tmp_path: Path) -> None:
    async with XaiServer(seconds=None) as xai, house(tmp_path, xai, tokens=1) as gateway:
        key = await gateway.api.key()
        ids = [await gateway.api.order(key, f"order {number:02}") for number in range(15)]
        xai.seconds = 0.02
        await xai.called("submit")
        xai.finish()
        await all_completed(gateway, key, ids)
        prompts = [call.body["prompt"] for call in xai.calls("submit")]
        assert prompts == sorted(prompts)
        assert set(xai.peaks.values()) == {1}


async def test_a_refused_credential_rests_is_looked_at_by_another_proxy_and_disabled(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=2, proxies=2) as gateway:
        key = await gateway.api.key()
        xai.always("submit", UNAUTHORIZED, token="xai-0")
        xai.always("key", UNAUTHORIZED, token="xai-0")
        began = time.time()  # noqa: TID251
        answer = await gateway.api.generate(key)
        assert answer.status == 200
        first, second = (await gateway.api.job(answer.body["id"]))["attempts"]
        assert (first["outcome"], first["blame"], second["outcome"]) == ("unauthorized", "token", "ok")
        refused = await until(lambda: disabled(gateway, "xai-0"))
        assert refused["disabled_cause"] == "unauthorized"
        (rest,) = [rest for rest in refused["cooldowns"] if rest["kind"] == "token"]
        assert 60 <= rest["until"] - began < 75
        assert len(xai.calls("submit", "xai-0")) == 1
        ways = [call.headers["user-agent"] for call in xai.calls("submit", "xai-0") + xai.calls("key", "xai-0")]
        assert len(ways) == 3, "two looks confirm it"
        assert ways[1] != ways[0]
        assert (await gateway.api.generate(key, "another")).status == 200
        assert len(xai.calls("submit", "xai-0")) == 1


async def disabled(gateway: Running, secret: str) -> Any:
    token = await token_named(gateway, secret)
    return token if token["status"] == "disabled" else None


async def test_a_credential_that_is_found_good_only_rests(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=2) as gateway:
        key = await gateway.api.key()
        xai.script("submit", UNAUTHORIZED, token="xai-0")
        assert (await gateway.api.generate(key)).status == 200
        await xai.called("key")
        token = await until(lambda: cooling(gateway, "xai-0"))
        assert [rest["cause"] for rest in token["cooldowns"]] == ["unauthorized"]
        assert token["disabled_cause"] is None


async def cooling(gateway: Running, secret: str) -> Any:
    token = await token_named(gateway, secret)
    return token if token["status"] == "cooling" else None


async def test_a_wait_that_the_upstream_asks_for_is_kept(tmp_path: Path) -> None:
    async with XaiServer(seconds=None) as xai, house(tmp_path, xai, tokens=2) as gateway:
        key = await gateway.api.key()
        xai.script("submit", throttled(1), token="xai-0")
        ids = [await gateway.api.order(key, f"order {number}") for number in range(2)]
        await xai.called("submit", 2)
        again = await xai.called("submit", 3)
        refused = xai.calls("submit", "xai-0")[0]
        assert refused.status == 429
        assert again.at - (refused.ended_at or 0.0) >= (1.0 if again.token == "xai-0" else 0.0)
        xai.seconds = 0.0
        xai.finish()
        await all_completed(gateway, key, ids)
        for call in xai.calls("submit", "xai-0")[1:]:
            assert call.at - (refused.ended_at or 0.0) >= 1.0
        books.audit(tmp_path, xai)


async def test_an_order_waits_for_the_only_token_that_was_throttled(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=1) as gateway:
        key = await gateway.api.key()
        xai.script("submit", throttled(1))
        assert (await gateway.api.generate(key)).status == 200
        refused, accepted = xai.calls("submit")
        assert 1.0 <= accepted.at - (refused.ended_at or 0.0) < 5.0


async def test_an_order_does_not_wait_for_a_rest_that_outlasts_it(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=1) as gateway:
        key = await gateway.api.key()
        xai.script("submit", throttled(3600))
        answer = await gateway.api.generate(key)
        assert (answer.status, answer.code) == (502, "upstream_failed")
        refused = await gateway.api.generate(key, "later")
        assert (refused.status, refused.code) == (503, "no_token_available")
        assert 3000 < int(refused.headers["Retry-After"]) < 4500
        assert len(xai.calls("submit")) == 1


async def test_one_order_that_meets_unexplained_refusals_touches_two_tokens(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=5, proxies=3) as gateway:
        key, _other = await gateway.api.key(), await gateway.api.key()
        xai.always("submit", Reply(403, ""))
        answer = await gateway.api.generate(key)
        assert (answer.status, answer.code) == (502, "upstream_failed")
        touched = [call.token for call in xai.calls("submit")]
        assert (len(touched), len(set(touched))) == (2, 2)
        attempts = (await gateway.api.job((await gateway.api.jobs())[0]["id"]))["attempts"]
        assert len({attempt["proxy"] for attempt in attempts}) == 2
        tokens = (await gateway.api.admin("GET", "/tokens"))["data"]
        rests = [rest for token in tokens for rest in token["cooldowns"]]
        assert {rest["kind"] for rest in rests} == {"pair"}, "nobody is blamed for long"
        assert all(rest["until"] - rest["since"] <= 5 for rest in rests)


@pytest.mark.parametrize("when", ["read", "accepted"])
async def test_a_submit_whose_answer_is_lost_is_not_repeated(tmp_path: Path, when: str) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=3) as gateway:
        key = await gateway.api.key()
        xai.script("submit", Reset(when))
        answer = await gateway.api.generate(key)
        assert (answer.status, answer.code) == (502, "submit_ambiguous")
        (job,) = await gateway.api.jobs()
        (attempt,) = (await gateway.api.job(job["id"]))["attempts"]
        assert (attempt["outcome"], attempt["possible_cost"] > 0) == ("lost", True)
        assert len(xai.calls("submit")) == 1
        books.audit(tmp_path, xai)


async def test_a_lost_submit_is_repeated_once_where_the_setting_says_so(tmp_path: Path) -> None:
    async with (
        XaiServer(seconds=0.0) as xai,
        house(tmp_path, xai, tokens=3, jobs__on_ambiguous="resubmit_once") as gateway,
    ):
        key = await gateway.api.key()
        xai.script("submit", throttled(1), Reset("accepted"))
        assert (await gateway.api.generate(key, "lost once, after a refusal")).status == 200
        xai.script("submit", Reset("accepted"), Reset("accepted"))
        answer = await gateway.api.generate(key, "lost twice")
        assert answer.code == "submit_ambiguous"
        counts = Counter(call.body["prompt"] for call in xai.calls("submit"))
        assert counts == {"lost once, after a refusal": 3, "lost twice": 2}
        books.audit(tmp_path, xai, submits=2)


async def test_a_sick_upstream_is_tried_three_times_and_no_token_rests(tmp_path: Path) -> None:
    async with XaiServer(seconds=0.0) as xai, house(tmp_path, xai, tokens=3) as gateway:
        key = await gateway.api.key()
        xai.script("submit", SICK, SICK)
        assert (await gateway.api.generate(key, "third time lucky")).status == 200
        xai.always("submit", SICK)
        assert (await gateway.api.generate(key, "never")).code == "upstream_failed"
        assert Counter(call.body["prompt"] for call in xai.calls("submit")) == {"third time lucky": 3, "never": 3}
        statuses = {token["status"] for token in (await gateway.api.admin("GET", "/tokens"))["data"]}
        assert statuses == {"ready"}
        books.audit(tmp_path, xai)
