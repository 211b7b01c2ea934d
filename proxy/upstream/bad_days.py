"""The bad days that the sandbox plays on request: what an xAI server, or the way to it, would have answered.

A prompt asks for them: `[sandbox:NAME]`, or `[sandbox:NAME,NAME,ok]` for one after the other, one a submit of the same
order, the last one for good; `seconds=N` among them sets how long the job takes. A token whose secret is
`sandbox-NAME` answers so to every order.
"""

import json
import re
from dataclasses import dataclass, replace

from proxy.domain.outcomes import Phase, Signal, Trouble, UpstreamFailed
from proxy.domain.secret import Secret

DIRECTIVE = re.compile(r"\[sandbox:([^\]]*)\]")
TOKEN_PREFIX = "sandbox-"
MAX_SECONDS = 86_400

OK = "ok"
MODERATED, NO_RESULT, FAILED, NEVER = "moderated", "no-result", "failed", "never"
ENDINGS = frozenset({OK, MODERATED, NO_RESULT, FAILED, NEVER})  # the submit is taken; the job ends so
NOT_THE_TOKENS = frozenset({"rejected"})  # a refusal of the order: the token itself is in good health

INVALID = "Client specified an invalid argument"
EXHAUSTED = "resource-exhausted"
TEAM = "00000000-0000-4000-8000-000000000000"
LIMIT = f"Too many requests for team {TEAM} and model grok-imagine-video. Your team's rate limit is — "
CHALLENGE_PAGE = (
    b"<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    b'<body><script src="/cdn-cgi/challenge-platform/h/b/orchestrate/chl_page/v1"></script></body></html>'
)


def answered(status: int, code: str, error: str, **more: object) -> Signal:
    """Return an error answer in xAI's flat shape."""
    body = json.dumps({"code": code, "error": error, **more}).encode()
    return Signal(Phase.ANSWERED, status, {"content-type": "application/json"}, body)


def page(status: int, body: bytes, **headers: str) -> Signal:
    return Signal(Phase.ANSWERED, status, {"content-type": "text/html; charset=UTF-8", **headers}, body)


REFUSALS = {
    "challenge": page(403, CHALLENGE_PAGE, **{"cf-mitigated": "challenge", "server": "cloudflare"}),
    "forbidden": answered(
        403,
        "The caller does not have permission to execute the specified operation",
        "Your account has been suspended. Please contact support.",
    ),
    "unexplained": Signal(Phase.ANSWERED, 403),
    "unauthorized": answered(401, "unauthenticated", "No valid Authorization header was given."),
    "wrong-key": answered(
        400,
        INVALID,
        "Incorrect API key provided: sa***ox. You can obtain an API key from https://console.x.ai.",
    ),
    "throttled": answered(
        429,
        EXHAUSTED,
        f"{LIMIT}Requests per Second (actual/limit): 2/2, Requests per Minute (actual/limit): 73/60.",
    ),
    "unpaid": answered(
        429,
        EXHAUSTED,
        f"Your team {TEAM} has either used all available credits or reached its monthly spending limit. To continue "
        "making API requests, please purchase more credits or raise your spending limit.",
    ),
    "not-granted": answered(
        429, EXHAUSTED, f"{LIMIT}Requests per Second (actual/limit): 0/0, Requests per Minute (actual/limit): 0/0."
    ),
    "broken": answered(500, "internal-error", "Internal server error."),
    "garbage": replace(page(200, b"<html><body>It works!</body></html>"), trouble=Trouble.MALFORMED),
    "lost": Signal(Phase.AFTER, trouble=Trouble.RESET),
    "refused": Signal(Phase.BEFORE, trouble=Trouble.CONNECT),
    "rejected": answered(400, "invalid-argument", "The sandbox was asked to refuse these arguments."),
}
MODERATION = "imagine:content-moderated: Generated video rejected by content moderation."
OVERLOAD = "service_unavailable: The video engine is overloaded."
UNKNOWN_JOB = answered(404, "not-found", "Some requested entity was not found")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a prompt asks of the sandbox."""

    days: tuple[str, ...]  # names, one a submit; never empty
    seconds: float | None = None


def wish(prompt: str) -> Wish:
    """Return what the prompt's directive says. Raises `UpstreamFailed` (400) for a word that means nothing here."""
    directive = DIRECTIVE.search(prompt)
    words = [word.strip() for word in directive[1].split(",")] if directive else []
    seconds = [number(word) for word in words if word.startswith("seconds=")]
    days = tuple(word for word in words if not word.startswith("seconds="))
    if None in seconds or not all(known(day) for day in days):
        raise UpstreamFailed(answered(400, "invalid-argument", "The sandbox does not know this directive."))
    return Wish(days or (OK,), seconds[-1] if seconds else None)


def token_day(secret: Secret) -> str | None:
    """Return the day that a token's secret asks for; None for an ordinary one."""
    value = secret.reveal()
    day = value.removeprefix(TOKEN_PREFIX)
    return day if day != value and known(day) else None


def refusal(day: str) -> Signal | None:
    """Return what a submit meets on such a day; None where it is taken."""
    name, _, seconds = day.partition("=")
    signal = REFUSALS.get(name)
    return replace(signal, headers={**signal.headers, "retry-after": seconds}) if signal and seconds else signal


def known(day: str) -> bool:
    return day in ENDINGS or day in REFUSALS or (day.startswith("throttled=") and number(day) is not None)


def number(word: str) -> float | None:
    """Return the whole number behind the equals sign, where there is a sensible one."""
    digits = word.partition("=")[2]
    return float(digits) if re.fullmatch(r"[0-9]{1,5}", digits) and int(digits) <= MAX_SECONDS else None
