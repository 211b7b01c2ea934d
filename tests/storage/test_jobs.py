"""The life of a job in its rows: each write in one transaction, under the fence of its claim, its end once."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, Table, select

from proxy.domain.errors import StaleFence
from proxy.domain.jobs import JobState
from proxy.domain.outcomes import Outcome
from proxy.storage import files, jobs
from proxy.storage.database import Database
from proxy.storage.schema import charges, reservations
from proxy.storage.writer import each
from tests.storage.work import (
    ORDER,
    accept,
    attempt_end,
    attempts,
    beginning,
    cancellation,
    claim,
    completion,
    found,
    make_job,
    put_key,
    submission,
    submitted,
)


@pytest.fixture(autouse=True)
async def key(database: Database) -> None:
    await put_key(database)


async def rows(database: Database, table: Table) -> list[dict[str, object]]:
    def all_of(connection: Connection) -> list[dict[str, object]]:
        return [row._asdict() for row in connection.execute(select(table))]

    return await database.read(all_of)


async def test_an_accepted_job_is_found_as_it_was_given(database: Database) -> None:
    job = make_job(order=ORDER, synchronous=True)
    await accept(database, job)
    assert await database.read(jobs.find, job.id) == job
    assert await database.read(jobs.find, job.id, "default") == job
    assert await database.read(jobs.find, job.id, "somebody else") is None
    assert await database.read(files.find, job.input_file_id or "") is not None
    (held,) = await rows(database, reservations)
    assert (held["work_id"], held["ticks"], held["released_at"]) == (job.id, 500, None)


async def test_nothing_of_a_job_stays_when_its_idempotency_key_is_taken(database: Database) -> None:
    await accept(database, make_job("video-1"), idempotency_key="once")
    with pytest.raises(jobs.IdempotencyTaken):
        await accept(database, make_job("video-2"), idempotency_key="once")
    assert await database.read(jobs.find, "video-2") is None
    assert len(await rows(database, reservations)) == 1
    assert await database.read(jobs.replay, "default", "once") == ("video-1", b"h" * 32)
    assert await database.read(jobs.replay, "somebody else", "once") is None


async def test_replay_keys_are_forgotten_by_age(database: Database) -> None:
    await accept(database, make_job("video-1", created_at=10.0), idempotency_key="old")
    await accept(database, make_job("video-2", created_at=20.0), idempotency_key="new")
    await database.write(each(jobs.forget_replays), 15.0)
    assert await database.read(jobs.replay, "default", "old") is None
    assert await database.read(jobs.replay, "default", "new") is not None


async def test_claims_follow_the_priority_and_then_the_queue(database: Database) -> None:
    await accept(
        database,
        make_job("video-c", queue_tag=3.0),
        make_job("video-a", queue_tag=1.0),
        make_job("video-b", queue_tag=2.0),
        make_job("video-urgent", queue_tag=9.0, priority=-1),
    )
    first, rest = await claim(database, limit=2), await claim(database)
    assert [job.id for job in first] == ["video-urgent", "video-a"]
    assert [job.id for job in rest] == ["video-b", "video-c"]
    assert await claim(database) == []


async def test_a_job_is_claimed_by_one_of_those_who_claim_at_once(database: Database) -> None:
    await accept(database, *(make_job(f"video-{number:02}") for number in range(40)))
    claims = await asyncio.gather(*(claim(database, f"wrk_{number}", 7) for number in range(8)))
    claimed = [job.id for jobs_of_one in claims for job in jobs_of_one]
    assert sorted(claimed) == [f"video-{number:02}" for number in range(40)]


async def test_every_claim_raises_the_fence(database: Database) -> None:
    await accept(database, make_job())
    (first,) = await claim(database, "wrk_1")
    assert await database.write(each(jobs.take_over), "wrk_2") == 1
    (second,) = await claim(database, "wrk_2")
    assert (first.fence, second.fence, second.worker) == (1, 2, "wrk_2")


async def test_a_worker_takes_nothing_over_from_itself(database: Database) -> None:
    await accept(database, make_job())
    await claim(database, "wrk_1")
    assert await database.write(each(jobs.take_over), "wrk_1") == 0
    assert await database.write(each(jobs.release), "wrk_2") == 0
    assert await database.write(each(jobs.release), "wrk_1") == 1
    assert len(await claim(database, "wrk_2")) == 1


async def test_running_jobs_can_be_claimed_before_those_that_only_wait(database: Database) -> None:
    await submitted(database, make_job("video-running", queue_tag=5.0))
    await accept(database, make_job("video-waiting", queue_tag=1.0))
    await database.write(each(jobs.take_over), "wrk_2")
    assert [job.id for job in await claim(database, "wrk_2", running=True)] == ["video-running"]
    assert [job.id for job in await claim(database, "wrk_2")] == ["video-waiting"]


async def test_a_job_goes_from_the_queue_to_its_end(database: Database) -> None:
    await accept(database, make_job())
    (job,) = await claim(database)
    await database.write(jobs.begin, beginning(job))
    sending = await found(database, job)
    assert (sending.state, sending.attempt_id, sending.upstream_id) == (JobState.SENDING, "try_video-1_1", None)
    assert (sending.token_id, sending.proxy_id) == ("tok_1", "prx_1")
    await database.write(jobs.submitted, submission(job))
    running = await found(database, job)
    assert (running.state, running.upstream_id) == (JobState.RUNNING, "upstream-video-1")
    await database.write(jobs.moved, (job.id, job.fence, "prx_2"))
    assert (await found(database, job)).proxy_id == "prx_2"
    await database.write(jobs.finish, completion(job))
    ended = await found(database, job)
    assert (ended.state, ended.file_id, ended.finished_at) == (JobState.COMPLETED, "file_out_video-1", 300.0)
    assert (ended.error, ended.worker) == (None, None)
    (attempt,) = await attempts(database, job)
    assert (attempt.upstream_id, attempt.outcome, attempt.ended_at) == ("upstream-video-1", "ok", 300.0)
    (held,), (charge,) = await rows(database, reservations), await rows(database, charges)
    assert held["released_at"] == 300.0
    assert (charge["work_id"], charge["cost"], charge["charge"]) == (job.id, 30, 60)


async def test_a_failed_attempt_sends_its_job_back_to_the_queue(database: Database) -> None:
    await accept(database, make_job())
    (job,) = await claim(database)
    await database.write(jobs.begin, beginning(job))
    end = attempt_end(job, outcome=Outcome.THROTTLED)
    await database.write(jobs.failed, jobs.Failure(job.id, job.fence, end))
    assert (await found(database, job)).state is JobState.QUEUED
    await database.write(jobs.begin, beginning(job, 2))
    assert [attempt.outcome for attempt in await attempts(database, job)] == ["throttled", None]


async def test_a_worker_that_lost_its_claim_can_write_nothing(database: Database) -> None:
    (old,) = await submitted(database, make_job())
    await database.write(each(jobs.take_over), "wrk_2")
    (new,) = await claim(database, "wrk_2")
    before = await found(database, new)
    for write in (
        database.write(jobs.begin, beginning(old, 2)),
        database.write(jobs.submitted, submission(old)),
        database.write(jobs.failed, jobs.Failure(old.id, old.fence, attempt_end(old, outcome=Outcome.BROKEN))),
        database.write(jobs.moved, (old.id, old.fence, "prx_9")),
        database.write(jobs.finish, completion(old)),
    ):
        with pytest.raises(StaleFence):
            await write
    assert await found(database, new) == before
    assert [attempt.number for attempt in await attempts(database, new)] == [1]
    assert await rows(database, charges) == []
    assert await database.read(files.find, f"file_out_{old.id}") is None
    await database.write(jobs.finish, completion(new))


async def test_a_stale_worker_in_a_group_fails_nobody_else(database: Database) -> None:
    claimed = await submitted(database, *(make_job(f"video-{number}") for number in range(8)))
    stale = claimed[3]
    await database.write(jobs.cancel, (stale, 200.0))
    groups: list[int] = []

    def finish(connection: Connection, batch: Sequence[jobs.Finish]) -> Sequence[None]:
        groups.append(len(batch))
        return jobs.finish(connection, batch)

    ends = await asyncio.gather(*(database.write(finish, completion(job)) for job in claimed), return_exceptions=True)
    assert max(groups) > 1, "they were to share a transaction"
    assert [type(end) for end in ends] == [StaleFence if job is stale else type(None) for job in claimed]
    states = {job.id: (await found(database, job)).state for job in claimed}
    assert states.pop(stale.id) is JobState.CANCELLED
    assert set(states.values()) == {JobState.COMPLETED}
    assert len(await rows(database, charges)) == 7


async def test_a_job_ends_once(database: Database) -> None:
    (job,) = await submitted(database, make_job())
    ends = await asyncio.gather(
        database.write(jobs.finish, completion(job)),
        database.write(jobs.finish, cancellation(job)),
        return_exceptions=True,
    )
    assert [type(end) for end in ends] == [type(None), StaleFence]
    assert (await found(database, job)).state is JobState.COMPLETED
    assert len(await rows(database, charges)) == 1


async def test_no_attempt_begins_on_a_job_that_has_ended(database: Database) -> None:
    await accept(database, make_job())
    (job,) = await claim(database)
    await database.write(jobs.finish, cancellation(job))
    with pytest.raises(StaleFence):
        await database.write(jobs.begin, beginning(job))
    assert await attempts(database, job) == []
    assert (await found(database, job)).state is JobState.CANCELLED


async def test_a_job_cancelled_during_its_submit_stays_so_and_keeps_the_upstreams_id(database: Database) -> None:
    await accept(database, make_job())
    (job,) = await claim(database)
    await database.write(jobs.begin, beginning(job))
    await database.write(jobs.finish, cancellation(job))
    await database.write(jobs.submitted, submission(job))
    ended = await found(database, job)
    assert (ended.state, ended.error, ended.upstream_id) == (JobState.CANCELLED, "job_cancelled", "upstream-video-1")
    assert [held.id for held in await database.read(jobs.held_after_end)] == [job.id]
    end = jobs.Closing(job, 400.0, attempt_end(job), jobs.Money(30, 0))
    await database.write(jobs.close, end)
    assert await database.read(jobs.held_after_end) == []
    (charge,) = await rows(database, charges)
    assert (charge["cost"], charge["charge"]) == (30, 0)
    assert (await found(database, job)).state is JobState.CANCELLED


async def test_a_failed_attempt_of_a_cancelled_job_does_not_queue_it_again(database: Database) -> None:
    await accept(database, make_job())
    (job,) = await claim(database)
    await database.write(jobs.begin, beginning(job))
    await database.write(jobs.finish, cancellation(job))
    failure = jobs.Failure(job.id, job.fence, attempt_end(job, outcome=Outcome.THROTTLED))
    with pytest.raises(StaleFence):
        await database.write(jobs.failed, failure)
    assert await claim(database, "wrk_2") == []


async def test_a_job_that_nobody_holds_is_cancelled_under_a_new_fence(database: Database) -> None:
    await accept(database, make_job("video-1"), make_job("video-2", queue_tag=1.0))
    (claimed,) = await claim(database, limit=1)
    await database.write(jobs.cancel, (claimed, 200.0))
    with pytest.raises(StaleFence):
        await database.write(jobs.begin, beginning(claimed))
    with pytest.raises(StaleFence):
        await database.write(jobs.cancel, (await found(database, claimed), 201.0))
    read_before_a_claim = await found(database, make_job("video-2"))
    (taken,) = await claim(database, "wrk_2")
    with pytest.raises(StaleFence):
        await database.write(jobs.cancel, (read_before_a_claim, 202.0))
    await database.write(jobs.begin, beginning(taken))
    released = {row["work_id"]: row["released_at"] for row in await rows(database, reservations)}
    assert released == {"video-1": 200.0, "video-2": None}


async def test_what_a_restart_needs_is_in_the_rows(database: Database) -> None:
    await accept(
        database,
        make_job("video-old", created_at=10.0, synchronous=True),
        make_job("video-seen", created_at=50.0, synchronous=True),
        make_job("video-async", created_at=60.0),
        make_job("video-2", created_at=80.0, synchronous=True),
        make_job("video-1", created_at=70.0, synchronous=True),
    )
    (old, *_) = await claim(database)
    await database.write(jobs.finish, completion(old))
    await database.write(jobs.seen, ("video-seen", 90.0))
    assert [job.id for job in await database.read(jobs.unseen_since, 20.0)] == ["video-1", "video-2"]
    assert {job.id for job in await database.read(jobs.unfinished)} == {
        "video-seen",
        "video-async",
        "video-1",
        "video-2",
    }
    assert await database.read(jobs.admitted_since, 60.0) == [("key_1", 70.0), ("key_1", 80.0)]
    assert await database.read(jobs.finished_since, 300.0) == ["video-old"]
    assert await database.read(jobs.oldest_queued_at) == 50.0
    assert await database.read(jobs.counts, 0.0) == {"queued": 4, "completed": 1}


async def test_jobs_are_paged_newest_first(database: Database) -> None:
    await accept(database, *(make_job(f"video-{number}", created_at=float(number // 2)) for number in range(6)))
    first = await database.read(jobs.page, None, 4)
    rest = await database.read(jobs.page, first[-1].id, 4)
    assert [job.id for job in first + rest] == [f"video-{number}" for number in (5, 4, 3, 2, 1, 0)]
    assert await database.read(jobs.page, None, 9, JobState.FAILED) == []
    assert len(await database.read(jobs.page, None, 9, JobState.QUEUED, "key_1")) == 6
    assert await database.read(jobs.page, None, 9, None, "key_2") == []
