"""The settings: what is read, in which order, what is refused and how, and that `config.toml` and the code agree."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from proxy.config import InvalidSettings, load, template
from proxy.domain.cooldowns import Policy
from proxy.domain.keys import KeyLimits
from proxy.domain.orders import Kind, Model
from proxy.settings import SHARES, Settings

RANDOM_KEY = "tJ3mWq0xVb7LhZ-8cYsN4aRkPd_2uGfEoKi9XvT1yMw"
OPTION = re.compile(r"^#(?=[a-z_]+ = )", re.MULTILINE)
EXAMPLES = {  # options whose default TOML cannot write: nothing. The file shows an example in its place
    "server.public_url": None,
    "fetch.proxy": None,
    "upstream.xai.ca_file": None,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistakes(
    text: str = "", flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    Path("mistaken.toml").write_text(text, "utf-8")
    with pytest.raises(InvalidSettings) as refused:
        load(Path("mistaken.toml"), flags or {}, environ or {})
    return refused.value.lines


def option_names(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping) and name != "per_second":
            yield from option_names(value, f"{above}{name}.")
        else:
            yield above + name


def every_option(section: BaseModel, above: str = "") -> Iterator[str]:
    for name, value in section:
        match value:
            case BaseModel():
                yield from every_option(value, f"{above}{name}.")
            case Policy():
                yield from (f"{above}{name}.{rule.name}" for rule in fields(Policy))
            case dict() if name != "per_second":
                for entry, options in value.items():
                    yield from every_option(options, f"{above}{name}.{entry}.")
            case _:
                yield above + name


def test_without_anything_the_defaults_hold() -> None:
    settings = load(None, {}, {})

    assert (settings.server.host, settings.server.port, settings.server.wait) == ("127.0.0.1", 8001, 110)
    assert settings.server.body_memory == 256 * 2**20
    assert settings.server.url() == "http://127.0.0.1:8001"
    assert settings.policy == Policy()
    assert settings.limits.of_new_keys() == KeyLimits()
    assert settings.catalogue()["grok-imagine-0.9"] == Model("grok-imagine-0.9", Kind.VIDEO, "grok-imagine-video")
    assert settings.tariff()["grok-imagine-video-1.5"].per_second["1080p"] == 2_500_000_000  # ticks: 0.25 USD


def test_the_file_has_every_option_with_its_default_and_nothing_else() -> None:
    Path("all.toml").write_text(OPTION.sub("", template()), "utf-8")
    written = tomllib.loads(Path("all.toml").read_text("utf-8"))
    defaults, settings = load(None, {}, {}), load(Path("all.toml"), {}, {})

    expected = [name for name in every_option(defaults) if name not in ("master_key", "admin_key")]
    assert list(option_names(written)) == expected  # in the order of the code, too

    for name in expected:
        value, default = at(settings, name), at(defaults, name)
        if name.endswith("aspect_ratio") or name in EXAMPLES:
            assert default is None
            assert value is not None
        else:
            assert value == default, name


def at(settings: Settings, name: str) -> Any:
    value: Any = settings.model_dump() | {"policy": asdict(settings.policy)}
    *sections, option = re.split(r"\.(?!\d)", name)
    for section in sections:
        value = value[section]
    return value[option]


def test_each_option_of_the_file_is_explained_and_commented_out() -> None:
    assert list(option_names(tomllib.loads(template()))) == []
    for block in template().split("\n\n"):
        if OPTION.search(block) and not block.startswith(("[models", "[prices")):
            assert re.search(r"^# ", block, re.MULTILINE), block


def test_flags_win_over_the_environment_and_that_over_the_file() -> None:
    Path("config.toml").write_text("[server]\nport = 1001\nwait = 11\ndrain = 12\n", "utf-8")
    environ = {"GROKPOOL_SERVER__PORT": "1002", "GROKPOOL_SERVER__WAIT": "22", "PATH": "/bin"}

    server = load(None, {"server.port": 1003, "server.wait": None}, environ).server

    assert (server.port, server.wait, server.drain) == (1003, 22, 12)


def test_lists_and_tables_in_the_environment_are_json() -> None:
    settings = load(
        None,
        {},
        {
            "GROKPOOL_FETCH__ALLOW_PORTS": "[80, 8080]",
            "GROKPOOL_FETCH__ALLOW_NETWORKS": '["127.0.0.0/8", "::1/128"]',
            "GROKPOOL_UPSTREAM__XAI__BASE_URL": "http://127.0.0.1:9009/v1/",
            "GROKPOOL_DATA_DIR": "/srv/grokpool",
            "GROKPOOL_POLICY__CHALLENGE_BASE": "5",
            "GROKPOOL_MODELS": '{"short": {"upstream": "grok-imagine-video", "duration": 2}}',
        },
    )

    assert settings.fetch.allow_ports == (80, 8080)
    assert settings.fetch.allow_networks == (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    assert settings.upstream.xai.base_url == "http://127.0.0.1:9009/v1"
    assert settings.data_dir == Path("/srv/grokpool")
    assert settings.policy == Policy(challenge_base=5)
    assert settings.catalogue()["short"].duration == 2
    assert "grok-imagine-0.9" in settings.models


def test_a_named_table_keeps_the_options_that_it_does_not_name() -> None:
    Path("config.toml").write_text(
        '[models."grok-imagine-0.9"]\nduration = 4\n[prices.grok-imagine-video]\nmultiplier = 1.5\n', "utf-8"
    )

    settings = load(None, {}, {})

    assert settings.models["grok-imagine-0.9"].duration == 4
    assert settings.models["grok-imagine-0.9"].upstream == "grok-imagine-video"
    assert settings.tariff()["grok-imagine-video"].charge(100) == 150
    assert settings.tariff()["grok-imagine-video"].per_second["480p"] == 500_000_000


def test_all_mistakes_are_told_at_once_each_with_its_name() -> None:
    lines = mistakes(
        """
        [server]
        prt = 1
        port = "eighty"
        drain = -1
        max_body = "15 miles"
        [fetch]
        proxy = "socks6://proxy.example"
        allow_networks = ["10.0.0.0/99"]
        [models.mine]
        duration = 99
        [upstream.xai]
        poll_max = 0.1
        [policy]
        max_attempts = -3
        told_jitter = 2
        [prices.mine]
        per_second = {"999p" = 1}
        """,
        {"log.level": "loud"},
        {"GROKPOOL_FETCH__ALLOW_PORTS": "80", "GROKPOOL_SERVR__PORT": "1", "GROKPOOL_SERVER_PORT": "1"},
    )

    for line in (
        "server.prt: there is no such option; did you mean port?",
        "server.drain: must be greater than 0 (is -1)",
        'server.max_body: must be a number of bytes, or a size like "256 MiB"',
        "models.mine.upstream: is required",
        "models.mine.duration: must be less than or equal to 15 (is 99)",
        "upstream.xai.poll_max: must not be less than upstream.xai.poll_min (is 0.1)",
        "policy.max_attempts: must be greater than or equal to 0 (is -3)",
        "policy.told_jitter: must be less than or equal to 1 (is 2)",
        "fetch.allow_ports: must be a list; in the environment, JSON (is 80)",
        "prices.mine.per_second.999p: must be one of 480p, 720p, 1080p",
        "servr: there is no such option; did you mean server?",
    ):
        assert line in lines
    named = [line.split(":")[0] for line in lines]
    for name in ("server.port", "fetch.proxy", "fetch.allow_networks[0]", "log.level", "server_port"):
        assert name in named
    assert len(lines) == 16


def test_a_name_that_toml_must_quote_is_quoted() -> None:
    assert mistakes('[models."grok 0.9"]\nupstream = ""\n')[0].startswith('models."grok 0.9".upstream: ')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.port", True),
        ("server.port", 70_000),
        ("server.port", 80.5),
        ("server.wait", float("nan")),
        ("server.wait", float("inf")),
        ("server.max_body", 0),
        ("server.max_body", "-1"),
        ("server.max_body", "5 MiB or so"),
        ("server.public_url", "ftp://video.example.com"),
        ("server.public_url", "https://user@video.example.com"),
        ("server.public_url", "https://video.example.com/?a=1"),
        ("server.public_url", "https://"),
        ("server.public_url", "https://video.example.com:port"),
        ("log.prompts", "perhaps"),
        ("limits.concurrency", 0),
        ("media.url_lifetime", 86_401),
        ("fetch.allow_ports", [0]),
        ("jobs.on_ambiguous", "pay_twice"),
        ("upstream.xai.media_hosts", "vidgen.x.ai"),
        ("models.mine", {"upstream": "x", "resolution": "8k"}),
        ("models.mine", {"upstream": "x", "aspect_ratio": "2:1"}),
        ("prices.mine", {"per_second": {"480p": -0.1}}),
        ("prices.mine", {"per_second": {"480p": 0.00000000001}}),
        ("prices.mine", {"per_second": {"480p": "1e999999"}}),
        ("prices.mine", {"per_second": {"480p": "NaN"}}),
        ("policy.confirmations", True),
        ("policy", 5),
        ("server", "127.0.0.1"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(name: str, value: object) -> None:
    lines = mistakes(flags={name: value})

    assert len(lines) == 1
    assert lines[0].startswith(name)


def test_the_size_of_a_body_can_be_text_or_a_number() -> None:
    for value, size in (("256 MiB", 256 * 2**20), ("1GB", 10**9), ("7", 7), (7, 7)):
        assert load(None, {"server.max_body": value}, {}).server.max_body == size


def test_no_limit_is_written_none() -> None:
    limits = load(None, {}, {"GROKPOOL_LIMITS__CONCURRENCY": "none"}).limits

    assert limits.of_new_keys() == KeyLimits(requests_per_minute=60, concurrency=None)


def test_no_mistake_repeats_a_value_that_may_be_a_secret() -> None:
    canary = "canary-5ecret"
    lines = mistakes(
        f"""
        password = "{canary}"
        [server]
        port = "{canary}"
        max_body = "{canary}"
        public_url = "http://user:{canary}@host"
        language = "{canary}"
        [fetch]
        proxy = "socks5://user:{canary}@host/path"
        allow_networks = ["{canary}"]
        [upstream.xai]
        base_url = "{canary}"
        """,
        {"policy.max_attempts": canary, "models.mine": canary},
        {"GROKPOOL_ADMIN_KEY": canary, "GROKPOOL_MASTER_KEY": canary, "GROKPOOL_FETCH__ALLOW_PORTS": canary},
    )

    assert len(lines) == 13
    assert canary not in "\n".join(lines)


def test_the_settings_do_not_show_their_secrets() -> None:
    settings = load(
        None, {"fetch.proxy": "socks5://user:canary@proxy.example:1080"}, {"GROKPOOL_ADMIN_KEY": RANDOM_KEY}
    )

    assert settings.fetch.proxy is not None
    assert settings.fetch.proxy.reveal() == "socks5://user:canary@proxy.example:1080"
    assert settings.admin_key is not None
    assert settings.admin_key.reveal() == RANDOM_KEY
    for shown in (repr(settings), str(settings), str(settings.model_dump())):
        assert "canary" not in shown
        assert RANDOM_KEY not in shown


@pytest.mark.parametrize("name", ["ADMIN_KEY", "MASTER_KEY"])
@pytest.mark.parametrize(
    "value",
    ["", "short", RANDOM_KEY[:42], "changeme" * 6, "a" * 43, "grokpool-" + "password" * 5, "0123456789" * 5],
)
def test_a_weak_key_is_refused(name: str, value: str) -> None:
    (line,) = mistakes(environ={"GROKPOOL_" + name: value})

    assert line.startswith(name.lower() + ": ")


def test_a_key_in_the_file_is_refused_and_not_used() -> None:
    (line,) = mistakes(f'admin_key = "{RANDOM_KEY}"')

    assert line == "admin_key: is read from GROKPOOL_ADMIN_KEY alone, never from a file"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "video.example.com"])
def test_a_bind_beyond_loopback_needs_a_public_url(host: str) -> None:
    (line,) = mistakes(flags={"server.host": host})

    assert line.startswith("server.public_url: ")
    assert "server.host" in line
    assert load(None, {"server.host": host, "server.public_url": "https://v.example.com/"}, {}).server.url() == (
        "https://v.example.com"
    )


@pytest.mark.parametrize(("host", "url"), [("localhost", "http://localhost:81"), ("::1", "http://[::1]:81")])
def test_the_public_url_follows_a_loopback_bind(host: str, url: str) -> None:
    assert load(None, {"server.host": host, "server.port": 0}, {}).server.url(81) == url


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"[server\n", "is not valid TOML"), (b"\xff\xfe", "is not UTF-8"), (None, "cannot be read")],
)
def test_a_broken_file_is_named(content: bytes | None, complaint: str) -> None:
    path = Path("here.toml")
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(InvalidSettings) as refused:
        load(path, {"server.port": -1}, {})

    assert refused.value.lines[0].startswith(f"here.toml: {complaint}")
    assert refused.value.lines[1].startswith("server.port: ")


def test_names_for_the_test_run_and_of_others_are_let_through() -> None:
    load(None, {}, {"GROKPOOL_TEST_REQUIRE": "all", "GROK": "1", "SERVER__PORT": "1"})


def test_the_real_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROKPOOL_SERVER__PORT", "1")

    assert load(None, {}, {}).server.port == 8001


def test_the_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None, {}, {}).server.__setattr__("port", 1)


def test_the_shares_are_rules_of_the_policy() -> None:
    assert set(SHARES) <= {rule.name for rule in fields(Policy)}


def test_reading_the_settings_brings_in_no_server_and_no_database() -> None:
    program = "import sys, proxy.config; print({'aiohttp', 'sqlalchemy', 'cryptography', 'rich'} & set(sys.modules))"

    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": ""}
    )

    assert found.stdout.strip() == "set()"
