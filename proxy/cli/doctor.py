"""`grokpool doctor`: looks at everything a gateway needs, and says what to do."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.command import Misused, Problem, Where, located
from proxy.cli.connection import Admin, reach
from proxy.cli.examination import Check, Clocks, Result, folder, live, pool, upstream_clock
from proxy.cli.output import answer, cell
from proxy.cli.setup import read_settings

if TYPE_CHECKING:
    from proxy.settings import Settings


@located
def doctor(
    where: Where,
    make_video: Annotated[bool, typer.Option("--live", help="Make one 1-second video; it costs money.")] = False,
    max_usd: Annotated[float, typer.Option("--max-usd", min=0, help="What that may cost, by the list price.")] = 0.10,
) -> None:
    """Check settings, data folder, disk, clock, proxies and tokens. Exits with 1 when something is wrong."""
    if make_video and where.url is not None:
        raise Misused("--live works on the gateway's own machine, where its prices are known")
    checks = []
    for check in examine(where, max_usd if make_video else None):
        checks.append(check)
        if not where.as_json:
            tell(check)
    answer(where.as_json, {"checks": [asdict(check) for check in checks]}, lambda: None)
    if any(check.result is Result.WRONG for check in checks):
        raise typer.Exit(1)


def examine(where: Where, max_usd: float | None) -> Iterator[Check]:
    """Yield check after check. What depends on something that is wrong is left out."""
    clocks = Clocks()
    settings = None
    if where.url is None:
        try:
            settings = read_settings(where)
        except Misused as misused:
            for line in str(misused).splitlines():
                yield Check("settings", Result.WRONG, line, "correct the option, or take it out")
            return
        yield Check("settings", Result.OK, "every option is known and fits")
        yield from folder(settings)
        if not settings.data_dir.is_dir():
            return
    try:
        with reach(where, works=max_usd is not None) as admin:
            yield from examine_gateway(admin, clocks, settings, max_usd)
    except Problem as problem:
        yield Check("gateway", Result.WRONG, str(problem), "the log of `grokpool serve` tells more")


def examine_gateway(
    admin: Admin, clocks: Clocks, settings: "Settings | None", max_usd: float | None
) -> Iterator[Check]:
    there = admin.get("/admin/status")
    yield Check("gateway", Result.OK, f"version {there['version']} answers; its database is open and up to date")
    yield from pool(admin)
    if settings is None:
        yield clocks.compare("the gateway", there["now"])
        return
    if max_usd is not None:
        if there["proxies"]["total"] == 0:  # with proxies nothing goes to the upstream directly
            yield upstream_clock(clocks, settings.upstream.xai.base_url)
        yield live(admin, settings, max_usd)
    yield clocks.check()


def tell(check: Check) -> None:
    typer.echo(f"{check.result:8} {check.name}: {cell(check.message)}")
    if check.fix is not None:
        typer.echo(f"{'':8} → {cell(check.fix)}")
