"""The section on wordings of the test prompt: what holds over all of them, and how far they lie apart."""

import xarray as xr

from store.analysis import wordings
from store.analysis.declared import chosen_contrasts
from store.analysis.nodes import factors, levels
from store.backend.records import Json
from store.errors import FAULTS, StoreError
from store.report.encode import rounded
from store.report.roles import paths_of
from store.report.stages import datasets

PROMPT = "evaluate.prompt"
NUMBERS = ("low", "high", "wording_sd", "spread")
ENDS = ("lowest", "highest")


def by_wording(node: xr.DataTree, spec: Json) -> Json:
    """Return accuracies over wordings by condition, and the contrasts in them.

    Wordings are the levels of factors that set the test prompt alone. StoreError where there is none.
    """
    summary = datasets(node, "summary")[0]
    known = {name: paths_of(factor) for name, factor in spec.get("factors", {}).items()}
    random = [
        name
        for name in factors(summary)
        if len(levels(summary, name)) > 1
        and known.get(name)
        and all(p.startswith(PROMPT) for p in known[name])
    ]
    if not random:
        raise StoreError(f"no factor varies the test prompt alone ({PROMPT})")
    scored = any("prediction" in part for part in datasets(node, "evaluate"))
    outcome = "correct" if scored else "generated_correct"
    whole = wordings(node, outcome, random)
    contrasts = []
    for contrast in chosen_contrasts(spec, summary):
        if contrast.factor in random:
            continue
        try:
            chosen = contrast.chosen(levels(summary, contrast.factor))
            made = wordings(node, outcome, random, contrast.factor, contrast.baseline, chosen)
        except FAULTS:
            raise
        except StoreError:  # a contrast need not exist in every wording
            continue
        rows = [
            {
                "factor": contrast.factor,
                "baseline": str(contrast.baseline),
                **_row(made.sel(level=level), "difference"),
            }
            for level in made["level"].values
        ]
        contrasts.append({"rows": rows, "method": made.attrs["method"]})
    return {
        "factors": random,
        "conditions": [_row(whole.sel(level=level), "mean") for level in whole["level"].values],
        "contrasts": contrasts,
        "method": whole.attrs["method"],
    }


def _row(result: xr.Dataset, value: str) -> Json:
    numbers = {
        name: rounded(result[name]) for name in (*NUMBERS, *(["p_adjusted"] * ("p_adjusted" in result)))
    }
    return {
        "level": str(result["level"].item()),
        "value": rounded(result[value]),
        **numbers,
        **{name: str(result[name].item()) for name in ENDS},
        "seeds": int(result["seeds"]),
    }
