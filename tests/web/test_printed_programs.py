"""The programs that the API document prints run as printed, with address, key and image put in their places."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.gateway import IMAGE, running
from tests.requirements import missing, need_program

DOCUMENT = Path(__file__).resolve().parents[2].parent / "shared" / "spec" / "video-api.zh.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
BASE_URL = "http://localhost:8001"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the programs run, and what is put in their places."""

    folder: Path
    url: str
    key: str

    def placed(self, program: str) -> str:
        program = re.sub(r"https://example\.com/[\w-]+\.jpg", IMAGE, program)
        return program.replace(BASE_URL, self.url).replace("YOUR_API_KEY", self.key)

    async def run(self, *command: str, **environment: str) -> str:
        """Run a program and return what it printed."""
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.folder,
            env=os.environ | environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            printed, _ = await process.communicate()
        assert process.returncode == 0, printed.decode()
        return printed.decode()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    async with running(tmp_path / "data", sandbox=True, upstream__sandbox__seconds=0.05) as gateway:
        yield Setting(tmp_path, gateway.api.url, await gateway.api.key())


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of node modules with axios in it."""
    folder = tmp_path_factory.mktemp("node")
    command = [
        need_program("npm"),
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
        "axios@1",
    ]
    if subprocess.run(command, capture_output=True, check=False, timeout=120).returncode != 0:
        missing("the npm package axios")
    return folder / "node_modules"


def programs(language: str, containing: str) -> str:
    """Return the document's one program in a language that contains some text."""
    if not DOCUMENT.exists():
        pytest.skip("the API document is not beside this checkout")
    blocks: list[tuple[str, str]] = BLOCK.findall(DOCUMENT.read_text())
    found = [text for name, text in blocks if name == language and containing in text]
    assert found, f"the document prints no such program: {containing}"
    return found[0]


async def test_curl(setting: Setting) -> None:
    need_program("curl")
    printed = await setting.run("bash", "-c", setting.placed(programs("bash", "curl -X POST")))
    assert '"status":"completed"' in printed


async def test_python(setting: Setting) -> None:
    program = setting.placed(programs("python", "result = response.json()\nprint(f"))
    printed = await setting.run(sys.executable, "-c", program)
    assert f"视频URL: {setting.url}/media/" in printed


async def test_python_with_error_handling(setting: Setting) -> None:
    program = setting.placed(programs("python", "def generate_video"))
    assert "成功！视频URL" in await setting.run(sys.executable, "-c", program)


async def test_the_complete_python_example_generates_and_downloads(setting: Setting) -> None:
    program = setting.placed(programs("python", "class VideoGenerator"))
    printed = await setting.run(sys.executable, "-c", program)
    assert "✓ 视频已保存" in printed
    (saved,) = (setting.folder / "videos").iterdir()
    assert saved.read_bytes()[4:8] == b"ftyp"


async def test_node_with_axios(setting: Setting, node_modules: Path) -> None:
    program = setting.placed(programs("javascript", "axios.post"))
    printed = await setting.run(need_program("node"), "-e", program, NODE_PATH=str(node_modules))
    assert f"视频URL: {setting.url}/media/" in printed


async def test_node_with_fetch(setting: Setting) -> None:
    program = setting.placed(programs("javascript", "fetch('http"))
    assert f"视频URL: {setting.url}/media/" in await setting.run(need_program("node"), "-e", program)


async def test_the_readmes_programs(setting: Setting) -> None:
    """The README's Python and Node programs name the bundled photograph by its path in a checkout."""
    repository = Path(__file__).parents[2]
    text = (repository / "README.md").read_text()
    blocks = {name: block for name, block in BLOCK.findall(text) if name in ("python", "javascript")}
    (setting.folder / "proxy").symlink_to(repository / "proxy")
    assert "/media/" in await setting.run(sys.executable, "-c", setting.placed(blocks["python"]))
    script = setting.folder / "program.mjs"
    script.write_text(setting.placed(blocks["javascript"]))
    assert "/media/" in await setting.run(need_program("node"), str(script))
