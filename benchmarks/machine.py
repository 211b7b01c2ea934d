"""The machine: which core does what, what a process has used, and the conditions a figure was measured under."""

import math
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TICKS = os.sysconf("SC_CLK_TCK")  # of /proc/<pid>/stat, a second
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
SYNCS = 50


@dataclass(frozen=True, slots=True)
class Cores:
    """`subject` is for the system under test alone, `outside` for the load and everybody's stand-ins."""

    subject: int
    outside: int

    @property
    def are_shared(self) -> bool:
        return self.subject == self.outside


def cores() -> Cores:
    """Return the last and the first core that this process may use; they are the same where it has but one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(subject=allowed[-1], outside=allowed[0])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def allow_many_files() -> None:
    """Raise this process's limit of open files, and its children's, as far as it may be raised."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its living descendants have used."""
    return sum(_own_cpu(each) for each in _family(pid))


def memory_bytes(pid: int) -> int:
    """Return the resident memory of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def _own_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS  # utime, stime: proc_pid_stat(5)


def _family(pid: int) -> Iterator[int]:
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # it has ended meanwhile
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of `values` do not exceed (nearest rank); NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def middle(values: Sequence[float]) -> float:
    """Return the median; NaN of none."""
    return median(values) if values else math.nan


def conditions(given: Cores) -> dict[str, object]:
    """Return what a reader must know of the machine to believe a figure."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "core_of_the_subject": given.subject,
        "core_of_the_load": given.outside,
        "load_average_before": os.getloadavg()[0],
        "fsync_ms": round(1000 * _sync_seconds(), 3),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _sync_seconds() -> float:
    """Return the median time in which the disk says that 4 kB are safe."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            file.write(bytes(4096))
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken)
