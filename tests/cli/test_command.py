"""What holds for every command: help, exit codes, where the shared options may stand."""

import subprocess
import sys

import pytest

from tests.cli.commands import Grokpool

NO_HEAVY_IMPORT = """
import sys
from proxy.__main__ import program
import typer.main
typer.main.get_command(program())
heavy = {"sqlalchemy", "alembic", "aiohttp", "pydantic", "av", "PIL", "cryptography"} & sys.modules.keys()
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", NO_HEAVY_IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_told(grokpool: Grokpool) -> None:
    assert grokpool.run("--version").stdout.strip()[0].isdigit()


def test_without_a_command_the_help_is_shown(grokpool: Grokpool) -> None:
    assert "tokens" in grokpool.run(code=2).stdout


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "frobnicate"],
        ["keys", "create"],
        ["keys", "create", "x", "--concurrency", "many"],
        ["keys", "create", "x", "--expires-at", "whenever"],
        ["pause", "driver"],
        ["pause", "all", "xai"],
        ["--url", "gopher://x", "status"],
        ["--url", "http://127.0.0.1:1/path", "status"],
        ["tokens", "add"],
        ["tokens", "add", "--secret-file", "nowhere"],
    ],
)
def test_misuse_exits_with_2_and_leaves_nothing_behind(grokpool: Grokpool, words: list[str]) -> None:
    done = grokpool.run(*words, code=2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert list(grokpool.folder.iterdir()) == []


def test_wrong_settings_are_told_all_at_once(grokpool: Grokpool) -> None:
    (grokpool.folder / "config.toml").write_text("[server]\nprot = 1\n[limits]\nconcurrency = 0\n")
    told = grokpool.run("serve", code=2).stderr.splitlines()
    assert any(line.startswith("grokpool: server.prot: ") for line in told)
    assert any(line.startswith("grokpool: limits.concurrency: ") for line in told)


def test_where_nobody_listens_the_exit_code_is_3(grokpool: Grokpool) -> None:
    done = grokpool.run("--url", "http://127.0.0.1:9", "status", "--admin-key-file", "-", stdin="key", code=3)
    assert done.stderr.count("\n") == 1


def test_shared_options_may_stand_before_and_behind_the_command(grokpool: Grokpool) -> None:
    for words in (["--data-dir", "here", "--json", "keys", "list"], ["keys", "list", "--json", "--data-dir", "here"]):
        assert grokpool.run(*words).stdout.split() == ["{", '"data":', "[],", '"next":', "null", "}"]
    assert (grokpool.folder / "here" / "grokpool.db").exists()


def test_a_data_folder_made_on_the_way_is_told(grokpool: Grokpool) -> None:
    assert str(grokpool.data) in grokpool.run("keys", "list").stderr
    assert grokpool.run("keys", "list").stderr == ""
