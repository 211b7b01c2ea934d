"""Generations in flight: clients that wait, a gateway that polls, an upstream that takes 45 seconds over each.

Clients come evenly, so that the wanted number is in flight; from then on a window of time is measured. The baseline
makes videos as one writes it first (`baselines.poller`): nothing durable, a look every two seconds.
"""

import asyncio
import itertools
import math
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.load import Crowd, picture
from benchmarks.machine import Cores, percentile, pinned
from benchmarks.programs import Program, gateway, program
from benchmarks.report import Cell, Report, Table, at_most
from benchmarks.standins import SPREAD, Flight, Xai

LENGTH = 45.0  # seconds of a job, on average
WINDOW = 20.0  # seconds that are measured
AFTER = 6.0  # seconds for the answers to what ended in the window
QUICK = 6.0  # takes the place of all three in a quick run
WARM_UP = range(1_000_000, 1_000_030)  # jobs of a moment, so that what is used once is not counted as memory of jobs
HEAVY = 256 * 1024  # bytes of an input picture


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    in_flight: int
    large_every: int  # one result in so many has 5 MB
    weight: int = 0  # bytes of the input picture
    way: str = "direct"  # or "socks", or "baseline"


CASES = (
    Case("baseline: a look every 2 s", 1_000, 5, HEAVY, "baseline"),
    Case("gateway, direct", 1_000, 5, HEAVY),
    Case("gateway, SOCKS5", 1_000, 5, HEAVY, "socks"),
    Case("gateway, direct", 10_000, 50),
)


@dataclass(frozen=True, slots=True)
class Times:
    length: float
    window: float
    after: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The system under test at one moment."""

    at: float
    cpu: float
    memory: int
    load_cpu: float

    @staticmethod
    def of(subject: Program) -> "Snapshot":
        return Snapshot(time.monotonic(), subject.cpu(), subject.memory(), time.process_time())


@dataclass(frozen=True, slots=True)
class Found:
    case: Case
    in_flight: int
    ended: int
    lost: int  # refused, failed, or not answered in the time after the window
    core: float  # share of one core
    cpu_ms: float  # a job
    memory_kb: float  # a job
    polls: float  # a job
    seen: list[float]  # seconds from the upstream's end to the look that saw it
    answered: list[float]  # seconds from the upstream's end to the client's answer
    large: list[float]  # the same, of results of 5 MB alone
    lateness: list[float]  # seconds, of the event loop
    load_core: float  # share of the other core that the load itself took


async def run(cores: Cores, *, quick: bool) -> Report:
    times = Times(QUICK, QUICK, QUICK) if quick else Times(LENGTH, WINDOW, AFTER)
    report = Report("inflight", f"Synchronous clients; {times.length:.0f} s a job, give or take a third.")
    found = []
    for case in CASES:
        if case.way == "socks" and shutil.which("microsocks") is None:
            report.notes.append("microsocks is not on this machine: not measured through SOCKS.")
            continue
        with pinned(cores.outside):
            found.append(await _measure(_scaled(case, quick), times, cores))
    report.tables.append(_costs(found))
    report.tables.append(_delays(found))
    _set_goals(report, found[-1])
    return report


def _scaled(case: Case, quick: bool) -> Case:
    """Return the case with an arrival rate that a quick run's short jobs leave as it is."""
    return replace(case, in_flight=round(case.in_flight * QUICK / LENGTH)) if quick else case


async def _measure(case: Case, times: Times, cores: Cores) -> Found:
    with tempfile.TemporaryDirectory(prefix="grokpool-bench-") as name:
        async with (
            Xai(times.length, case.large_every).open() as xai,
            _subject(case, Path(name), xai, cores) as (
                subject,
                key,
            ),
        ):
            crowd = Crowd(subject.url, key, picture(case.weight))
            await _warm_up(crowd, xai)
            empty = subject.memory()
            return await _watch(case, times, (subject, crowd, xai), empty)


@asynccontextmanager
async def _subject(case: Case, folder: Path, xai: Xai, cores: Cores) -> AsyncIterator[tuple[Program, str]]:
    """Start what the case measures; give it with a client's key."""
    core = cores.subject
    if case.way == "baseline":
        options = ("poller", xai.base_url, str(folder))
        async with program("benchmarks.baselines", *options, core=core, log=folder / "log") as running:
            yield running, "none"
    elif case.way == "socks":
        async with _socks() as proxy, gateway(folder, xai.base_url, core=core, proxy=proxy) as ours:
            yield ours.program, ours.key
    else:
        async with gateway(folder, xai.base_url, core=core) as ours:
            yield ours.program, ours.key


@asynccontextmanager
async def _socks() -> AsyncIterator[str]:
    """Run microsocks beside the load; give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    quiet = asyncio.subprocess.DEVNULL
    options = ("-i", "127.0.0.1", "-p", str(port))
    process = await asyncio.create_subprocess_exec("microsocks", *options, stdout=quiet, stderr=quiet)
    try:
        async with asyncio.timeout(10):
            await _listening(port)
        yield f"socks5://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def _listening(port: int) -> None:
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        await asyncio.sleep(0.02)


async def _warm_up(crowd: Crowd, xai: Xai) -> None:
    xai.hurried = True
    await asyncio.gather(*map(crowd.ask, WARM_UP))
    done, late = await asyncio.wait([crowd.waiters[number].ended for number in WARM_UP], timeout=30)
    if late or not all(crowd.waiters[number].has_video for number in WARM_UP):
        raise RuntimeError(f"{len(done)} of {len(WARM_UP)} first videos came, and not all of them well")
    xai.hurried = False


async def _watch(case: Case, times: Times, parts: tuple[Program, Crowd, Xai], empty: int) -> Found:
    """Let the clients come, measure the window, and wait for the answers to what ended in it."""
    subject, crowd, xai = parts
    coming = asyncio.ensure_future(crowd.come(case.in_flight / times.length, itertools.count()))
    await asyncio.sleep(times.length * (1 + SPREAD))
    began = Snapshot.of(subject)
    await asyncio.sleep(times.window)
    ended = Snapshot.of(subject)
    waiting = sum(waiter.answered_at is None for waiter in crowd.waiters.values())
    await asyncio.sleep(times.after)
    coming.cancel()
    with suppress(asyncio.CancelledError):
        await coming
    lateness = [late for at, late in (await subject.ask())["lateness"] if began.at <= at <= ended.at]
    flights = [flight for flight in xai.flights.values() if began.at <= flight.ends_at < ended.at]
    return _found(case, crowd, flights, (began, ended), Rest(waiting, empty, lateness))


@dataclass(frozen=True, slots=True)
class Rest:
    in_flight: int
    empty: int  # bytes of memory before the first job
    lateness: list[float]


def _found(case: Case, crowd: Crowd, flights: list[Flight], window: tuple[Snapshot, Snapshot], rest: Rest) -> Found:
    began, ended = window
    seconds, jobs = ended.at - began.at, max(1, len(flights))
    delays = {flight.number: _delay(crowd, flight) for flight in flights}
    lost = sum(math.isinf(delay) for delay in delays.values()) + len(crowd.refused)
    return Found(
        case=case,
        in_flight=rest.in_flight,
        ended=len(flights),
        lost=lost,
        core=(ended.cpu - began.cpu) / seconds,
        cpu_ms=1000 * (ended.cpu - began.cpu) / jobs,
        memory_kb=(ended.memory - rest.empty) / 1000 / max(1, rest.in_flight),
        polls=sum(flight.polls for flight in flights) / jobs,
        seen=[(flight.told_at or math.inf) - flight.ends_at for flight in flights],
        answered=list(delays.values()),
        large=[delay for number, delay in delays.items() if number % case.large_every == 0],
        lateness=rest.lateness,
        load_core=(ended.load_cpu - began.load_cpu) / seconds,
    )


def _delay(crowd: Crowd, flight: Flight) -> float:
    """Return the seconds from the upstream's end to the client's answer; infinity where there is none, or no video."""
    waiter = crowd.waiters.get(flight.number)
    if waiter is None or waiter.answered_at is None or not waiter.has_video:
        return math.inf
    return waiter.answered_at - flight.ends_at


def _costs(found: list[Found]) -> Table:
    head = ("case", "in flight", "ended", "lost", "core", "CPU ms/job", "kB/job", "polls/job", "late ms", "load")
    rows: list[tuple[Cell, ...]] = [
        (
            each.case.name,
            f"{each.in_flight:,}",
            f"{each.ended:,}",
            str(each.lost),
            each.core,
            each.cpu_ms,
            each.memory_kb,
            each.polls,
            1000 * percentile(each.lateness, 0.99),
            each.load_core,
        )
        for each in found
    ]
    return Table("What it costs", head, rows)


def _delays(found: list[Found]) -> Table:
    head = ("case", "in flight", "seen p50", "seen p99", "answered p50", "answered p99", "5 MB: p50", "5 MB: p99")
    rows: list[tuple[Cell, ...]] = []
    for each in found:
        lists = (each.seen, each.answered, each.large)
        figures = [percentile(values, share) for values in lists for share in (0.5, 0.99)]
        rows.append((each.case.name, f"{each.in_flight:,}", *figures))
    return Table("Seconds from the upstream's end", head, rows)


def _set_goals(report: Report, found: Found) -> None:
    report.goals += [
        at_most(f"{found.in_flight:,} in flight: share of a core", found.core, 0.9),
        at_most("memory of each", found.memory_kb, 20, " kB"),
        at_most("to the answer, p50", percentile(found.answered, 0.5), 0.3, " s"),
        at_most("to the answer, p99", percentile(found.answered, 0.99), 0.75, " s"),
    ]
