"""What can be done to one token and to one proxy alike."""

from collections.abc import Callable
from typing import Any

import typer

from proxy.cli.command import Where
from proxy.cli.connection import item, reach
from proxy.cli.output import answer, pairs

Show = Callable[[dict[str, Any], float], None]  # prints one, as of a moment


def show(where: Where, noun: str, id_: str, show_one: Show) -> None:
    with reach(where) as admin:
        found = admin.get(item(noun, id_))
    answer(where.as_json, found, lambda: show_one(found, admin.now))


def act(where: Where, noun: str, id_: str, verb: str, show_one: Show) -> None:
    """Do `verb` to it, and show what it is then."""
    with reach(where) as admin:
        changed = admin.post(item(noun, id_, verb))
    answer(where.as_json, changed, lambda: show_one(changed, admin.now))


def test(where: Where, noun: str, id_: str) -> None:
    """Try it out. Exits with 1 where it is not all right."""
    with reach(where) as admin:
        result = admin.post(item(noun, id_, "test"))
    answer(where.as_json, result, lambda: pairs(result))
    if not result["ok"]:
        raise typer.Exit(1)


def remove(where: Where, noun: str, id_: str, force: bool) -> None:
    with reach(where) as admin:
        removed = admin.delete(item(noun, id_) + ("?force=true" if force else ""))
    answer(where.as_json, removed, lambda: typer.echo(f"{removed['id']} is removed"))
