"""What is shipped: the pinned versions agree, and the wheel has all that runs outside a checkout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys, hatchling.build as build; print(build.build_wheel(sys.argv[1]))"


def run(*command: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-c", BUILD, folder, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    return folder / built.stdout.split()[-1]


def sources(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


def test_the_wheel_has_the_package_the_migrations_and_the_settings_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        default = archive.read("proxy/_default.toml")

    assert names == (
        {f"proxy/{name}" for name in sources(ROOT / "proxy")}
        | {f"proxy/_migrations/{name}" for name in sources(ROOT / "migrations")}
        | {"proxy/_default.toml"}
    )
    assert default == (ROOT / "config.toml").read_bytes()


def test_the_wheel_names_its_command_its_licence_and_what_it_needs(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        about = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
        assert "grokpool = proxy.__main__:main" in archive.read(about["entry_points.txt"]).decode()
        metadata = archive.read(about["METADATA"]).decode()

    assert "LICENSE" in about
    assert "License-Expression: MIT" in metadata
    assert "Requires-Dist: sqlalchemy[asyncio]" in metadata
    assert "Requires-Dist: pytest" not in metadata


def test_the_unpacked_wheel_finds_its_settings_outside_a_checkout(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "import proxy.config as c; assert c.template().strip(); c.load(None, {}, {}); print(c.__file__)"

    ran = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))

    assert ran.stdout.startswith(str(tmp_path)), ran.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What `.ci/lock` looks at, in a folder of its own."""
    for name in ("pyproject.toml", "requirements.lock", ".ci/lock"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_pinned_versions_agree() -> None:
    checked = run(sys.executable, ".ci/lock", "--check", cwd=ROOT)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("requirements.lock", "orjson==", "orjson==0.", "orjson==0."),
        ("requirements.lock", "    --hash=sha256:", "    # sha256:", "no hash"),
        ("requirements.lock", "orjson==", "orjson>=", "no exact version: orjson>="),
        ("requirements.lock", "orjson==", "other==", "orjson is not pinned"),
        ("requirements.lock", "# via", "# via https://index.example", "a URL"),
        ("requirements.lock", " ; python_full_version >= '3.12'", "", "is not among the constraints"),
        ("pyproject.toml", '"orjson==', '"orjson>=', "a constraint is no exact version"),
        ("pyproject.toml", 'test = ["', 'test = ["newcomer", "', "newcomer is not pinned"),
        ("pyproject.toml", 'uvloop = ["', 'redis = ["redis", "', "redis is not pinned"),
        ("pyproject.toml", 'requires = ["hatchling==', 'requires = ["hatchling==9', "the build takes hatchling==9"),
    ],
)
def test_pins_that_do_not_agree_are_told(copy: Path, name: str, old: str, new: str, complaint: str) -> None:
    text = (copy / name).read_text("utf-8")
    assert old in text
    (copy / name).write_text(text.replace(old, new), "utf-8")

    checked = run(sys.executable, ".ci/lock", "--check", cwd=copy)

    assert checked.returncode == 1
    assert complaint in checked.stdout


def test_a_file_that_names_a_package_registry_is_told(copy: Path) -> None:
    run("git", "init", "-q", cwd=copy)
    (copy / "setup.md").write_text("pip install -i https://" + "pypi" + ".org/simple", "utf-8")

    checked = run(sys.executable, ".ci/lock", "--check", cwd=copy)

    assert checked.stdout == "setup.md: names the host of a package registry\n"
