"""What is wrong with the gateway, and what to do about each: rules on the figures of the status page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from proxy.domain.cooldowns import Cause, Cooldown, SubjectKind
from proxy.domain.tokens import Token, TokenState
from proxy.storage.pauses import Pause

SLOW_QUEUE = 60.0  # seconds a job may wait before that is worth a word
ENOUGH_JOBS = 10  # that ended in an hour, before a share of failures means something
MUCH = 0.5  # share of failed jobs


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """`fix` says what to do, as a sentence or a command."""

    severity: Severity
    code: str
    message: str
    fix: str
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Census:
    """How many tokens (or proxies) there are, by what they are doing."""

    total: int = 0
    ready: int = 0
    cooling: int = 0
    full: int = 0
    disabled: int = 0
    slots: int = 0  # of the enabled tokens
    in_flight: int = 0

    @property
    def enabled(self) -> int:
        return self.total - self.disabled


@dataclass(frozen=True, slots=True)
class Outlook:
    """`wait` is in seconds until a slot for the model may be free; None: nothing enabled serves it."""

    model: str  # the upstream's name
    names: tuple[str, ...]  # the clients' names
    wait: float | None
    paused: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What the rules look at, at the moment `now`."""

    now: float
    sandbox: bool
    draining: bool
    disk_full: bool
    active_keys: int
    tokens: Census
    proxies: Census
    outlooks: Sequence[Outlook]
    disabled: Sequence[Token]
    cooldowns: Sequence[Cooldown]  # that run now
    pauses: Sequence[Pause]
    oldest_queued_at: float | None
    ended: Mapping[str, int]  # jobs of the last hour, by state
    lost: Sequence[str]  # jobs of the last day with a lost submit


def problems(figures: Figures) -> list[Problem]:
    """Return what is wrong, errors first."""
    rules = (_gateway, _keys, _capacity, _disabled_tokens, _resting, _proxies, _paused, _jobs)
    found = [problem for rule in rules for problem in rule(figures)]
    return sorted(found, key=lambda problem: problem.severity is not Severity.ERROR)


def _gateway(figures: Figures) -> Iterator[Problem]:
    if figures.disk_full:
        message = "The disk has less free space than media.min_free: new orders are refused."
        yield _error("disk_full", message, "Free some space, or lower media.min_free.")
    if figures.draining:
        yield _warning("draining", "The gateway is stopping: it takes no new work.", "Start it again.")
    if figures.sandbox:
        message = "The sandbox makes the videos: they are stand-ins."
        yield _warning("sandbox", message, "Start without --sandbox, then: grokpool tokens add")


def _keys(figures: Figures) -> Iterator[Problem]:
    if not figures.active_keys:
        yield _warning("no_key", "There is no valid key: no client can enter.", "grokpool keys create NAME")


def _capacity(figures: Figures) -> Iterator[Problem]:
    tokens = figures.tokens
    if not tokens.enabled:
        message = "All tokens are disabled." if tokens.total else "There is no token."
        fix = "grokpool tokens enable ID" if tokens.total else "grokpool tokens add"
        yield _error("no_token", message, fix)
        return
    for outlook in figures.outlooks:
        if outlook.wait is None:
            message = f"No enabled token serves {outlook.model} ({', '.join(outlook.names)})."
            yield _error("model_unserved", message, "Add a token that does, or free one of its models.", outlook.model)
    if tokens.cooling == tokens.enabled:
        ends = [cooldown.until for cooldown in figures.cooldowns]
        wait = f", the first for another {min(ends) - figures.now:.0f} s" if ends else ""
        yield _error("all_tokens_rest", f"Every enabled token rests{wait}.", "The cooldowns below say why; add tokens.")


def _disabled_tokens(figures: Figures) -> Iterator[Problem]:
    for token in figures.disabled:
        if token.state is TokenState.DISABLED and token.disabled_cause in {Cause.UNAUTHORIZED, Cause.FORBIDDEN}:
            message = (
                f"The token {token.name} was disabled: its upstream says {token.disabled_cause}, and said so again."
            )
            fix = f"grokpool tokens update {token.id} with a new secret, then: grokpool tokens enable {token.id}"
            yield _error("token_disabled", message, fix, token.id)


def _resting(figures: Figures) -> Iterator[Problem]:
    for cooldown in figures.cooldowns:
        subject = cooldown.subject
        who = f"The {subject.kind.split('_')[0]} {subject.id}"
        clear = f"grokpool {'proxies' if subject.kind in _OF_PROXIES else 'tokens'} clear {subject.id}"
        match cooldown.cause:
            case Cause.UNPAID:
                yield _error(
                    "unpaid", f"{who} is out of money.", "Top up its account, then clear its tokens.", subject.id
                )
            case Cause.NOT_GRANTED:
                fix = "Ask the upstream for it, or leave the model out of its tokens' models."
                yield _warning("not_granted", f"{who} may not use {subject.scope}.", fix, subject.id)
            case Cause.FORBIDDEN | Cause.UNAUTHORIZED:
                fix = f"grokpool tokens test {subject.id}"
                yield _warning("refused", f"{who} is refused by its upstream: {cooldown.cause}.", fix, subject.id)
            case Cause.PROXY_AUTH:
                fix = f"grokpool proxies update {subject.id} with the right login"
                yield _error("proxy_auth", f"{who} refuses its login.", fix, subject.id)
            case Cause.CHALLENGED:
                fix = f"Wait, use another exit, or give it a clearance and a user agent; then: {clear}"
                yield _warning("challenged", f"{who} is stopped by Cloudflare.", fix, subject.id)
            case Cause.UNREACHABLE:
                fix = f"grokpool proxies test {subject.id}"
                yield _warning("unreachable", f"{who} gives no connection.", fix, subject.id)
            case _:
                pass  # a rest that ends by itself, and asks nothing of anybody


def _proxies(figures: Figures) -> Iterator[Problem]:
    proxies = figures.proxies
    if proxies.total and not proxies.enabled:
        message = "All proxies are disabled: nothing can leave, for with proxies no traffic goes direct."
        yield _error("no_proxy", message, "grokpool proxies enable ID")
    elif proxies.total and proxies.cooling == proxies.enabled:
        yield _error("all_proxies_rest", "Every enabled proxy rests.", "Add one: grokpool proxies add")


def _paused(figures: Figures) -> Iterator[Problem]:
    for pause in figures.pauses:
        what = "Everything" if pause.kind == "all" else f"The {pause.kind} {pause.id}"
        resume = "grokpool resume" if pause.kind == "all" else f"grokpool resume --{pause.kind} {pause.id}"
        yield _warning(
            "paused", f"{what} is paused: {pause.reason or 'no reason was given'}.", resume, pause.id or None
        )


def _jobs(figures: Figures) -> Iterator[Problem]:
    waited = figures.now - (figures.oldest_queued_at or figures.now)
    if waited > SLOW_QUEUE:
        yield _warning("slow_queue", f"The oldest queued job waits for {waited:.0f} s.", "Add tokens or concurrency.")
    failed, ended = figures.ended.get("failed", 0), sum(figures.ended.values())
    if ended >= ENOUGH_JOBS and failed > MUCH * ended:
        message = f"{failed} of {ended} jobs of the last hour failed."
        yield _error("many_failures", message, "grokpool jobs list --state failed")
    if figures.lost:
        message = f"{len(figures.lost)} submits of the last day had no answer: the upstream may have taken the money."
        yield _warning("submit_ambiguous", message, f"grokpool jobs show {figures.lost[-1]}", figures.lost[-1])


def _error(code: str, message: str, fix: str, subject: str | None = None) -> Problem:
    return Problem(Severity.ERROR, code, message, fix, subject)


def _warning(code: str, message: str, fix: str, subject: str | None = None) -> Problem:
    return Problem(Severity.WARNING, code, message, fix, subject)


def count(statuses: Iterable[tuple[str, int, int]]) -> Census:
    """Count `(status, concurrency, in flight)` of each token; a proxy has no slots."""
    tally = dict.fromkeys(("ready", "cooling", "full", "disabled"), 0)
    total = slots = busy = 0
    for status, concurrency, in_flight in statuses:
        tally[status] += 1
        total += 1
        busy += in_flight
        slots += 0 if status == "disabled" else concurrency
    return Census(total=total, slots=slots, in_flight=busy, **tally)


_OF_PROXIES = (SubjectKind.PROXY, SubjectKind.PROXY_HOST)
