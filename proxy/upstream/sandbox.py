"""The sandbox: a stand-in upstream, offline, that makes real videos and, on request, bad days (see `bad_days`)."""

import asyncio
import json
import multiprocessing
import os
import re
import secrets
import shutil
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from proxy.domain.orders import Kind, Order
from proxy.domain.outcomes import Outcome, Phase, Signal, Trouble, UpstreamFailed
from proxy.upstream import bad_days
from proxy.upstream.driver import Access, Done, Ended, Image, Running, Verified

ID_PREFIX = "sandbox-"
ID = re.compile(ID_PREFIX + r"[0-9a-f]{32}")
URL_PREFIX = "sandbox:"
TICKS_PER_SECOND = 500_000_000  # play money, at the price of grok-imagine-video
KEPT_S = 3600  # a job's files, by the file system's clock; xAI keeps its own for a day
SWEEP_EVERY = 64  # submits
REMEMBERED_ORDERS = 1024  # of those that ask for one day after another
RENDER_TRIES = 3
CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """An accepted job as it lies on the disk: whoever reads it can go on with it."""

    prompt: str
    duration: int
    resolution: str
    aspect_ratio: str | None
    day: str  # how it ends
    seconds: float  # how long it takes
    started_at: float  # on the driver's clock


@dataclass(slots=True)
class Job:
    """A job this process works on. `film` is its rendering; None once nothing is left to render."""

    plan: Plan
    folder: Path
    film: Future[None] | None = None
    tries: int = 0


class SandboxDriver:
    """Takes every order, and `seconds` for each. Its jobs live in `workdir` and survive the process that took them.

    `clock` must go on through a restart of the process, as the monotonic clock does; where it starts anew (the machine
    has), unfinished jobs start their time anew.
    """

    name = "sandbox"
    kinds = frozenset({Kind.VIDEO})

    def __init__(self, seconds: float, workdir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._workdir = workdir
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._submits: OrderedDict[bytes, int] = OrderedDict()  # of orders that ask for one day after another
        self._until_sweep = 0
        self._renderer: ProcessPoolExecutor | None = None

    async def submit(self, order: Order, image: Image | None, access: Access) -> str:
        wish = bad_days.wish(order.prompt)
        day = bad_days.token_day(access.secret) or self._day(wish.days, order, image)
        if refused := bad_days.refusal(day):
            raise UpstreamFailed(refused)
        upstream_id = ID_PREFIX + secrets.token_hex(16)
        seconds = self._seconds if wish.seconds is None else wish.seconds
        plan = Plan(order.prompt, order.duration, order.resolution, order.aspect_ratio, day, seconds, self._clock())
        job = Job(plan, self._workdir / upstream_id)
        try:
            await asyncio.to_thread(save, job.folder, plan, image)
            await self._sweep(job.folder)
        except OSError as failure:
            raise UpstreamFailed(Signal(Phase.ANSWERED, 500, detail=f"the sandbox's folder: {failure}")) from failure
        self._begin(upstream_id, job)
        return upstream_id

    async def poll(self, upstream_id: str, access: Access) -> Running | Done | Ended:
        job = self._jobs.get(upstream_id) or await self._resume(upstream_id)
        if not job:
            return Ended(Outcome.GONE, detail="the sandbox does not know this job")
        elapsed = self._clock() - job.plan.started_at
        if elapsed < job.plan.seconds or job.plan.day == bad_days.NEVER or not self._is_rendered(job):
            return Running(min(99, int(100 * elapsed / max(job.plan.seconds, 0.01))))
        self._jobs.pop(upstream_id, None)  # the disk knows the rest
        return self._end(upstream_id, job)

    @asynccontextmanager
    async def fetch(self, done: Done, access: Access) -> AsyncIterator[AsyncIterator[bytes]]:
        upstream_id = done.url.removeprefix(URL_PREFIX)
        if upstream_id == done.url or not ID.fullmatch(upstream_id):
            raise UpstreamFailed(
                Signal(Phase.ANSWERED, trouble=Trouble.MALFORMED, detail="an address that is not the sandbox's")
            )
        try:
            file = await asyncio.to_thread(video_of(self._workdir / upstream_id).open, "rb")
        except FileNotFoundError:
            raise UpstreamFailed(bad_days.UNKNOWN_JOB) from None
        try:
            yield chunks(file)
        finally:
            file.close()

    async def verify(self, access: Access) -> Verified:
        """Find every token in order, but those whose secret asks for a refusal: they answer so here too."""
        day = bad_days.token_day(access.secret)
        refused = bad_days.refusal(day) if day and day not in bad_days.NOT_THE_TOKENS else None
        if refused:
            raise UpstreamFailed(refused)
        return Verified(team=None, blocked=False, detail="the sandbox: a stand-in, not an upstream")

    async def close(self) -> None:
        """Let the film in hand be finished, and leave the others to the next start."""
        if self._renderer:
            renderer, self._renderer = self._renderer, None
            await asyncio.to_thread(renderer.shutdown, cancel_futures=True)

    def _day(self, days: tuple[str, ...], order: Order, image: Image | None) -> str:
        """Return the day that is next for this order."""
        if len(days) == 1:
            return days[0]
        content = sha256(repr(order).encode() + (image.content if image else b"")).digest()
        count = self._submits.pop(content, 0)
        self._submits[content] = count + 1
        if len(self._submits) > REMEMBERED_ORDERS:
            self._submits.popitem(last=False)
        return days[min(count, len(days) - 1)]

    def _begin(self, upstream_id: str, job: Job) -> None:
        if job.plan.day == bad_days.OK and not video_of(job.folder).exists():
            job.film = self._render(job)
        self._jobs[upstream_id] = job

    async def _resume(self, upstream_id: str) -> Job | None:
        """Take up a job that another process began, or that was finished before."""
        if not ID.fullmatch(upstream_id):
            return None
        folder = self._workdir / upstream_id
        try:
            plan = await asyncio.to_thread(load, folder, self._clock())
        except FileNotFoundError:
            return None
        if upstream_id not in self._jobs:  # two may have asked at once
            self._begin(upstream_id, Job(plan, folder))
        return self._jobs[upstream_id]

    def _render(self, job: Job) -> Future[None]:
        job.tries += 1
        try:
            return self._start_renderer().submit(make_film, job.folder)
        except BrokenProcessPool:
            self._renderer = None
            return self._start_renderer().submit(make_film, job.folder)

    def _start_renderer(self) -> ProcessPoolExecutor:
        if not self._renderer:
            # No max_tasks_per_child: an executor may hang when it replaces a worker (cpython issue 115634).
            spawn = multiprocessing.get_context("spawn")
            self._renderer = ProcessPoolExecutor(1, mp_context=spawn, initializer=step_back)
        return self._renderer

    def _is_rendered(self, job: Job) -> bool:
        """Tell whether a job has nothing left to render; give a film whose worker died another try."""
        if job.film and job.film.done():
            failed = job.film.cancelled() or job.film.exception() is not None
            job.film = self._render(job) if failed and job.tries < RENDER_TRIES else None
        return job.film is None

    def _end(self, upstream_id: str, job: Job) -> Done | Ended:
        cost = job.plan.duration * TICKS_PER_SECOND
        if job.plan.day == bad_days.MODERATED:
            return Ended(Outcome.MODERATED, cost, bad_days.MODERATION)  # billed, as it is by xAI
        if job.plan.day == bad_days.NO_RESULT:
            return Ended(Outcome.NO_RESULT, cost, "done without a url")
        if job.plan.day == bad_days.FAILED:
            return Ended(Outcome.FAILED, detail=bad_days.OVERLOAD)
        if not video_of(job.folder).exists():
            return Ended(Outcome.FAILED, detail=f"the sandbox could not render it, {job.tries} times")
        return Done(URL_PREFIX + upstream_id, float(job.plan.duration), cost)

    async def _sweep(self, newest: Path) -> None:
        """Now and then remove the jobs that began long before the newest one."""
        self._until_sweep -= 1
        if self._until_sweep < 0:
            self._until_sweep = SWEEP_EVERY
            for upstream_id in await asyncio.to_thread(sweep, self._workdir, newest):
                self._jobs.pop(upstream_id, None)


def video_of(folder: Path) -> Path:
    return folder / "video.mp4"


def save(folder: Path, plan: Plan, image: Image | None) -> None:
    """Write a job down. The plan comes last, in one piece: a folder with a plan is complete."""
    folder.mkdir(mode=0o700, parents=True)
    if image:
        (folder / "image").write_bytes(image.content)
    part = folder / "plan.part"
    part.write_text(json.dumps(asdict(plan)))
    part.rename(folder / "plan.json")


def load(folder: Path, now: float) -> Plan:
    """Read a job. Raises FileNotFoundError where there is none."""
    kept = json.loads((folder / "plan.json").read_text())
    return Plan(**{**kept, "started_at": min(kept["started_at"], now)})


def sweep(workdir: Path, newest: Path) -> list[str]:
    """Remove the folders `KEPT_S` older than `newest`; return their names."""
    now = newest.stat().st_mtime
    jobs = [folder for folder in workdir.iterdir() if ID.fullmatch(folder.name)]
    old = [folder for folder in jobs if now - folder.stat().st_mtime > KEPT_S]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return [folder.name for folder in old]


async def chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk


def step_back() -> None:
    """Set up a worker process: it yields to the gateway, leaves Ctrl-C to it, and does not outlive it."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=follow_parent, daemon=True).start()


def follow_parent() -> None:
    """End this process with its parent: a worker that waits for work would not notice a `kill -9` of it."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def make_film(folder: Path) -> None:
    """Render the job of a folder (in a worker process)."""
    from proxy.upstream.render import render  # here, so that the codecs stay out of the gateway's own process

    plan, image = load(folder, 0.0), folder / "image"
    render(
        image.read_bytes() if image.exists() else None,
        plan.prompt,
        duration_s=plan.duration,
        resolution=plan.resolution,
        aspect_ratio=plan.aspect_ratio,
        path=video_of(folder),
    )
