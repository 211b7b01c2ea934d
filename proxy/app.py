"""The composition root: names every concrete class, builds the house from the settings, opens and closes it."""

import asyncio
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from proxy.domain.errors import Draining
from proxy.domain.ids import RANDOM_BYTES, make_id
from proxy.domain.polling import Pace
from proxy.domain.proxies import parse
from proxy.domain.tenants import DEFAULT, Tenant
from proxy.domain.tokens import Token, TokenState
from proxy.logs import Redactor
from proxy.services.access import Gatekeeper
from proxy.services.catalog import Catalog
from proxy.services.dispatcher import Dispatcher
from proxy.services.generations import DRAIN_RETRY, GenerationOptions, Generations
from proxy.services.housekeeping import Housekeeping
from proxy.services.image_decoding import ImageLimits
from proxy.services.images import ImageChecker
from proxy.services.metrics import Metrics
from proxy.services.settlement import Settlements
from proxy.services.tasks import Tasks
from proxy.services.worker import Worker
from proxy.services.workshop import Workshop
from proxy.settings import Settings
from proxy.state.limits import Limits
from proxy.state.pool import Pool
from proxy.state.wakeups import Wakeups
from proxy.storage import keys, migrate, sealed, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.folder import Folder, write_private
from proxy.storage.media import MediaStore
from proxy.storage.seal import Pepper, Sealer
from proxy.storage.writer import each
from proxy.upstream.driver import Driver
from proxy.upstream.fetch import FetchLimits, ImageFetcher
from proxy.upstream.sandbox import SandboxDriver
from proxy.upstream.transport import Timeouts, Transport
from proxy.upstream.xai import XaiDriver
from proxy.web import context, health, media, routes, server, videos
from proxy.web.bodies import BODIES, BodyMemory
from proxy.web.middleware import admit, explain, observe, stamp

log = structlog.get_logger(__name__)

SANDBOX_TOKEN = "tok_sandbox"  # the id of the built-in sandbox token
ADMIN_KEY_BYTES = 36
POLLERS = 256  # looks at the upstream at the same time
BACKLOG = 1024  # connections that wait to be taken
SHUTDOWN = 5.0  # seconds for answers under way once the waiters have been sent away


class RealTokens(Exception):
    """`--sandbox` does not start beside enabled real tokens: somebody would take the stand-in's videos for theirs."""


def nothing(_step: str) -> None:
    """The witness that is told of a job's steps, where nobody wants to know."""


class Gateway:
    """One gateway process on one data folder.

    Without `listen` it opens only the socket in its data folder, for a command line that has no running server;
    without `worker` it accepts and answers, and leaves the jobs alone.
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
    ) -> None:
        self.settings = settings
        self.port = settings.server.port
        self.admin_key_note: str | None = None
        self._redactor = redactor
        self._sandbox = sandbox
        self._works = worker
        self._listens = listen
        self._reached = reached
        self._folder = Folder(settings.data_dir)
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

    async def _open_storage(self) -> None:
        settings, folder = self.settings, self._folder
        given = settings.master_key.reveal() if settings.master_key else None
        self._sealer = Sealer(folder.master_keys(given, secrets.token_bytes), secrets.token_bytes)
        backup = await asyncio.to_thread(migrate.upgrade, folder.database, folder.backups, time.time())
        if backup is not None:
            log.info("schema_upgraded", backup=str(backup))
        self._database = Database(folder.database)
        await self._database.open()
        self._open.push_async_callback(self._database.close)
        self._media = MediaStore(folder.media, settings.media.min_free)
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
        self._pool = Pool(settings.policy, random.random)
        self._dispatcher = Dispatcher(self._pool, time.time, lambda: self._catalog.pauses)
        self._catalog = Catalog(
            database=database,
            pool=self._pool,
            transport=self._transport,
            sealer=self._sealer,
            clock=time.time,
            register=self._redactor.register,
            on_change=self._dispatcher.match,
        )
        await self._first_rows()
        await self._catalog.load()
        self._settlements = Settlements(
            database=database,
            pool=self._pool,
            catalog=self._catalog,
            drivers=self._drivers,
            policy=settings.policy,
            metrics=self._metrics,
            clock=time.time,
            tasks=self._tasks,
        )
        shop = self._workshop()
        worker_id = make_id("wrk_", time.time(), secrets.token_bytes(RANDOM_BYTES))
        self._worker = Worker(worker_id=worker_id, workshop=shop, max_in_flight=settings.jobs.max_in_flight)
        self._generations = self._client_side(shop)
        await self._generations.start()
        if self._works:
            await self._worker.start()
            self._tasks.start(self._generations.wake_forever(), "wake-ups")
            self._keep_house()

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
            limits=Limits(),
            wakeups=Wakeups(),
            metrics=self._metrics,
            prices=settings.tariff(),
            pace=Pace(settings.upstream.xai.poll_min, settings.upstream.xai.poll_max),
            pollers=asyncio.Semaphore(POLLERS),
            retention=settings.media.retention,
            on_ambiguous=settings.jobs.on_ambiguous,
            clock=time.time,
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
            )
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
            clock=time.time,
        )
        self._tasks.start(house.follow_forever(), "changes")
        self._tasks.start(house.sweep_forever(), "sweep")

    async def _first_rows(self) -> None:
        """Make what every gateway has: a tenant, its own secrets, the admin key, the sandbox token if it is one."""
        now = time.time()
        await self._database.write(_ENSURE_TENANT, (Tenant(DEFAULT, "Default"), now))
        pepper, signing = [
            await self._database.write(_OWN_SECRET, sealed.OwnSecret(name, self._sealer, secrets.token_bytes))
            for name in ("pepper", "signing")
        ]
        self._pepper = Pepper(pepper)
        self._signing_key = signing.reveal().encode()
        if self._sandbox:
            await self._put_sandbox_token(now)

    async def _put_sandbox_token(self, now: float) -> None:
        """Raises `RealTokens`."""
        rows = [token for token, _ in await self._database.read(tokens.load)]
        real = [token.id for token in rows if token.driver != SandboxDriver.name and token.state is TokenState.ENABLED]
        if real:
            raise RealTokens(f"--sandbox does not start beside enabled real tokens ({len(real)}); disable them first")
        if all(token.id != SANDBOX_TOKEN for token in rows):
            concurrency = self.settings.upstream.sandbox.concurrency
            token = Token(
                SANDBOX_TOKEN, "built-in sandbox", SandboxDriver.name, concurrency=concurrency, created_at=now
            )
            secret = self._sealer.seal("built-in " + secrets.token_hex(RANDOM_BYTES), tokens.place(token.id))
            act = Act(now, "gateway", "token.add", token.id, {"driver": token.driver})
            new = tokens.NewToken(token, secret, self._pepper.hash("token", token.id), act)
            await self._database.write(_CREATE_TOKEN, new)

    def _admin_key(self) -> str:
        """Return the admin key: the environment's, or that of the file, made at the first start."""
        if self.settings.admin_key is not None:
            return self.settings.admin_key.reveal()
        path = self._folder.admin_key
        if not path.exists():
            write_private(path, secrets.token_urlsafe(ADMIN_KEY_BYTES) + "\n")
            self.admin_key_note = str(path)
        return path.read_text().strip()

    async def _open_web(self) -> None:
        admin_key = self._admin_key()
        self._redactor.register(admin_key)
        gatekeeper = Gatekeeper(self._catalog, self._pepper, admin_key)
        listener = self._bind() if self._listens else None
        app = self._application(gatekeeper)
        runner = server.Runner(
            app,
            max_connections=self.settings.server.max_connections,
            keepalive_timeout=self.settings.server.keepalive,
            shutdown_timeout=SHUTDOWN,
        )
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        self._folder.socket.unlink(missing_ok=True)
        await web.UnixSite(runner, str(self._folder.socket)).start()
        self._folder.socket.chmod(0o600)
        self._open.callback(self._folder.socket.unlink, missing_ok=True)
        if listener is not None:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            await self._open_metrics()

    def _bind(self) -> socket.socket:
        """Take the port, before anything is said about it; 0 takes a free one."""
        options = self.settings.server
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.create_server((options.host, options.port), family=family, backlog=BACKLOG)
        self._open.callback(listener.close)
        self.port = listener.getsockname()[1]
        return listener

    def _application(self, gatekeeper: Gatekeeper) -> web.Application:
        options = self.settings.server
        app = web.Application(middlewares=[observe, explain, admit], client_max_size=options.max_body)
        app[context.OPTIONS] = context.WebOptions(
            language=options.language,
            wait=options.wait,
            max_body=options.max_body,
            body_grace=options.body_grace,
            body_rate=options.body_rate,
        )
        app[context.CLOCK] = time.time
        app[context.ENTROPY] = secrets.token_bytes
        app[context.METRICS] = self._metrics
        app[context.GATEKEEPER] = gatekeeper
        app[context.GENERATIONS] = self._generations
        app[context.MODELS] = self.settings.catalogue()
        app[context.READY] = self._require_ready
        app[BODIES] = BodyMemory(options.body_memory)
        lifetime = self.settings.media.url_lifetime
        app[media.LINKS] = media.Links(self.url, self._signing_key, lifetime, time.time, self._media)
        app.on_response_prepare.append(stamp)
        routes.add(app, [*health.ROUTES, *videos.ROUTES, *media.ROUTES])
        return app

    async def _open_metrics(self) -> None:
        """Open the listener of its own that `server.metrics_port` asks for."""
        port = self.settings.server.metrics_port
        if not port:
            return
        app = web.Application()
        app[context.METRICS] = self._metrics
        app.router.add_get("/metrics", health.get_metrics)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        self._open.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self.settings.server.host, port).start()

    def _require_ready(self) -> None:
        """Raises `Draining`, `StorageFull`."""
        if self._stopping:
            raise Draining(DRAIN_RETRY)
        self._media.require_room()


_ENSURE_TENANT = each(keys.ensure_tenant)
_OWN_SECRET = each(sealed.own_secret)
_CREATE_TOKEN = each(tokens.create)
