"""Durable jobs on SQLite, `synchronous=FULL`: accepted, begun, submitted and finished, 64 at a time.

The baseline does the same statements on the same schema with one commit for each change, through SQLAlchemy asyncio.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

from benchmarks.machine import Cores, middle, percentile, pinned
from benchmarks.report import Cell, Report, Table, at_least, at_most
from proxy.domain.ids import make_id
from proxy.domain.jobs import Attempt, File, Job, JobState
from proxy.domain.keys import Key, KeyLimits, KeySecret
from proxy.domain.orders import Kind, Order
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.storage import jobs, keys, migrate
from proxy.storage.changes import Act
from proxy.storage.database import Database, begin_immediate
from proxy.storage.writer import Operation, each

CONCURRENT = 64
ROUNDS = 3
SECONDS = 4.0  # of one round
KEY = "key_1"
ORDER = Order(Kind.VIDEO, "grok-imagine-video", "grok-imagine-video", "a cat waves", 6, "480p")
PRAGMAS = ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")

Write = Callable[[Operation[Any, Any], Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Round:
    jobs_per_second: float
    waits: list[float]  # seconds until a change was acknowledged


async def run(cores: Cores, *, quick: bool) -> Report:
    report = Report("durable", f"Jobs of four durable changes each, {CONCURRENT} at a time, on SQLite FULL.")
    ours: list[Round] = []
    theirs: list[Round] = []
    with pinned(cores.subject):
        for _ in range(1 if quick else ROUNDS):
            theirs.append(await _round(_commit_each, quick))
            ours.append(await _round(_grouped, quick))
    ratios = [our.jobs_per_second / their.jobs_per_second for our, their in zip(ours, theirs, strict=True)]
    rows: list[tuple[Cell, ...]] = [
        ("one writer, group commit", *_row(ours)),
        ("baseline: a commit per change", *_row(theirs)),
    ]
    head = ("writer", "jobs/s", "acknowledged p50 ms", "p99 ms")
    report.tables.append(Table("Accepted, begun, submitted, finished", head, rows))
    report.notes.append(f"The gateway's writer does {middle(ratios):.1f} times the jobs of the baseline (median).")
    rate, p99 = middle([each.jobs_per_second for each in ours]), middle([_ms(each, 0.99) for each in ours])
    report.goals.append(at_least("jobs accepted and finished a second", rate, 5000))
    report.goals.append(at_most("acknowledged, p99", p99, 10, " ms"))
    return report


def _row(rounds: list[Round]) -> tuple[float, float, float]:
    rate = middle([each.jobs_per_second for each in rounds])
    return rate, middle([_ms(each, 0.5) for each in rounds]), middle([_ms(each, 0.99) for each in rounds])


def _ms(measured: Round, share: float) -> float:
    return 1000 * percentile(measured.waits, share)


async def _round(opened: Callable[[Path], AbstractAsyncContextManager[Write]], quick: bool) -> Round:
    """See jobs through on a fresh database for some seconds."""
    with tempfile.TemporaryDirectory(prefix="grokpool-bench-") as folder:
        path = Path(folder) / "grokpool.db"
        migrate.upgrade(path, Path(folder), 0.0)
        async with opened(path) as write:
            await _prepare(write)
            return await _work(write, SECONDS / 4 if quick else SECONDS)


async def _work(write: Write, seconds: float) -> Round:
    waits: list[float] = []
    numbers = itertools.count()
    began = time.perf_counter()
    end = began + seconds
    done = await asyncio.gather(*(_one_after_another(write, numbers, waits, end) for _ in range(CONCURRENT)))
    return Round(sum(done) / (time.perf_counter() - began), waits)


async def _one_after_another(write: Write, numbers: Iterator[int], waits: list[float], end: float) -> int:
    done = 0
    while time.perf_counter() < end:
        for operation, argument in _changes(next(numbers)):
            asked = time.perf_counter()
            await write(operation, argument)
            waits.append(time.perf_counter() - asked)
        done += 1
    return done


def _changes(number: int) -> Sequence[tuple[Operation[Any, Any], Any]]:
    """Return what is written of one job from its acceptance to its end."""
    now = float(number)
    entropy = number.to_bytes(16)
    job = Job(make_id("video-", now, entropy), "document", DEFAULT, KEY, JobState.QUEUED, ORDER, bytes(32), now, now)
    attempt = Attempt(make_id("try_", now, entropy), job.id, 1, "tok_1", None, now, "idle longest")
    picture = File(make_id("file_", now, entropy), DEFAULT, job.id, "image/jpeg", 1, bytes(32), now, now)
    video = replace(picture, id=picture.id + "v", media_type="video/mp4")
    end = jobs.AttemptEnd(attempt.id, now, "ok", "nobody")
    running = replace(job, attempt_id=attempt.id)
    return (
        (jobs.accept, jobs.Acceptance(replace(job, input_file_id=picture.id), 3_000_000_000, picture, None)),
        (jobs.begin, jobs.Beginning(attempt, job.fence)),
        (jobs.submitted, jobs.Submission(job.id, job.fence, attempt.id, f"upstream-{number}")),
        (jobs.finish, jobs.Finish(running, JobState.COMPLETED, now, None, video, jobs.Money(3, 3), end)),
    )


async def _prepare(write: Write) -> None:
    """Make what jobs refer to."""
    await write(each(keys.ensure_tenant), (Tenant(DEFAULT, "Default"), 0.0))
    key = Key(KEY, DEFAULT, "benchmark", KeyLimits(), 0.0)
    act = Act(0.0, "benchmark", "key.create", KEY, {})
    await write(each(keys.create), keys.NewKey(key, KeySecret(bytes(32), KEY, "gp1", "gp_", 0.0), act))


@asynccontextmanager
async def _grouped(path: Path) -> AsyncIterator[Write]:
    """The gateway's own database."""
    database = Database(path)
    await database.open()
    try:
        yield database.write
    finally:
        await database.close()


@asynccontextmanager
async def _commit_each(path: Path) -> AsyncIterator[Write]:
    """The baseline. One connection serves it best: SQLite has one writer, and a second would only wait for locks."""
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}", poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0, pool_timeout=60
    )
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "begin", begin_immediate)

    async def write(operation: Operation[Any, Any], argument: Any) -> Any:
        async with engine.begin() as connection:
            return await connection.run_sync(operation, [argument])

    try:
        yield write
    finally:
        await engine.dispose()


def _set_pragmas(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.isolation_level = None
