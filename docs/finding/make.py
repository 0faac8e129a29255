"""Tables and figure of docs/finding.md, of the store that `engine execute specs/studies/finding.toml` fills.

Writes beside itself cells.csv (a row for each training), conditions.csv (each target in accuracy and the
scores), contrasts.csv (the declared contrasts in these), layers.csv (the same in the lens entropy of every
layer), study.json (the spec's hash, versions, hardware), and ../images/finding.png.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

import store
from store import plots
from store.analysis.nodes import stage_node, variable
from store.plots.style import styled

HERE = Path(__file__).parent
OUTCOMES = ["brier", "correct", "nll", "absolute_error"]
UNIFORM = 0.8  # the Brier score of a uniform guess among five labels
SUMMARY = [
    "accuracy", "base_accuracy", "mae", "ece",
    "train_label_loss", "train_label_token_accuracy", "train_steps", "train_tokens",
]  # fmt: skip
COLUMNS = ["difference", "low", "high", "p_value", "p_adjusted"]


def main(folder: str = "stores/finding") -> None:
    """Read the store, and write the tables and the figure."""
    tree = store.open_store(folder)["finding"]
    _cells(tree).to_csv(HERE / "cells.csv", index=False)
    _conditions(tree).to_csv(HERE / "conditions.csv", index=False)
    tests = [(node.path, node.to_dataset()) for node in tree.ablation.contrasts().leaves]
    _table(test for test in tests if "layer" not in test[1].dims).to_csv(HERE / "contrasts.csv", index=False)
    _table(test for test in tests if "layer" in test[1].dims).to_csv(HERE / "layers.csv", index=False)
    facts = {name: json.loads(tree.attrs[name]) for name in ("packages", "hardware")}
    facts |= {"python": tree.attrs["python"], "git": tree.attrs["git"]}
    spec = json.loads(tree.attrs["spec"])
    spec.pop("store")  # where results lie does not change them
    facts["spec"] = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    (HERE / "study.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", "utf-8")
    with styled():
        figure = plt.figure(figsize=(plots.WIDE, 2.6))
        left, right = figure.add_axes((0.19, 0.17, 0.24, 0.78)), figure.add_axes((0.53, 0.17, 0.45, 0.78))
        _scores(left, tree.ablation.means("brier", by="target"))
        entropy = tree.ablation.relative_entropy("target", "label").sel(position="prompt_end")
        plots.change(entropy, right, key=False)
        figure.savefig(HERE.parent / "images" / "finding.png", dpi=200)


def _table(tests: Iterable[tuple[str, xr.Dataset]]) -> pd.DataFrame:
    """Give contrasts as one table, a row for each level (and layer)."""
    parts = []
    for path, result in tests:
        contrast, outcome = path.strip("/").split("/")
        equivalence = [name for name in ("p_equivalence_adjusted", "verdict") if name in result]
        rows = result[COLUMNS + equivalence].to_dataframe().reset_index()
        parts.append(rows.assign(contrast=contrast, outcome=outcome))
    whole = pd.concat(parts).round(4)
    first = ["contrast", "outcome", "level"]
    return whole[first + [name for name in whole if name not in first]]


def _cells(tree: xr.DataTree) -> pd.DataFrame:
    """Give every training's results, a row for each."""
    tested = stage_node(tree, "evaluate")
    scores = xr.Dataset({name: variable(tested, name).mean("example") for name in ("brier", "nll")})
    table = scores.to_dataframe().reset_index()[["target", "seed", *scores]]
    return table.merge(tree.ablation.dataframe(*SUMMARY)).round(4)


def _conditions(tree: xr.DataTree) -> pd.DataFrame:
    """Give every target's means with their intervals, a row for each outcome."""
    means = [tree.ablation.means(name, by="target").assign_coords(outcome=name) for name in OUTCOMES]
    rows = [one[["mean", "low", "high"]].to_dataframe().reset_index() for one in means]
    return pd.concat(rows)[["outcome", "level", "mean", "low", "high"]].round(4)


def _scores(ax: Axes, means: xr.Dataset) -> None:
    """Draw the Brier score of every condition with its interval, in the colours of the other panel."""
    levels = [str(level) for level in means["level"].values]
    colours = ["black", *plots.COLOURS]
    for place, level in enumerate(levels):
        one = means.sel(level=level)
        ax.plot([one["low"], one["high"]], [-place, -place], color=colours[place])
        ax.plot([one["mean"]], [-place], "o", markersize=4, color=colours[place])
    ax.axvline(UNIFORM, color="grey", linestyle=":")
    ax.set_yticks([-place for place in range(len(levels))], levels)
    ax.set_xlabel("Brier score (dotted: uniform guess)")


if __name__ == "__main__":
    main(*sys.argv[1:])
