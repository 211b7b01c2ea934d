"""What a benchmark found: tables for people, the same as JSON for programs."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

Cell = str | float


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure to reach."""

    what: str
    wanted: str
    measured: str
    reached: bool


@dataclass(slots=True)
class Report:
    name: str
    about: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def at_most(what: str, measured: float, bound: float, unit: str = "") -> Goal:
    return Goal(what, f"≤ {shown(bound)}{unit}", f"{shown(measured)}{unit}", measured <= bound)


def at_least(what: str, measured: float, bound: float, unit: str = "") -> Goal:
    return Goal(what, f"≥ {shown(bound)}{unit}", f"{shown(measured)}{unit}", measured >= bound)


def shown(value: Cell) -> str:
    """Return a number with three digits that mean something."""
    if isinstance(value, str):
        return value
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def markdown(report: Report) -> str:
    """Return the report as text that reads well as it is, and as Markdown."""
    parts = [f"## {report.name}", report.about]
    parts += [f"**{table.title}**\n\n{_grid(table.head, table.rows)}" for table in report.tables]
    if report.goals:
        rows = [(goal.what, goal.wanted, goal.measured, "yes" if goal.reached else "NO") for goal in report.goals]
        parts.append(_grid(("figure", "to reach", "measured", "reached"), rows))
    parts += [f"* {note}" for note in report.notes]
    return "\n\n".join(parts) + "\n"


def _grid(head: tuple[str, ...], rows: list[tuple[Cell, ...]] | list[tuple[str, str, str, str]]) -> str:
    cells = [head, *(tuple(shown(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = ["| " + " | ".join(_padded(row, widths)) + " |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _padded(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Put the first column to the left, numbers to the right."""
    first = row[0].ljust(widths[0])
    return [first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
