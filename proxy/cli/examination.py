"""What the doctor looks at, one kind of thing a function."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.cli.command import Problem, wall_clock
from proxy.cli.connection import Admin, item
from proxy.cli.film import PHOTO, make, request_body
from proxy.cli.http_client import Refused, Unreachable, over_tcp, send
from proxy.domain.money import TICKS_PER_USD
from proxy.domain.orders import Kind, Order

if TYPE_CHECKING:
    from proxy.settings import Settings

LITTLE_SPACE = 5  # times what is the least
DRIFT = 0.5  # seconds that two clocks may part while the doctor looks
SKEW = 30.0  # seconds of difference to another machine's clock: certificates and links begin to suffer
SECONDS, RESOLUTION = 1, "480p"  # of the video that --live makes
PROMPT = "A slow zoom"


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    result: Result
    message: str
    fix: str | None = None


def folder(settings: "Settings") -> Iterator[Check]:
    """Look at the data folder's rights and its disk."""
    root = settings.data_dir.absolute()
    if not root.is_dir():
        yield Check("data folder", Result.WRONG, f"{root} is not there", "`grokpool init` or `grokpool serve` makes it")
        return
    exposed = [path for path in (root, root / "admin.key", root / "master.key") if is_exposed(path)]
    for path in exposed:
        yield Check("data folder", Result.WRONG, f"{path} is open to others", f"chmod go-rwx {path}")
    if root.stat().st_uid != os.getuid():
        yield Check("data folder", Result.WRONG, f"{root} belongs to another user", "run grokpool as that user")
    elif not exposed:
        yield Check("data folder", Result.OK, f"{root}: private")
    yield disk(root, settings.media.min_free)


def is_exposed(path: Path) -> bool:
    return path.exists() and path.stat().st_mode & 0o077 != 0


def disk(root: Path, least: int) -> Check:
    free = shutil.disk_usage(root).free
    message = f"{free / 1e9:.1f} GB free; {least / 1e9:.1f} GB is the least"
    if free < least:
        return Check("disk", Result.WRONG, f"{message}: no job is accepted", "free some space, or lower media.min_free")
    if free < LITTLE_SPACE * least:
        return Check("disk", Result.WARNING, message, "free some space, or shorten media.retention")
    return Check("disk", Result.OK, message)


class Clocks:
    """Compares the wall clock with the monotonic one while the doctor looks, and with other machines'."""

    def __init__(self) -> None:
        self._wall, self._monotonic = wall_clock(), time.monotonic()

    def check(self) -> Check:
        parted = wall_clock() - self._wall - (time.monotonic() - self._monotonic)
        if abs(parted) > DRIFT:
            message = f"the clock jumped by {parted:+.1f} s while the doctor looked"
            return Check("clock", Result.WARNING, message, "see that one time service alone sets it, in small steps")
        return Check("clock", Result.OK, "runs evenly")

    def compare(self, name: str, there: float) -> Check:
        skew = wall_clock() - there
        if abs(skew) > SKEW:
            message = f"this machine's clock is {skew:+.0f} s from that of {name}"
            return Check("clock", Result.WRONG, message, "set the clocks by a time service (NTP)")
        return Check("clock", Result.OK, f"agrees with {name}")


def upstream_clock(clocks: Clocks, base_url: str) -> Check:
    """Compare with the clock of the upstream, which is asked without a credential."""
    try:
        answer = send(over_tcp(base_url), "HEAD", "/", key=None)
    except Unreachable as error:
        return Check("upstream", Result.WARNING, f"{base_url}: {error}", "see that this machine may reach it")
    return clocks.compare(base_url, answer.sent_at())


def pool(admin: Admin) -> Iterator[Check]:
    """Look at what the gateway itself finds wrong, at every proxy's exit and at every token."""
    for problem in admin.get("/admin/status")["problems"]:
        result = Result.WRONG if problem["severity"] == "error" else Result.WARNING
        yield Check(problem["code"], result, problem["message"], problem["fix"])
    for proxy in admin.rows("/admin/proxies")["data"]:
        yield tested(
            admin, "proxies", f"proxy {proxy['name']}", proxy, lambda result: f"the world sees {result['exit_address']}"
        )
    for token in admin.rows("/admin/tokens")["data"]:
        yield tested(
            admin,
            "tokens",
            f"token {token['name']}",
            token,
            lambda result: f"the upstream knows it ({result['ms']} ms)",
        )


def tested(admin: Admin, kind: str, name: str, thing: dict[str, Any], praise: Callable[[dict[str, Any]], str]) -> Check:
    if thing["status"] == "disabled":
        return Check(name, Result.WARNING, "is disabled", f"`grokpool {kind} enable {thing['id']}` when it may work")
    try:
        result = admin.post(item(kind, thing["id"], "test"))
    except Refused as refused:
        return Check(name, Result.WARNING, f"cannot be tested now: {refused}", "`grokpool status` tells what rests")
    if result["ok"]:
        return Check(name, Result.OK, praise(result))
    evidence = f" ({result['evidence']})" if result.get("evidence") else ""
    fix = f"look at it by `grokpool {kind} show {thing['id']}`; update it, or disable it"
    return Check(name, Result.WRONG, result["reason"] + evidence, fix)


def live(admin: Admin, settings: "Settings", max_usd: float) -> Check:
    """Make one video of a second by the public API, if its list price allows."""
    model, cost = cheapest(settings)
    if model is None or cost > max_usd * TICKS_PER_USD:
        message = f"no video: the cheapest costs ${cost / TICKS_PER_USD:.3f}, the limit is ${max_usd:.3f}"
        return Check("live", Result.WARNING, message, "raise --max-usd")
    key = admin.post("/admin/keys", {"name": "doctor", "concurrency": 1})
    began = time.monotonic()
    body = request_body(PHOTO, PROMPT, model=model, duration=SECONDS, resolution=RESOLUTION)
    try:
        film = make(admin.connect, key["key"], body, lambda _job: None)
        paid = admin.get(item("jobs", film.id))["cost"]
    except Problem as problem:
        return Check("live", Result.WRONG, str(problem), "`grokpool jobs list` has the job and its attempts")
    finally:
        admin.post(item("keys", key["id"], "revoke"))
    price = "" if paid is None else f" for ${paid / TICKS_PER_USD:.3f}"
    return Check("live", Result.OK, f"{model} made a video in {time.monotonic() - began:.0f} s{price}")


def cheapest(settings: "Settings") -> tuple[str | None, int]:
    """Return the video model whose second costs the least by the list, and that cost with one picture, in ticks."""
    tariff = settings.tariff()
    costs = []
    for name, model in settings.catalogue().items():
        if model.kind is Kind.VIDEO and model.upstream in tariff:
            order = Order(model.kind, name, model.upstream, PROMPT, SECONDS, RESOLUTION)
            costs.append((tariff[model.upstream].cost(order, 1), name))
    return (None, 0) if not costs else min(costs)[::-1]
