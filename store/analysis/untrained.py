"""What results are compared with: the untrained model, and guesses that know nothing of the examples."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from numpy.typing import NDArray

from store.analysis.nodes import SEED, Data, spell, stage_node, stage_nodes, variable, with_cell_index
from store.analysis.results import level_coordinate
from store.analysis.task_scores import task_scores

OF_LABELS = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mae": "mean absolute error",
    "qwk": "quadratic weighted kappa",
}
SCORES = {"brier": "Brier score", "nll": "negative log-likelihood"}
KINDS = {"": "", "constrained_": ", constrained", "generated_": ", generated"}
"""How labels are found, as the names of metrics begin, and in words."""
PERPLEXITY = "neutral_perplexity"  # of what is measured on neutral text


def references(data: Data) -> xr.Dataset:
    """Return what each metric is for models and guesses that were not trained, dims (reference,).

    For each distinct set of test examples (and prompt, for the model): "untrained model", asked for the label
    alone (where `evaluate.base_model` is on); "most frequent label", one answer to all, whose `brier` and
    `nll` are of the labels' shares; "uniform guess", the expected values. `reference` names the levels of
    factors by which several of one kind differ.

    Returns:
        `accuracy`, `macro_f1`, `mae` and `qwk` (whole numbers as labels alone), with `constrained_` and
            `generated_` before them where labels are found so, `brier`, `nll`, and `neutral_perplexity` and
            the numbers of tasks (`task_…`) where they were measured; NaN where there is none.
    """
    summary = stage_node(data, "summary")
    index = summary.indexes["cell"]
    rows = [*_named(index, "untrained model", _untrained(data))]
    answers = list(_answers(data))
    for kind, guess in (("most frequent label", _most_frequent), ("uniform guess", _uniform)):
        known: Known = {
            cell: (_of_every_kind(guess(*labels)), labels[0].tobytes()) for cell, labels in answers
        }
        rows += _named(index, kind, known)
    kinds = [kind for kind in KINDS if any(f"{kind}{name}" in summary for name in OF_LABELS)]
    titles = {f"{kind}{name}": f"{OF_LABELS[name]}{KINDS[kind]}" for kind in kinds for name in OF_LABELS}
    beside = {PERPLEXITY: "perplexity on neutral text"} if PERPLEXITY in summary else {}
    beside |= task_scores(summary)
    columns = {
        name: (
            "reference",
            [numbers.get(name, np.nan) for _, numbers in rows],
            {"units": "1", "long_name": title},
        )
        for name, title in (titles | SCORES | beside).items()
    }
    coordinate = level_coordinate([name for name, _ in rows], "reference", "reference")
    result = xr.Dataset(columns, {"reference": coordinate})
    result["nll"].attrs["units"] = "nat"
    result.attrs["method"] = (
        f"References without training ({len(rows)}): the untrained model asked for the label alone, one "
        "label for all examples (for Brier score and log-likelihood, the shares of the labels), and what "
        "uniform guesses are expected to reach."
    )
    return result


Numbers = dict[str, float]
Known = dict[Any, tuple[Numbers, Hashable]]
"""By cell: its numbers, and what tells unlike ones apart."""


def _untrained(data: Data) -> Known:
    summary = stage_node(data, "summary")
    if "base_test_examples" not in summary:
        return {}
    every = [*(f"{kind}{name}" for kind in KINDS for name in OF_LABELS), *task_scores(summary)]
    columns = {name: summary[f"base_{name}"].values for name in every if f"base_{name}" in summary}
    if "neutral_base_perplexity" in summary:
        columns[PERPLEXITY] = summary["neutral_base_perplexity"].values
    known = {
        cell: {name: float(values[number]) for name, values in columns.items()}
        for number, cell in enumerate(summary.indexes["cell"])
    }
    for dataset in stage_nodes(data, "base").values():
        for name in SCORES if "label_logprob" in dataset else ():
            means = variable(dataset, name).mean("example").values
            for cell, mean in zip(dataset.indexes["cell"], means.tolist(), strict=True):
                known[cell][name] = mean
    return {
        cell: (numbers, repr(numbers))
        for cell, numbers in known.items()
        if not all(map(np.isnan, numbers.values()))
    }


def _answers(data: Data) -> Iterator[tuple[Any, tuple[NDArray[np.object_], Sequence[str]]]]:
    """Yield each cell's true labels, and the labels that there are."""
    for whole in stage_nodes(data, "evaluate").values():
        dataset = with_cell_index(whole)
        gold = dataset["gold"].broadcast_like(dataset["cell"]).transpose("cell", "example").values
        for cell, truth in zip(dataset.indexes["cell"], gold, strict=True):
            labels = dataset["label"].values if "label" in dataset.coords else np.unique(truth.astype(str))
            yield cell, (truth.astype(str), [str(label) for label in labels])


def _named(index: pd.MultiIndex, kind: str, known: Known) -> Iterator[tuple[str, Numbers]]:
    """Yield distinct references with their names: the kind, and the levels that tell several apart."""
    groups: dict[Hashable, list[Any]] = {}
    for cell in index:
        if cell in known:
            groups.setdefault(known[cell][1], []).append(cell)
    telling = [
        (place, name)
        for place, name in enumerate(index.names)
        if name != SEED
        and len({cell[place] for cell in known}) > 1
        and all(len({cell[place] for cell in cells}) == 1 for cells in groups.values())
    ]
    for cells in groups.values():
        held = telling or [
            (place, name)
            for place, name in enumerate(index.names)
            if name != SEED
            and len({cell[place] for cell in cells}) == 1 < len({cell[place] for cell in known})
        ]
        words = spell([name for _, name in held], [cells[0][place] for place, _ in held]) if held else ""
        yield (f"{kind}, {words}" if words and len(groups) > 1 else kind), known[cells[0]][0]


def _most_frequent(gold: NDArray[Any], labels: Sequence[str]) -> Numbers:
    shares = _shares(gold, labels)
    guess = int(shares.argmax())
    top, present = float(shares[guess]), int((shares > 0).sum())
    numbers = {
        "accuracy": top,
        "macro_f1": 2 * top / (1 + top) / present,
        "brier": float(1 - (shares**2).sum()),
        "nll": float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum()),
    }
    if (distance := _distances(labels)) is not None:
        numbers |= {"mae": float(shares @ distance[:, guess]), "qwk": 0.0 if present > 1 else np.nan}
    return numbers


def _uniform(gold: NDArray[Any], labels: Sequence[str]) -> Numbers:
    shares, count = _shares(gold, labels), len(labels)
    numbers = {
        "accuracy": 1 / count,
        "macro_f1": float((2 * shares / (count * shares + 1)).mean()),
        "brier": 1 - 1 / count,
        "nll": float(np.log(count)),
    }
    if (distance := _distances(labels)) is not None:
        numbers |= {"mae": float(shares @ distance.mean(axis=1)), "qwk": 0.0}
    return numbers


def _of_every_kind(numbers: Numbers) -> Numbers:
    """Return the numbers of a guess, which are the same however a model's labels are found."""
    return numbers | {
        f"{kind}{name}": numbers[name] for kind in KINDS for name in OF_LABELS if name in numbers
    }


def _shares(gold: NDArray[Any], labels: Sequence[str]) -> NDArray[np.float64]:
    return np.array([np.mean(gold == label) for label in labels])


def _distances(labels: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the distance of each rating from each; None for labels that are no whole numbers."""
    if not all(label.lstrip("-").isdigit() for label in labels):
        return None
    ratings = np.array([int(label) for label in labels], float)
    return np.asarray(np.abs(ratings[:, None] - ratings))
