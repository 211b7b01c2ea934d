"""What a signal means: an ordered table, the first row that matches wins.

The texts are no contract of the upstream: a row may only make a verdict more exact than the status alone would.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

from proxy.domain.cooldowns import Policy
from proxy.domain.outcomes import Blame, Outcome, Phase, Signal, Step, Trouble, Verdict

EVIDENCE = 512  # characters

CHALLENGE_PAGE = re.compile(
    r"/cdn-cgi/challenge-platform/|just a moment|attention required! \| cloudflare|sorry, you have been blocked"
    r"|error(?: code:?)?\s*(?:<[^>]*>\s*)*10(?:06|09|10|15|20)\b"
)
CHALLENGE_LINE = re.compile(r"error code: 10(?:06|09|10|15|20)\s*", re.ASCII)  # Cloudflare's answer to plain clients
MODERATION = re.compile(
    r"content-moderat|content moderat|content[ _-]policy|usage guidelines|safety (?:check|polic|filter)"
)
WRONG_KEY = re.compile(r"(?:incorrect|invalid|wrong|malformed) api[ _-]?key|api[ _-]?key (?:is )?(?:incorrect|invalid)")
MONEY = re.compile(
    r"\bcredits?\b|spending[ _-]limit|licen[cs]es?\b|insufficient[ _-](?:funds|balance|quota)|billing|payment"
)
RATE = re.compile(
    r"(requests per second|requests per minute|tokens per minute) \(actual/limit\): (\d{1,12})/(\d{1,12})", re.ASCII
)
RESETS_IN = re.compile(r"resets in: ((?:\d{1,9}\s*[dhms]\s*)+)", re.ASCII)
SPAN = re.compile(r"(\d+)\s*([dhms])", re.ASCII)
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
ZERO_RETENTION = re.compile(r"zero data retention")
BARRED = r"(?:block|bann|suspend|disabl|expir|revok|invalid|deactivat|terminat|could not be validated)"
OWNER = r"(?:api[ _-]?key|token|account|team|user(?![ -]agent)|credentials?|organi[sz]ation)\b"
ACCOUNT = re.compile(
    rf"bad-credentials|unauthenticated|subscription|{OWNER}[^.]{{0,60}}\b{BARRED}|\b{BARRED}\w*[^.]{{0,30}}\b{OWNER}"
)
ARGUMENT = re.compile(r"invalid[ _-]argument")
DELTA = re.compile(r"-?\d+(?:\.\d+)?", re.ASCII)
SECRETS = re.compile(
    r"(?P<scheme>bearer|basic)\s+[^\s\"',;<>]+"
    r"|\b(?P<key>xai-|gp_|sk-)[\w*-]{4,}"
    r"|\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"
    r"|(?<=://)[^\s/@\"'<>]+:[^\s/@\"'<>]*@"
    r"|(?P<cookie>\b(?:set-)?cookie\b[\"']?\s*[:=]\s*[\"']?)[^\"'<>]+",
    re.IGNORECASE,
)


class Answer(NamedTuple):
    """A complete answer of the upstream, read once."""

    step: Step
    status: int
    mitigated: bool  # Cloudflare says that it stepped in
    is_json: bool
    text: str  # code and message, or the page; lower case


@dataclass(frozen=True, slots=True)
class Row:
    matches: Callable[[Answer], bool]
    outcome: Outcome
    blame: Blame
    reason: str


def is_challenge(answer: Answer) -> bool:
    """Cloudflare's own error pages for a sick origin (5xx but 503) are no challenge, whatever scripts they carry."""
    if answer.mitigated:
        return True
    if any_5xx(answer) and answer.status != 503:
        return False
    text = answer.text.strip()
    if answer.is_json:
        return '"cloudflare_error": true' in text
    is_page = text.startswith("<") and CHALLENGE_PAGE.search(text) is not None
    return is_page or CHALLENGE_LINE.fullmatch(text) is not None


def status_is(*statuses: int, on: Step | None = None) -> Callable[[Answer], bool]:
    return lambda answer: answer.status in statuses and (on is None or answer.step is on)


def says(pattern: re.Pattern[str], *statuses: int, on: Step | None = None) -> Callable[[Answer], bool]:
    at = status_is(*statuses, on=on)
    return lambda answer: at(answer) and pattern.search(answer.text) is not None


def has_no_share(answer: Answer) -> bool:
    """`0/0`: the limit is zero, so no wait helps."""
    return answer.status == 429 and any(int(limit) == 0 for _, _, limit in RATE.findall(answer.text))


def fetching(row: Callable[[Answer], bool]) -> Callable[[Answer], bool]:
    return lambda answer: answer.step is Step.FETCH and row(answer)


def any_4xx(answer: Answer) -> bool:
    return 400 <= answer.status < 500


def any_5xx(answer: Answer) -> bool:
    return answer.status >= 500


def is_submit_4xx(answer: Answer) -> bool:
    return answer.step is Step.SUBMIT and any_4xx(answer)


CHALLENGED = Row(is_challenge, Outcome.CHALLENGED, Blame.PROXY, "Cloudflare challenged or blocked the exit")
PROXY_AUTH = Row(status_is(407), Outcome.PROXY_AUTH, Blame.PROXY, "the proxy refused our credentials")
SICK = Row(any_5xx, Outcome.BROKEN, Blame.UPSTREAM, "the upstream failed")

ANSWERED: tuple[Row, ...] = (
    CHALLENGED,
    PROXY_AUTH,
    # A result is fetched without a credential: its refusal says nothing about the token.
    Row(status_is(404, 410, on=Step.FETCH), Outcome.GONE, Blame.NOBODY, "the result is not there any more"),
    Row(status_is(429, on=Step.FETCH), Outcome.THROTTLED, Blame.UPSTREAM, "the media host asks for patience"),
    Row(status_is(401, 403, on=Step.FETCH), Outcome.UNEXPLAINED, Blame.NOBODY, "the media host refused the download"),
    Row(fetching(any_4xx), Outcome.BROKEN, Blame.UPSTREAM, "the media host refused the download"),
    Row(says(MODERATION, 400, 403, 422, 451), Outcome.MODERATED, Blame.REQUEST, "moderation refused the content"),
    Row(status_is(401), Outcome.UNAUTHORIZED, Blame.TOKEN, "the upstream does not accept the token"),
    Row(says(WRONG_KEY, 400), Outcome.UNAUTHORIZED, Blame.TOKEN, "the upstream calls the key incorrect"),
    Row(status_is(402), Outcome.UNPAID, Blame.TEAM, "the upstream wants to be paid"),
    Row(says(MONEY, 403, 429), Outcome.UNPAID, Blame.TEAM, "no credits, or a spending limit is reached"),
    Row(has_no_share, Outcome.NOT_GRANTED, Blame.TEAM, "the model is not granted to this team (limit 0)"),
    Row(
        says(ZERO_RETENTION, 400, 403, 422, on=Step.SUBMIT),
        Outcome.NOT_GRANTED,
        Blame.TEAM,
        "the team's zero data retention rules out media",
    ),
    Row(status_is(429), Outcome.THROTTLED, Blame.TOKEN, "too many requests"),
    Row(says(ACCOUNT, 403), Outcome.FORBIDDEN, Blame.TOKEN, "the upstream bars this account"),
    Row(says(ARGUMENT, 403, on=Step.SUBMIT), Outcome.REJECTED, Blame.REQUEST, "the upstream refused the arguments"),
    Row(status_is(403), Outcome.UNEXPLAINED, Blame.NOBODY, "a 403 that names nothing"),
    Row(status_is(404, on=Step.SUBMIT), Outcome.NO_MODEL, Blame.TOKEN, "the model is not known to this token"),
    Row(status_is(404, 410, on=Step.POLL), Outcome.GONE, Blame.NOBODY, "the upstream does not know the job"),
    # A time-out at the upstream's own door is a lost answer, not a refusal: the work may have been taken.
    Row(status_is(504, 524, on=Step.SUBMIT), Outcome.LOST, Blame.PAIR, "the upstream's gateway timed out"),
    Row(status_is(408, 409, 425), Outcome.BROKEN, Blame.UPSTREAM, "the upstream could not take the request now"),
    Row(status_is(400, 422, on=Step.POLL), Outcome.REJECTED, Blame.REQUEST, "the upstream refused the arguments, late"),
    Row(is_submit_4xx, Outcome.REJECTED, Blame.REQUEST, "the upstream refused the arguments"),
    Row(any_4xx, Outcome.BROKEN, Blame.UPSTREAM, "the upstream did not understand the question"),
    SICK,
    Row(lambda _: True, Outcome.GARBLED, Blame.UPSTREAM, "an answer that makes no sense"),
)


def classify(signal: Signal, step: Step, now: float, policy: Policy) -> Verdict:
    """Say what `signal` means for an exchange made for `step`.

    `now` turns a Retry-After that is a date into seconds (RFC 9110, 10.2.3).
    """
    answered = signal.phase is Phase.ANSWERED and signal.status is not None
    if not answered or signal.trouble in (Trouble.PROXY_AUTH, Trouble.PROXY_TARGET, Trouble.PROXY_REFUSED):
        return _transport(signal)
    document = _document(signal.body)
    answer = _read(signal, step, document)
    row = next(row for row in ANSWERED if row.matches(answer))
    if row.outcome is Outcome.GARBLED and step is Step.SUBMIT and _may_be_accepted(signal):
        return _lost(signal)
    return Verdict(
        outcome=row.outcome,
        blame=row.blame,
        reason=row.reason,
        evidence=f"{signal.status} {redact(_decode(signal.body))}".strip(),
        retry_after=_wait(row.outcome, answer, signal.headers.get("retry-after"), now, policy),
        cost=_cost(document),
    )


def conclude(outcome: Outcome, cost: int | None, detail: str) -> Verdict:
    """Return the verdict of a job that the upstream itself ended without a usable video."""
    blame = Blame.REQUEST if outcome in (Outcome.MODERATED, Outcome.REJECTED, Outcome.FAILED) else Blame.UPSTREAM
    return Verdict(outcome, blame, f"the upstream ended the job: {outcome}", redact(detail), cost=cost)


def _transport(signal: Signal) -> Verdict:
    evidence = redact(f"{signal.phase} {signal.trouble or 'no answer'}: {signal.detail}")
    match signal.trouble, signal.phase:
        case Trouble.PROXY_AUTH, _:
            return Verdict(Outcome.PROXY_AUTH, Blame.PROXY, PROXY_AUTH.reason, evidence)
        case Trouble.PROXY_TARGET, _:
            return Verdict(Outcome.TARGET_UNREACHABLE, Blame.UPSTREAM, "the proxy cannot reach the upstream", evidence)
        case (Trouble.PROXY_REFUSED, _) | (_, Phase.BEFORE):
            return Verdict(Outcome.UNREACHABLE, Blame.PROXY, "trouble before the request was written", evidence)
        case (_, Phase.ANSWERED):
            return Verdict(Outcome.GARBLED, Blame.UPSTREAM, "an answer that makes no sense", evidence)
        case _:
            return _lost(signal)


def _may_be_accepted(signal: Signal) -> bool:
    """Tell whether a 2xx that cannot be read may still stand for work that was taken. A page of HTML in its place comes
    from something in between."""
    return signal.status is not None and 200 <= signal.status < 300 and not signal.body.lstrip().startswith(b"<")


def _lost(signal: Signal) -> Verdict:
    evidence = redact(f"{signal.phase} {signal.status or ''} {signal.trouble or 'no answer'}: {signal.detail}")
    return Verdict(Outcome.LOST, Blame.PAIR, "the answer was lost after the request was written", evidence)


def _read(signal: Signal, step: Step, document: Any) -> Answer:
    text = _decode(signal.body) if document is None else _message(document)
    if "%20" in text:  # old reports quote xAI's texts percent-encoded
        text = unquote(text)
    return Answer(
        step=step,
        status=signal.status or 0,
        mitigated=bool(signal.headers.get("cf-mitigated")),
        is_json=document is not None,
        text=text.lower(),
    )


def _decode(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _message(document: dict[str, Any]) -> str:
    """Return code and text of xAI's flat envelope, OpenAI's, or the bare one; else the whole document."""
    error = document.get("error")
    inner = error if isinstance(error, dict) else {"message": error}
    parts = [document.get("code"), inner.get("code"), inner.get("type"), inner.get("message"), document.get("message")]
    texts = [str(part) for part in parts if isinstance(part, str | int)]
    return " ".join(texts) or json.dumps(document)


def _cost(document: dict[str, Any] | None) -> int | None:
    usage = document.get("usage") if document else None
    cost = usage.get("cost_in_usd_ticks") if isinstance(usage, dict) else None
    return cost if type(cost) is int and cost >= 0 else None


def _wait(outcome: Outcome, answer: Answer, header: str | None, now: float, policy: Policy) -> float | None:
    """Return how long the upstream asks to wait: by its header, else by its text."""
    seconds = _retry_after(header, now) if header else None
    if seconds is None and outcome in (Outcome.THROTTLED, Outcome.UNPAID):
        seconds = _resets_in(answer.text)
    if seconds is not None:
        return min(max(seconds, policy.retry_after_min), policy.retry_after_max)
    return _budget(answer.text, policy) if outcome is Outcome.THROTTLED else None


def _retry_after(header: str, now: float) -> float | None:
    value = header.strip()
    if DELTA.fullmatch(value):
        return None if value.startswith("-") else float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    wait = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now
    return wait if wait >= 0 else None


def _resets_in(text: str) -> float | None:
    found = RESETS_IN.search(text)
    if found is None:
        return None
    return float(sum(int(count) * SECONDS[unit] for count, unit in SPAN.findall(found[1])))


def _budget(text: str, policy: Policy) -> float | None:
    """Return the rest for the budget that xAI's text shows as spent; a minute's outlasts a second's."""
    spent = {budget for budget, actual, limit in RATE.findall(text) if int(actual) >= int(limit)}
    if not spent:
        return None
    return policy.per_second_rest if spent == {"requests per second"} else policy.per_minute_rest


def redact(text: str) -> str:
    """Return the first 512 characters of `text` on one line, with whatever looks like a credential masked."""
    masked = SECRETS.sub(_mask, text[: 4 * EVIDENCE])
    return " ".join("".join(char if char.isprintable() else " " for char in masked).split())[:EVIDENCE]


def _mask(found: re.Match[str]) -> str:
    kept = found["scheme"] or found["key"] or found["cookie"] or ""
    return f"{kept}{' ' if found['scheme'] else ''}•••"
