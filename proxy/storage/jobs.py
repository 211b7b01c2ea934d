"""Jobs: accepted, claimed, tried, ended. Every write of a worker checks the fence of its claim.

The operations take batches, so that many jobs share one statement and one commit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Row, bindparam, case, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import Update

from proxy.domain.errors import StaleFence
from proxy.domain.jobs import Attempt, File, Job, JobState
from proxy.domain.orders import Kind, Order
from proxy.storage.schema import attempts, charges, files, idempotency, jobs, reservations


@dataclass(frozen=True, slots=True)
class Acceptance:
    """All that makes a job ours: the row, the input, the money held, the replay key."""

    job: Job
    reserved: int  # ticks
    file: File | None
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Claim:
    worker: str
    limit: int
    running: bool = False  # only those that an upstream is at work on


@dataclass(frozen=True, slots=True)
class Beginning:
    """An attempt about to be made. Committed before the submit, so that no crash can hide it."""

    attempt: Attempt
    fence: int


@dataclass(frozen=True, slots=True)
class Submission:
    """The upstream took the work under `upstream_id`."""

    job_id: str
    fence: int
    attempt_id: str
    upstream_id: str


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended."""

    attempt_id: str
    ended_at: float
    outcome: str
    blame: str
    evidence: str | None = None
    possible_cost: int | None = None  # ticks


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt ended and its job goes back to the queue."""

    job_id: str
    fence: int
    end: AttemptEnd


@dataclass(frozen=True, slots=True)
class Money:
    """What a finished work took, in ticks: from us, and from its tenant."""

    cost: int
    charge: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a job: the row, the result, the charge and the reservation, in one transaction."""

    job: Job
    state: JobState
    now: float
    error: str | None = None
    file: File | None = None
    money: Money | None = None
    end: AttemptEnd | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """The upstream is done with a job that had ended for its client before."""

    job: Job
    now: float
    end: AttemptEnd
    money: Money | None = None


class IdempotencyTaken(Exception):
    """Another process accepted a work under the same Idempotency-Key a moment ago."""


def accept(connection: Connection, batch: Sequence[Acceptance]) -> Sequence[None]:
    """Record jobs. Raises `IdempotencyTaken`."""
    connection.execute(insert(jobs), [_job_row(each.job) for each in batch])
    connection.execute(insert(reservations), [_reservation(each) for each in batch])
    _insert_files(connection, [each.file for each in batch if each.file is not None])
    replays = [_replay_row(each) for each in batch if each.idempotency_key is not None]
    if replays:
        try:
            connection.execute(insert(idempotency), replays)
        except IntegrityError:
            raise IdempotencyTaken from None
    return [None] * len(batch)


def claim(connection: Connection, batch: Sequence[Claim]) -> Sequence[list[Job]]:
    """Give each claimant the first due jobs of the queue, under a new fence."""
    return [_claim(connection, each) for each in batch]


def begin(connection: Connection, batch: Sequence[Beginning]) -> Sequence[None]:
    """Record that attempts are about to be made. Raises `StaleFence`, also where the job has ended meanwhile."""
    connection.execute(insert(attempts), [asdict(each.attempt) for each in batch])
    rows = [
        {
            "job": each.attempt.work_id,
            "held": each.fence,
            "attempt_id": each.attempt.id,
            "token_id": each.attempt.token_id,
            "proxy_id": each.attempt.proxy_id,
        }
        for each in batch
    ]
    _fenced(connection, _UNFINISHED.values(state=JobState.SENDING, upstream_id=None), rows)
    return [None] * len(batch)


def submitted(connection: Connection, batch: Sequence[Submission]) -> Sequence[None]:
    """Store the upstream's ids; a job that was cancelled meanwhile stays so. Raises `StaleFence`."""
    rows = [{"job": each.job_id, "held": each.fence, "upstream_id": each.upstream_id} for each in batch]
    state = case((jobs.c.finished_at.is_(None), JobState.RUNNING), else_=jobs.c.state)
    _fenced(connection, _FENCED.values(state=state), rows)
    ids = [{"attempt": each.attempt_id, "upstream_id": each.upstream_id} for each in batch]
    connection.execute(_ATTEMPT, ids)
    return [None] * len(batch)


def failed(connection: Connection, batch: Sequence[Failure]) -> Sequence[None]:
    """End attempts whose jobs will be tried again. Raises `StaleFence`."""
    rows = [{"job": each.job_id, "held": each.fence} for each in batch]
    _fenced(connection, _UNFINISHED.values(state=JobState.QUEUED, upstream_id=None), rows)
    _end_attempts(connection, [each.end for each in batch])
    return [None] * len(batch)


def moved(connection: Connection, batch: Sequence[tuple[str, int, str | None]]) -> Sequence[None]:
    """Note that running jobs `(id, fence, proxy_id)` are polled through another proxy. Raises `StaleFence`."""
    _fenced(connection, _FENCED, [{"job": id_, "held": fence, "proxy_id": proxy} for id_, fence, proxy in batch])
    return [None] * len(batch)


def finish(connection: Connection, batch: Sequence[Finish]) -> Sequence[None]:
    """End jobs, each once. Raises `StaleFence`."""
    rows = [
        {
            "job": each.job.id,
            "held": each.job.fence,
            "state": each.state,
            "error": each.error,
            "file_id": None if each.file is None else each.file.id,
            "finished_at": each.now,
        }
        for each in batch
    ]
    _fenced(connection, _UNFINISHED.values(worker=None), rows)
    _end_attempts(connection, [each.end for each in batch if each.end is not None])
    _insert_files(connection, [each.file for each in batch if each.file is not None])
    settled = [{"work": each.job.id, "released_at": each.now} for each in batch]
    connection.execute(update(reservations).where(reservations.c.work_id == bindparam("work")), settled)
    _charge(connection, batch)
    return [None] * len(batch)


def cancel(connection: Connection, batch: Sequence[tuple[Job, float]]) -> Sequence[None]:
    """End `(job, moment)` that no worker holds, under a new fence: whoever claimed one meanwhile can write no more.

    Raises `StaleFence` when somebody has claimed it since it was read.
    """
    rows = [{"job": job.id, "held": job.fence, "fence": job.fence + 1, "finished_at": now} for job, now in batch]
    ended = _UNFINISHED.values(state=JobState.CANCELLED, error="job_cancelled", worker=None)
    _fenced(connection, ended, rows)
    released = [{"work": job.id, "released_at": now} for job, now in batch]
    connection.execute(update(reservations).where(reservations.c.work_id == bindparam("work")), released)
    return [None] * len(batch)


def close(connection: Connection, batch: Sequence[Closing]) -> Sequence[None]:
    """End the attempts of jobs that have ended before, and note what they cost."""
    _end_attempts(connection, [each.end for each in batch])
    _charge(connection, batch)
    return [None] * len(batch)


def seen(connection: Connection, batch: Sequence[tuple[str, float]]) -> Sequence[None]:
    """Note that the clients of `(job id, moment)` were given their answers."""
    rows = [{"job": job_id, "seen_at": now} for job_id, now in batch]
    connection.execute(update(jobs).where(jobs.c.id == bindparam("job")), rows)
    return [None] * len(batch)


def take_over(connection: Connection, worker: str) -> int:
    """Free the unfinished jobs that a predecessor held, for `worker`; return how many. One machine, one process."""
    held = jobs.c.finished_at.is_(None) & jobs.c.worker.is_not(None) & (jobs.c.worker != worker)
    return connection.execute(update(jobs).where(held).values(worker=None)).rowcount


def release(connection: Connection, worker: str) -> int:
    """Give up every unfinished job of `worker`: another may claim it."""
    held = jobs.c.finished_at.is_(None) & (jobs.c.worker == worker)
    return connection.execute(update(jobs).where(held).values(worker=None)).rowcount


def find(connection: Connection, job_id: str, tenant_id: str | None = None) -> Job | None:
    """Return a job; with `tenant_id`, only if it is that tenant's."""
    query = select(jobs).where(jobs.c.id == job_id)
    if tenant_id is not None:
        query = query.where(jobs.c.tenant_id == tenant_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _job(row)


def page(
    connection: Connection, before: str | None, limit: int, state: JobState | None = None, key_id: str | None = None
) -> list[Job]:
    """Return jobs, newest first, from before the id `before`."""
    query = select(jobs).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    if before is not None:
        moment = select(jobs.c.created_at).where(jobs.c.id == before).scalar_subquery()
        query = query.where((jobs.c.created_at < moment) | ((jobs.c.created_at == moment) & (jobs.c.id < before)))
    if state is not None:
        query = query.where(jobs.c.state == state)
    if key_id is not None:
        query = query.where(jobs.c.key_id == key_id)
    return [_job(row) for row in connection.execute(query)]


def unfinished(connection: Connection) -> list[Job]:
    return [_job(row) for row in connection.execute(select(jobs).where(jobs.c.finished_at.is_(None)))]


def held_after_end(connection: Connection) -> list[Job]:
    """Return the jobs that have ended for their clients while the upstream may still be at work on them."""
    open_attempt = (attempts.c.id == jobs.c.attempt_id) & attempts.c.ended_at.is_(None)
    query = select(jobs).join(attempts, open_attempt)
    return [_job(row) for row in connection.execute(query.where(jobs.c.finished_at.is_not(None)))]


def finished_since(connection: Connection, moment: float) -> list[str]:
    return list(connection.execute(select(jobs.c.id).where(jobs.c.finished_at >= moment)).scalars())


def admitted_since(connection: Connection, moment: float) -> list[tuple[str, float]]:
    """Return `(key_id, created_at)` of the jobs accepted since `moment`, oldest first."""
    query = select(jobs.c.key_id, jobs.c.created_at).where(jobs.c.created_at > moment).order_by(jobs.c.created_at)
    return [(row.key_id, row.created_at) for row in connection.execute(query)]


def unseen_since(connection: Connection, moment: float) -> list[Job]:
    """Return the synchronous jobs accepted since `moment` whose clients never had an answer, oldest first."""
    query = select(jobs).where(jobs.c.created_at > moment, jobs.c.synchronous, jobs.c.seen_at.is_(None))
    return [_job(row) for row in connection.execute(query.order_by(jobs.c.created_at))]


def replay(connection: Connection, tenant_id: str, key: str) -> tuple[str, bytes] | None:
    """Return `(work_id, body_hash)` of what was accepted under an Idempotency-Key that is not forgotten yet."""
    query = select(idempotency.c.work_id, idempotency.c.body_hash).where(
        idempotency.c.tenant_id == tenant_id, idempotency.c.key == key
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.work_id, row.body_hash)


def forget_replays(connection: Connection, before: float) -> None:
    connection.execute(delete(idempotency).where(idempotency.c.created_at < before))


def attempts_of(connection: Connection, work_id: str) -> list[Attempt]:
    query = select(attempts).where(attempts.c.work_id == work_id).order_by(attempts.c.number)
    return [Attempt(**row._asdict()) for row in connection.execute(query)]


def oldest_queued_at(connection: Connection) -> float | None:
    """Return when the job was accepted that waits the longest for its attempt."""
    waiting = jobs.c.finished_at.is_(None) & (jobs.c.state == JobState.QUEUED)
    moment: float | None = connection.execute(select(func.min(jobs.c.created_at)).where(waiting)).scalar_one()
    return moment


def counts(connection: Connection, since: float) -> dict[str, int]:
    """Return how many jobs there are by state: all unfinished ones, and those that ended since that moment."""
    query = select(jobs.c.state).where(jobs.c.finished_at.is_(None) | (jobs.c.finished_at > since))
    tally: dict[str, int] = {}
    for state in connection.execute(query).scalars():
        tally[state] = tally.get(state, 0) + 1
    return tally


_FENCED: Update = update(jobs).where(jobs.c.id == bindparam("job"), jobs.c.fence == bindparam("held"))
_UNFINISHED: Update = _FENCED.where(jobs.c.finished_at.is_(None))
_ATTEMPT: Update = update(attempts).where(attempts.c.id == bindparam("attempt"))


def _fenced(connection: Connection, statement: Update, rows: list[dict[str, Any]]) -> None:
    """Run a worker's update for all rows, or raise `StaleFence` if one of them is not the worker's any more."""
    names = [name for name in rows[0] if name not in ("job", "held")]
    if names:
        statement = statement.values({name: bindparam(name) for name in names})
    if connection.execute(statement, rows).rowcount != len(rows):
        raise StaleFence


def _claim(connection: Connection, wanted: Claim) -> list[Job]:
    due: ColumnElement[bool] = jobs.c.finished_at.is_(None) & jobs.c.worker.is_(None)
    if wanted.running:
        due &= jobs.c.state == JobState.RUNNING
    first = (
        select(jobs.c.id)
        .where(due)
        .order_by(jobs.c.priority, jobs.c.queue_tag)
        .limit(wanted.limit)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer
    )
    taken = {"worker": wanted.worker, "fence": jobs.c.fence + 1}
    claimed = connection.execute(update(jobs).where(jobs.c.id.in_(first)).values(taken).returning(jobs))
    return sorted((_job(row) for row in claimed), key=lambda job: (job.priority, job.queue_tag))


def _end_attempts(connection: Connection, ends: Sequence[AttemptEnd]) -> None:
    if ends:
        rows = [
            {"attempt" if name == "attempt_id" else name: value for name, value in asdict(end).items()} for end in ends
        ]
        connection.execute(_ATTEMPT, rows)


def _insert_files(connection: Connection, new: Sequence[File]) -> None:
    if new:
        connection.execute(insert(files), [asdict(file) for file in new])


def _reservation(accepted: Acceptance) -> dict[str, Any]:
    job = accepted.job
    held = {"ticks": accepted.reserved, "created_at": job.created_at}
    return {"work_id": job.id, "tenant_id": job.tenant_id, "key_id": job.key_id} | held


def _replay_row(accepted: Acceptance) -> dict[str, Any]:
    job = accepted.job
    row = {"tenant_id": job.tenant_id, "key": accepted.idempotency_key, "body_hash": job.body_hash}
    return row | {"work_id": job.id, "created_at": job.created_at}


def _charge(connection: Connection, ended: Sequence[Finish | Closing]) -> None:
    rows = [
        {
            "work_id": each.job.id,
            "tenant_id": each.job.tenant_id,
            "key_id": each.job.key_id,
            "cost": each.money.cost,
            "charge": each.money.charge,
            "charged_at": each.now,
        }
        for each in ended
        if each.money is not None
    ]
    if rows:
        connection.execute(insert(charges), rows)


def _job_row(job: Job) -> dict[str, Any]:
    row = {name: getattr(job, name) for name in _PLAIN}
    return row | {"state": job.state, "order": orjson.dumps(job.order).decode()}


def _job(row: Row[Any]) -> Job:
    values = row._asdict()
    order = orjson.loads(values["order"])
    order["kind"] = Kind(order["kind"])
    return Job(**{name: values[name] for name in _PLAIN}, state=JobState(values["state"]), order=Order(**order))


_PLAIN = tuple(column.name for column in jobs.c if column.name not in ("state", "order"))
