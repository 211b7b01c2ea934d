"""`grokpool db`: the database in the data folder."""

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.command import Misused, Problem, Where, located, wall_clock
from proxy.cli.connection import reach
from proxy.cli.output import answer
from proxy.cli.setup import explained, read_settings

app = typer.Typer(help="The database in the data folder.", no_args_is_help=True)


@app.command("upgrade")
@located
def upgrade(where: Where) -> None:
    """Bring the schema up to date, after a backup. `serve` does so by itself."""
    from proxy.storage import migrate
    from proxy.storage.folder import Folder

    folder = Folder(read_settings(local(where)).data_dir)
    with explained():
        folder.take()
        try:
            backup = migrate.upgrade(folder.database, folder.backups, wall_clock())
        finally:
            folder.release()
    body = {"database": str(folder.database), "backup": None if backup is None else str(backup)}
    text = "is up to date" if backup is None else f"is upgraded; the old one is in {backup}"
    answer(where.as_json, body, lambda: typer.echo(f"{folder.database} {text}"))


@app.command("backup")
@located
def backup(where: Where, file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Copy the database, beside a running server too. The master key and the media are not in it."""
    from proxy.storage import migrate
    from proxy.storage.folder import Folder

    folder = Folder(read_settings(local(where)).data_dir)
    if not folder.database.exists():
        raise Problem(f"{folder.database}: there is no database")
    if file.exists():
        raise Problem(f"{file}: exists already")
    with explained():
        migrate.back_up(folder.database, file)
    answer(where.as_json, {"file": str(file), "bytes": file.stat().st_size}, lambda: tell(file))


@app.command("rotate-master-key")
@located
def rotate_master_key(where: Where) -> None:
    """Make a new master key and seal every secret under it, online."""
    with reach(where) as admin:
        rotated = admin.post("/admin/master-key/rotate")
    text = f"{rotated['resealed']} secrets are sealed under the master key {rotated['key_id']}. {rotated['note']}"
    answer(where.as_json, rotated, lambda: typer.echo(text))


def tell(file: Path) -> None:
    typer.echo(
        f"{file}: {file.stat().st_size} bytes. The secrets in it open with the master key alone: keep that elsewhere"
    )


def local(where: Where) -> Where:
    if where.url is not None:
        raise Misused("this works on a data folder, not by --url")
    return where
