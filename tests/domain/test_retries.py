from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.cooldowns import Policy
from proxy.domain.outcomes import Outcome
from proxy.domain.retries import BEFORE_WRITE, ENDS, TOKEN_FACTS, Retry, Tried, next_try

POLICY = Policy()
PROXIES = frozenset({"p1", "p2", "p3", "p4", "p5", "p6", "p7"})


def tried(outcome: Outcome, token: str = "t1", proxy: str | None = "p1", team: str | None = None) -> Tried:
    return Tried(token, proxy, team, outcome)


def after(*tries: Tried, proxies: frozenset[str] = PROXIES, jitter: float = 0.5) -> Retry:
    return next_try(tries, proxies, jitter, POLICY)


@pytest.mark.parametrize(
    ("outcome", "stays", "other_token", "other_proxy", "other_team"),
    [
        (Outcome.CHALLENGED, True, False, True, False),
        (Outcome.PROXY_AUTH, True, False, True, False),
        (Outcome.UNREACHABLE, True, False, True, False),
        (Outcome.TARGET_UNREACHABLE, True, False, True, False),
        (Outcome.UNEXPLAINED, False, True, True, False),
        (Outcome.FORBIDDEN, False, True, False, False),
        (Outcome.UNAUTHORIZED, False, True, False, False),
        (Outcome.THROTTLED, False, True, False, False),
        (Outcome.NO_MODEL, False, True, False, False),
        (Outcome.UNPAID, False, True, False, True),
        (Outcome.NOT_GRANTED, False, True, False, True),
        (Outcome.BROKEN, False, False, False, False),
        (Outcome.GARBLED, False, False, False, False),
    ],
)
def test_after_a_refusal_something_changes(
    outcome: Outcome, stays: bool, other_token: bool, other_proxy: bool, other_team: bool
) -> None:
    retry = after(tried(outcome, team="team"))
    assert retry.again
    assert retry.preferred_token == ("t1" if stays else None)
    assert retry.excluded_tokens == ({"t1"} if other_token else set())
    assert retry.excluded_proxies == ({"p1"} if other_proxy else set())
    assert retry.excluded_teams == ({"team"} if other_team else set())
    assert retry.pause == (0.5 if outcome in (Outcome.BROKEN, Outcome.GARBLED) else 0.0)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome.REJECTED, "upstream_rejected"),
        (Outcome.MODERATED, "content_moderated"),
        (Outcome.LOST, "submit_ambiguous"),
        (Outcome.GONE, "upstream_failed"),
        (Outcome.NO_RESULT, "no_video_url"),
        (Outcome.FAILED, "upstream_failed"),
        (Outcome.CANCELLED, "job_cancelled"),
    ],
)
def test_what_the_upstream_may_have_taken_or_means_is_not_tried_again(outcome: Outcome, code: str) -> None:
    retry = after(tried(outcome))
    assert (retry.again, retry.error) == (False, code)


@pytest.mark.parametrize(("cost", "again"), [(None, False), (5, False), (0, True)])
def test_a_failed_job_is_tried_once_more_only_if_it_cost_nothing(cost: int | None, again: bool) -> None:
    failed = Tried("t1", "p1", None, Outcome.FAILED, cost=cost)
    assert after(failed).again is again
    assert not after(failed, failed).again


@pytest.mark.parametrize(
    ("outcome", "attempts", "code"),
    [
        (Outcome.CHALLENGED, 3, "HTTP_ERROR"),
        (Outcome.BROKEN, 3, "upstream_failed"),
        (Outcome.GARBLED, 3, "upstream_bad_response"),
        (Outcome.UNEXPLAINED, 2, "upstream_failed"),
        (Outcome.UNAUTHORIZED, 6, "upstream_failed"),
        (Outcome.FORBIDDEN, 6, "upstream_failed"),
        (Outcome.THROTTLED, 6, "upstream_failed"),
        (Outcome.UNPAID, 6, "upstream_failed"),
        (Outcome.UNREACHABLE, 6, "upstream_failed"),
        (Outcome.PROXY_AUTH, 6, "upstream_failed"),
    ],
)
def test_an_order_gets_so_many_attempts(outcome: Outcome, attempts: int, code: str) -> None:
    tries = [tried(outcome, f"t{number}", f"p{number}") for number in range(1, attempts + 1)]
    assert all(after(*tries[:count]).again for count in range(1, attempts))
    last = after(*tries)
    assert (last.again, last.error) == (False, code)


def test_one_attempt_that_was_no_fact_and_no_transport_failure_brings_the_cap_down_to_three() -> None:
    throttled = [tried(Outcome.THROTTLED, f"t{number}") for number in range(2)]
    assert not after(*throttled, tried(Outcome.BROKEN, "t3")).again
    assert after(*throttled, tried(Outcome.FORBIDDEN, "t3")).again


def test_after_an_unexplained_403_an_order_touches_one_more_token() -> None:
    first = tried(Outcome.UNEXPLAINED, "t1", "p1")
    assert not after(first, tried(Outcome.THROTTLED, "t2", "p2")).again
    kept = after(first, tried(Outcome.BROKEN, "t2", "p2"))
    assert (kept.again, kept.token_id) == (True, "t2")
    assert kept.excluded_proxies == {"p1"}
    moved = after(first, tried(Outcome.CHALLENGED, "t2", "p2"))
    assert moved.token_id == "t2"
    assert moved.excluded_proxies == {"p1", "p2"}
    assert after(tried(Outcome.THROTTLED, "t0", "p0"), first).again


def test_a_request_that_is_to_blame_is_not_tried_again() -> None:
    retry = after(Tried("t1", "p1", None, Outcome.UNEXPLAINED, retry=False))
    assert (retry.again, retry.error) == (False, "upstream_failed")


@pytest.mark.parametrize("proxies", [frozenset(), frozenset({"p1"})])
def test_a_challenge_with_no_other_way_out_ends_at_once(proxies: frozenset[str]) -> None:
    retry = after(tried(Outcome.CHALLENGED, proxy="p1" if proxies else None), proxies=proxies)
    assert (retry.again, retry.error) == (False, "HTTP_ERROR")


def test_mere_trouble_with_the_only_proxy_is_met_again_after_a_pause() -> None:
    only = frozenset({"p1"})
    retry = after(tried(Outcome.UNREACHABLE), proxies=only, jitter=0.5)
    assert (retry.again, retry.excluded_proxies, retry.pause) == (True, frozenset(), 0.5)
    assert after(*[tried(Outcome.UNREACHABLE)] * 3, proxies=only, jitter=0.5).pause == 2.0
    assert after(tried(Outcome.UNEXPLAINED), proxies=only).excluded_proxies == frozenset()


def test_a_challenged_proxy_stays_excluded_where_another_had_mere_trouble() -> None:
    tries = tried(Outcome.CHALLENGED, proxy="p1"), tried(Outcome.UNREACHABLE, proxy="p2")
    assert after(*tries, proxies=frozenset({"p1", "p2"})).excluded_proxies == {"p1"}


def test_the_client_is_told_of_a_blocked_exit_only_if_nothing_else_went_wrong() -> None:
    tries = [tried(Outcome.CHALLENGED), tried(Outcome.BROKEN, proxy="p2"), tried(Outcome.CHALLENGED, proxy="p3")]
    assert after(*tries).error == "upstream_failed"


OUTCOMES = st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.OK])


@given(st.lists(st.tuples(OUTCOMES, st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=12), st.floats(0, 0.99))
def test_no_history_is_tried_for_ever_or_after_acceptance(
    history: Sequence[tuple[Outcome, int, int]], jitter: float
) -> None:
    tries = [tried(outcome, f"t{token}", f"p{proxy}") for outcome, token, proxy in history]
    retry = after(*tries, jitter=jitter)
    outcomes = {one.outcome for one in tries}
    if retry.again:
        assert len(tries) < (6 if outcomes <= BEFORE_WRITE | TOKEN_FACTS else 3)
        assert tries[-1].outcome not in ENDS
        assert 0.0 <= retry.pause <= 20.0
        assert not retry.excluded_proxies >= PROXIES
        first = next((n for n, one in enumerate(tries) if one.outcome is Outcome.UNEXPLAINED), None)
        if first is not None and len({one.token_id for one in tries[first:]}) >= 2:
            assert retry.token_id == tries[-1].token_id
