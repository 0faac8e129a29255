"""Results as pandas tables."""

import pandas as pd  # type: ignore[import-untyped]

from specs.common.spelling import hint
from store.analysis.nodes import Data, stage_node
from store.errors import StoreError


def dataframe(data: Data, *variables: str, stage: str = "summary") -> pd.DataFrame:
    """Return variables of a stage as a tidy table: a row for each cell, and each example, layer, ….

    All that is asked for is read.

    Args:
        variables: names; default: all numbers of the summary, all variables along the most dimensions else.
        stage: the node: "summary", "train", "base", "evaluate", "neutral", "tasks", "inspect", "base_tasks",
            "base_inspect", "lens", "probe", "along", "differences" or "intervene".

    Returns:
        Columns: the factors with `seed`, the other dimensions and what lies along them, the variables.

    Raises:
        StoreError: for an unknown stage or variable, and where cells have several test sets.
    """
    if wrong := [name for name in variables if not isinstance(name, str)]:
        raise StoreError(
            f"variables: expected names one by one, as in dataframe('accuracy'), found {wrong[0]!r}"
        )
    dataset = stage_node(data, stage)
    if unknown := [name for name in variables if name not in dataset.data_vars]:
        known = [str(name) for name in dataset.data_vars]
        raise StoreError(f"{stage}: no variable {unknown[0]!r}{hint(unknown[0], known)}")
    most = max((values.ndim for values in dataset.data_vars.values()), default=1)
    chosen = variables or [name for name, values in dataset.data_vars.items() if values.ndim == most]
    part = dataset[list(chosen)]
    table: pd.DataFrame = part.to_dataframe().reset_index()
    factors = list(dataset.indexes["cell"].names)
    others = [name for name in table if name not in factors and name not in chosen]
    return table[[*factors, *others, *chosen]]
