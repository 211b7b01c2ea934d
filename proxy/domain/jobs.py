"""A job: the durable record of an order, and the states it goes through."""

from dataclasses import dataclass
from enum import StrEnum

from proxy.domain.orders import Order


class JobState(StrEnum):
    QUEUED = "queued"  # accepted; no attempt under way
    SENDING = "sending"  # an attempt is committed; whether the upstream took it is not known yet
    RUNNING = "running"  # the upstream took it, its id is stored
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in FINAL


FINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
UNFINISHED = tuple(state for state in JobState if state not in FINAL)


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    dialect: str
    tenant_id: str
    key_id: str
    state: JobState
    order: Order
    body_hash: bytes
    created_at: float
    deadline: float
    priority: int = 0  # the lower, the sooner
    queue_tag: float = 0.0  # the order of the queue within a priority
    input_file_id: str | None = None
    synchronous: bool = False  # its client waits for the answer in the same request
    fence: int = 0  # +1 with every claim; a write under an older fence is refused
    worker: str | None = None
    attempt_id: str | None = None  # the attempt under way, or the last one
    token_id: str | None = None
    proxy_id: str | None = None
    upstream_id: str | None = None
    file_id: str | None = None  # the result
    error: str | None = None  # the code of its failure
    cancel_requested_at: float | None = None
    finished_at: float | None = None
    seen_at: float | None = None  # its client was given the result


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a work (a job or a call) on the upstream."""

    id: str
    work_id: str
    number: int
    token_id: str
    proxy_id: str | None
    started_at: float
    why: str  # why this token
    upstream_id: str | None = None
    ended_at: float | None = None
    outcome: str | None = None
    blame: str | None = None
    evidence: str | None = None  # redacted, 512 bytes at most
    possible_cost: int | None = None  # ticks that a lost submit may have cost


@dataclass(frozen=True, slots=True)
class File:
    """One kept file: an input image or a finished video."""

    id: str
    tenant_id: str
    work_id: str | None
    media_type: str
    size: int  # bytes
    sha256: bytes
    created_at: float
    expires_at: float
