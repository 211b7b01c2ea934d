"""`grokpool pause` and `grokpool resume`: of everything, of a driver, of a model."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from proxy.cli.command import Misused, Where, located
from proxy.cli.connection import reach
from proxy.cli.output import answer, moment, table


class Kind(StrEnum):
    ALL = "all"
    DRIVER = "driver"
    MODEL = "model"


KindArgument = Annotated[Kind, typer.Argument(metavar="[all|driver|model]", show_default="all")]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which driver, or which model.")]


@located
def pause(
    where: Where,
    kind: KindArgument = Kind.ALL,
    name: Name = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="For whoever wonders.")] = "by the operator",
) -> None:
    """Start no new work: jobs wait. What runs goes on."""
    change(where, "/admin/pause", subject(kind, name) | {"reason": reason})


@located
def resume(where: Where, kind: KindArgument = Kind.ALL, name: Name = None) -> None:
    """Start new work again."""
    change(where, "/admin/resume", subject(kind, name))


def change(where: Where, path: str, body: dict[str, Any]) -> None:
    with reach(where) as admin:
        pauses = admin.post(path, body)
    columns = {
        "paused": pause_text,
        "since": lambda pause: moment(pause["since"], admin.now),
        "reason": lambda pause: pause["reason"],
    }
    answer(where.as_json, pauses, lambda: table(columns, pauses["data"], "nothing is paused"))


def subject(kind: Kind, name: str | None) -> dict[str, Any]:
    if (kind is Kind.ALL) != (name is None):
        raise Misused("say `all`, `driver NAME` or `model NAME`")
    return {"kind": kind} if name is None else {"kind": kind, "id": name}


def pause_text(pause: dict[str, Any]) -> str:
    return "everything" if pause["kind"] == Kind.ALL else f"{pause['kind']} {pause['id']}"
