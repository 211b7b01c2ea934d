"""The pool in memory: microseconds to lease a slot, settle one exchange and give the slot back, at any size.

The baseline is what one writes first: a list of tokens, and `min()` over those that are free.
"""

import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.machine import Cores, middle, pinned
from benchmarks.report import Cell, Report, Table, at_most
from proxy.domain.cooldowns import Policy
from proxy.domain.outcomes import Blame, Outcome, Step, Verdict
from proxy.domain.policy import Exchange
from proxy.domain.proxies import Proxy
from proxy.domain.tokens import Token
from proxy.state.leases import Lease, Want
from proxy.state.pool import Pool

SIZES = (10, 1_000, 100_000)
PROXIES = 20
ROUNDS = 5
CYCLES = 20_000
BASELINE_SECONDS = 0.2  # of one round; at 100,000 tokens that is some twenty cycles
WANT = Want(drivers=("xai",), model="grok-imagine-video")
EXCHANGE = Exchange(Step.SUBMIT, work_id="video-1", caller="key_1", content="hash", began_at=0.0)
THROTTLED = Verdict(Outcome.THROTTLED, Blame.TOKEN, "429", retry_after=300.0)
STEP = 0.001  # seconds of the pool's own time from one cycle to the next
SLOWLY = 10.0  # the same where tokens are put to rest, so that some of ten are always awake


class Trial:
    """A pool of `size` tokens, and the time it is given."""

    def __init__(self, size: int) -> None:
        self.now = 1.0
        self.held: deque[Lease] = deque()
        self.pool = Pool(Policy(), random.Random(1).random)
        for number in range(PROXIES):
            self.pool.put_proxy(Proxy(f"pxy_{number}", "", "socks5://127.0.0.1:1080"), 0.0)
        for number in range(size):
            self.pool.put_token(Token(f"tok_{number}", "", "xai", concurrency=1), 0.0)
        for _ in range(size):  # every token has its proxy then
            self.cycle(None)

    def lease(self) -> Lease:
        lease = self.pool.lease(WANT, self.now)
        if not isinstance(lease, Lease):
            raise TypeError("the pool has no slot")  # the figures would be of nothing
        return lease

    def end(self, lease: Lease, verdict: Verdict | None) -> None:
        self.pool.settle(lease, verdict, EXCHANGE, self.now)
        self.pool.release(lease, self.now)

    def cycle(self, verdict: Verdict | None) -> None:
        self.now += STEP
        self.end(self.lease(), verdict)

    def busy_cycle(self) -> None:
        """Lease, and end what was leased the longest ago."""
        self.now += STEP
        self.held.append(self.lease())
        self.end(self.held.popleft(), None)


class Plain:
    """The baseline: moments of last use in a list, the oldest found by `min()`."""

    def __init__(self, size: int) -> None:
        self.last_used = [0.0] * size
        self.is_free = [True] * size
        self.now = 1.0

    def cycle(self) -> None:
        self.now += STEP
        free = (number for number, free in enumerate(self.is_free) if free)
        number = min(free, key=self.last_used.__getitem__)
        self.is_free[number] = False
        self.last_used[number] = self.now
        self.is_free[number] = True


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds a cycle."""

    idle: float
    busy: float
    throttled: float
    plain: float


async def run(cores: Cores, *, quick: bool) -> Report:
    report = Report("pool", "Lease a slot, settle one exchange, release: microseconds together, in memory.")
    with pinned(cores.subject):
        found = {size: _measure(size, quick) for size in SIZES}
    rows: list[tuple[Cell, ...]] = [
        (f"{size:,}", each.idle, each.busy, each.throttled, each.plain, each.plain / each.idle)
        for size, each in found.items()
    ]
    head = ("tokens", "all idle", "half in flight", "one in ten answers 429", "baseline: min()", "times faster")
    report.tables.append(Table("µs for lease + settle + release", head, rows))
    small, large = found[SIZES[0]], found[SIZES[-1]]
    report.goals.append(at_most("lease and settle at 100,000 tokens, half in flight", large.busy, 10, " µs"))
    report.goals.append(at_most("the same against 10 tokens (flat)", large.busy / small.busy, 2, "×"))
    return report


def _measure(size: int, quick: bool) -> Measured:
    trial, plain = Trial(size), Plain(size)
    cycles = CYCLES // 10 if quick else CYCLES
    rounds = 1 if quick else ROUNDS
    idle, busy, baseline = [], [], []
    for _ in range(rounds):
        idle.append(_microseconds(lambda: trial.cycle(None), cycles))
        baseline.append(_microseconds(plain.cycle, cycles, BASELINE_SECONDS))
        trial.held.extend(trial.lease() for _ in range(size // 2))
        busy.append(_microseconds(trial.busy_cycle, cycles))
        while trial.held:
            trial.end(trial.held.popleft(), None)
    throttled = [_throttled(trial, cycles) for _ in range(rounds)]
    return Measured(middle(idle), middle(busy), middle(throttled), middle(baseline))


def _throttled(trial: Trial, cycles: int) -> float:
    """Time cycles of which one in ten puts its token to rest."""
    verdicts = itertools.cycle([THROTTLED, *[None] * 9])

    def cycle() -> None:
        trial.now += SLOWLY
        trial.cycle(next(verdicts))

    return _microseconds(cycle, cycles)


def _microseconds(cycle: Callable[[], None], cycles: int, at_most_seconds: float = float("inf")) -> float:
    began = time.perf_counter()
    done = 0
    while done < cycles and time.perf_counter() < began + at_most_seconds:
        cycle()
        done += 1
    return 1e6 * (time.perf_counter() - began) / done
