"""`grokpool admin`: the operator's own access."""

import typer

from proxy.cli.command import Where, located
from proxy.cli.connection import reach
from proxy.cli.output import answer

app = typer.Typer(help="The operator's own access.", no_args_is_help=True)


@app.command("reset")
@located
def reset(where: Where) -> None:
    """Make a new admin key; the old one opens nothing any more."""
    with reach(where) as admin:
        made = admin.post("/admin/admin-key/reset")
    answer(where.as_json, made, lambda: tell(made, far=where.url is not None))


@app.callback()
def group() -> None:
    """The operator's own access."""


def tell(made: dict[str, str], *, far: bool) -> None:
    """Say where the new key is; whoever asked from far cannot read that file, and is shown the key."""
    typer.echo(f"The new admin key is in {made['file']}", err=far)
    if far:
        typer.echo(made["admin_key"])
