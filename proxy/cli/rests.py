"""Cooldowns for people: what rests, why, until when."""

from collections.abc import Sequence
from typing import Any

from proxy.cli.output import moment, table

SUBJECTS = {
    "token": "token {id}",
    "token_model": "token {id} for {scope}",
    "team": "team {id}",
    "team_model": "team {id} for {scope}",
    "proxy": "proxy {id}",
    "proxy_host": "proxy {id} to {scope}",
    "pair": "token {id} by proxy {scope}",
}


def show_cooldowns(cooldowns: Sequence[dict[str, Any]], now: float) -> None:
    """Print the running cooldowns, if there are any."""
    if not cooldowns:
        return
    columns = {
        "rests": subject,
        "why": lambda rest: rest["cause"],
        "until": lambda rest: moment(rest["until"], now),
        "strikes": lambda rest: rest["strikes"],
        "evidence": lambda rest: rest["evidence"],
    }
    table(columns, cooldowns, "")


def subject(cooldown: dict[str, Any]) -> str:
    return SUBJECTS.get(cooldown["kind"], "{kind} {id} {scope}").format_map(cooldown)
