"""What the keys have taken: requests in the last minute, unfinished generations."""

from collections import deque
from collections.abc import Iterable

from proxy.domain.errors import RateLimited, TooManyConcurrent
from proxy.domain.keys import Key
from proxy.domain.limits import Standing, standing, wait_for_room


class Limits:
    """All limits of a key are decided together: a refused request consumes nothing."""

    def __init__(self) -> None:
        self._taken: dict[str, deque[float]] = {}
        self._running: dict[str, set[str]] = {}

    def admit(self, key: Key, work_id: str, now: float, slot_in: float) -> None:
        """Take one request of `key`, and a place among its unfinished generations until `release`.

        Raises `RateLimited` with the exact wait, or `TooManyConcurrent` with `slot_in`, an estimate in seconds.
        """
        taken = self._taken.setdefault(key.id, deque())
        running = self._running.setdefault(key.id, set())
        count, concurrency = key.limits.requests_per_minute, key.limits.concurrency
        if count is not None and (wait := wait_for_room(taken, count, now)) > 0:
            raise RateLimited(count, wait)
        if concurrency is not None and len(running) >= concurrency:
            raise TooManyConcurrent(concurrency, slot_in)
        if count is not None:
            taken.append(now)
        running.add(work_id)

    def release(self, key_id: str, work_id: str) -> None:
        """Give the place of an ended generation back."""
        self._running.get(key_id, set()).discard(work_id)

    def standing(self, key: Key, now: float) -> Standing | None:
        """Return where the key stands in its minute; None when it has no such limit."""
        count = key.limits.requests_per_minute
        if count is None:
            return None
        taken = self._taken.setdefault(key.id, deque())
        wait_for_room(taken, count, now)
        return standing(taken, count, now)

    def restore(self, admitted: Iterable[tuple[str, float]], running: Iterable[tuple[str, str]]) -> None:
        """Rebuild from rows: `(key_id, moment)` of recent requests, `(key_id, work_id)` of unfinished generations."""
        for key_id, moment in admitted:
            self._taken.setdefault(key_id, deque()).append(moment)
        for key_id, work_id in running:
            self._running.setdefault(key_id, set()).add(work_id)
