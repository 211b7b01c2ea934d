"""The real command, run as a process in a folder of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any, cast

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds; a loaded machine imports slowly


@dataclass(frozen=True)
class Grokpool:
    """`grokpool` in `folder`, where its data folder and its config.toml are."""

    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "grokpool-data"

    def run(self, *args: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one command; it must exit with `code`."""
        done = subprocess.run(
            [*COMMAND, *args],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, stdin: str = "", code: int = 0) -> Any:
        return json.loads(self.run(*args, "--json", stdin=stdin, code=code).stdout)

    def environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GROKPOOL_")}
        return clean | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"} | dict(self.environ)

    @contextmanager
    def running(self, *args: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[str]]:
        """Run a command that goes on until the signal `stop`, and exits with 0 then."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*COMMAND, *args], cwd=self.folder, env=self.environment(), stdout=pipe, stderr=pipe, text=True
        )
        with process:
            try:
                yield process
            finally:
                process.send_signal(stop)
                output = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output

    @contextmanager
    def serving(self, *args: str) -> Iterator[str]:
        """Run `serve` on a free port; give its URL."""
        with self.running("serve", "--port", "0", "--json", "--log-level", "error", *args) as process:
            yield cast(str, read_json(process)["url"])


COMMAND = (sys.executable, "-W", "error", "-m", "proxy")


def read_json(process: subprocess.Popen[str]) -> Any:
    """Read the one object that the process prints, indented, while it goes on."""
    assert process.stdout is not None
    guard = Timer(PATIENCE, process.kill)  # of one that says nothing
    guard.start()
    lines: list[str] = []
    while not lines or lines[-1] not in ("}\n", ""):
        lines.append(process.stdout.readline())
    guard.cancel()
    return json.loads("".join(lines))
