"""A gateway inside this process, in a thread of its own: for the demo, and for commands without a running server."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from threading import Thread

import typer

from proxy.app import Gateway
from proxy.cli.setup import explained
from proxy.logs import Redactor, setup
from proxy.settings import Settings


def services(settings: Settings, *, works: bool = False) -> AbstractContextManager[Gateway]:
    """Run the services of a gateway, reached by the socket in its data folder alone. Raises `Busy`, `Problem`."""
    redactor = Redactor()
    setup("text", "warning", redactor)
    if not settings.data_dir.exists():
        typer.echo(f"a new data folder is made: {settings.data_dir.absolute()}", sys.stderr)
    return running(lambda: Gateway(settings, redactor, worker=works, listen=False))


@contextmanager
def running(make: Callable[[], Gateway]) -> Iterator[Gateway]:
    """Run a gateway until the block is left. Raises `Busy`, `Problem`."""
    opened: Future[tuple[Gateway, Callable[[], object]]] = Future()

    async def run() -> None:
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            gateway = make()
            await gateway.start()
        except BaseException as error:
            opened.set_exception(error)
            return
        opened.set_result((gateway, lambda: loop.call_soon_threadsafe(leave.set)))
        await leave.wait()
        await gateway.stop()

    thread = Thread(target=lambda: asyncio.run(run()), name="gateway")
    thread.start()
    with explained():
        gateway, close = opened.result()
    try:
        yield gateway
    finally:
        close()
        thread.join()
