"""Results that nobody has seen yet: a client that comes back for one joins its job instead of paying for another.

What counts is whether the result was seen. A wait that ended without it, by a lost connection, a 504 or a restart,
leaves the job open to be joined, as long as nobody still waits for it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from proxy.domain.jobs import Job

Place = tuple[str, bytes]  # whose order and which: the key's id, the body's hash
Client = Callable[[], bool]  # tells whether it is still connected


@dataclass(slots=True, eq=False)
class Awaited:
    """One synchronous order, from its admission until its result was seen. `accepted` ends with the acceptance, or in
    what the order was refused for."""

    job_id: str
    created_at: float
    accepted: asyncio.Future[None]
    clients: list[Client] = field(default_factory=list)  # the one that came last is at the end

    def is_abandoned(self) -> bool:
        return not any(is_connected() for is_connected in self.clients)


class AwaitedJobs:
    """Those of the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._places: OrderedDict[Place, list[Awaited]] = OrderedDict()

    def restore(self, job: Job) -> None:
        """Put back a job whose clients a restart has cut off."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        accepted.set_result(None)
        self._add(job, Awaited(job.id, job.created_at, accepted))

    @contextmanager
    def accepting(self, job: Job, client: Client) -> Iterator[None]:
        """Put in an order that is accepted in this block. An error takes it out, and is that of all who joined."""
        awaited = Awaited(job.id, job.created_at, asyncio.get_running_loop().create_future(), [client])
        self._add(job, awaited)
        try:
            yield
        except BaseException as error:
            awaited.accepted.set_exception(error)
            awaited.accepted.exception()  # somebody may or may not be there to see it
            self.drop(job)
            raise
        awaited.accepted.set_result(None)

    def abandoned(self, place: Place, now: float) -> Awaited | None:
        """Return an order at `place` that nobody waits for any more."""
        waiting = self._places.get(place, ())
        return next((one for one in waiting if one.created_at > now - self._window and one.is_abandoned()), None)

    def left_alone(self) -> set[str]:
        """Return the ids of the jobs whose clients have all left."""
        return {one.job_id for waiting in self._places.values() for one in waiting if one.is_abandoned()}

    def come_back(self, job: Job, client: Client) -> None:
        """Note one more client for the result of `job`."""
        if (awaited := self._of(job)) is not None:
            awaited.clients.append(client)

    @contextmanager
    def waiting(self, job: Job) -> Iterator[None]:
        """Wait for `job` in this block: an error in it is the client's leave. The client is the one that came last."""
        awaited = self._of(job)
        client = awaited.clients[-1] if awaited is not None and awaited.clients else None
        try:
            yield
        except BaseException:
            if awaited is not None and client in awaited.clients:
                awaited.clients.remove(client)
            raise

    def drop(self, job: Job) -> None:
        """Forget a job: its result was seen."""
        place = _place(job)
        rest = [awaited for awaited in self._places.get(place, ()) if awaited.job_id != job.id]
        if rest:
            self._places[place] = rest
        else:
            self._places.pop(place, None)

    def _of(self, job: Job) -> Awaited | None:
        return next((one for one in self._places.get(_place(job), ()) if one.job_id == job.id), None)

    def _add(self, job: Job, awaited: Awaited) -> None:
        place = _place(job)
        self._places.setdefault(place, []).append(awaited)
        self._places.move_to_end(place)
        self._forget(job.created_at - self._window)

    def _forget(self, oldest: float) -> None:
        """Drop the places whose window is over; they are in the order of their newest."""
        while self._places:
            place, waiting = next(iter(self._places.items()))
            if waiting[-1].created_at > oldest:
                return
            del self._places[place]


def _place(job: Job) -> Place:
    return job.key_id, job.body_hash
