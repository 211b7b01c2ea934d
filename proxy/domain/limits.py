"""How often a key may ask: an exact log, so that "N per minute" admits N in any 60 s, no more."""

from collections import deque
from dataclasses import dataclass

WINDOW = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a key stands in its window, for the RateLimit fields (draft-ietf-httpapi-ratelimit-headers-11)."""

    limit: int
    remaining: int
    reset: float  # seconds until the oldest request leaves the window


def wait_for_room(taken: deque[float], limit: int, now: float) -> float:
    """Return the seconds until one more request fits; 0 when it fits now.

    `taken` holds the moments of the admitted requests, oldest first; those that have left the window are dropped.
    """
    while taken and taken[0] <= now - WINDOW:
        taken.popleft()
    if len(taken) < limit:
        return 0.0
    if limit == 0:
        return WINDOW
    return taken[-limit] + WINDOW - now


def standing(taken: deque[float], limit: int, now: float) -> Standing:
    reset = taken[0] + WINDOW - now if taken else 0.0
    return Standing(limit, max(0, limit - len(taken)), max(0.0, reset))
