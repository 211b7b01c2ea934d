"""`grokpool status`: one page that says what runs, what rests and why, what is wrong and what to do."""

from typing import Any

import typer

from proxy.cli.command import Where, located
from proxy.cli.connection import reach
from proxy.cli.output import answer, cell, distance, moment
from proxy.cli.pauses import pause_text
from proxy.cli.rests import show_cooldowns

ENDS = ("completed", "failed", "cancelled")


@located
def status(where: Where) -> None:
    """Tell on one page what runs, what rests and why, and what is wrong."""
    with reach(where) as admin:
        body = admin.get("/admin/status")
    answer(where.as_json, body, lambda: show(body, admin.serves))


def show(body: dict[str, Any], serves: bool) -> None:
    now = body["now"]
    flags = "".join(f", {flag}" for flag in ("sandbox", "draining") if body[flag])
    running = f"started {moment(body['started_at'], now)}{flags}" if serves else "not running: `grokpool serve` runs it"
    typer.echo(f"Grokpool {body['version']}, {running}\n")
    jobs = body["jobs"]
    lines = {
        "jobs": jobs_text(jobs, now),
        "last hour": ", ".join(f"{jobs[f'{state}_last_hour']} {state}" for state in ENDS),
        "tokens": tokens_text(body["tokens"]),
        "proxies": proxies_text(body["proxies"]),
        "keys": f"{body['keys']['active']} active",
    }
    for name, text in lines.items():
        typer.echo(f"{name:10} {text}")
    for model in body["models"]:
        typer.echo(f"{'model':10} {model_text(model)}")
    for pause in body["pauses"]:
        reason = cell(pause["reason"])
        typer.echo(f"{'paused':10} {cell(pause_text(pause))}, since {moment(pause['since'], now)}: {reason}")
    if body["cooldowns"]:
        typer.echo(f"\nResting: {body['cooldowns_total']}")
        show_cooldowns(body["cooldowns"], now)
    show_problems(body["problems"])


def show_problems(problems: list[dict[str, Any]]) -> None:
    if not problems:
        typer.echo("\nNothing is wrong.")
        return
    typer.echo("\nWhat is wrong, and what to do:")
    for problem in problems:
        typer.echo(f"  {problem['severity']}: {cell(problem['message'])}")
        typer.echo(f"    → {cell(problem['fix'])}")


def jobs_text(jobs: dict[str, Any], now: float) -> str:
    text = "{running} running, {sending} sending, {queued} queued".format_map(jobs)
    if jobs["oldest_queued_at"] is not None:
        text += f" (the oldest since {distance(jobs['oldest_queued_at'] - now)}; {jobs['waiting']} wait for a slot)"
    return text


def tokens_text(tokens: dict[str, int]) -> str:
    counts = [f"{tokens[state]} {state}" for state in ("ready", "cooling", "full", "disabled") if tokens[state]]
    return f"{tokens['total']}: {', '.join(counts) or 'none'}; {tokens['in_flight']} of {tokens['slots']} slots busy"


def proxies_text(proxies: dict[str, int]) -> str:
    if proxies["total"] == 0:
        return "none: upstream traffic goes direct"
    counts = [f"{proxies[state]} {state}" for state in ("ready", "cooling", "disabled") if proxies[state]]
    return f"{proxies['total']}: {', '.join(counts)}"


def model_text(model: dict[str, Any]) -> str:
    return f"{cell(model['model'])} ({cell(model['names'])}): {model_state(model)}"


def model_state(model: dict[str, Any]) -> str:
    if model["paused"]:
        return "paused"
    if model["wait"] is None:
        return "nothing serves it"
    return "a slot is free" if model["wait"] <= 0 else f"a slot {distance(model['wait'])}"
