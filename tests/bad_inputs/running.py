"""The tests' side of the gateway under test: it is started in a process of its own, and spoken to over bare sockets."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 20.0  # seconds for one answer
GENERATIONS = "/v1/videos/generations"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of the error, where the answer is one in the envelope."""
        return str(self.json["error"]["code"]) if self.body.startswith(b'{"error"') else None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that runs, its control door, and the values of the corpus's placeholders."""

    base: str
    ctl: str
    pid: int
    ctx_file: Path
    ctx: Mapping[str, str] = field(repr=False)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.base.partition(":")
        return host, int(port)

    def fixture(
        self, *, dns: Mapping[str, list[list[str]]] | None = None, http: list[dict[str, Any]] | None = None
    ) -> None:
        """Set what the world answers, and forget whom the gateway called."""
        self._ask_door("POST", "/fx", {"dns": dns or {}, "http": http or []})

    def connects(self) -> list[str]:
        """Return whom the gateway called since, as `address:port`."""
        called: list[str] = self._ask_door("GET", "/connects", None)
        return called

    def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "KEY_A",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one well-formed request on a connection of its own."""
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if key is not None:
            sent["Authorization"] = f"Bearer {self.ctx[key]}"
        connection = http.client.HTTPConnection(self.base, timeout=PATIENCE)
        try:
            connection.request(method, path, body, sent | dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def generate(self, image_url: str, prompt: str = "a cat waves its hand", **more: Any) -> Answer:
        return self.ask(
            "POST", GENERATIONS, body=json.dumps({"image_url": image_url, "prompt": prompt}).encode(), **more
        )

    def say(self, raw: bytes, patience: float = PATIENCE) -> bytes:
        """Send bytes as they stand; return all that comes back until the gateway closes the connection.

        Raises `TimeoutError` if it does not.
        """
        with socket.create_connection(self.address, PATIENCE) as client:
            client.settimeout(patience)
            answer = b""
            try:
                client.sendall(raw)
                while piece := client.recv(65_536):
                    answer += piece
            except ConnectionError:
                pass  # a reset ends it as well
            return answer

    def resident(self) -> int:
        """Return the bytes of memory that the gateway's own process holds."""
        return self._status("VmRSS") * 1024

    def peak(self) -> int:
        """Return the most it has held since `forget_peak`."""
        return self._status("VmHWM") * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _status(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1])

    def _ask_door(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection(self.ctl, timeout=PATIENCE)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def parse(raw: bytes) -> Answer:
    """Read an answer that ended with its connection."""
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return Answer(int(first.split(" ")[1]), [(name, value) for name, _, value in pairs], body)


@contextmanager
def gateway(folder: Path, **options: object) -> Iterator[Running]:
    """Run a gateway on `folder`; `options` are named as in the environment, without the prefix."""
    environment = {f"GROKPOOL_{name.upper()}": str(value) for name, value in options.items()}
    command = [sys.executable, "-m", "tests.bad_inputs.gateway", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdin
    assert process.stdout
    with process:
        try:
            line = process.stdout.readline()
            assert line, (folder / "log").read_text()
            ready = json.loads(line)
            ctx_file = Path(ready["ctx"])
            context = json.loads(ctx_file.read_text())
            yield Running(ready["base"], ready["ctl"], ready["pid"], ctx_file, context)
        finally:
            process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert process.returncode == 0, (folder / "log").read_text()[-2000:]
