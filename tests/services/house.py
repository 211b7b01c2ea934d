"""The operator's services on a real database, as the composition root puts them together, on a clock of their own."""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.domain.cooldowns import Cooldown, Policy, Subject, SubjectKind
from proxy.domain.jobs import Job, JobState
from proxy.domain.keys import KeyLimits
from proxy.domain.orders import Kind, Model, Order
from proxy.domain.polling import Pace
from proxy.domain.secret import Secret
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.services.access import Gatekeeper
from proxy.services.admin_key import AdminKey
from proxy.services.audit import Audit
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.jobs import Jobs
from proxy.services.keys import Keys
from proxy.services.master_key import MasterKey
from proxy.services.metrics import Metrics
from proxy.services.pauses import Pauses
from proxy.services.proxies import Proxies
from proxy.services.settlement import Settlements
from proxy.services.status import Running, Status
from proxy.services.tasks import Tasks
from proxy.services.tokens import Tokens
from proxy.services.worker import Worker
from proxy.services.workshop import Workshop
from proxy.state.limits import Limits
from proxy.state.pool import Pool
from proxy.state.wakeups import Wakeups
from proxy.storage import cooldowns, jobs, keys, migrate, sealed
from proxy.storage.database import Database
from proxy.storage.folder import Folder
from proxy.storage.media import MediaStore
from proxy.storage.seal import Pepper, Sealer
from proxy.storage.writer import each
from proxy.upstream.driver import Driver
from proxy.upstream.sandbox import SandboxDriver
from proxy.upstream.transport import Timeouts, Transport
from proxy.upstream.xai import XaiDriver

OPERATOR = "admin"
NOW = 1_900_000_000.0
PROMPT = "CANARY-prompt a cat on the moon"
ADMIN_KEY = "an-admin-key-that-nobody-would-guess-0123456789"
VIDEO = "grok-imagine-video"
MODELS = {
    name: Model(name, Kind.VIDEO, upstream)
    for name, upstream in (("grok-imagine-0.9", VIDEO), (VIDEO, VIDEO), ("grok-imagine-video-1.5",) * 2)
}


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class House:
    """One process on a data folder. A second one on the same folder sees what the first has written."""

    def __init__(self, folder: Folder, clock: Clock, base_url: str, exit_check_url: str, sandbox: bool) -> None:
        self.folder = folder
        self.clock = clock
        self.registered: list[str] = []
        self.transport = Transport(timeouts=Timeouts(connect=2.0, answer=2.0))
        stand_in: Driver = SandboxDriver(0.0, folder.scratch / "sandbox")
        real: Driver = XaiDriver(self.transport, base_url=base_url)
        self.drivers: Mapping[str, Driver] = {real.name: real} | ({stand_in.name: stand_in} if sandbox else {})
        self.database = Database(folder.database)
        self.sandbox = sandbox
        self.exit_check_url = exit_check_url

    async def open(self) -> None:
        clock, database = self.clock, self.database
        await database.open()
        sealer = Sealer(self.folder.master_keys(None, secrets.token_bytes), secrets.token_bytes)
        await database.write(each(keys.ensure_tenant), (Tenant(DEFAULT, "Default"), clock()))
        own = sealed.OwnSecret("pepper", sealer, secrets.token_bytes)
        self.pepper = Pepper(await database.write(each(sealed.own_secret), own))
        self.pool = Pool(Policy(), random.random)
        self.dispatcher = Dispatcher(self.pool, clock, lambda: self.catalog.pauses)
        self.catalog = Catalog(
            database=database,
            pool=self.pool,
            transport=self.transport,
            sealer=sealer,
            clock=clock,
            register=self.registered.append,
            on_change=self.dispatcher.match,
        )
        await self.catalog.load()
        self.gatekeeper = Gatekeeper(self.catalog, self.pepper, ADMIN_KEY)
        self.media = MediaStore(self.folder.media, 0)
        self.tasks = Tasks()
        self.worker = Worker(worker_id="wrk_test", workshop=self._workshop(), max_in_flight=100)
        self._operate()

    def _workshop(self) -> Workshop:
        settlements = Settlements(
            database=self.database,
            pool=self.pool,
            catalog=self.catalog,
            drivers=self.drivers,
            policy=Policy(),
            metrics=Metrics(),
            clock=self.clock,
            tasks=self.tasks,
        )
        self.shop = Workshop(
            database=self.database,
            media=self.media,
            catalog=self.catalog,
            pool=self.pool,
            dispatcher=self.dispatcher,
            settlements=settlements,
            drivers=self.drivers,
            limits=Limits(),
            wakeups=Wakeups(),
            metrics=Metrics(),
            prices={},
            pace=Pace(0.05, 0.1),
            pollers=asyncio.Semaphore(16),
            retention=3600.0,
            on_ambiguous="fail",
            clock=self.clock,
            jitter=random.random,
            entropy=secrets.token_bytes,
            reached=lambda _step: None,
        )
        return self.shop

    def _operate(self) -> None:
        parts: dict[str, Any] = {"database": self.database, "catalog": self.catalog, "clock": self.clock}
        made: dict[str, Any] = parts | {"entropy": secrets.token_bytes}
        live: dict[str, Any] = {"pool": self.pool, "dispatcher": self.dispatcher}
        self.sealing = sealing = asyncio.Lock()
        self.keys = Keys(**made, pepper=self.pepper, defaults=KeyLimits(60, 10))
        self.tokens = Tokens(
            **made,
            **live,
            settlements=self.shop.settlements,
            drivers=self.drivers,
            pepper=self.pepper,
            sealing=sealing,
            concurrency={"xai": 3, "sandbox": 10},
            sandbox=self.sandbox,
        )
        self.proxies = Proxies(
            **made, **live, transport=self.transport, sealing=sealing, exit_check_url=self.exit_check_url
        )
        self.jobs = Jobs(
            database=self.database,
            worker=self.worker,
            limits=self.shop.limits,
            wakeups=self.shop.wakeups,
            clock=self.clock,
        )
        self.pauses = Pauses(**parts, drivers=self.drivers, models=MODELS)
        self.status = Status(
            **parts,
            **live,
            media=self.media,
            drivers=self.drivers,
            models=MODELS,
            running=Running("0.0", self.clock(), self.sandbox, lambda: False),
        )
        self.audit = Audit(self.database)
        self.admin_key = self.admin_key_from(environment=False)
        self.master_key = self.master_key_given(None, sealing)

    def admin_key_from(self, environment: bool) -> AdminKey:
        return AdminKey(
            database=self.database,
            gatekeeper=self.gatekeeper,
            file=self.folder.admin_key,
            from_environment=environment,
            register=self.registered.append,
            clock=self.clock,
            entropy=secrets.token_bytes,
        )

    def master_key_given(self, given: Secret | None, sealing: asyncio.Lock) -> MasterKey:
        return MasterKey(
            database=self.database,
            catalog=self.catalog,
            file=self.folder.master_key,
            given=given,
            sealing=sealing,
            clock=self.clock,
            entropy=secrets.token_bytes,
        )

    async def close(self) -> None:
        await self.worker.drain(0.0, lambda _ids: False)
        await self.tasks.close()
        await self.transport.close()
        await self.database.close()

    # What tests need to have happened

    async def job(self, key_id: str, job_id: str = "video-1", **fields: Any) -> Job:
        """Accept a job, as a client's order would be."""
        order = Order(Kind.VIDEO, VIDEO, VIDEO, PROMPT, 6, "480p")
        now = self.clock()
        job = Job(job_id, "document", DEFAULT, key_id, JobState.QUEUED, order, bytes(32), now, now + 900)
        job = replace(job, **fields)
        await self.database.write(jobs.accept, jobs.Acceptance(job, 0, None, None))
        return job

    async def rest(self, kind: SubjectKind, id_: str, cause: str, seconds: float = 60.0, scope: str = "") -> Cooldown:
        """Let something rest, in the pool and in the rows."""
        now = self.clock()
        row = Cooldown(Subject(kind, id_, scope), now + seconds, now, 1, cause, "429 slow down")
        await self.database.write(cooldowns.put, (row,))
        self.pool.restore([row], now)
        return row

    async def kept_cooldowns(self) -> list[Cooldown]:
        return await self.database.read(cooldowns.load)

    async def actions(self) -> list[str]:
        """Return the audit's actions, oldest first."""
        return [act.action for _, act in reversed(await self.audit.page(None, 100))]


async def until(happened: Callable[[], bool]) -> None:
    """Wait for what gives no sign of itself, ten seconds at most."""
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


@asynccontextmanager
async def house(
    root: Path,
    *,
    base_url: str = "http://127.0.0.1:9/v1",
    exit_check_url: str = "http://127.0.0.1:9/trace",
    sandbox: bool = False,
    again: bool = False,
) -> AsyncIterator[House]:
    """Open a house on a data folder; `again` is for a second one beside the first."""
    folder = Folder(root)
    async with AsyncExitStack() as stack:
        if not again:
            folder.take()
            stack.callback(folder.release)
            migrate.upgrade(folder.database, folder.backups, NOW)
        built = House(folder, Clock(), base_url, exit_check_url, sandbox)
        await built.open()
        stack.push_async_callback(built.close)
        yield built
