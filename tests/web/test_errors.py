"""Every error has a status, words in both languages, and a place in the docs."""

from pathlib import Path

import pytest

from proxy.domain import errors
from proxy.domain.errors import GatewayError
from proxy.web.errors import STATUS, answer
from proxy.web.messages import MESSAGES, language_of

REPOSITORY = Path(__file__).parents[2]


def concrete(kind: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    below = [each for child in kind.__subclasses__() for each in concrete(child)]
    return below + ([kind] if "code" in vars(kind) else [])


@pytest.mark.parametrize("kind", concrete(), ids=lambda kind: kind.__name__)
def test_an_error_is_complete(kind: type[GatewayError]) -> None:
    assert kind in STATUS
    assert set(MESSAGES[kind.code]) == {"zh", "en"}
    assert f"`{kind.code}`" in (REPOSITORY / "docs" / "errors.md").read_text()


def test_once_a_job_exists_no_client_is_invited_to_pay_again() -> None:
    for kind in errors.JobError.__subclasses__():
        assert answer(kind(), "en").headers["x-should-retry"] == "false"
        assert errors.job_error(kind.code).code == kind.code


def test_a_wait_is_told_in_whole_seconds_and_exactly() -> None:
    response = answer(errors.RateLimited(60, 3.2), "en")
    assert response.headers["Retry-After"] == "4"
    assert response.headers["retry-after-ms"] == "3200"


@pytest.mark.parametrize(
    ("accept", "spoken"),
    [(None, "zh"), ("*", "zh"), ("en", "en"), ("en-US,en;q=0.9", "en"), ("fr, en;q=0.5", "en"), ("zh-CN, en", "zh")],
)
def test_the_language_is_the_clients_or_the_settings(accept: str | None, spoken: str) -> None:
    assert language_of(accept, "zh") == spoken
