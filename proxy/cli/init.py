"""`grokpool init`: asks for what cannot be guessed, and writes the settings and the data folder."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proxy.cli.command import AsJson, Config, DataDir, Problem, Where
from proxy.cli.http_client import Refused
from proxy.cli.output import answer
from proxy.cli.secret_input import read_secret

if TYPE_CHECKING:
    from proxy.cli.connection import Admin
    from proxy.settings import Settings
    from proxy.storage.folder import Folder

SECTION = re.compile(r"\[(.+)\]")
OPTION = re.compile(r"#?(\w+) = ")


PublicUrl = Annotated[
    str | None, typer.Option("--public-url", metavar="URL", help="How clients reach it; empty: from here alone.")
]
TokenFile = Annotated[
    str | None, typer.Option("--token-file", metavar="FILE", help="The first token (- is standard input).")
]
ProxyFile = Annotated[
    str | None, typer.Option("--proxy-file", metavar="FILE", help="The first proxy's URL (- is standard input).")
]
NewAdminKeyFile = Annotated[
    str | None, typer.Option("--admin-key-file", metavar="FILE", help="The admin key; else one is made.")
]


def init(
    context: typer.Context,
    *,
    public_url: PublicUrl = None,
    host: Annotated[str | None, typer.Option("--host", help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=1, max=65_535)] = None,
    driver: Annotated[str, typer.Option("--driver", help="The token's kind of upstream.")] = "xai",
    token_file: TokenFile = None,
    proxy_file: ProxyFile = None,
    admin_key_file: NewAdminKeyFile = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Ask nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over settings that are there.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Set up a gateway: write its settings, make its data folder, take in the first token and proxy."""
    where = Where(config, data_dir, None, admin_key_file, as_json).over(context.find_root().obj)
    path = where.config or Path("config.toml")
    if path.exists() and not force:
        raise Problem(f"{path}: exists already; --force writes over it")
    asks = sys.stdin.isatty() and not no_input
    if asks and public_url is None:
        public_url = typer.prompt("Public URL (empty: reached from this machine alone)", default="", show_default=False)
    secrets = {
        "proxy": secret("First proxy, like socks5://user:password@host:1080 (empty: direct)", proxy_file, asks),
        "token": secret(f"First {driver} token (empty: later)", token_file, asks),
        "admin_key": secret("Admin key (empty: one is made)", where.admin_key_file, asks),
    }
    options = {"data_dir": where.data_dir, "server.public_url": public_url, "server.host": host, "server.port": port}
    made = write(path, options, secrets, driver)
    answer(where.as_json, made, lambda: next_steps(made, where.config))


def secret(question: str, file: str | None, asks: bool) -> str | None:
    """Return the secret in the file, or what is answered to the question; None for nothing."""
    if file is not None:
        return read_secret(question.partition(" (")[0], file, "a file")
    if not asks:
        return None
    return typer.prompt(question, default="", show_default=False, hide_input=True).strip() or None


def write(path: Path, options: dict[str, Any], secrets: dict[str, str | None], driver: str) -> dict[str, Any]:
    """Write the settings once the data folder has taken everything in. Raises `Misused`, `Problem`."""
    from proxy.cli.setup import explained
    from proxy.config import template

    new = path.with_name(path.name + ".new")
    text = fill(template(), {name: value for name, value in options.items() if value not in (None, "")})
    with explained():
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, "utf-8")
    try:
        made = fill_folder(check(new, secrets["admin_key"]), secrets, driver)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return {"config": str(path.absolute()), **made}


def fill(template: str, values: dict[str, Any]) -> str:
    """Return the template with these options set, by dotted name."""
    section, lines = "", []
    for line in template.splitlines():
        if found := SECTION.fullmatch(line):
            section = found[1] + "."
        elif (found := OPTION.match(line)) and section + found[1] in values:
            value = values[section + found[1]]
            lines.append(f"{found[1]} = {json.dumps(value if isinstance(value, int) else str(value))}")
            continue
        lines.append(line)
    return "\n".join(lines) + "\n"


def check(config: Path, admin_key: str | None) -> "Settings":
    """Return the settings of the new file, which the admin key must fit as well. Raises `Misused`."""
    from proxy.cli.setup import read_settings

    return read_settings(Where(config=config), {"admin_key": admin_key})


def fill_folder(settings: "Settings", secrets: dict[str, str | None], driver: str) -> dict[str, Any]:
    """Make the data folder; take in the admin key, the first proxy and the first token. Raises `Problem`."""
    from proxy.cli.connection import over_socket
    from proxy.cli.embedded import services
    from proxy.storage.folder import Folder

    folder = Folder(settings.data_dir)
    if secrets["admin_key"] is not None:
        keep_admin_key(folder, secrets["admin_key"])
        settings = settings.model_copy(update={"admin_key": None})  # it is the file's from now on
    with services(settings):
        admin = over_socket(folder.socket)
        proxy = take_in(admin, "/admin/proxies", {"url": secrets["proxy"]})
        token = take_in(admin, "/admin/tokens", {"secret": secrets["token"], "driver": driver})
    return {
        "data_dir": str(folder.root.absolute()),
        "admin_key_file": str(folder.admin_key.absolute()) if settings.admin_key is None else None,
        "proxy": proxy,
        "token": token,
    }


def keep_admin_key(folder: "Folder", admin_key: str) -> None:
    """Raises `Problem`, when a gateway runs on the folder."""
    from proxy.cli.setup import explained
    from proxy.storage.folder import write_private

    with explained():
        folder.take()
        try:
            write_private(folder.admin_key, admin_key + "\n")
        finally:
            folder.release()


def take_in(admin: "Admin", path: str, body: dict[str, Any]) -> str | None:
    """Add the thing, if there is one; return its id. One that is there already is left as it is."""
    if None in body.values():
        return None
    try:
        return str(admin.post(path, body)["id"])
    except Refused as refused:
        if refused.status != 409:
            raise
        typer.echo(f"left as it is: {refused}", err=True)
        return None


def next_steps(made: dict[str, Any], config: Path | None) -> None:
    """Say what was made, and how it goes on."""
    command = "grokpool" if config is None else f"grokpool --config {shlex.quote(str(config))}"
    typer.echo(f"Settings     {made['config']}\nData folder  {made['data_dir']}")
    if made["admin_key_file"] is not None:
        typer.echo(f"Admin key    {made['admin_key_file']}")
    typer.echo("\nNext:")
    if made["token"] is None:
        typer.echo(f"  {command} tokens add           put an upstream token into the pool")
    typer.echo(f"  {command} keys create NAME     make a client's key")
    typer.echo(f"  {command} serve                run the gateway")
    typer.echo(f"  {command} doctor               look whether all is well")
