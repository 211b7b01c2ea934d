"""What the commands have in common: which gateway they speak to, and how they answer."""

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Which gateway, and how it answers"


class Problem(Exception):
    """A command cannot do what it was asked to; the message is one line for people."""

    exit_code = 1


class Misused(Problem):
    """What was typed, or what the settings say, cannot be used."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Where:
    """The gateway a command speaks to: the one at `url`, else the one on the data folder of these settings."""

    config: Path | None = None
    data_dir: Path | None = None
    url: str | None = None
    admin_key_file: str | None = None
    as_json: bool = False

    def over(self, other: "Where") -> "Where":
        """Return this, with what it leaves open taken from `other`."""
        return Where(**{field.name: getattr(self, field.name) or getattr(other, field.name) for field in fields(self)})


Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; else ./config.toml if there.", rich_help_panel=PANEL),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Data folder; else as the settings say.", rich_help_panel=PANEL),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="A gateway elsewhere, by its admin key.", rich_help_panel=PANEL),
]
AdminKeyFile = Annotated[
    str | None,
    typer.Option(
        "--admin-key-file",
        metavar="FILE",
        help="Admin key for --url (- is standard input); else GROKPOOL_ADMIN_KEY, else a prompt.",
        rich_help_panel=PANEL,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, as the admin API does.", rich_help_panel=PANEL)]
SHARED = {"config": Config, "data_dir": DataDir, "url": Url, "admin_key_file": AdminKeyFile, "as_json": AsJson}
NOT_GIVEN = {field.name: field.default for field in fields(Where)}


def located(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command whose first parameter is a `Where` the options that say it.

    They may stand before the command's name too: `grokpool --json keys list`.
    """
    own = list(inspect.signature(command).parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=option, default=NOT_GIVEN[name])
        for name, option in SHARED.items()
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    @functools.wraps(command)
    def run(*, context: typer.Context, **values: Any) -> None:
        here = Where(**{name: values.pop(name) for name in SHARED})
        command(here.over(context.find_root().obj), **values)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    run.__dict__["__signature__"] = inspect.Signature([*keyword_only, *shared, context])
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *shared, context]}
    return run


def wall_clock() -> float:
    """Return Unix seconds by this machine's clock, as the edges of the program may."""
    return time.clock_gettime(time.CLOCK_REALTIME)
