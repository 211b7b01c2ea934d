"""The composition root: names every concrete class, builds the house from the settings, opens and closes it."""

import asyncio
import random
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from proxy.domain.errors import Draining
from proxy.domain.ids import RANDOM_BYTES, make_id
from proxy.domain.polling import Pace
from proxy.domain.proxies import parse
from proxy.domain.tokens import Token
from proxy.logs import Redactor
from proxy.services.access import Gatekeeper
from proxy.services.admin_key import AdminKey, make_admin_key
from proxy.services.audit import Audit
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.first_start import SANDBOX_TOKEN, prepare, put_sandbox_token, retire_sandbox_token
from proxy.services.generations import DRAIN_RETRY, GenerationOptions, Generations
from proxy.services.housekeeping import Housekeeping
from proxy.services.image_decoding import ImageLimits
from proxy.services.images import ImageChecker
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
from proxy.settings import Settings
from proxy.state.limits import Limits
from proxy.state.pool import Pool
from proxy.state.wakeups import Wakeups
from proxy.storage import migrate
from proxy.storage.database import Database
from proxy.storage.folder import Folder, write_private
from proxy.storage.media import MediaStore
from proxy.storage.seal import Sealer
from proxy.upstream.driver import Driver
from proxy.upstream.fetch import FetchLimits, ImageFetcher, Resolve
from proxy.upstream.sandbox import SandboxDriver
from proxy.upstream.transport import Timeouts, Transport
from proxy.upstream.xai import XaiDriver
from proxy.web import context, health, media, routes, server, videos
from proxy.web.admin import context as admin
from proxy.web.admin.routes import ROUTES as ADMIN_ROUTES
from proxy.web.bodies import BODIES, BodyMemory
from proxy.web.middleware import admit, explain, observe, stamp

log = structlog.get_logger(__name__)

POLLERS = 256  # looks at the upstream at the same time
SHUTDOWN = 5.0  # seconds for answers under way once the waiters have been sent away


def steady_clock() -> Callable[[], float]:
    """Return Unix time that no adjustment of the machine's clock moves back: its start by the wall, its course by the
    time since boot."""
    start = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return lambda: start + time.clock_gettime(time.CLOCK_BOOTTIME)


def nothing(_step: str) -> None:
    """The witness that is told of a job's steps, where nobody wants to know."""


class Gateway:
    """One gateway process on one data folder.

    Without `listen` it opens only the socket in its data folder, for a command line that has no running server;
    without `worker` it accepts and answers, and leaves the jobs alone. `resolve` looks up the names of image hosts in
    place of the system's resolver.
    """

    def __init__(
        self,
        settings: Settings,
        redactor: Redactor,
        *,
        sandbox: bool = False,
        worker: bool = True,
        listen: bool = True,
        reached: Callable[[str], None] = nothing,
        resolve: Resolve | None = None,
    ) -> None:
        self.settings = settings
        self.port = settings.server.port
        self.admin_key_note: str | None = None
        self._redactor = redactor
        self._sandbox = sandbox
        self._works = worker
        self._listens = listen
        self._reached = reached
        self._resolve = resolve
        self._folder = Folder(settings.data_dir)
        self._clock = steady_clock()
        self._open = AsyncExitStack()
        self._tasks = Tasks()
        self._stopping = False

    @property
    def url(self) -> str:
        return self.settings.server.url(self.port)

    async def start(self) -> None:
        """Open the house, from the ground up. What was opened is closed again if a later part does not open."""
        server.require_c_parser()
        try:
            await self._build()
        except BaseException:
            await self._open.aclose()
            raise

    async def stop(self) -> None:
        """Take no more work, hand over or finish what runs within the drain time, close everything."""
        self._stopping = True
        self._generations.drain()
        if self._works:
            await self._worker.drain(self.settings.server.drain - SHUTDOWN, self._generations.is_awaited)
        self._generations.dismiss()
        await self._open.aclose()

    async def serve_forever(self) -> None:
        """Run until SIGTERM or SIGINT, then stop."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        log.info("stopping")
        await self.stop()

    async def _build(self) -> None:
        self._folder.take()
        self._open.callback(self._folder.release)
        await self._open_storage()
        self._open_upstream()
        await self._open_services()
        await self._open_web()
        if self._works:  # last: a start that fails, on a taken port say, has sent nothing
            await self._worker.start()
            self._tasks.start(self._generations.wake_forever(), "wake-ups")
            self._keep_house()

    async def _open_storage(self) -> None:
        settings, folder = self.settings, self._folder
        given = settings.master_key.reveal() if settings.master_key else None
        self._sealer = Sealer(folder.master_keys(given, secrets.token_bytes), secrets.token_bytes)
        backup = await asyncio.to_thread(migrate.upgrade, folder.database, folder.backups, self._clock())
        if backup is not None:
            log.info("schema_upgraded", backup=str(backup))
        self._database = Database(folder.database)
        await self._database.open()
        self._open.push_async_callback(self._database.close)
        self._media = MediaStore(folder.media, settings.media.min_free, self._reached)
        await asyncio.to_thread(self._media.sweep)

    def _open_upstream(self) -> None:
        xai = self.settings.upstream.xai
        self._transport = Transport(
            ca_file=None if xai.ca_file is None else str(xai.ca_file),
            clearance_hosts=[urlsplit(xai.base_url).netloc],
            timeouts=Timeouts(xai.connect_timeout, xai.answer_timeout, xai.idle_timeout, xai.download_timeout),
        )
        self._open.push_async_callback(self._transport.close)
        driver = XaiDriver(self._transport, base_url=xai.base_url, media_hosts=xai.media_hosts)
        self._drivers: dict[str, Driver] = {driver.name: driver}
        if self._sandbox:
            stand_in = SandboxDriver(self.settings.upstream.sandbox.seconds, self._folder.scratch / "sandbox")
            self._open.push_async_callback(stand_in.close)
            self._drivers[stand_in.name] = stand_in

    async def _open_services(self) -> None:
        settings, database = self.settings, self._database
        self._open.push_async_callback(self._tasks.close)
        self._metrics = Metrics()
        self._limits = Limits()
        self._wakeups = Wakeups()
        self._pool = Pool(settings.policy, random.random)
        self._dispatcher = Dispatcher(self._pool, self._clock, lambda: self._catalog.pauses)
        self._catalog = Catalog(
            database=database,
            pool=self._pool,
            transport=self._transport,
            sealer=self._sealer,
            clock=self._clock,
            register=self._redactor.register,
            on_change=self._dispatcher.match,
        )
        self._own = await prepare(database, self._sealer, secrets.token_bytes, self._clock())
        if self._sandbox:
            await put_sandbox_token(database, self._sealer, secrets.token_bytes, self._sandbox_token())
        elif self._listens:
            await retire_sandbox_token(database, self._clock())
        await self._catalog.load()
        self._settlements = Settlements(
            database=database,
            pool=self._pool,
            catalog=self._catalog,
            drivers=self._drivers,
            policy=settings.policy,
            metrics=self._metrics,
            clock=self._clock,
            tasks=self._tasks,
        )
        shop = self._workshop()
        worker_id = make_id("wrk_", self._clock(), secrets.token_bytes(RANDOM_BYTES))
        self._worker = Worker(worker_id=worker_id, workshop=shop, max_in_flight=settings.jobs.max_in_flight)
        self._metrics.watch("jobs_in_work", "Jobs claimed and not ended", self._worker.running)
        self._metrics.watch("jobs_waiting", "Jobs that wait for a token's slot", lambda: self._dispatcher.waiting)
        self._generations = self._client_side(shop)
        await self._generations.start()

    def _workshop(self) -> Workshop:
        settings = self.settings
        return Workshop(
            database=self._database,
            media=self._media,
            catalog=self._catalog,
            pool=self._pool,
            dispatcher=self._dispatcher,
            settlements=self._settlements,
            drivers=self._drivers,
            limits=self._limits,
            wakeups=self._wakeups,
            metrics=self._metrics,
            prices=settings.tariff(),
            pace=Pace(settings.upstream.xai.poll_min, settings.upstream.xai.poll_max),
            pollers=asyncio.Semaphore(POLLERS),
            retention=settings.media.retention,
            on_ambiguous=settings.jobs.on_ambiguous,
            clock=self._clock,
            jitter=random.random,
            entropy=secrets.token_bytes,
            reached=self._reached,
        )

    def _client_side(self, shop: Workshop) -> Generations:
        settings = self.settings
        images, fetch, jobs = settings.images, settings.fetch, settings.jobs
        checker = ImageChecker(
            ImageLimits(
                images.max_size,
                images.max_pixels,
                images.max_side,
                images.max_frames,
                images.decode_memory,
                images.decode_timeout,
            )
        )
        fetcher = ImageFetcher(
            FetchLimits(
                max_bytes=images.max_size,
                ports=frozenset(fetch.allow_ports),
                allow_networks=fetch.allow_networks,
                total=fetch.timeout,
                connect=fetch.connect_timeout,
                read=fetch.read_timeout,
                lookup=fetch.resolve_timeout,
                max_redirects=fetch.max_redirects,
                proxy=None if fetch.proxy is None else parse(fetch.proxy.reveal()),
            ),
            resolve=self._resolve,
        )
        self._open.push_async_callback(checker.close)
        self._open.push_async_callback(fetcher.close)
        if self._listens:
            self._tasks.start(checker.start(), "image decoder")
        options = GenerationOptions(
            deadline=jobs.deadline,
            dedupe_window=jobs.dedupe_window,
            max_wait=settings.queue.max_wait,
            max_length=settings.queue.max_length,
            max_image=images.max_size,
        )
        return Generations(shop=shop, worker=self._worker, fetcher=fetcher, checker=checker, options=options)

    def _keep_house(self) -> None:
        house = Housekeeping(
            database=self._database,
            media=self._media,
            catalog=self._catalog,
            idempotency_window=self.settings.jobs.idempotency_window,
            clock=self._clock,
        )
        self._tasks.start(house.follow_forever(), "changes")
        self._tasks.start(house.sweep_forever(), "sweep")

    def _sandbox_token(self) -> Token:
        slots = self.settings.upstream.sandbox.concurrency
        return Token(SANDBOX_TOKEN, "built-in sandbox", SandboxDriver.name, concurrency=slots, created_at=self._clock())

    # Floor 4

    def _admin_key(self) -> str:
        """Return the admin key: the environment's, or that of the file, made at the first start."""
        if self.settings.admin_key is not None:
            return self.settings.admin_key.reveal()
        path = self._folder.admin_key
        if not path.exists():
            write_private(path, make_admin_key(secrets.token_bytes) + "\n")
            self.admin_key_note = str(path)
        return path.read_text().strip()

    async def _open_web(self) -> None:
        options, door = self.settings.server, self._folder.socket
        listener = None
        if self._listens:
            listener = server.bind(options.host, options.port)
            self._open.callback(listener.close)
            self.port = listener.getsockname()[1]
        runner = server.Runner(
            self._application(),
            max_connections=options.max_connections,
            keepalive_timeout=options.keepalive,
            shutdown_timeout=SHUTDOWN,
        )
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        await server.listen(runner, door, listener)
        self._open.callback(server.remove, door)
        if self._listens and options.metrics_port:
            metrics = web.AppRunner(health.metrics_application(self._metrics), access_log=None)
            await metrics.setup()
            self._open.push_async_callback(metrics.cleanup)
            await web.TCPSite(metrics, options.host, options.metrics_port).start()

    def _application(self) -> web.Application:
        options, admin_key = self.settings.server, self._admin_key()
        self._redactor.register(admin_key)
        gatekeeper = Gatekeeper(self._catalog, self._own.pepper, admin_key)
        app = web.Application(middlewares=[observe, explain, admit], client_max_size=options.max_body)
        app[context.OPTIONS] = context.WebOptions(
            language=options.language,
            wait=options.wait,
            max_body=options.max_body,
            body_grace=options.body_grace,
            body_rate=options.body_rate,
        )
        app[context.CLOCK] = self._clock
        app[context.ENTROPY] = secrets.token_bytes
        app[context.METRICS] = self._metrics
        app[context.GATEKEEPER] = gatekeeper
        app[context.GENERATIONS] = self._generations
        app[context.MODELS] = self.settings.catalogue()
        app[context.READY] = self._require_ready
        app[BODIES] = BodyMemory(options.body_memory)
        lifetime = self.settings.media.url_lifetime
        app[media.LINKS] = media.Links(self.url, self._own.signing_key, lifetime, self._clock, self._media)
        self._put_admin_services(app, gatekeeper)
        app.on_response_prepare.append(stamp)
        routes.add(app, [*health.ROUTES, *videos.ROUTES, *media.ROUTES, *ADMIN_ROUTES])
        return app

    def _put_admin_services(self, app: web.Application, gatekeeper: Gatekeeper) -> None:
        """Give the admin API what it works with."""
        settings, database, catalog, clock = self.settings, self._database, self._catalog, self._clock
        entropy, sealing, models = secrets.token_bytes, asyncio.Lock(), settings.catalogue()
        app[admin.KEYS] = Keys(
            database=database,
            catalog=catalog,
            pepper=self._own.pepper,
            defaults=settings.limits.of_new_keys(),
            clock=clock,
            entropy=entropy,
        )
        app[admin.TOKENS] = Tokens(
            database=database,
            catalog=catalog,
            pool=self._pool,
            dispatcher=self._dispatcher,
            settlements=self._settlements,
            drivers=self._drivers,
            pepper=self._own.pepper,
            sealing=sealing,
            concurrency={
                XaiDriver.name: settings.upstream.xai.concurrency,
                SandboxDriver.name: settings.upstream.sandbox.concurrency,
            },
            sandbox=self._sandbox,
            clock=clock,
            entropy=entropy,
        )
        app[admin.PROXIES] = Proxies(
            database=database,
            catalog=catalog,
            pool=self._pool,
            dispatcher=self._dispatcher,
            transport=self._transport,
            sealing=sealing,
            exit_check_url=settings.proxies.exit_check_url,
            clock=clock,
            entropy=entropy,
        )
        app[admin.JOBS] = Jobs(
            database=database, worker=self._worker, limits=self._limits, wakeups=self._wakeups, clock=clock
        )
        app[admin.PAUSES] = Pauses(
            database=database, catalog=catalog, drivers=self._drivers, models=models, clock=clock
        )
        app[admin.STATUS] = Status(
            database=database,
            catalog=catalog,
            pool=self._pool,
            dispatcher=self._dispatcher,
            media=self._media,
            drivers=self._drivers,
            models=models,
            running=Running(version("grokpool"), clock(), self._sandbox, lambda: self._stopping),
            clock=clock,
        )
        app[admin.AUDIT] = Audit(database)
        app[admin.ADMIN_KEY] = AdminKey(
            database=database,
            gatekeeper=gatekeeper,
            file=self._folder.admin_key,
            from_environment=settings.admin_key is not None,
            register=self._redactor.register,
            clock=clock,
            entropy=entropy,
        )
        app[admin.MASTER_KEY] = MasterKey(
            database=database,
            catalog=catalog,
            file=self._folder.master_key,
            given=settings.master_key,
            sealing=sealing,
            clock=clock,
            entropy=entropy,
        )

    def _require_ready(self) -> None:
        """Raises `Draining`, `StorageFull`."""
        if self._stopping:
            raise Draining(DRAIN_RETRY)
        self._media.require_room()
