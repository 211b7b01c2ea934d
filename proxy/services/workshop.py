"""What every run of a job works with."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from proxy.domain.jobs import Job
from proxy.domain.money import FREE, Price
from proxy.domain.polling import Durations, Pace
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.metrics import Metrics
from proxy.services.settlement import Settlements
from proxy.state.leases import Want
from proxy.state.limits import Limits
from proxy.state.pool import Pool
from proxy.state.wakeups import Wakeups
from proxy.storage.database import Database
from proxy.storage.media import MediaStore
from proxy.upstream.driver import Driver


@dataclass(frozen=True, slots=True)
class Workshop:
    database: Database
    media: MediaStore
    catalog: Catalog
    pool: Pool
    dispatcher: Dispatcher
    settlements: Settlements
    drivers: Mapping[str, Driver]
    limits: Limits
    wakeups: Wakeups
    metrics: Metrics
    prices: Mapping[str, Price]  # by upstream model
    pace: Pace
    pollers: asyncio.Semaphore
    retention: float  # seconds a result is kept
    on_ambiguous: Literal["fail", "resubmit_once"]
    clock: Callable[[], float]
    jitter: Callable[[], float]
    entropy: Callable[[int], bytes]
    reached: Callable[[str], None]  # told of each step between acceptance and answer; a crash test stops there
    durations: dict[str, Durations] = field(default_factory=dict)  # by upstream model

    def want(self, job: Job) -> Want:
        """Return what serves the job: any driver of its kind."""
        names = tuple(name for name, driver in self.drivers.items() if job.order.kind in driver.kinds)
        return Want(drivers=names, model=job.order.upstream_model)

    def price(self, job: Job) -> Price:
        return self.prices.get(job.order.upstream_model, FREE)

    def estimate(self, job: Job) -> int:
        """Return the list price of the job, in ticks."""
        return self.price(job).cost(job.order, 0 if job.input_file_id is None else 1)

    def learned(self, job: Job) -> Durations:
        return self.durations.setdefault(job.order.upstream_model, Durations())
