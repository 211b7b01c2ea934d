"""`python -m benchmarks`: run the benchmarks, print tables, write the same as JSON."""

import argparse
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from benchmarks import durable, inflight, loop, pool, short
from benchmarks.machine import Cores, allow_many_files, conditions, cores
from benchmarks.report import Report, markdown

BENCHMARKS: dict[str, Callable[..., Coroutine[Any, Any, Report]]] = {
    "pool": pool.run,
    "durable": durable.run,
    "short": short.run,
    "inflight": inflight.run,
}


def main() -> None:
    options = _options()
    allow_many_files()
    given = cores()
    around = conditions(given) | {"loop": loop.name(), "quick": options.quick}
    options.out.mkdir(parents=True, exist_ok=True)
    print(_preface(given, around))
    for name in options.only or BENCHMARKS:
        report = _run(name, given, options.quick)
        result = {"conditions": around, **report.as_json()}
        (options.out / f"{name}.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
        (options.out / f"{name}.md").write_text(markdown(report))
        print(markdown(report), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the gateway beside baselines.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="in two minutes: to see that it works, not for figures")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    return parser.parse_args()


def _run(name: str, given: Cores, quick: bool) -> Report:
    with loop.runner() as running:
        return running.run(BENCHMARKS[name](given, quick=quick))


def _preface(given: Cores, around: dict[str, object]) -> str:
    lines = [f"{name}: {value}" for name, value in around.items()]
    if given.are_shared:
        lines.append("There is one core only, which the load shares: believe the ratios, not the figures.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
