"""The status page: what runs, what rests, what is wrong, and what to do about it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.domain.cooldowns import SubjectKind
from proxy.domain.jobs import Attempt, JobState
from proxy.domain.outcomes import Blame, Outcome
from proxy.domain.secret import Secret
from proxy.domain.tokens import TokenState
from proxy.services.problems import Census, Problem, Severity
from proxy.services.proxies import Edit
from proxy.state.leases import Want
from proxy.storage import jobs, tokens
from proxy.storage.changes import Act
from proxy.storage.writer import each
from tests.services.house import NOW, OPERATOR, VIDEO, House, house


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as built:
        yield built


async def found(here: House) -> dict[str, Problem]:
    return {problem.code: problem for problem in (await here.status.page()).problems}


async def add(here: House, secret: str = "xai-1", **values: object) -> str:
    return (await here.tokens.add(OPERATOR, "xai", Secret(secret), values)).token.id


async def well(here: House) -> str:
    """Make a gateway that nothing is wrong with; return its token's id."""
    await here.keys.create(OPERATOR, name="shop", limits={})
    return await add(here)


async def test_a_new_gateway_is_told_what_it_lacks(here: House) -> None:
    problems = await found(here)
    assert set(problems) == {"no_token", "no_key"}
    assert problems["no_token"].severity is Severity.ERROR
    assert "tokens add" in problems["no_token"].fix


async def test_nothing_is_wrong_with_a_gateway_that_works(here: House) -> None:
    await well(here)
    assert await found(here) == {}


async def test_tokens_are_counted_by_what_they_do(here: House) -> None:
    await well(here)
    full = await add(here, "xai-2", concurrency=1)
    cooling, off = await add(here, "xai-3"), await add(here, "xai-4")
    here.pool.lease(Want(drivers=("xai",), model=VIDEO, token_id=full), here.clock())
    await here.rest(SubjectKind.TOKEN, cooling, "forbidden")
    await here.tokens.disable(OPERATOR, off)
    page = await here.status.page()
    assert page.figures.tokens == Census(total=4, ready=1, cooling=1, full=1, disabled=1, slots=7, in_flight=1)
    assert [row.subject.id for row in page.figures.cooldowns] == [cooling]


async def test_a_pool_that_rests_says_for_how_long(here: House) -> None:
    token_id = await well(here)
    await here.rest(SubjectKind.TOKEN, token_id, "forbidden", seconds=90.0)
    problems = await found(here)
    assert "90 s" in problems["all_tokens_rest"].message
    assert problems["refused"].subject == token_id


async def test_a_model_that_nothing_serves_is_named_as_clients_know_it(here: House) -> None:
    await here.keys.create(OPERATOR, name="shop", limits={})
    await add(here, models=(VIDEO,))
    problem = (await found(here))["model_unserved"]
    assert problem.subject == "grok-imagine-video-1.5"
    page = await here.status.page()
    assert {outlook.model: outlook.wait for outlook in page.figures.outlooks} == {
        VIDEO: 0.0,
        "grok-imagine-video-1.5": None,
    }


async def test_a_token_disabled_on_a_fact_asks_for_a_new_secret_one_disabled_by_hand_for_nothing(here: House) -> None:
    await well(here)
    refused, off = await add(here, "xai-2"), await add(here, "xai-3")
    await here.tokens.disable(OPERATOR, off)
    values = {"state": TokenState.DISABLED, "disabled_cause": "unauthorized"}
    act = Act(NOW, "gateway", "token.disable", refused, {})
    await here.database.write(each(tokens.change), tokens.TokenUpdate(refused, values, act))
    problems = await found(here)
    assert set(problems) == {"token_disabled"}
    assert problems["token_disabled"].subject == refused


@pytest.mark.parametrize(
    ("kind", "cause", "code"),
    [
        (SubjectKind.TEAM, "unpaid", "unpaid"),
        (SubjectKind.PROXY, "proxy_auth", "proxy_auth"),
        (SubjectKind.PROXY_HOST, "challenged", "challenged"),
        (SubjectKind.PROXY, "unreachable", "unreachable"),
        (SubjectKind.TOKEN_MODEL, "throttled", None),
    ],
)
async def test_a_rest_that_somebody_can_end_says_how(here: House, kind: SubjectKind, cause: str, code: str) -> None:
    await well(here)
    await here.rest(kind, "subject-1", cause, scope="xai" if kind.count("_") else "")
    assert set(await found(here)) == ({code} if code else set())


async def test_a_rest_that_is_over_is_no_problem(here: House) -> None:
    await well(here)
    await here.rest(SubjectKind.TEAM, "team-1", "unpaid", seconds=10.0)
    here.clock.advance(10.0)
    assert await found(here) == {}


async def test_disabled_proxies_let_nothing_out(here: House) -> None:
    await well(here)
    shown = await here.proxies.add(OPERATOR, Edit(frozenset({"url"}), url=Secret("http://127.0.0.1:9")))
    await here.proxies.disable(OPERATOR, shown.proxy.id)
    assert "no_proxy" in await found(here)


async def test_a_pause_is_shown_with_its_reason_and_its_end(here: House) -> None:
    await well(here)
    await here.pauses.pause(OPERATOR, "driver", "xai", "the invoice")
    page = await here.status.page()
    (problem,) = page.problems
    assert "the invoice" in problem.message
    assert problem.fix == "grokpool resume --driver xai"
    assert all(outlook.paused for outlook in page.figures.outlooks)


async def test_jobs_are_counted_and_a_slow_queue_is_told(here: House) -> None:
    shown, _ = await here.keys.create(OPERATOR, name="shop", limits={})
    await add(here)
    await here.job(shown.key.id)
    here.clock.advance(61.0)
    await here.job(shown.key.id, "video-2")
    page = await here.status.page()
    assert page.unfinished == {"queued": 2, "sending": 0, "running": 0}
    assert page.figures.oldest_queued_at == NOW
    assert set(await found(here)) == {"slow_queue"}


async def test_failures_and_lost_submits_are_told(here: House) -> None:
    shown, _ = await here.keys.create(OPERATOR, name="shop", limits={})
    token_id = await add(here)
    for number in range(10):
        job = await here.job(shown.key.id, f"video-{number}")
        await here.database.write(
            jobs.finish, jobs.Finish(job, JobState.FAILED, here.clock(), error="submit_ambiguous")
        )
    attempt = Attempt("try_1", "video-late", 1, token_id, None, here.clock(), "idle longest")
    late = await here.job(shown.key.id, "video-late")
    await here.database.write(jobs.begin, jobs.Beginning(attempt, late.fence))
    end = jobs.AttemptEnd("try_1", here.clock(), Outcome.LOST, Blame.UPSTREAM)
    await here.database.write(
        jobs.finish, jobs.Finish(late, JobState.FAILED, here.clock(), "submit_ambiguous", end=end)
    )
    problems = await found(here)
    assert set(problems) == {"many_failures", "submit_ambiguous"}
    assert problems["submit_ambiguous"].subject == "video-late"
    assert problems["many_failures"].severity is Severity.ERROR


async def test_the_sandbox_says_that_it_is_one(tmp_path: Path) -> None:
    async with house(tmp_path, sandbox=True) as here:
        await here.keys.create(OPERATOR, name="shop", limits={})
        await here.tokens.add(OPERATOR, "sandbox", Secret("stand-in"), {})
        assert set(await found(here)) == {"sandbox"}


async def test_errors_come_before_warnings(here: House) -> None:
    await here.pauses.pause(OPERATOR, "all", "", "the invoice")
    page = await here.status.page()
    assert [problem.severity for problem in page.problems] == ["error", "warning", "warning"]
