"""`grokpool keys`: the API keys of clients."""

from typing import Annotated, Any

import typer

from proxy.cli.command import Where, located, wall_clock
from proxy.cli.connection import item, reach
from proxy.cli.output import answer, moment, more, pairs, table
from proxy.cli.values import count, given, seconds
from proxy.cli.values import moment as read_moment

app = typer.Typer(help="API keys of clients.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id; `keys list` has it.")]
PerMinute = Annotated[
    str | None, typer.Option("--requests-per-minute", metavar="N", help="Requests in any 60 s; `none`: no limit.")
]
Concurrency = Annotated[
    str | None, typer.Option("--concurrency", metavar="N", help="Generations at a time; `none`: no limit.")
]
Expiry = Annotated[
    str | None, typer.Option("--expires-at", metavar="WHEN", help="2027-01-31, or 30d from now; `none`: never.")
]


@app.command("create")
@located
def create(
    where: Where,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for.")],
    *,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="ID", help="Whose it is.")] = None,
    requests_per_minute: PerMinute = None,
    concurrency: Concurrency = None,
    expires_at: Expiry = None,
) -> None:
    """Make a key. It is shown this once."""
    body = given(name=name, tenant=tenant) | options(requests_per_minute, concurrency, expires_at)
    with reach(where) as admin:
        key = admin.post("/admin/keys", body)
    answer(where.as_json, key, lambda: show_new(key))


@app.command("list")
@located
def list_keys(
    where: Where, limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None
) -> None:
    """List the keys, oldest first."""
    with reach(where) as admin:
        page = admin.rows("/admin/keys", limit)
    columns = {
        "id": lambda key: key["id"],
        "name": lambda key: key["name"],
        "tenant": lambda key: key["tenant"],
        "status": lambda key: key["status"],
        "starts with": lambda key: [secret["shown"] for secret in key["secrets"]],
        "per minute": lambda key: limit_text(key["requests_per_minute"]),
        "at a time": lambda key: limit_text(key["concurrency"]),
        "expires": lambda key: moment(key["expires_at"], admin.now),
    }
    answer(where.as_json, page, lambda: table(columns, page["data"], "no keys; `grokpool keys create NAME` makes one"))
    more(page)


@app.command("show")
@located
def show(where: Where, id_: Id) -> None:
    """Show one key."""
    with reach(where) as admin:
        key = admin.get(item("keys", id_))
    answer(where.as_json, key, lambda: show_one(key, admin.now))


@app.command("update")
@located
def update(
    where: Where,
    id_: Id,
    *,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME")] = None,
    requests_per_minute: PerMinute = None,
    concurrency: Concurrency = None,
    expires_at: Expiry = None,
) -> None:
    """Change a key's name, limits or expiry."""
    body = given(name=name) | options(requests_per_minute, concurrency, expires_at)
    with reach(where) as admin:
        key = admin.patch(item("keys", id_), body)
    answer(where.as_json, key, lambda: show_one(key, admin.now))


@app.command("rotate")
@located
def rotate(
    where: Where,
    id_: Id,
    grace: Annotated[str, typer.Option("--grace", metavar="TIME", help="How long the older secret goes on.")] = "24h",
) -> None:
    """Give a key a new secret; the older one goes on for the grace period."""
    body = {"grace": seconds("--grace", grace)}
    with reach(where) as admin:
        key = admin.post(item("keys", id_, "rotate"), body)
    answer(where.as_json, key, lambda: show_new(key))


@app.command("revoke")
@located
def revoke(where: Where, id_: Id) -> None:
    """Refuse a key from now on, for good."""
    with reach(where) as admin:
        key = admin.post(item("keys", id_, "revoke"))
    answer(where.as_json, key, lambda: typer.echo(f"{key['id']} is revoked"))


def options(per_minute: str | None, concurrency: str | None, expires_at: str | None) -> dict[str, Any]:
    return given(
        requests_per_minute=count("--requests-per-minute", per_minute),
        concurrency=count("--concurrency", concurrency),
        expires_at=read_moment("--expires-at", expires_at, wall_clock()),
    )


def show_new(key: dict[str, Any]) -> None:
    typer.echo(f"{key['id']}: keep its key, it is shown this once", err=True)
    typer.echo(key["key"])


def show_one(key: dict[str, Any], now: float) -> None:
    pairs(
        {
            "id": key["id"],
            "name": key["name"],
            "tenant": key["tenant"],
            "status": key["status"],
            "requests per minute": limit_text(key["requests_per_minute"]),
            "generations at a time": limit_text(key["concurrency"]),
            "created": moment(key["created_at"], now),
            "expires": moment(key["expires_at"], now),
            "revoked": moment(key["revoked_at"], now),
        }
    )
    for secret in key["secrets"]:
        end = "" if secret["expires_at"] is None else f", ends {moment(secret['expires_at'], now)}"
        typer.echo(f"secret {secret['shown']}…, made {moment(secret['created_at'], now)}{end}")


def limit_text(limit: int | None) -> str:
    return "no limit" if limit is None else str(limit)
