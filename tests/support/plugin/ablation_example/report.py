"""A panel of the report."""

from engine.plugins import Panel, PanelTable, ReportSource
from store import StoreError


def norms(source: ReportSource) -> PanelTable:
    """Show the mean of `hidden_norm` by layer."""
    probe = source.node["probe"].to_dataset()
    if "hidden_norm" not in probe:
        raise StoreError("the probe recorded no hidden_norm")
    means = probe["hidden_norm"].mean(["cell", "example", "position"])
    rows = [[int(layer), float(mean)] for layer, mean in zip(means["layer"], means, strict=True)]
    return PanelTable("Mean over cells, examples and positions.", ["layer", "length"], rows)


NORMS = Panel("Length of the residual stream", norms)
