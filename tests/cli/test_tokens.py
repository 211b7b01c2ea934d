from pathlib import Path

from tests.cli.commands import Grokpool

CANARY = "xai-canary-of-the-command-line-0123456789"


def test_a_token_lives_from_add_to_remove_and_its_secret_is_never_shown(grokpool: Grokpool) -> None:
    with grokpool.serving():
        said = live(grokpool)
    assert CANARY not in said
    assert not kept_in(grokpool.data, CANARY)


def live(grokpool: Grokpool) -> str:
    """Take a token through its life; return all that the commands said."""
    done = grokpool.run("tokens", "add", "--secret-file", "-", "--name", "first", "--json", stdin=CANARY + "\n")
    said = done.stdout + done.stderr
    token = grokpool.json("tokens", "list")["data"][0]
    assert (token["name"], token["driver"], token["status"]) == ("first", "xai", "ready")
    id_ = token["id"]
    assert grokpool.json("tokens", "disable", id_)["status"] == "disabled"
    assert grokpool.json("tokens", "enable", id_)["status"] == "ready"
    assert grokpool.json("tokens", "update", id_, "--concurrency", "3", "--team", "t1")["concurrency"] == 3
    assert grokpool.json("tokens", "drain", id_, "--wait")["status"] == "disabled"
    for words in (["list"], ["show", id_], ["clear", id_, "--json"]):
        done = grokpool.run("tokens", *words)
        said += done.stdout + done.stderr
    assert grokpool.json("tokens", "remove", id_) == {"id": id_, "removed": True}
    assert grokpool.json("tokens", "list")["data"] == []
    return said


def test_a_secret_comes_from_a_file_and_the_same_one_twice_is_refused(served: Grokpool, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"  {CANARY}-twice \n")
    served.run("tokens", "add", "--secret-file", str(secret))
    refused = served.run("tokens", "add", "--secret-file", str(secret), code=1)
    assert CANARY not in refused.stderr


def test_an_empty_secret_and_one_of_two_lines_are_misuse(served: Grokpool) -> None:
    for text in ("", "\n", "one\ntwo\n"):
        served.run("tokens", "add", "--secret-file", "-", stdin=text, code=2)


def kept_in(folder: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())
