"""What must hold of a data folder and of the upstream's ledger when everything has come to rest, whatever crashed."""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.upstream.xai_server import XaiServer

PICTURE = 100  # bytes; the orders' pictures are smaller, the videos larger
FINAL = {"completed", "failed", "cancelled"}


@dataclass(slots=True)
class Books:
    """The rows of a data folder, by id."""

    jobs: dict[str, dict[str, Any]]
    attempts: list[dict[str, Any]]
    charges: dict[str, dict[str, Any]]
    reservations: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    integrity: str
    media: dict[str, Path] = field(default_factory=dict)  # what lies in the folder, by name

    def states(self) -> Counter[str]:
        """Count the jobs by the error they ended in, or else by their state."""
        return Counter(job["error"] or job["state"] for job in self.jobs.values())


def read(folder: Path) -> Books:
    """Open the books of a gateway that runs, or has died."""
    with database(folder) as connection:
        rows = {
            table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            for table in ("jobs", "attempts", "charges", "reservations", "files")
        }
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    return Books(
        jobs={row["id"]: row for row in rows["jobs"]},
        attempts=rows["attempts"],
        charges={row["work_id"]: row for row in rows["charges"]},
        reservations={row["work_id"]: row for row in rows["reservations"]},
        files={row["id"]: row for row in rows["files"]},
        integrity=integrity,
        media={path.name: path for path in (folder / "media").glob("*/*")},
    )


def audit(folder: Path, xai: XaiServer, *, submits: int = 1) -> Books:
    """Hold the books to the ledger, job by job (each has its own prompt): at most `submits` of one were accepted."""
    books = read(folder)
    assert books.integrity == "ok"
    accepted = Counter(call.body["prompt"] for call in xai.calls("submit") if call.request_id)
    ordered = Counter(prompt_of(job) for job in books.jobs.values())
    assert max(ordered.values(), default=1) == 1, f"one order, several jobs: {ordered}"
    assert accepted.keys() <= ordered.keys(), "the upstream works on what is no job"
    for job in books.jobs.values():
        assert accepted[prompt_of(job)] <= submits, f"submitted {accepted[prompt_of(job)]} times: {job}"
        check_job(job, books)
    assert all(attempt["ended_at"] for attempt in books.attempts), "an attempt is open"
    assert not [name for name in books.media if name.endswith(".part")], "half-written media"
    large = [name for name, path in books.media.items() if name not in books.files and path.stat().st_size > PICTURE]
    assert not large, "a video that nobody knows of"
    for file in books.files.values():
        content = books.media[file["id"]].read_bytes()
        assert (len(content), hashlib.sha256(content).digest()) == (file["size"], file["sha256"])
    return books


def check_job(job: dict[str, Any], books: Books) -> None:
    """One job: ended, its reservation released, charged once if it was completed and else not."""
    assert job["state"] in FINAL, job
    assert job["finished_at"], job
    assert books.reservations[job["id"]]["released_at"], f"the reservation is held: {job}"
    charged = books.charges.get(job["id"], {"charge": 0})["charge"]
    assert (charged > 0) == (job["state"] == "completed"), f"charged {charged}: {job}"
    assert (job["file_id"] in books.files) == (job["state"] == "completed"), job
    kept = [file for file in books.files.values() if file["work_id"] == job["id"]]
    assert len(kept) == (2 if job["file_id"] else 1), f"the picture and the video, each once: {kept}"
    if job["error"] == "submit_ambiguous":
        lost = [attempt for attempt in books.attempts if attempt["id"] == job["attempt_id"]]
        assert lost[0]["outcome"] == "lost"
        assert lost[0]["possible_cost"] > 0


def prompt_of(job: dict[str, Any]) -> str:
    import json

    return str(json.loads(job["order"])["prompt"])


@contextmanager
def database(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(folder / "grokpool.db", isolation_level=None, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection
