"""What every section asks for: the results of a stage, and the places of conditions in the page's list."""

import xarray as xr

from store.analysis.nodes import stage_nodes
from store.errors import StoreError

Places = dict[str, int]
"""The number of each condition by its words."""


def datasets(node: xr.DataTree, stage: str, without: str = "") -> list[xr.Dataset]:
    """Return a stage's datasets, one per shape; StoreError, with the words `without`, when there is none."""
    if stage not in node.children:
        if "summary" not in node.children:
            raise StoreError("no cell is complete yet")
        raise StoreError(without or f"no complete cell has the stage {stage!r}")
    return list(stage_nodes(node, stage).values())
