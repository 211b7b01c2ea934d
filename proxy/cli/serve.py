"""`grokpool serve`: the gateway."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.command import AsJson, Config, DataDir, Misused, Where
from proxy.cli.output import answer
from proxy.cli.setup import explained, read_settings

if TYPE_CHECKING:
    from proxy.app import Gateway


class LogFormat(StrEnum):
    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def serve(
    context: typer.Context,
    *,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="0 takes a free one.")] = None,
    public_url: Annotated[str | None, typer.Option("--public-url", help="How clients reach the gateway.")] = None,
    log_format: Annotated[LogFormat | None, typer.Option("--log-format")] = None,
    log_level: Annotated[LogLevel | None, typer.Option("--log-level")] = None,
    metrics_port: Annotated[int | None, typer.Option("--metrics-port", min=0, max=65_535)] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Put a stand-in upstream into the pool: offline.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C. Flags win over the environment, that over config.toml."""
    where = Where(config=config, data_dir=data_dir, as_json=as_json).over(context.find_root().obj)
    flags = {
        "server.host": host,
        "server.port": port,
        "server.public_url": public_url,
        "server.metrics_port": metrics_port,
        "log.format": log_format,
        "log.level": log_level,
    }
    settings = read_settings(where, flags)
    from proxy.app import Gateway
    from proxy.logs import Redactor, setup

    redactor = Redactor(prompts=settings.log.prompts)
    setup(settings.log.format, settings.log.level, redactor)
    with asyncio.Runner(loop_factory=loop_factory(settings.server.loop)) as runner:
        gateway = Gateway(settings, redactor, sandbox=sandbox)
        with explained():
            runner.run(gateway.start())
        runner.run(stay(gateway, where.as_json))


async def stay(gateway: "Gateway", as_json: bool) -> None:
    """Serve until a signal, and announce it once a signal would be heard."""
    asyncio.get_running_loop().call_soon(announce, gateway, as_json)
    await gateway.serve_forever()


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop that `server.loop` asks for. Raises `Misused`."""
    if kind != "asyncio":
        try:
            import uvloop
        except ImportError:
            if kind == "uvloop":
                raise Misused("server.loop: uvloop is not installed; install grokpool[uvloop]") from None
        else:
            return uvloop.new_event_loop
    return asyncio.new_event_loop


def announce(gateway: "Gateway", as_json: bool) -> None:
    """Say where the gateway listens and, at the first start, where its admin key is."""
    note = gateway.admin_key_note
    admin_key_file = None if note is None else str(Path(note).absolute())
    body = {"url": gateway.url, "port": gateway.port, "admin_key_file": admin_key_file}

    def tell() -> None:
        typer.echo(f"Grokpool listens on {gateway.url} (port {gateway.port})")
        if admin_key_file is not None:
            typer.echo(f"The admin key is in {admin_key_file}")

    answer(as_json, body, tell)
