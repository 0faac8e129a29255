"""The first look at a store: results per condition, contrasts, and a figure of entropy by layer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import xarray as xr
from rich.table import Table

from store import StoreError
from store.ledger.history import History

# Summary numbers shown as columns, where the store has them: (title, format, whether with its range).
COLUMNS = {
    "accuracy": ("accuracy", "{:.1%}", True),
    "constrained_accuracy": ("constrained", "{:.1%}", True),
    "generated_accuracy": ("generated", "{:.1%}", True),
    "mae": ("abs. error", "{:.2f}", True),
    "brier": ("Brier", "{:.3f}", True),
    "nll": ("NLL", "{:.3f}", True),
    "train_loss": ("train loss", "{:.3f}", False),
}


def conditions(data: xr.Dataset, factors: list[str]) -> dict[str, xr.Dataset]:
    """Split a dataset with a `cell` dim by condition: all factors but the seed."""
    names = [name for name in factors if name != "seed"]
    labels = np.array(
        [", ".join(str(data[name].values[i]) for name in names) or "all" for i in range(data.sizes["cell"])]
    )
    return {str(label): data.isel(cell=labels == label) for label in dict.fromkeys(labels)}


def results_table(experiment: xr.DataTree) -> Table:
    """Give the mean over seeds per condition; for outcomes, the lowest and highest seed beside it.

    Below stand the untrained model and guesses that know nothing of the examples.
    """
    from store.analysis import references

    summary = _with_scores(experiment)
    factors = [str(name) for name in summary.indexes["cell"].names]
    table = Table(title="Results by condition: mean over seeds (lowest to highest)")
    table.add_column("condition", no_wrap=True)
    table.add_column("n", justify="right")
    shown = {name: column for name, column in COLUMNS.items() if name in summary}
    for title, *_ in shown.values():
        table.add_column(title, justify="right")
    for label, part in conditions(summary, factors).items():
        cells = [_spread(part[name].values, form, ranged) for name, (_, form, ranged) in shown.items()]
        table.add_row(label, str(part.sizes["cell"]), *cells)
    table.add_section()
    baselines = references(experiment)
    for reference in baselines["reference"].values:
        baseline = baselines.sel(reference=reference)
        numbers = [float(baseline[name]) if name in baseline else np.nan for name in shown]
        forms = [form for _, form, _ in shown.values()]
        cells = [form.format(x) if np.isfinite(x) else "" for form, x in zip(forms, numbers, strict=True)]
        table.add_row(str(reference), "", *cells)
    return table


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


def _spread(values: Any, form: str, ranged: bool) -> str:
    low, high = (form.format(value).rstrip("%") for value in (np.min(values), np.max(values)))
    mean = form.format(np.mean(values))
    return f"{mean} ({low}–{high})" if ranged and low != high else mean


def contrasts_table(
    experiment: xr.DataTree, history: History
) -> tuple[Table, list[str], list[tuple[str, Any]]]:
    """Give a table of all contrasts, sentences on how it is to be read, and the contrasts that it shows.

    StoreError where nothing can be compared.
    """
    from store.analysis.declared import answer, ask
    from store.analysis.nodes import spec_of
    from store.report.asked import cells_of, notes, shown, standing

    spec = spec_of(experiment)
    analysis = spec.get("analysis", {})
    questions = list(ask(experiment, spec))
    if not questions:
        raise StoreError("there is only one condition, so there is nothing to compare it with")
    answers = list(zip(questions, answer(questions, analysis), strict=True))
    table = Table(title="Contrasts: paired differences, averaged over other factors")
    for title in (
        "contrast",
        "outcome",
        "difference",
        "95 % interval",
        "p, corrected",
        "verdict",
        "seeds",
        "declared",
    ):
        table.add_column(title, overflow="fold")
    for question, by_level in answers:
        for level in by_level["level"].values:
            part = by_level.sel(level=level)
            held = "".join(f", {name}={at}" for name, at in question.part.within.items())
            name = f"{question.contrast.factor}: {level} against {question.contrast.baseline}{held}"
            told = standing(history, question, level)
            because = f" ({told['why']})" if question.outcome == analysis.get("primary") else ""
            declared = told["standing"] + because
            table.add_row(
                name,
                question.outcome,
                *_numbers(part),
                _verdict(part),
                str(int(part["seeds"])),
                declared,
            )
    return table, notes(analysis, history, answers, cells_of(experiment)), shown(questions)


def _numbers(difference: xr.Dataset) -> tuple[str, str, str]:
    """Give difference, interval and p value; by layer: the largest difference, and the layers that pass."""
    p = difference["p_adjusted"]
    if not p.dims:
        low, high = (f"{float(difference[name]):+.3g}" for name in ("low", "high"))
        interval = f"{low} to {high}" if np.isfinite(difference["low"]) else "–"
        return (
            f"{float(difference['difference']):+.3g}",
            interval,
            f"{float(p):.2g}" if np.isfinite(p) else "–",
        )
    largest = float(
        difference["difference"].values.flat[int(np.nanargmax(np.abs(difference["difference"].values)))]
    )
    sure, tests = int((p < 0.05).sum()), int(np.isfinite(p).sum())
    least = f"; least {float(p.min()):.2g}" if tests else ""
    return f"largest {largest:+.3g}", "", f"{sure} of {tests} below 0.05{least}"


def _verdict(difference: xr.Dataset) -> str:
    """Give the verdict on the smallest difference of interest; by layer, how many have each."""
    if "verdict" not in difference:
        return ""
    if not difference["verdict"].dims:
        return str(difference["verdict"].item())
    counts = Counter(verdict for verdict in difference["verdict"].values.ravel() if verdict)
    return "; ".join(f"{number} layers: {verdict}" for verdict, number in counts.most_common())


def entropy_figure(experiment: xr.DataTree) -> bytes:
    """Draw, as PNG, lens entropy by layer, one line per condition and panel per watch position.

    Line: mean over examples and seeds; band: its 95 % interval. StoreError when the store has no entropy.
    """
    from store import plots
    from store.analysis import means

    by_layer = means(experiment, "entropy")
    width = min(plots.WIDE, 1.3 * plots.COLUMN * by_layer.sizes["position"])
    with TemporaryDirectory() as folder:
        figure = plots.panels(plots.means, by_layer, "position", width=width)
        return plots.save(figure, Path(folder) / "figure.png").read_bytes()
