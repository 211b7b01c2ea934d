"""Whatever happens in whatever order: the promises of the pool."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.domain.cooldowns import DIRECT, Subject, SubjectKind
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.tokens import Token, TokenState
from proxy.state.leases import Lease, NotNow, Want
from tests.state.pools import MODEL, START, make_pool, proxy, take, token


@settings(max_examples=40)
@given(st.integers(2, 40), st.integers(1, 5))
def test_turns_are_fair(tokens: int, concurrency: int) -> None:
    pool = make_pool(token(f"t{number}", concurrency=concurrency) for number in range(tokens))
    counts: Counter[str] = Counter()
    held: list[Lease] = []
    for step in range(tokens * 6):
        held.append(take(pool, START + step))
        counts[held[-1].token_id] += 1
        if len(held) == tokens // 2 + 1:
            pool.release(held.pop(0), START + step)
    assert max(counts.values()) - min(counts.values()) <= concurrency


TOKENS = [f"t{number}" for number in range(6)]
PROXIES = ["p1", "p2", "p3"]
TROUBLES = [outcome for outcome in Outcome if outcome not in (Outcome.OK, Outcome.CANCELLED)]


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens in whatever order: no promise of the pool is broken."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.pool = make_pool([], PROXIES)
        self.tokens: dict[str, Token] = {}
        self.held: list[Lease] = []
        self.until: dict[Subject, float] = {}
        for name in TOKENS:
            self.put(name, True, 2, None)

    @rule(name=st.sampled_from(TOKENS), enabled=st.booleans(), concurrency=st.integers(1, 3), pin=st.none())
    def put(self, name: str, enabled: bool, concurrency: int, pin: str | None) -> None:
        state = TokenState.ENABLED if enabled else TokenState.DISABLED
        team = "x" if name < "t2" else None
        self.tokens[name] = token(name, state=state, concurrency=concurrency, team=team, proxy_id=pin)
        self.pool.put_token(self.tokens[name], self.now)

    @rule(name=st.sampled_from(TOKENS), pin=st.sampled_from(PROXIES))
    def pin(self, name: str, pin: str) -> None:
        self.put(name, True, 2, pin)

    @rule(name=st.sampled_from(PROXIES), enabled=st.booleans())
    def put_proxy(self, name: str, enabled: bool) -> None:
        self.pool.put_proxy(proxy(name, enabled=enabled), self.now)

    @rule(seconds=st.floats(0.001, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        excluded=st.frozensets(st.sampled_from(TOKENS), max_size=2),
        ways=st.frozensets(st.sampled_from(PROXIES), max_size=2),
        preferred=st.none() | st.sampled_from(TOKENS),
        model=st.sampled_from([MODEL, "grok-image"]),
    )
    def lease(self, excluded: frozenset[str], ways: frozenset[str], preferred: str | None, model: str) -> None:
        want = Want(("xai",), model, None, preferred, excluded, frozenset(ways))
        got = self.pool.lease(want, self.now)
        if isinstance(got, NotNow):
            self.check_refusal(got, want)
            return
        one = self.tokens[got.token_id]
        assert one.state is TokenState.ENABLED
        assert got.token_id not in excluded
        assert got.proxy_id in self.pool.proxies() - ways
        assert one.proxy_id in (None, got.proxy_id)
        assert sum(lease.token_id == got.token_id for lease in self.held) < one.concurrency
        for subject in self.subjects(got):
            assert self.until.get(subject, 0.0) <= self.now
        self.held.append(got)

    def check_refusal(self, got: NotNow, want: Want) -> None:
        """What says "not now" must not hide a token that could serve: asked one by one, each says so too."""
        if got.until is not None and got.until <= self.now:
            return
        for name in set(TOKENS) - want.excluded_tokens:
            alone = self.pool.lease(replace(want, token_id=name, preferred_token=None), self.now)
            assert isinstance(alone, NotNow), (got, alone)

    def subjects(self, lease: Lease) -> list[Subject]:
        way = lease.proxy_id or DIRECT
        own = [
            Subject(SubjectKind.TOKEN, lease.token_id),
            Subject(SubjectKind.TOKEN_MODEL, lease.token_id, lease.model),
            Subject(SubjectKind.PAIR, lease.token_id, way),
            Subject(SubjectKind.PROXY, way),
            Subject(SubjectKind.PROXY_HOST, way, "xai"),
        ]
        team = lease.team or "none"
        return [*own, Subject(SubjectKind.TEAM, team), Subject(SubjectKind.TEAM_MODEL, team, lease.model)]

    @rule(number=st.integers(0, 20), outcome=st.none() | st.sampled_from(TROUBLES), caller=st.sampled_from("abc"))
    def settle(self, number: int, outcome: Outcome | None, caller: str) -> None:
        if not self.held:
            return
        lease = self.held.pop(number % len(self.held))
        verdict = Verdict(outcome, Blame.NOBODY, "why") if outcome else None
        told = Exchange(Step.SUBMIT, f"w{lease.number}", caller, "order", lease.taken_at)
        for row in self.pool.settle(lease, verdict, told, self.now).cooldowns:
            assert row.until >= self.until.get(row.subject, 0.0)
            self.until[row.subject] = row.until
        self.pool.release(lease, self.now)

    @rule()
    def clear_everything(self) -> None:
        for row in self.pool.cooldowns(self.now):
            self.pool.clear(row.subject, self.now)
        self.until.clear()

    @invariant()
    def counts_agree(self) -> None:
        held = Counter(lease.token_id for lease in self.held)
        for name in TOKENS:
            assert self.pool.token_view(name, self.now).in_flight == held[name]


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
