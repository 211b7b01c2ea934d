"""When to look at a running generation: where its answer is likely, guided by progress and by learned durations."""

from collections import deque
from dataclasses import dataclass, field

REMEMBERED = 200  # durations
FEW = 5  # with fewer than these nothing is known yet


@dataclass(frozen=True, slots=True)
class Pace:
    """Bounds of the time between two looks, in seconds."""

    shortest: float = 0.5
    longest: float = 10.0


@dataclass(slots=True)
class Durations:
    """How long the last generations of one model took, in seconds."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def learn(self, seconds: float) -> None:
        self.recent.append(seconds)

    def shortest(self) -> float | None:
        """Return the shortest of the recent ones; None while too few are known."""
        return min(self.recent) if len(self.recent) >= FEW else None

    def mean(self) -> float | None:
        return sum(self.recent) / len(self.recent) if self.recent else None


def next_look(elapsed: float, progress: int | None, shortest: float | None, pace: Pace) -> float:
    """Return the seconds to wait before the next look, `elapsed` seconds after the submit.

    The first look comes halfway to the shortest recent duration. From then on the reported progress says when the
    end is due: half the remaining time is waited, so that the looks close in on it. Without a progress the looks
    come in tenths of the age.
    """
    if progress:
        reported = min(progress, 99)
        return _within(elapsed * (100 - reported) / reported / 2, pace)
    if shortest is not None and elapsed < shortest:
        return max((shortest - elapsed) / 2, pace.shortest)
    return _within(elapsed / 10, pace)


def _within(seconds: float, pace: Pace) -> float:
    return min(max(seconds, pace.shortest), pace.longest)
