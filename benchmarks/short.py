"""Short requests: CPU and latency of the gateway's own paths, against a bare aiohttp reverse proxy.

The gateway runs without its worker: what becomes of an accepted job is `inflight`'s matter.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson
from aiohttp import ClientSession

from benchmarks.load import ask_for, order, picture, request
from benchmarks.machine import Cores, middle, percentile, pinned
from benchmarks.programs import Gateway, Program, gateway, program
from benchmarks.report import Cell, Report, Table, at_least
from benchmarks.standins import constant, serving

CONNECTIONS = 32
ROUNDS = 3
SECONDS = 2.5  # of one measurement
WARM_UP = 0.5  # seconds
VIDEOS = "/v1/videos/generations"
TARGET = 0.7  # of the bare reverse proxy


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    program: Program
    question: bytes
    expected: bytes  # status
    against: str | None = None  # the baseline's case


@dataclass(frozen=True, slots=True)
class Sample:
    cpu_us: float  # a request
    a_second: float
    p50_ms: float
    p99_ms: float


async def run(cores: Cores, *, quick: bool) -> Report:
    about = f"{CONNECTIONS} connections; the gateway on one core, the load and the upstream on the other."
    report = Report("short", about)
    async with AsyncExitStack() as opened:
        cases = await _cases(opened, cores)
        with pinned(cores.outside):
            found = await _measure(cases, quick)
    report.tables.append(_table(cases, found))
    for case in cases:
        if case.name.startswith("gateway: GET") or case.expected in (b"400", b"429"):
            ratio = _ratio(found, case, lambda sample: 1 / sample.cpu_us)
            report.goals.append(at_least(f"{case.name}, of the reverse proxy (by CPU)", ratio, TARGET, "×"))
    report.notes.append("The refused and the status calls ask no upstream; the reverse proxy always does.")
    return report


async def _cases(opened: AsyncExitStack, cores: Cores) -> list[Case]:
    folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="grokpool-bench-")))
    upstream = f"http://127.0.0.1:{await opened.enter_async_context(serving(constant()))}"
    log, core = folder / "baselines.log", cores.subject
    module = "benchmarks.baselines"
    bare = program(module, "reverse", upstream, str(folder), core=core, log=log)
    ceiling = program(module, "constant", upstream, str(folder), core=core, log=log)
    reverse, constant_ = await opened.enter_async_context(bare), await opened.enter_async_context(ceiling)
    ours = await opened.enter_async_context(gateway(folder, upstream, core=core, works=False))
    get, post = "reverse proxy: GET", "reverse proxy: POST"
    body = order("a cat waves", picture())
    return [
        Case(get, reverse, request("GET", f"{reverse.url}/v1/videos/x", ours.key), b"200"),
        Case("aiohttp, constant JSON: GET", constant_, request("GET", constant_.url + "/v1", ours.key), b"200", get),
        Case("gateway: GET a job", ours.program, await _look(ours, body), b"200", get),
        Case(post, reverse, _post(reverse, ours.key, body), b"200"),
        Case("gateway: POST refused, 400", ours.program, _post(ours.program, ours.key, b'{"prompt": 1}'), b"400", post),
        Case("gateway: POST refused, 429", ours.program, await _refused(ours, body), b"429", post),
        Case("gateway: POST accepted, 202", ours.program, _accepted(ours, body), b"202", post),
    ]


def _post(asked: Program, key: str, body: bytes, headers: str = "") -> bytes:
    return request("POST", asked.url + VIDEOS, key, body, headers)


def _accepted(ours: Gateway, body: bytes) -> bytes:
    return _post(ours.program, ours.key, body, "Prefer: respond-async\r\n")


async def _look(ours: Gateway, body: bytes) -> bytes:
    """Make a job; return the question for it."""
    job = await _make(ours, ours.key, body)
    return request("GET", f"{ours.program.url}/v1/videos/{job['id']}", ours.key)


async def _refused(ours: Gateway, body: bytes) -> bytes:
    """Use the limited key's one request up; return the question that is refused from then on."""
    await _make(ours, ours.limited_key, body)
    return _post(ours.program, ours.limited_key, body)


async def _make(ours: Gateway, key: str, body: bytes) -> Mapping[str, str]:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "respond-async"}
    async with ClientSession() as session, session.post(ours.program.url + VIDEOS, data=body, headers=headers) as made:
        job: dict[str, str] = orjson.loads(await made.read())
        return job


async def _measure(cases: Sequence[Case], quick: bool) -> dict[str, list[Sample]]:
    """Measure all cases in turn, round after round, so that a slow minute of the machine is everybody's."""
    found: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for case in cases:
        await _sample(case, WARM_UP)
    for _ in range(1 if quick else ROUNDS):
        for case in cases:
            found[case.name].append(await _sample(case, SECONDS / 2 if quick else SECONDS))
    return found


async def _sample(case: Case, seconds: float) -> Sample:
    began, cpu = time.perf_counter(), case.program.cpu()
    tally = await ask_for(seconds, case.question, case.program.url, case.expected, CONNECTIONS)
    taken, cpu = time.perf_counter() - began, case.program.cpu() - cpu
    done = len(tally.waits)
    ms = [1000 * wait for wait in tally.waits]
    return Sample(1e6 * cpu / done, done / taken, percentile(ms, 0.5), percentile(ms, 0.99))


def _table(cases: Sequence[Case], found: Mapping[str, list[Sample]]) -> Table:
    head = ("case", "CPU µs", "requests/s", "p50 ms", "p99 ms", "speed by CPU", "by requests/s")
    rows: list[tuple[Cell, ...]] = []
    for case in cases:
        samples = found[case.name]
        rows.append(
            (
                case.name,
                middle([sample.cpu_us for sample in samples]),
                middle([sample.a_second for sample in samples]),
                middle([sample.p50_ms for sample in samples]),
                middle([sample.p99_ms for sample in samples]),
                _ratio(found, case, lambda sample: 1 / sample.cpu_us),
                _ratio(found, case, lambda sample: sample.a_second),
            )
        )
    return Table("A request, and the speed against the reverse proxy's (1 = equal, more = faster)", head, rows)


def _ratio(found: Mapping[str, list[Sample]], case: Case, speed: Callable[[Sample], float]) -> float:
    """Return the median of the rounds' ratios against the case's baseline."""
    base = found[case.against or case.name]
    return middle([speed(ours) / speed(theirs) for ours, theirs in zip(found[case.name], base, strict=True)])
