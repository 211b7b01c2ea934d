"""`grokpool jobs`: the generations, finished and under way."""

from typing import Annotated, Any

import typer

from proxy.cli.command import Where, located
from proxy.cli.connection import item, reach
from proxy.cli.output import NOTHING, answer, moment, more, pairs, table
from proxy.domain.jobs import JobState
from proxy.domain.money import TICKS_PER_USD

app = typer.Typer(help="Generations, finished and under way.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as its client was given it.")]


@app.command("list")
@located
def list_jobs(
    where: Where,
    state: Annotated[JobState | None, typer.Option("--state", help="Only those.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only those of this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
) -> None:
    """List the jobs, newest first."""
    with reach(where) as admin:
        page = admin.rows("/admin/jobs", limit, state=state, key=key)
    columns = {
        "id": lambda job: job["id"],
        "state": lambda job: job["state"],
        "%": lambda job: job["progress"],
        "model": lambda job: job["model"],
        "key": lambda job: job["key"],
        "token": lambda job: job["token"],
        "created": lambda job: moment(job["created_at"], admin.now),
        "error": lambda job: job["error"],
    }
    answer(where.as_json, page, lambda: table(columns, page["data"], "no jobs"))
    more(page)


@app.command("show")
@located
def show(where: Where, id_: Id) -> None:
    """Show one job with its attempts."""
    with reach(where) as admin:
        job = admin.get(item("jobs", id_))
    answer(where.as_json, job, lambda: show_one(job, admin.now))


@app.command("cancel")
@located
def cancel(where: Where, id_: Id) -> None:
    """Cancel a job. Its client is told at once; its token is busy until the upstream is done."""
    with reach(where) as admin:
        job = admin.post(item("jobs", id_, "cancel"))
    answer(where.as_json, job, lambda: show_one(job, admin.now))


def show_one(job: dict[str, Any], now: float) -> None:
    shown = ("id", "state", "error", "progress", "dialect", "tenant", "key", "model", "upstream_model", "duration")
    more_shown = ("resolution", "aspect_ratio", "token", "proxy", "upstream_id", "file")
    moments = ("created_at", "deadline", "finished_at", "seen_at")
    pairs(
        {name.replace("_", " "): job[name] for name in shown + more_shown}
        | {name.removesuffix("_at"): moment(job[name], now) for name in moments}
        | {"cost": usd(job["cost"]), "charge": usd(job["charge"])}
    )
    columns = {
        "attempt": lambda attempt: attempt["number"],
        "token": lambda attempt: attempt["token"],
        "proxy": lambda attempt: attempt["proxy"],
        "why this token": lambda attempt: attempt["why"],
        "started": lambda attempt: moment(attempt["started_at"], now),
        "seconds": seconds_taken,
        "outcome": lambda attempt: attempt["outcome"],
        "blame": lambda attempt: attempt["blame"],
        "evidence": lambda attempt: attempt["evidence"],
        "possible cost": lambda attempt: usd(attempt["possible_cost"]),
    }
    table(columns, job["attempts"], "no attempts")


def seconds_taken(attempt: dict[str, Any]) -> str:
    ended = attempt["ended_at"]
    return "under way" if ended is None else f"{ended - attempt['started_at']:.1f}"


def usd(ticks: int | None) -> str:
    return NOTHING if ticks is None else f"${ticks / TICKS_PER_USD:.4f}"
