"""Answers: tables and pairs for people, the admin API's own JSON for programs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
import typer

NOTHING = "-"
STEPS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "�")
NARROWEST_PIPE = 200  # columns where there is no terminal: nothing is cut there


def answer(as_json: bool, body: Any, show: Callable[[], None]) -> None:
    """Print `body` as JSON, or let `show` print it for people."""
    if as_json:
        typer.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2))
    else:
        show()


def table(columns: Mapping[str, Callable[[Any], object]], rows: Sequence[Any], empty: str) -> None:
    """Print a row for each of `rows`; a column is a heading and what it shows of a row."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo(empty)
        return
    grid = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in columns:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell(show(row))) for show in columns.values()))
    print_rich(grid)


def pairs(values: Mapping[str, object]) -> None:
    """Print a name and a value on each line."""
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:{width}}  {cell(value)}")


def more(page: Mapping[str, Any]) -> None:
    """Tell whoever reads a cut list that it goes on."""
    if page["next"] is not None:
        typer.echo("… and more: give a larger --limit", sys.stderr)


def print_rich(what: Any) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(NARROWEST_PIPE, console.width))
    console.print(what)


def cell(value: object) -> str:
    """Return a value as people read it, on one line and without control characters: names come from anywhere."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(cell, value)) or NOTHING
        case _:
            return str(value).translate(CONTROLS)


def moment(at: float | None, now: float) -> str:
    """Return a moment as local time, and how far it is from `now`."""
    if at is None:
        return NOTHING
    local = datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
    return f"{local} ({distance(at - now)})"


def distance(seconds: float) -> str:
    """Return "in 3 h", "5 min ago", "now"."""
    size = abs(seconds)
    for step, unit in STEPS:
        if size >= step:
            text = f"{int(size // step)} {unit}"
            return f"in {text}" if seconds > 0 else f"{text} ago"
    return "now"
