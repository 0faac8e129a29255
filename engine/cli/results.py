"""The first look at a store: results per condition, contrasts, and a figure of entropy by layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from rich.text import Text

from engine.cli.grids import Column, Grid, varying
from engine.terminal import joined
from store import StoreError
from store.ledger.history import History
from store.ledger.levels import level_text

# Summary numbers shown as columns, where the store has them: (title, format, whether with its range).
COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}", True),
    "constrained_accuracy": ("constrained", "{:.1%}", True),
    "generated_accuracy": ("generated", "{:.1%}", True),
    "majority_accuracy": ("majority", "{:.1%}", True),
    "sampled_accuracy": ("sampled", "{:.1%}", True),
    "pass_at_n": ("pass@n", "{:.1%}", True),
    "mae": ("abs. error", "{:.2f}", True),
    "brier": ("Brier", "{:.3f}", True),
    "nll": ("NLL", "{:.3f}", True),
    "neutral_perplexity": ("perplexity", "{:.2f}", True),
    "neutral_kl": ("KL to base", "{:.4f}", True),
    "train_loss": ("train loss", "{:.3f}", False),
}
PANELS = 4  # of the figure, side by side
Record = dict[str, Any]


def conditions(data: xr.Dataset, factors: list[str]) -> list[tuple[Record, xr.Dataset]]:
    """Split a dataset with a `cell` dim by condition: the levels of all factors but the seed."""
    names = [name for name in factors if name != "seed"]
    rows = [{name: _scalar(data[name].values[cell]) for name in names} for cell in range(data.sizes["cell"])]
    places: dict[tuple[str, ...], list[int]] = {}
    for cell, row in enumerate(rows):
        places.setdefault(tuple(map(level_text, row.values())), []).append(cell)
    return [(rows[cells[0]], data.isel(cell=cells)) for cells in places.values()]


def results_facts(experiment: xr.DataTree) -> Record:
    """Give the means over seeds by condition, and what untrained models and guesses reach."""
    from store.analysis import references
    from store.analysis.task_scores import task_scores

    summary = _with_scores(experiment)
    factors = [str(name) for name in summary.indexes["cell"].names]
    measures = [name for name in (*COLUMNS, *task_scores(summary)) if name in summary]
    untrained = references(experiment)
    return {
        "experiment": experiment.name,
        "cells_complete": int(experiment.attrs["cells_complete"]),
        "cells_total": int(experiment.attrs["cells_total"]),
        "conditions": [
            {
                "levels": levels,
                "cells": part.sizes["cell"],
                "measures": {name: _range(part[name].values) for name in measures},
            }
            for levels, part in conditions(summary, factors)
        ],
        "references": [
            {
                "name": str(name),
                "measures": {
                    measure: float(untrained[measure].sel(reference=name))
                    for measure in measures
                    if measure in untrained
                },
            }
            for name in untrained["reference"].values
        ],
    }


def _scalar(level: Any) -> Any:
    return level.item() if isinstance(level, np.generic) else level


def _range(values: Any) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "low": float(np.min(values)), "high": float(np.max(values))}


def results_tables(facts: Record) -> Iterator[Grid]:
    """Yield the mean over seeds per condition; for outcomes, the lowest and highest seed beside it.

    Below stand the untrained model and guesses that know nothing of the examples.
    """
    from store.analysis.task_scores import task_scores

    listed = facts["conditions"]
    names, fixed = varying([row["levels"] for row in listed])
    measures = listed[0]["measures"] if listed else {}
    columns = COLUMNS | {name: (title, "{:.3f}", True) for name, title in task_scores(measures).items()}
    shown = {name: columns[name] for name in measures}
    titles = [title for title, *_ in shown.values()]
    title = "Results by condition: mean over seeds (lowest to highest)"
    grid = Grid.of(title, names or ["condition"], ["n", *titles])
    for row in listed:
        levels = [level_text(row["levels"].get(name)) for name in names] or ["all"]
        numbers = [_spread(row["measures"][name], form, ranged) for name, (_, form, ranged) in shown.items()]
        grid.add(*levels, str(row["cells"]), *numbers)
    grid.caption = f"all: {fixed}" if fixed and names else ""
    below, gap = grid, [""]
    if len(names) > 1:  # there a reference would have to stand in the column of one factor
        yield grid
        below, gap = Grid.of("Without training", ["reference"], titles), []
    else:
        grid.part()
    for reference in facts["references"]:
        values = [reference["measures"].get(name, np.nan) for name in shown]
        forms = [form for _, form, _ in shown.values()]
        numbers = [form.format(x) if np.isfinite(x) else "" for form, x in zip(forms, values, strict=True)]
        below.add(reference["name"], *gap, *numbers)
    yield below


def results_rows(facts: Record) -> list[Record]:
    """Give a row per condition: its levels, and mean, lowest and highest of every measure."""
    return [
        {
            "experiment": facts["experiment"],
            **row["levels"],
            "cells": row["cells"],
            **{
                name if part == "mean" else f"{name}_{part}": value
                for name, numbers in row["measures"].items()
                for part, value in numbers.items()
            },
        }
        for row in facts["conditions"]
    ]


def _with_scores(experiment: xr.DataTree) -> xr.Dataset:
    """Give the summary with each cell's mean Brier score and log-likelihood, where labels were scored."""
    from store.analysis.nodes import stage_node, stage_nodes, variable

    summary = stage_node(experiment, "summary")
    index = summary.indexes["cell"]
    for name in ("brier", "nll"):
        values = np.full(len(index), np.nan)
        for dataset in stage_nodes(experiment, "evaluate").values():
            if "label_logprob" in dataset:
                places = index.get_indexer(dataset.indexes["cell"])
                values[places] = variable(dataset, name).mean("example").values
        if np.isfinite(values).any():
            summary = summary.assign({name: ("cell", values)})
    return summary


def _spread(numbers: Mapping[str, float], form: str, ranged: bool) -> str:
    if np.isnan(numbers["mean"]):
        return ""
    mean = form.format(numbers["mean"])
    low, high = (form.format(numbers[name]).rstrip("%") for name in ("low", "high"))
    return f"{mean} ({low}–{high})" if ranged and low != high else mean


def contrast_facts(experiment: xr.DataTree, history: History) -> Record:
    """Give all contrasts, sentences on how they are to be read, and what of them was declared.

    StoreError where nothing can be compared.
    """
    from store.analysis.declared import answer, ask, chosen_contrasts
    from store.analysis.nodes import levels, spec_of, stage_node
    from store.report.asked import cells_of, notes, one_condition, shown, standing

    spec = spec_of(experiment)
    analysis = spec.get("analysis", {})
    questions = list(ask(experiment, spec))
    if not questions:
        summary = stage_node(experiment, "summary")
        complete, total = cells_of(experiment)
        asked = chosen_contrasts(spec, summary) if complete < total else []
        waiting = filter(None, (contrast.lacking(levels(summary, contrast.factor)) for contrast in asked))
        raise StoreError("; ".join(waiting) or one_condition(complete, total))
    answers = list(zip(questions, answer(questions, analysis), strict=True))
    rows = []
    for question, by_level in answers:
        for level in by_level["level"].values:
            told = standing(history, question, level)
            rows.append(
                {
                    "factor": question.contrast.factor,
                    "level": _scalar(level),
                    "baseline": _scalar(question.contrast.baseline),
                    "within": dict(question.part.within),
                    "outcome": question.outcome,
                    **_numbers(by_level.sel(level=level)),
                    "standing": told["standing"],
                    "why": told["why"] if question.outcome == analysis.get("primary") else "",
                }
            )
    said = notes(analysis, history, answers, cells_of(experiment))
    return {"contrasts": rows, "notes": said, "looked_at": shown(questions)}


def _numbers(found: xr.Dataset) -> Record:
    """Give difference, interval and p value; by layer: the largest difference, and the layers that pass."""
    p, verdicts = found["p_adjusted"], found.get("verdict")
    if not p.dims:
        return {
            **{name: float(found[name]) for name in ("difference", "low", "high")},
            "p_adjusted": float(p),
            "verdict": "" if verdicts is None else str(verdicts.item()),
            "seeds": int(found["seeds"]),
            "by_layer": None,
        }
    differences = found["difference"].values
    tests = int(np.isfinite(p).sum())
    counted = Counter(str(name) for name in (() if verdicts is None else verdicts.values.ravel()) if name)
    layers = {
        "largest": float(differences.flat[int(np.nanargmax(np.abs(differences)))]),
        "tests": tests,
        "below_0.05": int((p < 0.05).sum()),
        "least_p": float(p.min()) if tests else np.nan,
        "verdicts": dict(counted.most_common()),
    }
    nothing = dict.fromkeys(("difference", "low", "high", "p_adjusted"), np.nan)
    return nothing | {"verdict": "", "seeds": int(found["seeds"]), "by_layer": layers}


def contrasts_table(rows: Sequence[Record]) -> Grid:
    """Give a table of contrasts."""
    verdicts = any(row["verdict"] or (row["by_layer"] or {}).get("verdicts") for row in rows)
    columns = [
        Column("contrast", "name"), Column("outcome", "name"), Column("difference"), Column("95 % interval"),
        Column("p, corrected"), *[Column("verdict", "words")] * verdicts, Column("seeds"),
        Column("declared", "words"),
    ]  # fmt: skip
    grid = Grid("Contrasts: paired differences, averaged over other factors", columns)
    for row in rows:
        held = "".join(f", {name}={at}" for name, at in row["within"].items())
        name = f"{row['factor']}: {level_text(row['level'])} against {level_text(row['baseline'])}{held}"
        declared = row["standing"] + (f" ({row['why']})" if row["why"] else "")
        difference, interval, p, verdict = _cells(row)
        told = [verdict] * verdicts
        grid.add(name, row["outcome"], difference, interval, p, *told, str(row["seeds"]), declared)
    return grid


def _cells(row: Record) -> tuple[Text | str, str, Text | str, str]:
    """Give difference, interval, p value and verdict in words."""
    if (layers := row["by_layer"]) is not None:
        least = f"; least {layers['least_p']:.2g}" if layers["tests"] else ""
        told = [f"{number} layers: {verdict}" for verdict, number in layers["verdicts"].items()]
        passed = joined([f"{layers['below_0.05']} of {layers['tests']}", f"below 0.05{least}"], "\n")
        return joined(["largest", f"{layers['largest']:+.3g}"], "\n"), "", passed, "; ".join(told)
    low, high, p = row["low"], row["high"], row["p_adjusted"]
    interval = f"{low:+.3g} to {high:+.3g}" if np.isfinite(low) else "–"
    return f"{row['difference']:+.3g}", interval, f"{p:.2g}" if np.isfinite(p) else "–", row["verdict"]


def entropy_figure(experiment: xr.DataTree) -> bytes:
    """Draw, as PNG, lens entropy by layer, one line per condition and panel per watch position.

    Of a range of positions, and of several lenses, the first is drawn. Line: mean over examples and seeds;
    band: its 95 % interval.
    StoreError when the store has no entropy.
    """
    from store import plots
    from store.analysis import means
    from store.analysis.nodes import first_lens

    by_layer = first_lens(means(experiment, "entropy"))
    drawn = [name for name in by_layer["position"].values if name.endswith("[0]") or "[" not in name]
    by_layer = by_layer.sel(position=drawn)
    width = min(plots.WIDE, 1.3 * plots.COLUMN * len(drawn))
    with TemporaryDirectory() as folder:
        figure = plots.panels(plots.means, by_layer, "position", columns=PANELS, width=width)
        return plots.save(figure, Path(folder) / "figure.png").read_bytes()
