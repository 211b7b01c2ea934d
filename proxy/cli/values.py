"""Values as they are typed: numbers that may be "none", durations, moments."""

import re
from datetime import datetime
from typing import Any

from proxy.cli.command import Misused

NONE = "none"  # what stands for null
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = re.compile(r"([0-9]{1,9}) ?([smhd]?)", re.ASCII)


def given(**values: Any) -> dict[str, Any]:
    """Return those values that were typed, with null for "none"."""
    return {name: None if value == NONE else value for name, value in values.items() if value is not None}


def count(option: str, text: str | None) -> int | str | None:
    """Return the number, or "none", or None when nothing was typed. Raises `Misused`."""
    if text is None or text == NONE:
        return text
    if not text.isascii() or not text.isdigit():
        raise Misused(f"{option} takes a number, or `none`")
    return int(text)


def seconds(option: str, text: str) -> int:
    """Return the seconds of "90", "90s", "15m", "24h", "30d". Raises `Misused`."""
    found = DURATION.fullmatch(text)
    if found is None:
        raise Misused(f"{option} takes a duration like 90, 15m, 24h or 30d")
    return int(found[1]) * UNITS[found[2]]


def moment(option: str, text: str | None, now: float) -> float | str | None:
    """Return the Unix seconds of "30d" (from `now`) or of "2027-01-31 18:00" (local unless it says its offset).

    "none" and None are let through. Raises `Misused`.
    """
    if text is None or text == NONE:
        return text
    if DURATION.fullmatch(text):
        return now + seconds(option, text)
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise Misused(f"{option} takes a date like 2027-01-31, a time like 2027-01-31T18:00Z, or 30d") from None
