"""`grokpool demo`: a gateway, a key, and one video through the real HTTP API. Offline, and free."""

import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from proxy.cli.command import AsJson, DataDir, Where
from proxy.cli.output import answer, pairs

if TYPE_CHECKING:
    from proxy.app import Gateway
    from proxy.cli.film import Film
    from proxy.settings import Settings

PROMPT = "The cat turns its head to the window, and the camera slowly comes closer"
BORROWED = ("GROKPOOL_MASTER_KEY", "GROKPOOL_ADMIN_KEY")  # all that the demo takes from the environment
LINE_EVERY = 20  # percent, where there is no terminal for a bar


def demo(
    context: typer.Context,
    *,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="A picture; else one of ours.")] = None,
    prompt: Annotated[str, typer.Option("--prompt", metavar="TEXT", help="What is to happen in it.")] = PROMPT,
    out: Annotated[Path, typer.Option("--out", metavar="FILE")] = Path("grokpool-demo.mp4"),
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long the stand-in takes.")] = 4,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Serve until Ctrl-C.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a first video: start a gateway on a free port, make a key, post a picture, save the MP4."""
    where = Where(data_dir=data_dir, as_json=as_json).over(context.find_root().obj)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave by the same door as on Ctrl-C: tidy
    from proxy.cli.film import PHOTO, request_body

    body = request_body(image or PHOTO, prompt)
    with ExitStack() as stack:
        folder = where.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grokpool-demo-")))
        gateway = stack.enter_context(sandbox(folder, seconds))
        key, film = shoot(gateway, body, quiet=where.as_json)
        out.write_bytes(film.content)
        report(film, out, keep_running, where.as_json)
        if keep_running:
            stay(gateway.url, key, folder / "demo-request.json", body)


@contextmanager
def sandbox(folder: Path, seconds: float) -> Iterator["Gateway"]:
    """Run a gateway on a free port with the stand-in upstream. The working folder's config.toml is not read."""
    from proxy.app import Gateway
    from proxy.cli.embedded import running
    from proxy.logs import Redactor, setup

    settings = demo_settings(folder, seconds)
    redactor = Redactor()
    setup("text", "warning", redactor)
    with running(lambda: Gateway(settings, redactor, sandbox=True)) as gateway:
        yield gateway


def demo_settings(folder: Path, seconds: float) -> "Settings":
    from proxy.config import load

    flags = {"data_dir": str(folder), "server.port": 0, "upstream.sandbox.seconds": seconds}
    return load(Path(os.devnull), flags, {name: os.environ[name] for name in BORROWED if name in os.environ})


def shoot(gateway: "Gateway", body: dict[str, Any], quiet: bool) -> tuple[str, "Film"]:
    """Make a key by the admin API and a video by the public one; return both."""
    from proxy.cli.connection import over_socket
    from proxy.cli.film import make
    from proxy.cli.http_client import over_tcp
    from proxy.storage.folder import Folder

    admin = over_socket(Folder(gateway.settings.data_dir).socket)
    key = admin.post("/admin/keys", {"name": "demo"})["key"]
    if not quiet:
        typer.echo(f"Grokpool runs on {gateway.url}, with a stand-in for the upstream: offline, and free.")
        typer.echo(f"POST {gateway.url}/v1/videos/generations")
    with progress(quiet) as show:
        return key, make(over_tcp(gateway.url), key, body, show)


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give what shows a job's progress: a bar on a terminal, lines elsewhere."""
    if quiet:
        yield lambda _job: None
    elif sys.stdout.isatty():
        with bar() as show:
            yield show
    else:
        yield Lines().show


@contextmanager
def bar() -> Iterator[Callable[[dict[str, Any]], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:9}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns) as display:
        task = display.add_task("queued", total=100)
        yield lambda job: display.update(task, description=job["status"], completed=job["progress"])


class Lines:
    """Progress where there is no terminal: a line now and then."""

    def __init__(self) -> None:
        self._next = 0

    def show(self, job: dict[str, Any]) -> None:
        if job["progress"] >= self._next:
            typer.echo(f"{job['status']} {job['progress']} %")
            self._next = job["progress"] // LINE_EVERY * LINE_EVERY + LINE_EVERY


def report(film: "Film", out: Path, keep_running: bool, as_json: bool) -> None:
    size = len(film.content)
    body = {"id": film.id, "path": str(out.absolute()), "bytes": size, "duration": film.duration, "url": film.url}
    shown = {
        "video": out.absolute(),
        "size": f"{size / 1000:,.0f} kB",
        "duration": f"{film.duration:.1f} s, {film.frames} pictures",
        "url": film.url,
    }
    answer(as_json, body, lambda: pairs(shown))
    if not keep_running and not as_json:
        typer.echo("The URL ends with the demo; --keep-running keeps it open.")


def stay(url: str, key: str, request: Path, body: dict[str, Any]) -> None:
    """Serve until Ctrl-C, and say how to order the next video."""
    request.write_bytes(orjson.dumps(body))
    command = ["curl", f"{url}/v1/videos/generations", "-H", f"Authorization: Bearer {key}"]
    command += ["-H", "Content-Type: application/json", "-d", f"@{request}"]
    typer.echo(f"\nThe gateway goes on until Ctrl-C. Another one:\n\n{shlex.join(command)}\n", err=True)
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()
