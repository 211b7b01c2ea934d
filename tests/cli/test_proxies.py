from tests.cli.commands import Grokpool

PASSWORD = "canary-of-a-proxy"
URL = f"socks5h://user:{PASSWORD}@127.0.0.1:9"  # nobody listens there


def test_a_proxy_lives_from_add_to_remove_and_its_password_is_never_shown(served: Grokpool) -> None:
    done = served.run("proxies", "add", "--secret-file", "-", "--name", "dead", "--json", stdin=URL)
    said = done.stdout + done.stderr
    proxy = next(row for row in served.json("proxies", "list")["data"] if row["name"] == "dead")
    id_ = proxy["id"]
    assert proxy["url"].endswith("@127.0.0.1:9")

    tested = served.json("proxies", "test", id_, code=1)
    assert tested["ok"] is False
    assert served.json("proxies", "update", id_, "--user-agent", "Agent/1")["user_agent"] == "Agent/1"
    assert served.json("proxies", "disable", id_)["status"] == "disabled"
    assert served.json("proxies", "enable", id_)["status"] in ("ready", "cooling")
    for words in (["list"], ["show", id_], ["clear", id_]):
        done = served.run("proxies", *words)
        said += done.stdout + done.stderr
    assert served.json("proxies", "remove", id_, "--force")["removed"] is True
    assert PASSWORD not in said + str(tested)


def test_a_url_of_an_unknown_kind_is_refused_without_repeating_it(served: Grokpool) -> None:
    refused = served.run("proxies", "add", "--secret-file", "-", stdin=f"gopher://u:{PASSWORD}@host", code=1)
    assert PASSWORD not in refused.stderr
