"""`grokpool`, and `python -m proxy`: the command line."""

import sys
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from typer import Typer


def main() -> None:
    """Run one command. Exits with 1 when it is refused, 2 when it is misused, 3 when no gateway answers."""
    from proxy.cli.command import Problem

    try:
        program()()
    except Problem as problem:
        for line in str(problem).splitlines():
            print(f"grokpool: {line}", file=sys.stderr)
        sys.exit(problem.exit_code)


def program() -> "Typer":
    """Return the command line. What a command needs beyond its own options is imported when it runs."""
    import typer

    from proxy.cli import admin, db, demo, doctor, init, jobs, keys, pauses, proxies, serve, status, tokens
    from proxy.cli.command import AdminKeyFile, AsJson, Config, DataDir, Url, Where

    app = typer.Typer(
        name="grokpool",
        help="A gateway between many clients and Grok generation.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        pretty_exceptions_show_locals=False,
    )

    @app.callback()
    def locate(
        context: typer.Context,
        *,
        version: Annotated[
            bool, typer.Option("--version", help="Tell the version.", is_eager=True, callback=tell_version)
        ] = False,
        config: Config = None,
        data_dir: DataDir = None,
        url: Url = None,
        admin_key_file: AdminKeyFile = None,
        as_json: AsJson = False,
    ) -> None:
        context.obj = Where(config, data_dir, url, admin_key_file, as_json)

    for command in (serve.serve, demo.demo, init.init, status.status, doctor.doctor, pauses.pause, pauses.resume):
        app.command()(command)
    for noun in (keys, tokens, proxies, jobs, db, admin):
        app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])
    return app


def tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        import typer

        typer.echo(version("grokpool"))
        raise typer.Exit


if __name__ == "__main__":
    main()
