"""From a verdict to penalties: who rests, for how long, and whether a pattern of failures names somebody.

A failure belongs to one of request, token, team, proxy, pair or upstream. Only evidence blames; what nothing
explains costs nobody more than a few seconds, until it is corroborated. Facts (a 401, a Retry-After) need no
pattern. One client request cools at most one token by inference.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.domain.cooldowns import DIRECT, Cause, Fixed, Ladder, Penalty, Policy, Rest, Subject, SubjectKind, Told
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict

REMEMBERED = 512  # failures of one sort, and requests


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange with the upstream, as its maker knows it."""

    step: Step
    work_id: str
    caller: str  # the client key's id
    content: str  # a hash of the order: the same order sent again has the same
    began_at: float
    attempt_id: str | None = None
    alone: bool = False  # the gateway has only this one key, so that callers are told apart by what they order
    host: str | None = None  # where it went, if not to the token's own upstream

    @property
    def who(self) -> str:
        return self.content if self.alone else self.caller


@dataclass(frozen=True, slots=True)
class Place:
    """Where the exchange went: with which token, and through which proxy (`DIRECT` if none)."""

    token_id: str
    team: str | None
    proxy_id: str
    host: str
    model: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything around a failure that a verdict is weighed by."""

    exchange: Exchange
    place: Place
    now: float
    successes: Mapping[str, float]  # proxy -> the moment of its last success
    tokens: int  # enabled ones


@dataclass(frozen=True, slots=True)
class Event:
    """One failure, as patterns need it."""

    at: float
    token_id: str
    owner: str  # of the rate bucket: the team, else the token
    proxy_id: str
    who: str
    work_id: str
    is_outage: bool = False  # already laid to the upstream


@dataclass(frozen=True, slots=True)
class History:
    """The recent failures, oldest first, bounded in time and number."""

    unexplained: tuple[Event, ...] = ()
    throttled: tuple[Event, ...] = ()
    before_write: tuple[Event, ...] = ()
    to_blame: Mapping[str, float] = field(default_factory=dict)  # caller -> until when its own 403s explain themselves
    cooled: Mapping[str, float] = field(default_factory=dict)  # work -> when it cooled a token by inference


@dataclass(frozen=True, slots=True)
class Judgement:
    blame: Blame
    reason: str
    history: History
    penalties: tuple[Penalty, ...] = ()
    retry: bool = True  # False: this request is not to be tried again, whatever its caps allow


def judge(verdict: Verdict, scene: Scene, history: History, policy: Policy) -> Judgement:
    """Weigh one failure: whose fault it is in the light of the recent ones, and who rests for it."""
    match verdict.outcome:
        case Outcome.UNEXPLAINED if scene.exchange.step is Step.SUBMIT:
            return _unexplained(verdict, scene, history, policy)
        case Outcome.THROTTLED if scene.exchange.step in (Step.SUBMIT, Step.POLL):
            return _throttled(verdict, scene, history, policy)
        case Outcome.UNREACHABLE | Outcome.TARGET_UNREACHABLE:
            return _before_write(verdict, scene, history, policy)
        case _:
            penalties = _facts(verdict, scene, policy)
            return Judgement(verdict.blame, verdict.reason, history, penalties)


def is_confirmed(doubts: Sequence[str], proxies: int, policy: Policy) -> bool:
    """Tell whether a token's 401s (the proxies they came through, in order) prove it wrong.

    The first one is a suspicion; the others confirm it, on two proxies where `proxies` has two.
    """
    return len(doubts) > policy.confirmations and len(set(doubts)) >= min(2, proxies)


def _facts(verdict: Verdict, scene: Scene, policy: Policy) -> tuple[Penalty, ...]:
    """Return the rests that follow from the verdict alone."""
    place, told = scene.place, verdict.retry_after
    rests: tuple[Rest, ...]
    match verdict.outcome:
        case Outcome.CHALLENGED:
            subject, rests = exit_of(scene), _at_least(policy.challenge, told)
        case Outcome.PROXY_AUTH if place.proxy_id != DIRECT:
            subject, rests = Subject(SubjectKind.PROXY, place.proxy_id), (Fixed(policy.proxy_auth_rest),)
        case Outcome.FORBIDDEN:
            subject, rests = token_of(place), _at_least(policy.forbidden, told)
        case Outcome.UNAUTHORIZED:
            subject, rests = token_of(place), (Fixed(policy.unauthorized_rest),)
        case Outcome.UNPAID:
            subject, rests = payer_of(place), (policy.unpaid if told is None else Told(told),)
        case Outcome.NOT_GRANTED:
            subject, rests = bucket_of(place), (Fixed(policy.not_granted_rest),)
        case Outcome.NO_MODEL:
            subject = Subject(SubjectKind.TOKEN_MODEL, place.token_id, place.model)
            rests = (Fixed(policy.no_model_rest),)
        case Outcome.UNEXPLAINED | Outcome.LOST if scene.exchange.step is not Step.FETCH:
            subject, rests = pair_of(place), (Fixed(policy.pair_soft),)
        case _:
            return ()
    return _penalties(verdict, scene, subject, Cause(verdict.outcome), *rests)


def _unexplained(verdict: Verdict, scene: Scene, history: History, policy: Policy) -> Judgement:
    """A 403 on a submit that names nothing. The rows, from the most specific pattern to none."""
    now, who = scene.now, scene.exchange.who
    if history.to_blame.get(who, now) > now:
        return Judgement(Blame.REQUEST, "this caller's requests meet a 403 on any token", history, retry=False)
    event = _event(scene)
    kept = _remember(history.unexplained, event, policy.unexplained_token_window)
    history = replace(history, unexplained=kept)
    recent = _since(kept, now - policy.unexplained_window)
    if _is_proxy(recent, scene, policy.unexplained_proxy_tokens, policy.unexplained_window):
        reason = f"{policy.unexplained_proxy_tokens} tokens of this proxy met a 403, other proxies are fine"
        penalties = _penalties(verdict, scene, exit_of(scene), Cause.UNEXPLAINED_PROXY, policy.challenge)
        return Judgement(Blame.PROXY, reason, history, penalties)
    mine = {event.token_id for event in recent if event.who == who}
    if len(mine) >= policy.unexplained_caller_tokens:
        to_blame = {caller: until for caller, until in history.to_blame.items() if until > now}
        to_blame[who] = now + policy.unexplained_request_rest
        history = replace(history, to_blame=_newest(to_blame))
        return Judgement(Blame.REQUEST, f"one caller, a 403 on {len(mine)} tokens", history, retry=False)
    if min(len({e.who for e in recent}), len({e.proxy_id for e in recent})) >= policy.unexplained_callers:
        return Judgement(Blame.UPSTREAM, "several callers meet a 403 on several proxies", history)
    return _unexplained_token(verdict, scene, history, policy)


def _unexplained_token(verdict: Verdict, scene: Scene, history: History, policy: Policy) -> Judgement:
    """Nothing else explains the 403: is it the token? If its request has cooled one already, only the pair rests."""
    place, now, work_id = scene.place, scene.now, scene.exchange.work_id
    recent = _since(history.unexplained, now - policy.unexplained_window)
    callers = {event.who for event in recent if event.token_id == place.token_id}
    is_repeated = _is_token(history.unexplained, scene, policy)
    if work_id in history.cooled or not (is_repeated or len(callers) >= 2):
        return Judgement(Blame.NOBODY, verdict.reason, history, _facts(verdict, scene, policy))
    history = replace(history, cooled=_newest({**history.cooled, work_id: now}))
    rest: Rest = policy.inferred if is_repeated else Fixed(policy.unexplained_rest)
    cause = Cause.UNEXPLAINED_TOKEN if is_repeated else Cause.UNEXPLAINED_TWICE
    reason = "403s on several proxies from several requests" if is_repeated else "a 403 for a second caller"
    return Judgement(Blame.TOKEN, reason, history, _penalties(verdict, scene, token_of(place), cause, rest))


def _throttled(verdict: Verdict, scene: Scene, history: History, policy: Policy) -> Judgement:
    """A 429 is the bucket's (limits belong to the team where there is one) unless many buckets of one proxy meet it."""
    told = verdict.retry_after
    kept = _remember(history.throttled, _event(scene), policy.throttled_window)
    history = replace(history, throttled=kept)
    bucket = bucket_of(scene.place)
    if not _is_proxy(kept, scene, policy.throttled_tokens, policy.throttled_window):
        rest = policy.throttle if told is None else Told(told)
        blame = Blame.TEAM if scene.place.team else Blame.TOKEN
        penalties = _penalties(verdict, scene, bucket, Cause.THROTTLED, rest)
        return Judgement(blame, verdict.reason, history, penalties)
    penalties = _penalties(verdict, scene, exit_of(scene), Cause.THROTTLED_PROXY, policy.challenge)
    if told is not None:  # what the upstream asks for is done, whoever is to blame
        penalties += _penalties(verdict, scene, bucket, Cause.THROTTLED, Told(told))
    reason = f"{policy.throttled_tokens} tokens of this proxy met a 429, other proxies are fine"
    return Judgement(Blame.PROXY, reason, history, penalties)


def _before_write(verdict: Verdict, scene: Scene, history: History, policy: Policy) -> Judgement:
    """Trouble before the request was written: the proxy's, unless several proxies have it at once."""
    now, proxy_id = scene.now, scene.place.proxy_id
    event = _event(scene)
    kept = _remember(history.before_write, event, max(policy.unreachable_window, policy.outage_window))
    quiet_since = max(scene.successes.values(), default=-math.inf)
    at_once = [e for e in _since(kept, now - policy.outage_window) if e.at > quiet_since]
    is_outage = len({e.proxy_id for e in at_once}) >= policy.outage_proxies
    is_upstream = is_outage or verdict.outcome is Outcome.TARGET_UNREACHABLE or proxy_id == DIRECT
    if is_upstream:
        history = replace(history, before_write=(*kept[:-1], replace(event, is_outage=True)))
        reason = "several proxies cannot reach the upstream" if is_outage else verdict.reason
        return Judgement(Blame.UPSTREAM, reason, history)
    troubles = [e for e in _since(kept, now - policy.unreachable_window) if e.proxy_id == proxy_id and not e.is_outage]
    rest = policy.unreachable if len(troubles) >= 2 else Fixed(policy.unreachable_soft)
    proxy = Subject(SubjectKind.PROXY, proxy_id)
    penalties = _penalties(verdict, scene, proxy, Cause.UNREACHABLE, rest)
    return Judgement(Blame.PROXY, verdict.reason, replace(history, before_write=kept), penalties)


def _is_proxy(recent: Iterable[Event], scene: Scene, count: int, window: float) -> bool:
    """Tell whether the failures name this proxy: `count` buckets met them, nothing succeeded here since the first,
    and something succeeded elsewhere within `window`."""
    proxy_id = scene.place.proxy_id
    here = [event for event in recent if event.proxy_id == proxy_id]
    if len({event.owner for event in here}) < count or len({event.token_id for event in here}) < count:
        return False
    if scene.successes.get(proxy_id, -math.inf) >= here[0].at:
        return False
    return any(at >= scene.now - window for other, at in scene.successes.items() if other != proxy_id)


def _is_token(events: Iterable[Event], scene: Scene, policy: Policy) -> bool:
    """Tell whether repeated 403s name this token: several proxies and requests met them, most other tokens none."""
    events = list(events)
    mine = [event for event in events if event.token_id == scene.place.token_id]
    others = scene.tokens - 1
    afflicted = len({event.token_id for event in events}) - 1
    return (
        len(mine) >= policy.unexplained_token_count
        and len({event.proxy_id for event in mine}) >= 2
        and len({event.work_id for event in mine}) >= 2
        and others > 0
        and others - afflicted >= policy.unexplained_token_others * others
    )


def token_of(place: Place) -> Subject:
    return Subject(SubjectKind.TOKEN, place.token_id)


def payer_of(place: Place) -> Subject:
    return Subject(SubjectKind.TEAM, place.team) if place.team else token_of(place)


def bucket_of(place: Place) -> Subject:
    """xAI limits teams, not keys."""
    if place.team:
        return Subject(SubjectKind.TEAM_MODEL, place.team, place.model)
    return Subject(SubjectKind.TOKEN_MODEL, place.token_id, place.model)


def pair_of(place: Place) -> Subject:
    return Subject(SubjectKind.PAIR, place.token_id, place.proxy_id)


def exit_of(scene: Scene) -> Subject:
    return Subject(SubjectKind.PROXY_HOST, scene.place.proxy_id, scene.place.host)


def _at_least(ladder: Ladder, told: float | None) -> tuple[Rest, ...]:
    return (ladder,) if told is None else (ladder, Told(told))


def _penalties(verdict: Verdict, scene: Scene, subject: Subject, cause: Cause, *rests: Rest) -> tuple[Penalty, ...]:
    attempt_id = scene.exchange.attempt_id
    return tuple(Penalty(subject, rest, cause, verdict.evidence, attempt_id) for rest in rests)


def _event(scene: Scene) -> Event:
    place, exchange = scene.place, scene.exchange
    owner = place.team or place.token_id
    return Event(scene.now, place.token_id, owner, place.proxy_id, exchange.who, exchange.work_id)


def _since(events: Iterable[Event], moment: float) -> list[Event]:
    return [event for event in events if event.at >= moment]


def _remember(events: Sequence[Event], event: Event, window: float) -> tuple[Event, ...]:
    return (*_since(events, event.at - window)[1 - REMEMBERED :], event)


def _newest(marks: dict[str, float]) -> dict[str, float]:
    """Keep the newest marks, so that nobody's flood grows the memory."""
    return dict(list(marks.items())[-REMEMBERED:])
