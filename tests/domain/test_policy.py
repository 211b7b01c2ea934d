"""One test per row of the classification: who rests, for how long, is the request tried again."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.cooldowns import (
    DIRECT,
    INFERRED,
    Cause,
    Fixed,
    Ladder,
    Penalty,
    Policy,
    Rest,
    Subject,
    SubjectKind,
    Told,
)
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import REMEMBERED, Exchange, History, Judgement, Place, Scene, is_confirmed, judge

POLICY = Policy()
HOST, MODEL = "xai", "grok-imagine-video"
CHALLENGE = Ladder(60.0, 900.0)


class Story:
    """A history being written, one failure at a time."""

    def __init__(self, tokens: int = 1000) -> None:
        self.history = History()
        self.successes: dict[str, float] = {}
        self.tokens = tokens
        self.works = 0

    def fail(
        self,
        outcome: Outcome,
        at: float = 0.0,
        token: str = "t1",
        proxy: str = "p1",
        caller: str = "k1",
        *,
        team: str | None = None,
        work: str | None = None,
        step: Step = Step.SUBMIT,
        retry_after: float | None = None,
        content: str = "",
        alone: bool = False,
    ) -> Judgement:
        self.works += 1
        exchange = Exchange(step, work or f"w{self.works}", caller, content, at, "a1", alone)
        place = Place(token, team, proxy, HOST, MODEL)
        verdict = Verdict(outcome, Blame.NOBODY, "why", "403 body", retry_after)
        judgement = judge(verdict, Scene(exchange, place, at, self.successes, self.tokens), self.history, POLICY)
        self.history = judgement.history
        return judgement


def rests(judgement: Judgement) -> list[tuple[Subject, Rest]]:
    return [(penalty.subject, penalty.rest) for penalty in judgement.penalties]


def subject(kind: SubjectKind, unit: str, scope: str = "") -> Subject:
    return Subject(kind, unit, scope)


TOKEN = subject(SubjectKind.TOKEN, "t1")
TOKEN_MODEL = subject(SubjectKind.TOKEN_MODEL, "t1", MODEL)
TEAM = subject(SubjectKind.TEAM, "team")
TEAM_MODEL = subject(SubjectKind.TEAM_MODEL, "team", MODEL)
PROXY = subject(SubjectKind.PROXY, "p1")
EXIT = subject(SubjectKind.PROXY_HOST, "p1", HOST)
PAIR = subject(SubjectKind.PAIR, "t1", "p1")

FACTS: list[tuple[Outcome, str | None, float | None, list[tuple[Subject, Rest]]]] = [
    (Outcome.CHALLENGED, None, None, [(EXIT, CHALLENGE)]),
    (Outcome.CHALLENGED, None, 300.0, [(EXIT, CHALLENGE), (EXIT, Told(300.0))]),
    (Outcome.FORBIDDEN, "team", None, [(TOKEN, Ladder(1800.0, 21600.0))]),
    (Outcome.UNAUTHORIZED, "team", None, [(TOKEN, Fixed(60.0))]),
    (Outcome.THROTTLED, None, 30.0, [(TOKEN_MODEL, Told(30.0))]),
    (Outcome.THROTTLED, None, None, [(TOKEN_MODEL, Ladder(60.0, 1800.0))]),
    (Outcome.THROTTLED, "team", 30.0, [(TEAM_MODEL, Told(30.0))]),
    (Outcome.THROTTLED, "team", None, [(TEAM_MODEL, Ladder(60.0, 1800.0))]),
    (Outcome.UNPAID, "team", None, [(TEAM, Ladder(3600.0, 86400.0))]),
    (Outcome.UNPAID, None, None, [(TOKEN, Ladder(3600.0, 86400.0))]),
    (Outcome.UNPAID, "team", 500.0, [(TEAM, Told(500.0))]),
    (Outcome.NOT_GRANTED, "team", None, [(TEAM_MODEL, Fixed(86400.0))]),
    (Outcome.NOT_GRANTED, None, None, [(TOKEN_MODEL, Fixed(86400.0))]),
    (Outcome.NO_MODEL, "team", None, [(TOKEN_MODEL, Fixed(3600.0))]),
    (Outcome.PROXY_AUTH, None, None, [(PROXY, Fixed(600.0))]),
    (Outcome.UNREACHABLE, None, None, [(PROXY, Fixed(5.0))]),
    (Outcome.TARGET_UNREACHABLE, None, None, []),
    (Outcome.UNEXPLAINED, None, None, [(PAIR, Fixed(5.0))]),
    (Outcome.LOST, None, None, [(PAIR, Fixed(5.0))]),
    (Outcome.REJECTED, None, None, []),
    (Outcome.MODERATED, None, None, []),
    (Outcome.BROKEN, None, None, []),
    (Outcome.GARBLED, None, None, []),
    (Outcome.GONE, None, None, []),
    (Outcome.FAILED, None, None, []),
    (Outcome.NO_RESULT, None, None, []),
    (Outcome.CANCELLED, None, None, []),
]


@pytest.mark.parametrize(("outcome", "team", "retry_after", "expected"), FACTS)
def test_a_first_failure(
    outcome: Outcome, team: str | None, retry_after: float | None, expected: list[tuple[Subject, Rest]]
) -> None:
    judgement = Story().fail(outcome, team=team, retry_after=retry_after)
    assert rests(judgement) == expected
    assert judgement.retry
    assert all(penalty.evidence == "403 body" and penalty.attempt_id == "a1" for penalty in judgement.penalties)


def test_every_outcome_has_a_row() -> None:
    assert {row[0] for row in FACTS} == set(Outcome) - {Outcome.OK}


@pytest.mark.parametrize("outcome", [Outcome.UNEXPLAINED, Outcome.THROTTLED, Outcome.LOST])
def test_a_download_blames_no_token(outcome: Outcome) -> None:
    assert rests(Story().fail(outcome, step=Step.FETCH)) == []


@pytest.mark.parametrize("outcome", [Outcome.PROXY_AUTH, Outcome.UNREACHABLE])
def test_without_a_proxy_no_proxy_rests(outcome: Outcome) -> None:
    story = Story()
    for at in (0.0, 1.0):
        assert rests(story.fail(outcome, at, proxy=DIRECT)) == []


# Unexplained 403s


@pytest.mark.parametrize(("at", "is_inferred"), [(59.999, True), (60.0, True), (60.001, False)])
def test_a_second_caller_within_a_minute_rests_the_token_half_a_minute(at: float, is_inferred: bool) -> None:
    story = Story()
    story.fail(Outcome.UNEXPLAINED, 0.0)
    judgement = story.fail(Outcome.UNEXPLAINED, at, caller="k2")
    assert rests(judgement) == ([(TOKEN, Fixed(30.0))] if is_inferred else [(PAIR, Fixed(5.0))])
    assert judgement.blame is (Blame.TOKEN if is_inferred else Blame.NOBODY)
    assert judgement.retry


def test_the_same_caller_again_rests_only_the_pair() -> None:
    story = Story()
    for at in (0.0, 10.0):
        assert rests(story.fail(Outcome.UNEXPLAINED, at)) == [(PAIR, Fixed(5.0))]


def test_with_one_key_another_order_is_another_caller() -> None:
    story = Story()
    story.fail(Outcome.UNEXPLAINED, 0.0, content="cat", alone=True)
    assert rests(story.fail(Outcome.UNEXPLAINED, 1.0, content="cat", alone=True)) == [(PAIR, Fixed(5.0))]
    assert rests(story.fail(Outcome.UNEXPLAINED, 2.0, content="dog", alone=True)) == [(TOKEN, Fixed(30.0))]


def test_one_request_cools_one_token_by_inference_and_no_second() -> None:
    story = Story()
    story.fail(Outcome.UNEXPLAINED, 0.0, "t1", "p1", "k1")
    story.fail(Outcome.UNEXPLAINED, 0.0, "t2", "p1", "k1")
    assert story.fail(Outcome.UNEXPLAINED, 1.0, "t1", "p1", "k2", work="w").blame is Blame.TOKEN
    assert rests(story.fail(Outcome.UNEXPLAINED, 2.0, "t2", "p1", "k2", work="w")) == [
        (subject(SubjectKind.PAIR, "t2", "p1"), Fixed(5.0))
    ]


@pytest.mark.parametrize(("at", "is_request"), [(60.0, True), (60.001, False)])
def test_one_caller_on_three_tokens_within_a_minute_has_itself_to_blame(at: float, is_request: bool) -> None:
    story = Story()
    story.fail(Outcome.UNEXPLAINED, 0.0, "t1", "p1")
    story.fail(Outcome.UNEXPLAINED, 30.0, "t2", "p2")
    judgement = story.fail(Outcome.UNEXPLAINED, at, "t3", "p1")
    assert (judgement.blame is Blame.REQUEST) == is_request
    assert judgement.retry is not is_request
    assert (judgement.penalties == ()) == is_request


@pytest.mark.parametrize(("at", "is_request"), [(61.999, True), (62.0, False)])
def test_its_403s_are_not_retried_for_a_minute(at: float, is_request: bool) -> None:
    story = Story()
    for number in range(3):
        story.fail(Outcome.UNEXPLAINED, float(number), f"t{number}", f"p{number}")
    judgement = story.fail(Outcome.UNEXPLAINED, at, "t9", "p9")
    assert judgement.retry is not is_request
    assert (judgement.blame is Blame.REQUEST) == is_request
    assert story.fail(Outcome.UNEXPLAINED, at, "t9", "p9", "k2").blame is not Blame.REQUEST


def test_three_callers_on_three_proxies_are_the_upstream() -> None:
    story = Story()
    story.fail(Outcome.UNEXPLAINED, 0.0, "t1", "p1", "k1")
    story.fail(Outcome.UNEXPLAINED, 1.0, "t2", "p2", "k2")
    judgement = story.fail(Outcome.UNEXPLAINED, 60.0, "t3", "p3", "k3")
    assert (judgement.blame, judgement.penalties, judgement.retry) == (Blame.UPSTREAM, (), True)


@pytest.mark.parametrize(("at", "is_proxy"), [(60.0, True), (60.001, False)])
def test_three_tokens_of_one_proxy_are_the_proxy_while_others_are_fine(at: float, is_proxy: bool) -> None:
    story = Story()
    story.successes = {"p1": -1.0, "p2": 50.0}
    story.fail(Outcome.UNEXPLAINED, 0.0, "t1", caller="k1")
    story.fail(Outcome.UNEXPLAINED, 1.0, "t2", caller="k2")
    judgement = story.fail(Outcome.UNEXPLAINED, at, "t3", caller="k3")
    assert rests(judgement) == (
        [(EXIT, CHALLENGE)] if is_proxy else [(subject(SubjectKind.PAIR, "t3", "p1"), Fixed(5.0))]
    )


@pytest.mark.parametrize("successes", [{}, {"p1": 1.5, "p2": 1.5}, {"p2": -100.0}, {"p1": 0.0, "p2": 1.5}])
def test_a_proxy_that_works_for_others_or_is_like_all_others_is_not_blamed(successes: dict[str, float]) -> None:
    story = Story()
    story.successes = successes
    for number in range(3):
        judgement = story.fail(Outcome.UNEXPLAINED, float(number), f"t{number}", caller=f"k{number}")
    assert judgement.blame is not Blame.PROXY


def test_one_token_on_two_proxies_for_two_requests_climbs_a_ladder_while_most_others_are_fine() -> None:
    story = Story(tokens=10)
    for at, proxy in ((0.0, "p1"), (100.0, "p1")):
        assert rests(story.fail(Outcome.UNEXPLAINED, at, proxy=proxy))[0][1] == Fixed(5.0)
    judgement = story.fail(Outcome.UNEXPLAINED, 600.0, proxy="p2")
    assert rests(judgement) == [(TOKEN, Ladder(300.0, 21600.0))]
    assert judgement.penalties[0].cause is Cause.UNEXPLAINED_TOKEN


def test_it_does_not_where_other_tokens_have_the_same_trouble() -> None:
    story = Story(tokens=10)
    for number in range(2, 5):
        story.fail(Outcome.UNEXPLAINED, 0.0, f"t{number}", "p1", f"k{number}")
    for at, proxy in ((100.0, "p1"), (200.0, "p1"), (300.0, "p2")):
        judgement = story.fail(Outcome.UNEXPLAINED, at, proxy=proxy)
    assert rests(judgement) == [(subject(SubjectKind.PAIR, "t1", "p2"), Fixed(5.0))]


# 429


@pytest.mark.parametrize(("at", "is_proxy"), [(30.0, True), (30.001, False)])
def test_429s_on_three_tokens_of_one_proxy_are_the_proxys(at: float, is_proxy: bool) -> None:
    story = Story()
    story.successes = {"p2": 10.0}
    story.fail(Outcome.THROTTLED, 0.0, "t2")
    story.fail(Outcome.THROTTLED, 1.0, "t3")
    judgement = story.fail(Outcome.THROTTLED, at)
    assert rests(judgement) == [(EXIT, CHALLENGE) if is_proxy else (TOKEN_MODEL, Ladder(60.0, 1800.0))]


def test_a_named_wait_is_kept_even_when_the_proxy_is_to_blame() -> None:
    story = Story()
    story.successes = {"p2": 1.0}
    story.fail(Outcome.THROTTLED, 0.0, "t2")
    story.fail(Outcome.THROTTLED, 1.0, "t3")
    judgement = story.fail(Outcome.THROTTLED, 2.0, retry_after=40.0)
    assert rests(judgement) == [(EXIT, CHALLENGE), (TOKEN_MODEL, Told(40.0))]


def test_three_tokens_of_one_team_share_their_429_and_name_no_proxy() -> None:
    story = Story()
    story.successes = {"p2": 1.0}
    for number in range(3):
        judgement = story.fail(Outcome.THROTTLED, float(number), f"t{number}", team="team")
    assert judgement.blame is Blame.TEAM


# Before the request was written


@pytest.mark.parametrize(("at", "rest"), [(60.0, Ladder(30.0, 900.0)), (60.001, Fixed(5.0))])
def test_a_proxys_second_trouble_within_a_minute_climbs_the_ladder(at: float, rest: Rest) -> None:
    story = Story()
    story.fail(Outcome.UNREACHABLE, 0.0)
    assert rests(story.fail(Outcome.UNREACHABLE, at)) == [(PROXY, rest)]


@pytest.mark.parametrize(("at", "is_outage"), [(5.0, True), (5.001, False)])
def test_trouble_on_three_proxies_within_five_seconds_is_the_upstreams(at: float, is_outage: bool) -> None:
    story = Story()
    story.fail(Outcome.UNREACHABLE, 0.0, proxy="p2")
    story.fail(Outcome.TARGET_UNREACHABLE, 1.0, proxy="p3")
    judgement = story.fail(Outcome.UNREACHABLE, at)
    assert rests(judgement) == ([] if is_outage else [(PROXY, Fixed(5.0))])
    assert judgement.blame is (Blame.UPSTREAM if is_outage else Blame.PROXY)


def test_a_success_between_makes_it_the_proxies_again() -> None:
    story = Story()
    story.fail(Outcome.UNREACHABLE, 0.0, proxy="p2")
    story.successes = {"p4": 0.5}
    story.fail(Outcome.UNREACHABLE, 1.0, proxy="p3")
    assert story.fail(Outcome.UNREACHABLE, 2.0).blame is Blame.PROXY


def test_what_was_laid_to_an_outage_is_no_first_trouble_of_a_proxy() -> None:
    story = Story()
    for number in (2, 3):
        story.fail(Outcome.UNREACHABLE, 0.0, proxy=f"p{number}")
    assert story.fail(Outcome.UNREACHABLE, 1.0).blame is Blame.UPSTREAM
    assert rests(story.fail(Outcome.UNREACHABLE, 30.0)) == [(PROXY, Fixed(5.0))]


# 401


@pytest.mark.parametrize(
    ("doubts", "proxies", "is_wrong"),
    [
        (["p1"], 2, False),
        (["p1", "p2"], 2, False),
        (["p1", "p2", "p1"], 2, True),
        (["p1", "p1", "p1"], 2, False),
        (["p1", "p1", "p1"], 1, True),
        ([DIRECT] * 3, 0, True),
    ],
)
def test_a_401_needs_two_confirmations_on_two_proxies_where_there_are_two(
    doubts: list[str], proxies: int, is_wrong: bool
) -> None:
    assert is_confirmed(doubts, proxies, POLICY) is is_wrong


# Properties

FAILURES = st.lists(
    st.tuples(
        st.sampled_from([Outcome.UNEXPLAINED, Outcome.THROTTLED, Outcome.UNREACHABLE, Outcome.FORBIDDEN]),
        st.floats(0, 40),
        st.sampled_from(["t1", "t2", "t3", "t4"]),
        st.sampled_from(["p1", "p2", "p3"]),
        st.sampled_from(["k1", "k2", "k3"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=60,
)


def token_penalties(penalties: tuple[Penalty, ...]) -> set[str]:
    kinds = (SubjectKind.TOKEN, SubjectKind.TOKEN_MODEL)
    return {penalty.subject.id for penalty in penalties if penalty.subject.kind in kinds and penalty.cause in INFERRED}


@given(FAILURES)
def test_a_request_never_cools_two_tokens_by_inference(
    failures: list[tuple[Outcome, float, str, str, str, int, bool]],
) -> None:
    story, now = Story(tokens=4), 0.0
    cooled: dict[str, set[str]] = {}
    for outcome, passed, token, proxy, caller, work, succeeded in failures:
        now += passed
        name = f"{caller}-{work}"
        judgement = story.fail(outcome, now, token, proxy, caller, work=name)
        cooled.setdefault(name, set()).update(token_penalties(judgement.penalties))
        if succeeded:
            story.successes[proxy] = now
    assert all(len(tokens) <= 1 for tokens in cooled.values())


def test_the_history_is_bounded_in_number_and_time() -> None:
    story = Story()
    for number in range(3 * REMEMBERED):
        at = number * 0.01
        for outcome in (Outcome.UNEXPLAINED, Outcome.THROTTLED, Outcome.UNREACHABLE):
            story.fail(outcome, at, f"t{number}", f"p{number}", f"k{number}")
        story.fail(Outcome.UNEXPLAINED, at, f"t{number}", f"p{number}", f"j{number}")
    history = story.history
    assert max(len(history.unexplained), len(history.throttled), len(history.before_write)) <= REMEMBERED
    assert max(len(history.to_blame), len(history.cooled)) <= REMEMBERED
    story.fail(Outcome.UNEXPLAINED, 10_000.0)
    assert len(story.history.unexplained) == 1


def test_the_numbers_are_the_policys() -> None:
    verdict = Verdict(Outcome.UNAUTHORIZED, Blame.TOKEN, "why")
    exchange = Exchange(Step.SUBMIT, "w", "k", "c", 0.0)
    scene = Scene(exchange, Place("t1", None, "p1", HOST, MODEL), 0.0, {}, 1)
    other = replace(POLICY, unauthorized_rest=7.0)
    assert rests(judge(verdict, scene, History(), other)) == [(TOKEN, Fixed(7.0))]
