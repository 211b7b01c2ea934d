"""Real gateways in processes that can be told at which named step to die, as by `kill -9`.

    python -m tests.crash.gateways

reads orders, one JSON object a line: `{"id", "folder", "options", "step", "nth"}`, and forks a gateway for each; with
`step`, it kills itself when it comes there for the nth time. It answers by lines too: `{"id", "pid", "url"}` when a
gateway listens, `{"id", "status"}` when it has ended (negative: by that signal). At the end of its input all die.
Everything is imported once, so that a start takes a tenth of a second.
"""

import json
import os
import selectors
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    from proxy import app  # noqa: F401  # late: a decoder process loads this module and needs none of it

    running: dict[int, str] = {}
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ready = selectors.DefaultSelector()
    ready.register(ended, selectors.EVENT_READ)
    ready.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in ready.select():
            if key.fileobj == ended:
                os.read(ended, 512)
                reap(running)
            elif line := sys.stdin.readline():
                order = json.loads(line)
                running[fork(order)] = order["id"]
            else:
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return


def reap(running: dict[int, str]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        say(id=running.pop(pid), status=os.waitstatus_to_exitcode(status))


def fork(order: dict[str, Any]) -> int:
    """Return the pid of a new gateway."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        become(order)
        status = 0
    finally:
        os._exit(status)


def become(order: dict[str, Any]) -> None:
    """Be a gateway until SIGTERM, or the step to die at."""
    import asyncio
    import traceback

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(Path(order["folder"]) / "gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    try:
        asyncio.run(serve(order))
    except BaseException:
        traceback.print_exc()
        raise


async def serve(order: dict[str, Any]) -> None:
    from proxy.app import Gateway
    from proxy.logs import Redactor, setup
    from tests.gateway import settings_of

    redactor = Redactor()
    setup("json", "info", redactor)
    left = order["nth"]

    def reached(step: str) -> None:
        nonlocal left
        if step == order["step"]:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    gateway = Gateway(settings_of(Path(order["folder"]), order["options"]), redactor, reached=reached)
    await gateway.start()
    say(id=order["id"], pid=os.getpid(), url=gateway.url)
    await gateway.serve_forever()


def say(**fields: object) -> None:
    """Write one line, in one piece: others write to the same pipe."""
    os.write(1, json.dumps(fields).encode() + b"\n")


if __name__ == "__main__":
    main()
