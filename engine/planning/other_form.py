"""How an experiment in a store, as it was executed last, differs from what a spec says now."""

from __future__ import annotations

from engine.planning.plan import Plan
from engine.quantities import count
from store import read_manifests
from store.ledger.manifests import lost_cells, own_keys


def other_form(plan: Plan) -> str:
    """Say where commands that read a store's finished cells show others than those of a plan; "" elsewhere.

    They show what was executed last. Cells that are not done yet are no difference.
    """
    name = plan.matrix.experiment.name
    known = read_manifests(plan.root, name).get(name)
    if known is None:
        return ""
    listed = plan.listed()
    shown = {own_keys(cell) for cell in known["cells"]}
    others = lost_cells(plan.root, name, {"cells": listed})
    hidden = sum(
        plan.state(cell) == "cached" and own_keys(entry) not in shown
        for cell, entry in zip(plan.cells, listed, strict=True)
    )
    if not (others or hidden):
        return ""
    shown_cells = [count(others, "finished cell")] * bool(others)
    left_out = [f"not {count(hidden, 'finished cell')} of this spec"] * bool(hidden)
    return (
        f"{name} was executed last with other settings than the spec's: commands that show results have "
        f"{', '.join([*shown_cells, *left_out])}; `engine execute` of the spec changes that"
    )
