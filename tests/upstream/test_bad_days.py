import pytest

from proxy.domain.classify import classify
from proxy.domain.cooldowns import Policy
from proxy.domain.outcomes import Blame, Outcome, Step, UpstreamFailed
from proxy.domain.secret import Secret
from proxy.upstream.bad_days import ENDINGS, REFUSALS, refusal, token_day, wish

REFUSED_DAYS = [
    ("challenge", Outcome.CHALLENGED, Blame.PROXY),
    ("forbidden", Outcome.FORBIDDEN, Blame.TOKEN),
    ("unexplained", Outcome.UNEXPLAINED, Blame.NOBODY),
    ("unauthorized", Outcome.UNAUTHORIZED, Blame.TOKEN),
    ("wrong-key", Outcome.UNAUTHORIZED, Blame.TOKEN),
    ("throttled", Outcome.THROTTLED, Blame.TOKEN),
    ("throttled=30", Outcome.THROTTLED, Blame.TOKEN),
    ("unpaid", Outcome.UNPAID, Blame.TEAM),
    ("not-granted", Outcome.NOT_GRANTED, Blame.TEAM),
    ("broken", Outcome.BROKEN, Blame.UPSTREAM),
    ("garbage", Outcome.GARBLED, Blame.UPSTREAM),
    ("lost", Outcome.LOST, Blame.PAIR),
    ("refused", Outcome.UNREACHABLE, Blame.PROXY),
    ("rejected", Outcome.REJECTED, Blame.REQUEST),
]


@pytest.mark.parametrize(("name", "judged", "blame"), REFUSED_DAYS)
def test_a_bad_day_is_judged_as_xais_own_would_be(name: str, judged: Outcome, blame: Blame) -> None:
    signal = refusal(name)
    assert signal
    verdict = classify(signal, Step.SUBMIT, 0.0, Policy())
    assert (verdict.outcome, verdict.blame) == (judged, blame)
    if name == "throttled=30":
        assert verdict.retry_after == 30


def test_every_refusal_has_a_row_above() -> None:
    assert {name.partition("=")[0] for name, _, _ in REFUSED_DAYS} == set(REFUSALS)


@pytest.mark.parametrize("name", sorted(ENDINGS))
def test_other_days_take_the_submit(name: str) -> None:
    assert refusal(name) is None


@pytest.mark.parametrize("name", [name for name, _, _ in REFUSED_DAYS] + sorted(ENDINGS))
def test_prompt_and_secret_ask_by_the_same_names(name: str) -> None:
    assert wish(f"a cat [sandbox:{name}] in the sun").days == (name,)
    assert token_day(Secret(f"sandbox-{name}")) == name


def test_a_prompt_without_a_directive_asks_for_nothing() -> None:
    assert wish("a cat in a [sandbox]") == wish("")
    assert wish("a cat").days == ("ok",)
    assert wish("a cat").seconds is None


@pytest.mark.parametrize(
    "directive", ["", "sunshine", "throttled=soon", "seconds=-1", "seconds=999999", "ok,,ok", "ok=3", "broken=3"]
)
def test_a_directive_that_means_nothing_is_rejected_as_the_requests_fault(directive: str) -> None:
    with pytest.raises(UpstreamFailed) as failed:
        wish(f"a cat [sandbox:{directive}]")
    assert classify(failed.value.signal, Step.SUBMIT, 0.0, Policy()).outcome is Outcome.REJECTED


@pytest.mark.parametrize("value", ["sandbox", "sandbox-", "sandbox-main", "challenge", "xai-unauthorized"])
def test_an_ordinary_secret_asks_for_nothing(value: str) -> None:
    assert token_day(Secret(value)) is None
