"""`grokpool tokens`: the upstream credentials in the pool."""

import time
from typing import Annotated, Any

import typer

from proxy.cli import items
from proxy.cli.command import Where, located
from proxy.cli.connection import item, reach
from proxy.cli.output import answer, moment, more, pairs, table
from proxy.cli.rests import show_cooldowns
from proxy.cli.secret_input import read_secret
from proxy.cli.values import given

app = typer.Typer(help="Upstream credentials in the pool.", no_args_is_help=True)

LOOK_AGAIN = 1.0  # seconds between two looks at a draining token

Id = Annotated[str, typer.Argument(metavar="ID", help="The token's id; `tokens list` has it.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")]
SecretFile = Annotated[
    str | None,
    typer.Option("--secret-file", metavar="FILE", help="The secret (- is standard input); `add` asks without it."),
]
Concurrency = Annotated[int | None, typer.Option("--concurrency", min=1, help="Generations at a time.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Another address of the API; `none`: the driver's.")
]
ProxyId = Annotated[
    str | None, typer.Option("--proxy", metavar="ID", help="Pin it to this proxy (id or name); `none`: unpin.")
]
Tier = Annotated[str | None, typer.Option("--tier", metavar="NAME")]
Team = Annotated[str | None, typer.Option("--team", metavar="ID", help="Tokens of one team share its rate limits.")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="NAME", help="An upstream model it serves (repeat it); `none`: the driver's all."),
]


@app.command("add")
@located
def add(
    where: Where,
    *,
    driver: Annotated[str, typer.Option("--driver", help="The kind of upstream: xai, sandbox.")] = "xai",
    secret_file: SecretFile = None,
    name: Name = None,
    concurrency: Concurrency = None,
    base_url: BaseUrl = None,
    proxy: ProxyId = None,
    tier: Tier = None,
    team: Team = None,
    models: Models = None,
) -> None:
    """Put a token into the pool. Its secret is asked for, or read from --secret-file."""
    secret = read_secret("Secret of the token", secret_file, "--secret-file")
    body = given(driver=driver, secret=secret, name=name, concurrency=concurrency, base_url=base_url)
    body |= given(proxy=proxy, tier=tier, team=team, models=model_list(models))
    with reach(where) as admin:
        token = admin.post("/admin/tokens", body)
    answer(where.as_json, token, lambda: show_one(token, admin.now))


@app.command("list")
@located
def list_tokens(
    where: Where, limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None
) -> None:
    """List the tokens, oldest first."""
    with reach(where) as admin:
        page = admin.rows("/admin/tokens", limit)
    columns = {
        "id": lambda token: token["id"],
        "name": lambda token: token["name"],
        "driver": lambda token: token["driver"],
        "status": status_text,
        "in flight": lambda token: f"{token['in_flight']} of {token['concurrency']}",
        "proxy": lambda token: token["proxy"],
        "cooling until": lambda token: moment(token["cooling_until"], admin.now),
    }
    answer(where.as_json, page, lambda: table(columns, page["data"], "no tokens; `grokpool tokens add` adds one"))
    more(page)


@app.command("show")
@located
def show(where: Where, id_: Id) -> None:
    """Show one token, and why it rests."""
    items.show(where, "tokens", id_, show_one)


@app.command("update")
@located
def update(
    where: Where,
    id_: Id,
    *,
    secret_file: SecretFile = None,
    name: Name = None,
    concurrency: Concurrency = None,
    base_url: BaseUrl = None,
    proxy: ProxyId = None,
    tier: Tier = None,
    team: Team = None,
    models: Models = None,
) -> None:
    """Change a token. A new secret clears its cooldowns."""
    secret = None if secret_file is None else read_secret("Secret of the token", secret_file, "--secret-file")
    body = given(secret=secret, name=name, concurrency=concurrency, base_url=base_url)
    body |= given(proxy=proxy, tier=tier, team=team, models=model_list(models))
    with reach(where) as admin:
        token = admin.patch(item("tokens", id_), body)
    answer(where.as_json, token, lambda: show_one(token, admin.now))


@app.command("test")
@located
def test(where: Where, id_: Id) -> None:
    """Ask the upstream whether it knows the token; free of charge. Exits with 1 where it does not."""
    items.test(where, "tokens", id_)


@app.command("enable")
@located
def enable(where: Where, id_: Id) -> None:
    """Let a token take work."""
    items.act(where, "tokens", id_, "enable", show_one)


@app.command("disable")
@located
def disable(where: Where, id_: Id) -> None:
    """Give a token no new work; it finishes its own."""
    items.act(where, "tokens", id_, "disable", show_one)


@app.command("drain")
@located
def drain(
    where: Where, id_: Id, wait: Annotated[bool, typer.Option("--wait", help="Until nothing runs on it.")] = False
) -> None:
    """Disable a token and, with --wait, wait until its work is done."""
    with reach(where) as admin:
        token = admin.post(item("tokens", id_, "drain"))
        while wait and token["in_flight"]:
            time.sleep(LOOK_AGAIN)
            token = admin.get(item("tokens", id_))
    answer(where.as_json, token, lambda: show_one(token, admin.now))


@app.command("clear")
@located
def clear(where: Where, id_: Id) -> None:
    """End a token's cooldowns, and those of its team."""
    items.act(where, "tokens", id_, "clear", show_one)


@app.command("remove")
@located
def remove(
    where: Where, id_: Id, force: Annotated[bool, typer.Option("--force", help="Even while jobs run on it.")] = False
) -> None:
    """Take a token out of the pool. Jobs that run on it finish."""
    items.remove(where, "tokens", id_, force)


def model_list(models: list[str] | None) -> list[str] | str | None:
    return "none" if models == ["none"] else models or None


def status_text(token: dict[str, Any]) -> str:
    cause = token["disabled_cause"]
    return token["status"] if cause is None else f"{token['status']} ({cause})"


def show_one(token: dict[str, Any], now: float) -> None:
    pairs(
        {
            "id": token["id"],
            "name": token["name"],
            "driver": token["driver"],
            "status": status_text(token),
            "in flight": f"{token['in_flight']} of {token['concurrency']}",
            "proxy": f"{token['pinned_proxy']} (pinned)" if token["pinned_proxy"] else token["proxy"],
            "tier": token["tier"],
            "team": token["team"],
            "base url": token["base_url"] or "the driver's",
            "models": token["models"] or "the driver's all",
            "created": moment(token["created_at"], now),
            "cooling until": moment(token["cooling_until"], now),
        }
    )
    show_cooldowns(token["cooldowns"], now)
