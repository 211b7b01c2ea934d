"""Bodies as the upstream was seen to answer, one by one, and what each means."""

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.classify import classify, conclude, redact
from proxy.domain.cooldowns import Policy
from proxy.domain.outcomes import Blame, Outcome, Phase, Signal, Step, Trouble, Verdict

POLICY = Policy()
NOW = 1_800_000_000.0
TEAM = "0f8fad5b-d9cb-469f-a165-70867728950e"

CHALLENGE_HTML = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b'<body><script src="/cdn-cgi/challenge-platform/h/g/orchestrate/chl_page/v1"></script></body></html>'
)
BLOCK_HTML = (
    b"<!DOCTYPE html><title>Attention Required! | Cloudflare</title><h1>Sorry, you have been blocked</h1>"
    b'<span class="cf-error-code">1020</span>'
)
SICK_ORIGIN_HTML = (
    b'<!DOCTYPE html><title>api.x.ai | 502: Bad gateway</title><div id="cf-error-details"></div>'
    b'<script src="/cdn-cgi/challenge-platform/scripts/jsd/main.js"></script>'
)
WRONG_KEY = "Incorrect API key provided: xa***9z. You can obtain an API key from https://console.x.ai."
BROKE = (
    f"Your newly created team doesn't have any credits or licenses yet. "
    f"You can purchase those on https://console.x.ai/team/{TEAM}."
)
OUT_OF_CREDITS = (
    f"Your team {TEAM} has either used all available credits or reached its monthly spending limit. To continue "
    "making API requests, please purchase more credits or raise your spending limit."
)
LIMIT = f"Too many requests for team {TEAM} and model grok-x. Your team's rate limit is — "
DENIED = "The caller does not have permission to execute the specified operation"


def flat(code: str, error: str, **more: object) -> bytes:
    return json.dumps({"code": code, "error": error, **more}).encode()


def openai(message: str, code: str | int | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}}).encode()


def answered(status: int, body: bytes = b"", step: Step = Step.SUBMIT, **headers: str) -> Verdict:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(Signal(Phase.ANSWERED, status, names, body), step, NOW, POLICY)


SUBMITS = [
    # Cloudflare: the exit, whatever the status
    (403, CHALLENGE_HTML, Outcome.CHALLENGED, Blame.PROXY),
    (503, CHALLENGE_HTML, Outcome.CHALLENGED, Blame.PROXY),
    (429, CHALLENGE_HTML, Outcome.CHALLENGED, Blame.PROXY),
    (200, CHALLENGE_HTML, Outcome.CHALLENGED, Blame.PROXY),
    (403, BLOCK_HTML, Outcome.CHALLENGED, Blame.PROXY),
    (403, b"<html><h2>Error <span>1010</span></h2></html>", Outcome.CHALLENGED, Blame.PROXY),
    (403, b"error code: 1020\n", Outcome.CHALLENGED, Blame.PROXY),
    (429, b"error code: 1015", Outcome.CHALLENGED, Blame.PROXY),
    (403, b'{"cloudflare_error": true, "error_code": 1020, "title": "Access denied"}', Outcome.CHALLENGED, Blame.PROXY),
    (502, SICK_ORIGIN_HTML, Outcome.BROKEN, Blame.UPSTREAM),
    (502, b"error code: 502", Outcome.BROKEN, Blame.UPSTREAM),
    (403, flat("x", "Just a moment, please"), Outcome.UNEXPLAINED, Blame.NOBODY),  # JSON is no page
    (407, b"", Outcome.PROXY_AUTH, Blame.PROXY),
    # 403 that names the account
    (
        403,
        flat("unauthenticated:bad-credentials", "The OAuth2 access token could not be validated."),
        Outcome.FORBIDDEN,
        Blame.TOKEN,
    ),
    (403, flat("permission-denied", "Your API key has been blocked."), Outcome.FORBIDDEN, Blame.TOKEN),
    (403, openai("This account was suspended"), Outcome.FORBIDDEN, Blame.TOKEN),
    (403, flat(DENIED, "The token expired"), Outcome.FORBIDDEN, Blame.TOKEN),
    (403, b'{"error": "Invalid token"}', Outcome.FORBIDDEN, Blame.TOKEN),
    (403, flat(DENIED, "You need a SuperGrok subscription"), Outcome.FORBIDDEN, Blame.TOKEN),
    # 403 about the request
    (403, flat("content-policy", "Refused"), Outcome.MODERATED, Blame.REQUEST),
    (403, flat("invalid-argument", "Bad aspect ratio"), Outcome.REJECTED, Blame.REQUEST),
    # 403 that names nothing
    (403, b"", Outcome.UNEXPLAINED, Blame.NOBODY),
    (403, b"Forbidden", Outcome.UNEXPLAINED, Blame.NOBODY),
    (403, b"<html><h1>403 Forbidden</h1></html>", Outcome.UNEXPLAINED, Blame.NOBODY),
    (403, b"{}", Outcome.UNEXPLAINED, Blame.NOBODY),
    (403, flat(DENIED, "Forbidden"), Outcome.UNEXPLAINED, Blame.NOBODY),
    (403, openai("Your user agent is blocked"), Outcome.UNEXPLAINED, Blame.NOBODY),
    # money
    (402, b"", Outcome.UNPAID, Blame.TEAM),
    (403, flat(DENIED, BROKE), Outcome.UNPAID, Blame.TEAM),
    (
        403,
        flat("personal-team-blocked:spending-limit", "You have run out of credits or need a Grok subscription"),
        Outcome.UNPAID,
        Blame.TEAM,
    ),
    (429, flat("resource-exhausted", OUT_OF_CREDITS), Outcome.UNPAID, Blame.TEAM),
    (429, openai(OUT_OF_CREDITS, "insufficient_quota"), Outcome.UNPAID, Blame.TEAM),
    # rates
    (429, b"", Outcome.THROTTLED, Blame.TOKEN),
    (
        429,
        flat("Some resource has been exhausted", LIMIT + "Requests per Minute (actual/limit): 0/0"),
        Outcome.NOT_GRANTED,
        Blame.TEAM,
    ),
    # keys
    (401, b"", Outcome.UNAUTHORIZED, Blame.TOKEN),
    (400, flat("Client specified an invalid argument", WRONG_KEY), Outcome.UNAUTHORIZED, Blame.TOKEN),
    (400, flat("invalid-argument", WRONG_KEY), Outcome.UNAUTHORIZED, Blame.TOKEN),
    (
        400,
        flat("Client specified an invalid argument", WRONG_KEY.replace(" ", "%20")),
        Outcome.UNAUTHORIZED,
        Blame.TOKEN,
    ),
    (400, openai(WRONG_KEY, 400), Outcome.UNAUTHORIZED, Blame.TOKEN),
    # the order
    (
        400,
        flat("invalid-argument", "Zero Data Retention teams must provide output.upload_url for video generation."),
        Outcome.NOT_GRANTED,
        Blame.TEAM,
    ),
    (
        400,
        flat("invalid-argument", "Duration 15s exceeds the maximum allowed for reference-to-video, which is 10s."),
        Outcome.REJECTED,
        Blame.REQUEST,
    ),
    (422, b"Failed to deserialize the JSON body into the target type: x", Outcome.REJECTED, Blame.REQUEST),
    (413, b'{"error": "Failed to read request body: length limit exceeded"}', Outcome.REJECTED, Blame.REQUEST),
    (415, b"", Outcome.REJECTED, Blame.REQUEST),
    (404, flat("Some requested entity was not found", "The model x does not exist"), Outcome.NO_MODEL, Blame.TOKEN),
    (
        400,
        flat("imagine:content-moderated", "Generated image rejected by content moderation."),
        Outcome.MODERATED,
        Blame.REQUEST,
    ),
    (
        400,
        flat("Client specified an invalid argument", "Generated video rejected by content moderation."),
        Outcome.MODERATED,
        Blame.REQUEST,
    ),
    # the upstream
    (500, b"", Outcome.BROKEN, Blame.UPSTREAM),
    (503, flat("The service is currently unavailable", ""), Outcome.BROKEN, Blame.UPSTREAM),
    (408, b"", Outcome.BROKEN, Blame.UPSTREAM),
    (504, b"", Outcome.LOST, Blame.PAIR),
    (200, b"<html>hello</html>", Outcome.GARBLED, Blame.UPSTREAM),
    (200, b"", Outcome.LOST, Blame.PAIR),  # a 2xx without a usable id: the work may have been taken
    (200, b'{"request_id": ', Outcome.LOST, Blame.PAIR),
    (201, b'{"request_id": null}', Outcome.LOST, Blame.PAIR),
    (302, b"", Outcome.GARBLED, Blame.UPSTREAM),
]


@pytest.mark.parametrize(("status", "body", "outcome", "blame"), SUBMITS)
def test_an_answer_to_a_submit(status: int, body: bytes, outcome: Outcome, blame: Blame) -> None:
    verdict = answered(status, body)
    assert (verdict.outcome, verdict.blame) == (outcome, blame)
    assert verdict.reason


@pytest.mark.parametrize("status", [200, 403, 429, 500, 503])
def test_the_header_of_a_challenge_counts_at_any_status(status: int) -> None:
    assert answered(status, b"{}", cf_mitigated="challenge").outcome is Outcome.CHALLENGED


@pytest.mark.parametrize(
    ("status", "body", "outcome", "ends"),
    [
        (400, flat("imagine:content-moderated", "Generated video rejected by content moderation."), "moderated", True),
        (400, flat("invalid-argument", "Duration 15s exceeds the maximum"), "rejected", True),
        (422, b"", "rejected", True),
        (404, b"", "gone", True),
        (400, flat("invalid-argument", WRONG_KEY), "unauthorized", False),
        (401, b"", "unauthorized", False),
        (403, b"", "unexplained", False),
        (403, flat("invalid-argument", "x"), "unexplained", False),
        (403, CHALLENGE_HTML, "challenged", False),
        (408, b"", "broken", False),
        (409, b"", "broken", False),
        (429, b"", "throttled", False),
        (500, b"", "broken", False),
        (504, b"", "broken", False),
        (200, b"<html>", "garbled", False),
    ],
)
def test_a_poll_ends_the_job_or_is_only_a_failed_poll(status: int, body: bytes, outcome: str, ends: bool) -> None:
    verdict = answered(status, body, Step.POLL)
    assert (verdict.outcome, verdict.ends_job) == (outcome, ends)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(401, "unexplained"), (403, "unexplained"), (404, "gone"), (410, "gone"), (416, "broken"), (500, "broken")],
)
def test_a_refused_download_never_blames_the_token(status: int, outcome: str) -> None:
    verdict = answered(status, b"", Step.FETCH)
    assert verdict.outcome == outcome
    assert verdict.blame not in (Blame.TOKEN, Blame.TEAM)


@pytest.mark.parametrize(
    ("phase", "trouble", "outcome", "blame"),
    [
        (Phase.BEFORE, Trouble.CONNECT, Outcome.UNREACHABLE, Blame.PROXY),
        (Phase.BEFORE, Trouble.TIMEOUT, Outcome.UNREACHABLE, Blame.PROXY),
        (Phase.BEFORE, Trouble.TLS, Outcome.UNREACHABLE, Blame.PROXY),
        (Phase.BEFORE, Trouble.RESET, Outcome.UNREACHABLE, Blame.PROXY),
        (Phase.BEFORE, Trouble.PROXY_REFUSED, Outcome.UNREACHABLE, Blame.PROXY),
        (Phase.BEFORE, Trouble.PROXY_AUTH, Outcome.PROXY_AUTH, Blame.PROXY),
        (Phase.BEFORE, Trouble.PROXY_TARGET, Outcome.TARGET_UNREACHABLE, Blame.UPSTREAM),
        (Phase.AFTER, Trouble.RESET, Outcome.LOST, Blame.PAIR),
        (Phase.AFTER, Trouble.TIMEOUT, Outcome.LOST, Blame.PAIR),
        (Phase.AFTER, Trouble.MALFORMED, Outcome.LOST, Blame.PAIR),
        (Phase.ANSWERED, Trouble.MALFORMED, Outcome.GARBLED, Blame.UPSTREAM),
    ],
)
def test_a_transport_failure(phase: Phase, trouble: Trouble, outcome: Outcome, blame: Blame) -> None:
    verdict = classify(Signal(phase, trouble=trouble, detail="why"), Step.SUBMIT, NOW, POLICY)
    assert (verdict.outcome, verdict.blame) == (outcome, blame)
    assert trouble in verdict.evidence


def test_a_submit_that_was_answered_200_but_cut_off_is_lost_and_not_refused() -> None:
    cut = Signal(Phase.ANSWERED, 200, body=b'{"requ', trouble=Trouble.RESET)
    assert classify(cut, Step.SUBMIT, NOW, POLICY).outcome is Outcome.LOST
    assert classify(cut, Step.POLL, NOW, POLICY).outcome is Outcome.GARBLED
    strange = Signal(Phase.ANSWERED, 200, body=b"<html>", trouble=Trouble.MALFORMED)
    assert classify(strange, Step.SUBMIT, NOW, POLICY).outcome is Outcome.GARBLED


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("30", 30.0),
        (" 7.5 ", 7.5),
        ("0", 1.0),
        ("1000000000", 21600.0),
        ("9" * 6000, 21600.0),
        ("-1", None),
        ("soon", None),
        ("٣", None),
        ("", None),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 21600.0),
        ("Mon, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_a_retry_after_is_seconds_or_a_date_within_bounds_or_nothing(header: str, seconds: float | None) -> None:
    assert answered(429, b"{}", retry_after=header).retry_after == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Requests per Second (actual/limit): 2/2, Requests per Minute (actual/limit): 12/60.", 2.0),
        ("Requests per Second (actual/limit): 2/2, Requests per Minute (actual/limit): 73/60.", 60.0),
        ("Requests per Minute (actual/limit): 73/60. Resets in: 45s.", 45.0),
        ("Requests per Minute (actual/limit): 73/60. Resets in: 1m 30s.", 90.0),
        ("Tokens per Minute (actual/limit): 65605/16000.", 60.0),
        ("Slow down.", None),
        ("Requests per Second (actual/limit): 1/2.", None),
        ("Requests per Second (actual/limit): " + "9" * 5000 + "/1", None),
    ],
)
def test_a_rate_text_says_how_long(text: str, seconds: float | None) -> None:
    verdict = answered(429, flat("resource-exhausted", LIMIT + text))
    assert (verdict.outcome, verdict.retry_after) == (Outcome.THROTTLED, seconds)


def test_the_header_goes_before_the_text() -> None:
    body = flat("resource-exhausted", "Requests per Minute (actual/limit): 73/60. Resets in: 45s.")
    assert answered(429, body, retry_after="12").retry_after == 12.0


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        ({"cost_in_usd_ticks": 2_500_000_000}, 2_500_000_000),
        ({"cost_in_usd_ticks": "1"}, None),
        ({"cost_in_usd_ticks": -1}, None),
        ({"cost_in_usd_ticks": True}, None),
        ([], None),
        (None, None),
    ],
)
def test_a_moderated_answer_keeps_its_cost(usage: object, cost: int | None) -> None:
    body = flat("imagine:content-moderated", "Generated video rejected by content moderation.", usage=usage)
    assert answered(400, body, Step.POLL).cost == cost


def test_evidence_is_the_status_and_the_start_of_the_body_on_one_line_without_credentials() -> None:
    body = (
        b'{"error": "Bearer abc.def-ghi for xai-SECRETSECRETSECRET and gp_0123456789,\r\n sk-abcdefgh via '
        b'http://user:hunter2@proxy:8080/ Set-Cookie: cf_clearance=topsecret", "team": "' + TEAM.encode() + b'"}'
    )
    evidence = answered(403, body + b" " * 300 + b"x" * 1000).evidence
    assert evidence.startswith("403 {")
    for secret in ("abc.def-ghi", "SECRETSECRET", "0123456789", "abcdefgh", "hunter2", "topsecret", "\r", "\n"):
        assert secret not in evidence
    assert len(evidence) <= len("403 ") + 512


def test_a_credential_across_the_cut_is_masked_too() -> None:
    assert "S" not in redact("a" * 504 + " xai-" + "S" * 60)


def test_an_end_told_by_the_upstream_is_the_requests_or_the_upstreams() -> None:
    moderated = conclude(Outcome.MODERATED, 5, "respect_moderation=false")
    assert (moderated.blame, moderated.cost, moderated.ends_job) == (Blame.REQUEST, 5, True)
    assert conclude(Outcome.NO_RESULT, None, "").blame is Blame.UPSTREAM


@given(
    st.builds(
        Signal,
        phase=st.sampled_from(Phase),
        status=st.none() | st.integers(100, 599),
        headers=st.dictionaries(st.sampled_from(["retry-after", "cf-mitigated"]), st.text(max_size=30)),
        body=st.binary(max_size=200)
        | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
            lambda value: json.dumps({"error": value, "code": value, "usage": value}).encode()
        ),
        trouble=st.none() | st.sampled_from(Trouble),
    ),
    st.sampled_from(Step),
)
def test_every_signal_has_a_verdict(signal: Signal, step: Step) -> None:
    verdict = classify(signal, step, NOW, POLICY)
    assert verdict.outcome is not Outcome.OK
    assert verdict.retry_after is None or 1.0 <= verdict.retry_after <= 21600.0
    assert len(verdict.evidence) <= 520
