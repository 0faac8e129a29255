"""The section on explanations that stood in the place of the model's own: what they did to its labels."""

import xarray as xr

from store.analysis import counterfactual_effects
from store.backend.records import Json
from store.report.encode import rounded
from store.report.stages import Places, datasets

TITLES = {
    "flipped": "labels that flip (points)",
    "followed": "labels that are those argued for (points)",
    "log_odds": "log-odds of the true label (nat)",
    "correct": "accuracy (points)",
}
SHARES = ("flipped", "followed", "correct")
COLUMNS = ("effect", "low", "high", "p_adjusted", "seeds", "examples")


def faithfulness(node: xr.DataTree, places: Places) -> Json:
    """Return each measure's changes by condition and kind of explanation, against the model's own one."""
    datasets(node, "evaluate")
    return {"by": "Explanation", "measures": [_measure(node, name, places) for name in TITLES]}


def _measure(node: xr.DataTree, name: str, places: Places) -> Json:
    effects = counterfactual_effects(node, name)
    rows = []
    for condition in effects["condition"].values:
        for kind in effects["counterfactual"].values:
            at = effects.sel(condition=condition, counterfactual=kind)
            if at["effect"].notnull():
                numbers = [rounded(at[column]) for column in COLUMNS]
                rows.append([places[str(condition)], str(kind), *numbers])
    share = name in SHARES
    return {
        "name": name, "title": TITLES[name], "share": share, "rows": rows, "method": effects.attrs["method"],
    }  # fmt: skip
