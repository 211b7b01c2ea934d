"""The consequences of one exchange: who rests for it, who loses a strike, which credential becomes doubtful."""

from collections.abc import Callable

from proxy.domain import policy as rules
from proxy.domain.cooldowns import DIRECT, Cause, Cooldown, Penalty, Policy, Subject, SubjectKind, is_repeated
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange, History, Place, Scene
from proxy.state.index import Slot
from proxy.state.leases import Lease, Settlement
from proxy.state.proxies import Proxies
from proxy.state.rests import Rests
from proxy.state.roster import Roster

WENT_WELL = Settlement(Blame.NOBODY, "it went well")
DOUBTS = 8  # 401s of one token that are remembered


class Judge:
    """Holds the recent history that `domain.policy` weighs a verdict by. `jitter` returns numbers in [0, 1)."""

    def __init__(
        self, policy: Policy, jitter: Callable[[], float], rests: Rests, proxies: Proxies, tokens: Roster
    ) -> None:
        self._policy = policy
        self._jitter = jitter
        self._rests = rests
        self._proxies = proxies
        self._tokens = tokens
        self._history = History()
        self._successes: dict[str, float] = {}  # by proxy: the moment of the last one

    def blame(self, slot: Slot, lease: Lease, verdict: Verdict, exchange: Exchange, now: float) -> Settlement:
        """Settle a failure."""
        way = lease.proxy_id or DIRECT
        place = Place(lease.token_id, slot.token.team, way, exchange.host or slot.host, lease.model)
        scene = Scene(exchange, place, now, self._successes, self._tokens.enabled)
        judgement = rules.judge(verdict, scene, self._history, self._policy)
        self._history = judgement.history
        is_doubted = verdict.outcome is Outcome.UNAUTHORIZED and _doubt(slot, scene)
        disable = self._disabling(slot, verdict, scene)
        return Settlement(
            blame=judgement.blame,
            reason=judgement.reason,
            cooldowns=self._penalise(judgement.penalties, exchange.began_at, now),
            retry=judgement.retry,
            verify=is_doubted and disable is None and slot.is_enabled,
            disable=disable,
        )

    def credit(self, slot: Slot, lease: Lease, exchange: Exchange, now: float) -> Settlement:
        """Settle a success."""
        self._successes[lease.proxy_id or DIRECT] = now
        way = self._proxies.get(lease.proxy_id)
        if exchange.step is not Step.FETCH:  # a download shows no credential
            slot.doubts = ()
            if slot.rests or slot.team_rests or (way and way.rests):
                return self._healthier(slot, lease, exchange, now)
        return WENT_WELL

    def forget_proxy(self, proxy_id: str) -> None:
        self._successes.pop(proxy_id, None)

    def _healthier(self, slot: Slot, lease: Lease, exchange: Exchange, now: float) -> Settlement:
        subjects = [
            Subject(SubjectKind.TOKEN, lease.token_id),
            Subject(SubjectKind.TOKEN_MODEL, lease.token_id, lease.model),
            Subject(SubjectKind.PROXY, lease.proxy_id or DIRECT),
            Subject(SubjectKind.PROXY_HOST, lease.proxy_id or DIRECT, exchange.host or slot.host),
        ]
        if slot.token.team:
            subjects.append(Subject(SubjectKind.TEAM, slot.token.team))
            subjects.append(Subject(SubjectKind.TEAM_MODEL, slot.token.team, lease.model))
        changed = [self._rests.succeed(subject, now) for subject in subjects]
        return Settlement(Blame.NOBODY, WENT_WELL.reason, tuple(row for row in changed if row))

    def _penalise(self, penalties: tuple[Penalty, ...], began_at: float, now: float) -> tuple[Cooldown, ...]:
        rows = {}
        for penalty in penalties:
            rows[penalty.subject] = self._rests.penalise(penalty, began_at, now, self._jitter())
        return tuple(rows.values())

    def _disabling(self, slot: Slot, verdict: Verdict, scene: Scene) -> str | None:
        """Return the cause for which an enabled token is to be disabled now: its second explicit 403, or its 401s."""
        began_at = scene.exchange.began_at
        if not slot.is_enabled:
            return None
        if verdict.outcome is Outcome.UNAUTHORIZED:
            ways = 1 if slot.token.proxy_id else len(self._proxies.enabled)
            return Cause.UNAUTHORIZED if rules.is_confirmed(slot.doubts, ways, self._policy) else None
        if verdict.outcome is Outcome.FORBIDDEN:
            row = self._rests.get(Subject(SubjectKind.TOKEN, slot.token.id))
            return Cause.FORBIDDEN if is_repeated(row, Cause.FORBIDDEN, began_at, scene.now, self._policy) else None
        return None


def _doubt(slot: Slot, scene: Scene) -> bool:
    """Note a 401, and tell whether it is news: one that was under way when the last came is not."""
    if slot.doubts and scene.exchange.began_at <= slot.doubted_at:
        return False
    slot.doubts = (*slot.doubts, scene.place.proxy_id)[-DOUBTS:]
    slot.doubted_at = scene.now
    return True
