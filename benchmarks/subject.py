"""The gateway as the system under test: `grokpool serve`'s composition and settings, and a probe beside it."""

import os
import sys

from benchmarks.loop import runner
from benchmarks.probe import Probe, say
from proxy.app import Gateway
from proxy.config import load
from proxy.logs import Redactor, setup


async def main(*, works: bool) -> None:
    settings = load(None, {}, os.environ)
    redactor = Redactor(prompts=settings.log.prompts)
    setup(settings.log.format, settings.log.level, redactor)
    gateway = Gateway(settings, redactor, worker=works)
    await gateway.start()
    Probe()
    say({"url": gateway.url})
    await gateway.serve_forever()


if __name__ == "__main__":
    with runner() as running:
        running.run(main(works="--no-worker" not in sys.argv))
