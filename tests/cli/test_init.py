import stat
import tomllib
from pathlib import Path

from tests.cli.commands import Grokpool

TOKEN = "xai-canary-of-init-0123456789"
PASSWORD = "canary-of-init"
ADMIN_KEY = "Zq3v9XbT7mKp2LwRc8YdHs5NfGjUe4Ak6BtVn1MxQoPz"


def test_init_writes_settings_without_secrets_and_takes_everything_in(grokpool: Grokpool, tmp_path: Path) -> None:
    files = {"token": TOKEN, "proxy": f"socks5://u:{PASSWORD}@127.0.0.1:9", "admin": ADMIN_KEY}
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    made = grokpool.json(
        *("init", "--no-input", "--public-url", "https://video.example.com", "--port", "8010"),
        *("--token-file", "token", "--proxy-file", "proxy", "--admin-key-file", "admin"),
    )
    text = (grokpool.folder / "config.toml").read_text()
    assert tomllib.loads(text)["server"] == {"public_url": "https://video.example.com", "port": 8010}
    assert not [secret for secret in (TOKEN, PASSWORD, ADMIN_KEY) if secret in text]
    assert "#wait = 110" in text
    assert grokpool.json("tokens", "list")["data"][0]["id"] == made["token"]
    assert grokpool.json("proxies", "list")["data"][0]["id"] == made["proxy"]
    admin_key = Path(made["admin_key_file"])
    assert admin_key.read_text().strip() == ADMIN_KEY
    assert stat.S_IMODE(admin_key.stat().st_mode) == 0o600


def test_init_writes_over_nothing_without_force(grokpool: Grokpool) -> None:
    (grokpool.folder / "config.toml").write_text("# mine\n")
    grokpool.run("init", "--no-input", code=1)
    assert (grokpool.folder / "config.toml").read_text() == "# mine\n"
    assert "keys create" in grokpool.run("init", "--no-input", "--force").stdout
    assert grokpool.run("init", "--no-input", "--force").returncode == 0


def test_init_refuses_what_serve_would_refuse_and_leaves_nothing(grokpool: Grokpool) -> None:
    assert "server.public_url" in grokpool.run("init", "--no-input", "--public-url", "nonsense", code=2).stderr
    (grokpool.folder / "weak").write_text("change-me")
    assert "change-me" not in grokpool.run("init", "--no-input", "--admin-key-file", "weak", code=2).stderr
    assert [path.name for path in grokpool.folder.iterdir()] == ["weak"]
