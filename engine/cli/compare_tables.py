"""A comparison of two stores for a terminal and for programs: what matters most first, the rest on demand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, isnan
from typing import Any

from engine.cli.compare import BY_EXAMPLE
from engine.cli.grids import Column, Grid, varying
from engine.planning.levels import describe
from engine.quantities import count
from store.ledger.levels import level_text

MOST = 12  # rows of a table that are shown unless all are asked for
NONE = "–"

Facts = dict[str, Any]


def comparison_tables(facts: Facts, *, every: bool = False) -> Iterator[Grid | str]:
    """Yield a comparison for a terminal; of long tables the first rows, unless `every` row is asked for."""
    name = facts["experiment"]
    both = count(facts["cells_in_both"], "cell")
    yield (
        f"{name}: {both} in both ({facts['from_equal_inputs']} of them from equal inputs), "
        f"{len(facts['only_in_a'])} only in A, {len(facts['only_in_b'])} only in B"
    )
    for where in ("a", "b"):
        only = facts[f"only_in_{where}"]
        for levels in _first(only, every):
            yield f"only in {where.upper()}  {describe(levels)}"
        yield from _further(only, every, f"cells only in {where.upper()}")
    if facts["numbers"]:
        rows = sorted(facts["numbers"], key=_weight)
        yield _numbers_table(facts, _first(rows, every))
        equal = sum(row["difference"] == 0 for row in rows[MOST:])
        all_of = "all" if equal == len(rows[MOST:]) else f"{equal} of them"
        yield from _further(rows, every, f"numbers, {all_of} equal in A and B")
    if by_cell := facts.get("by_cell"):
        yield _cell_table(name, by_cell)
    if not facts["settings"]:
        yield "no setting and no version differs"
        return
    columns = [Column("key", "name"), Column("A", "words"), Column("B", "words")]
    grid = Grid(f"{name}: settings and versions that differ", columns)
    for row in _first(facts["settings"], every):
        grid.add(row["key"], row["a"], row["b"])
    yield grid
    yield from _further(facts["settings"], every, "settings and versions that differ")


def _first(rows: Sequence[Any], every: bool) -> Sequence[Any]:
    return rows if every else rows[:MOST]


def _further(rows: Sequence[Any], every: bool, what: str) -> Iterator[str]:
    """Say how many rows are not shown, if any, and how to have them."""
    if not every and len(rows) > MOST:
        yield f"… and {len(rows) - MOST:,} further {what}; --all shows them"


def _weight(row: Facts) -> tuple[int, float]:
    """Order numbers: outcomes with intervals, what differs most for its size, times, what is equal."""
    name, difference = row["number"], row["difference"]
    if name in BY_EXAMPLE and isfinite(row["low"]):
        return 0, list(BY_EXAMPLE).index(name)
    if isnan(difference):
        return 2, 0.0
    size = abs(difference) / max(abs(row["a"]), abs(row["b"]), 1e-300)
    return (4 if difference == 0 else 3 if name.endswith("_seconds") else 1), -size


def _numbers_table(facts: Facts, rows: Sequence[Facts]) -> Grid:
    total = facts["cells_in_both"]
    partial = any(row["cells"] < total for row in rows)
    titles = (*["cells"] * partial, "A", "B", "B − A", "95 % interval", "lowest to highest")
    title = f"{facts['experiment']}: means over the cells in both, differences paired by cell"
    grid = Grid.of(title, ["number"], titles)
    if partial:
        grid.caption = (
            f"cells: those of {total:,} in which A and B both have the number; means are over these alone"
        )
    for row in rows:
        cells = [f"{row['cells']:,}"] * partial
        grid.add(
            row["number"],
            *cells,
            _number(row["a"], ".4g"),
            _number(row["b"], ".4g"),
            _number(row["difference"], "+.3g"),
            f"{row['low']:+.3g} to {row['high']:+.3g}" if isfinite(row["low"]) else "",
            f"{row['lowest']:+.3g} to {row['highest']:+.3g}" if row["cells"] else NONE,
        )
    return grid


def _cell_table(name: str, rows: Sequence[Facts]) -> Grid:
    names, fixed = varying([row["levels"] for row in rows])
    grid = Grid.of(f"{name}: B − A of every cell", names or ["cell"], list(rows[0]["differences"]))
    grid.caption = f"all: {fixed}" if fixed else ""
    for row in rows:
        levels = [level_text(row["levels"][factor]) for factor in names] or ["all"]
        grid.add(*levels, *(_number(value, "+.3g") for value in row["differences"].values()))
    return grid


def _number(value: float, form: str) -> str:
    return NONE if isnan(value) else format(value, form)


def comparison_rows(facts: Facts) -> Iterator[Facts]:
    """Yield a row per number; a row per cell where cells were asked for."""
    if "by_cell" not in facts:
        yield from ({"experiment": facts["experiment"], **row} for row in facts["numbers"])
        return
    for row in facts["by_cell"]:
        yield {"experiment": facts["experiment"], **row["levels"], **row["differences"]}
