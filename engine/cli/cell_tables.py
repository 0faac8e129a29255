"""Cells and the states of their stages, for `plan --cells` and `status`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from engine.cli.grids import Column, Grid, varying
from engine.terminal import joined, styled
from store.ledger.levels import level_text

STATE_STYLES = {"cached": "green", "done": "green", "pending": "", "failed": "red", "running": "yellow"}


def state_text(state: str) -> Text:
    """Give a state in its colour."""
    return styled(state, STATE_STYLES[state])


def cell_table(cells: Iterable[tuple[int, Mapping[str, Any], Mapping[str, str]]]) -> Grid:
    """Give a table of cells by the factors in which they differ.

    cells: number from 0, factor → level, stage → state.
    """
    listed = list(cells)
    names, fixed = varying([levels for _, levels, _ in listed])
    columns = [Column("cell", "name"), *(Column(name, "name") for name in names), Column("stages", "words")]
    grid = Grid("cells", columns, caption=f"all: {fixed}" if fixed else "")
    for number, levels, states in listed:
        shown = (level_text(levels.get(name)) for name in names)
        grid.add(str(number + 1), *shown, _stages(states))
    return grid


def no_cell(*, failed: bool, pending: bool) -> str:
    """Say that no cell is to be listed, by the states that were asked for."""
    if failed and pending:
        return "no stage failed, and none is pending"
    if failed or pending:
        return "no stage failed" if failed else "no stage is pending"
    return "no cell is on all of these levels"


def _stages(states: Mapping[str, str]) -> Text:
    """Give the state that most stages have, and in brackets the stages of others."""
    by_state: dict[str, list[str]] = {}
    for stage, state in states.items():
        by_state.setdefault(state, []).append(stage)
    most = max(by_state, key=lambda state: len(by_state[state]))
    others = [joined([state_text(s), f": {', '.join(by_state[s])}"]) for s in by_state if s != most]
    return joined([state_text(most), " (", joined(others, "; "), ")"]) if others else state_text(most)
