"""`grokpool proxies`: the proxies that upstream traffic leaves through."""

from typing import Annotated, Any

import typer

from proxy.cli import items
from proxy.cli.command import Where, located
from proxy.cli.connection import item, reach
from proxy.cli.output import answer, moment, more, pairs, table
from proxy.cli.rests import show_cooldowns
from proxy.cli.secret_input import read_secret
from proxy.cli.values import given

app = typer.Typer(help="Proxies that upstream traffic leaves through.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The proxy's id; `proxies list` has it.")]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What people call it.")]
UrlFile = Annotated[
    str | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="The URL with its password, like socks5://user:password@host:1080 (- is standard input); `add` asks.",
    ),
]
ClearanceFile = Annotated[
    str | None,
    typer.Option("--clearance-file", metavar="FILE", help="Its clearance cookie (- is standard input); `none`: none."),
]
UserAgent = Annotated[
    str | None, typer.Option("--user-agent", metavar="TEXT", help="The User-Agent the clearance belongs to.")
]


@app.command("add")
@located
def add(
    where: Where,
    secret_file: UrlFile = None,
    name: Name = None,
    clearance_file: ClearanceFile = None,
    user_agent: UserAgent = None,
) -> None:
    """Add a proxy (socks4, socks4a, socks5, socks5h, http, https). Its URL is asked for, or read from --secret-file."""
    url = read_secret("URL of the proxy", secret_file, "--secret-file")
    body = given(url=url, name=name, clearance=clearance(clearance_file), user_agent=user_agent)
    with reach(where) as admin:
        proxy = admin.post("/admin/proxies", body)
    answer(where.as_json, proxy, lambda: show_one(proxy, admin.now))


@app.command("list")
@located
def list_proxies(
    where: Where, limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None
) -> None:
    """List the proxies, oldest first."""
    with reach(where) as admin:
        page = admin.rows("/admin/proxies", limit)
    columns = {
        "id": lambda proxy: proxy["id"],
        "name": lambda proxy: proxy["name"],
        "url": lambda proxy: proxy["url"],
        "status": lambda proxy: proxy["status"],
        "tokens": lambda proxy: proxy["tokens"],
        "exit": lambda proxy: proxy["exit_address"],
        "cooling until": lambda proxy: moment(proxy["cooling_until"], admin.now),
    }
    answer(where.as_json, page, lambda: table(columns, page["data"], "no proxies: upstream traffic goes direct"))
    more(page)


@app.command("show")
@located
def show(where: Where, id_: Id) -> None:
    """Show one proxy, and why it rests."""
    items.show(where, "proxies", id_, show_one)


@app.command("update")
@located
def update(
    where: Where,
    id_: Id,
    *,
    secret_file: UrlFile = None,
    name: Name = None,
    clearance_file: ClearanceFile = None,
    user_agent: UserAgent = None,
) -> None:
    """Change a proxy. Anything but a new name clears its cooldowns."""
    url = None if secret_file is None else read_secret("URL of the proxy", secret_file, "--secret-file")
    body = given(url=url, name=name, clearance=clearance(clearance_file), user_agent=user_agent)
    with reach(where) as admin:
        proxy = admin.patch(item("proxies", id_), body)
    answer(where.as_json, proxy, lambda: show_one(proxy, admin.now))


@app.command("test")
@located
def test(where: Where, id_: Id) -> None:
    """Go out through a proxy and tell which address the world sees. Exits with 1 where that fails."""
    items.test(where, "proxies", id_)


@app.command("enable")
@located
def enable(where: Where, id_: Id) -> None:
    """Let traffic leave through a proxy."""
    items.act(where, "proxies", id_, "enable", show_one)


@app.command("disable")
@located
def disable(where: Where, id_: Id) -> None:
    """Let nothing new leave through a proxy."""
    items.act(where, "proxies", id_, "disable", show_one)


@app.command("clear")
@located
def clear(where: Where, id_: Id) -> None:
    """End a proxy's cooldowns."""
    items.act(where, "proxies", id_, "clear", show_one)


@app.command("remove")
@located
def remove(
    where: Where,
    id_: Id,
    force: Annotated[bool, typer.Option("--force", help="Even if tokens are pinned to it, or it is the last.")] = False,
) -> None:
    """Remove a proxy. Without any, upstream traffic goes direct."""
    items.remove(where, "proxies", id_, force)


def clearance(file: str | None) -> str | None:
    return file if file in (None, "none") else read_secret("Clearance cookie", file, "--clearance-file")


def show_one(proxy: dict[str, Any], now: float) -> None:
    pairs(
        {
            "id": proxy["id"],
            "name": proxy["name"],
            "url": proxy["url"],
            "status": proxy["status"],
            "tokens": proxy["tokens"],
            "exit address": proxy["exit_address"] or "not known yet; `grokpool proxies test` asks",
            "clearance": proxy["has_clearance"],
            "user agent": proxy["user_agent"],
            "created": moment(proxy["created_at"], now),
            "cooling until": moment(proxy["cooling_until"], now),
        }
    )
    show_cooldowns(proxy["cooldowns"], now)
