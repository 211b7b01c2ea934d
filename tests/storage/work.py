"""Jobs for tests of the storage floor: made, accepted, claimed, tried."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from proxy.domain.jobs import Attempt, File, Job, JobState
from proxy.domain.keys import Key, KeyLimits, KeySecret
from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Blame, Outcome
from proxy.domain.tenants import DEFAULT
from proxy.storage import jobs, keys
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each

KEY = "key_1"
ORDER = Order(Kind.VIDEO, "grok-imagine-0.9", "grok-imagine-video", "a wave", 6, "480p", "16:9")


async def put_key(database: Database, key_id: str = KEY) -> None:
    key = Key(key_id, DEFAULT, "test", KeyLimits(), 0.0)
    secret = KeySecret(key_id.encode().ljust(32), key_id, "gp1", "gp_", 0.0)
    await database.write(each(keys.create), keys.NewKey(key, secret, Act(0.0, "test", "key.create", key_id, {})))


def make_job(job_id: str = "video-1", **values: Any) -> Job:
    job = Job(
        id=job_id,
        dialect="document",
        tenant_id=DEFAULT,
        key_id=KEY,
        state=JobState.QUEUED,
        order=ORDER,
        body_hash=b"h" * 32,
        created_at=100.0,
        deadline=1000.0,
        input_file_id=f"file_in_{job_id}",
    )
    return replace(job, **values)


def make_file(file_id: str, work_id: str) -> File:
    return File(file_id, DEFAULT, work_id, "video/mp4", 3, b"s" * 32, 100.0, 1000.0)


async def accept(database: Database, *accepted: Job, idempotency_key: str | None = None) -> None:
    for job in accepted:
        file = make_file(job.input_file_id or "", job.id)
        await database.write(jobs.accept, jobs.Acceptance(job, 500, file, idempotency_key))


async def claim(database: Database, worker: str = "wrk_1", limit: int = 100, *, running: bool = False) -> list[Job]:
    claimed: list[Job] = await database.write(jobs.claim, jobs.Claim(worker, limit, running))
    return claimed


def beginning(job: Job, number: int = 1) -> jobs.Beginning:
    attempt = Attempt(f"try_{job.id}_{number}", job.id, number, "tok_1", "prx_1", 200.0, "idle longest")
    return jobs.Beginning(attempt, job.fence)


def submission(job: Job, number: int = 1) -> jobs.Submission:
    return jobs.Submission(job.id, job.fence, f"try_{job.id}_{number}", f"upstream-{job.id}")


def attempt_end(job: Job, number: int = 1, outcome: Outcome = Outcome.OK) -> jobs.AttemptEnd:
    return jobs.AttemptEnd(f"try_{job.id}_{number}", 300.0, outcome, Blame.NOBODY)


def completion(job: Job, number: int = 1) -> jobs.Finish:
    file = make_file(f"file_out_{job.id}", job.id)
    return jobs.Finish(job, JobState.COMPLETED, 300.0, None, file, jobs.Money(30, 60), attempt_end(job, number))


def cancellation(job: Job) -> jobs.Finish:
    return jobs.Finish(job, JobState.CANCELLED, 250.0, "job_cancelled")


async def submitted(database: Database, *accepted: Job) -> list[Job]:
    """Accept jobs and bring each to where the upstream works on it; return them as claimed."""
    await accept(database, *accepted)
    claimed = await claim(database)
    for job in claimed:
        await database.write(jobs.begin, beginning(job))
        await database.write(jobs.submitted, submission(job))
    return claimed


async def found(database: Database, job: Job) -> Job:
    row = await database.read(jobs.find, job.id)
    assert row is not None
    return row


async def attempts(database: Database, job: Job) -> Sequence[Attempt]:
    return await database.read(jobs.attempts_of, job.id)
