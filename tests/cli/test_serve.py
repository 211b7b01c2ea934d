import signal
import socket

from tests.cli.commands import Grokpool, read_json


def test_the_first_start_says_where_it_listens_and_where_the_admin_key_is(grokpool: Grokpool) -> None:
    with grokpool.running("serve", "--port", "0", "--json") as process:
        told = read_json(process)
        assert told["admin_key_file"] == str(grokpool.data / "admin.key")
        socket.create_connection(("127.0.0.1", told["port"])).close()
    with grokpool.running("serve", "--port", "0", "--json", stop=signal.SIGINT) as process:
        assert read_json(process)["admin_key_file"] is None


def test_a_second_server_on_the_same_folder_is_refused(served: Grokpool) -> None:
    assert "another grokpool runs" in served.run("serve", "--port", "0", code=1).stderr


def test_a_taken_port_is_told_in_one_line(grokpool: Grokpool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = grokpool.run("serve", "--port", str(taken.getsockname()[1]), code=1)
    assert done.stderr.startswith("grokpool: ")
    assert done.stderr.count("\n") == 1


def test_a_bind_beyond_loopback_without_a_public_url_is_refused(grokpool: Grokpool) -> None:
    assert "server.public_url" in grokpool.run("serve", "--host", "0.0.0.0", code=2).stderr


def test_the_sandbox_does_not_start_beside_real_tokens(grokpool: Grokpool) -> None:
    grokpool.run("tokens", "add", "--secret-file", "-", stdin="xai-0123456789abcdef")
    assert "real tokens" in grokpool.run("serve", "--sandbox", "--port", "0", code=1).stderr
