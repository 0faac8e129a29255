"""Single examples side by side: lens statistics and top tokens of each layer, bounded in size."""

from typing import Any

import numpy as np
import xarray as xr

from store.analysis.nodes import SEED, by_condition, first_lens, numbers, stage_nodes
from store.backend.location import Root
from store.backend.records import Json
from store.ledger.vocabulary import probed_vocabularies
from store.report.encode import fixed_point, whole_numbers
from store.report.probing import probes
from store.report.stages import Places

MOST_EXAMPLES = 40
SAMPLE_BYTES = 6 * 2**20
"""Of the packed arrays, before base64."""
MOST_CHARACTERS = 300  # of a generated text
SCALES = {
    "entropy": 1000,
    "kl_final": 1000,
    "max_prob": 50000,
    "watch_logprob": 500,  # stored as its negative
    "top_logprob": 500,
}
NEGATIVE = ("watch_logprob", "top_logprob")


def samples(root: Root, node: xr.DataTree, places: Places, budget: int) -> Json:
    """Return, per shape of the probe, some examples in one cell (the first seed) of each condition.

    Examples are drawn without replacement, random seed 0: at most 40, fewer where the arrays would pass
    `budget` bytes, but at least one. Of several lenses the first is read.
    """
    shapes = [first_lens(part) for part in probes(node)]
    return {"shapes": [_shape(root, node, part, places, budget // len(shapes)) for part in shapes]}


def _shape(root: Root, node: xr.DataTree, whole: xr.Dataset, places: Places, budget: int) -> Json:
    words = by_condition(whole).indexes["cell"].get_level_values("condition")
    cells = [int(np.flatnonzero(words == word)[0]) for word in dict.fromkeys(words)]
    total = whole.sizes["example"]
    chosen = _draw(total, budget // (_bytes(whole) * len(cells)))
    part = whole.isel(cell=cells, example=chosen)
    index = part.indexes["cell"]
    seeds = index.get_level_values(SEED) if SEED in index.names else [""] * len(index)
    return {
        "conditions": [places[str(words[cell])] for cell in cells],
        "seeds": [str(seed) for seed in seeds],
        "total": total,
        "examples": [str(name) for name in part["example"].values],
        "gold": _gold(part),
        "layers": [int(layer) for layer in part["layer"].values],
        "positions": [str(position) for position in part["position"].values],
        "watch": [str(text) for text in part["watch"].values] if "watch" in part.coords else [],
        "top": part.sizes.get("top", 0),
        "arrays": _arrays(part),
        "predictions": _predictions(node, part),
        **_tokens(root, part),
    }


def _draw(total: int, room: int) -> list[int]:
    count = max(1, min(total, MOST_EXAMPLES, room))
    return sorted(int(n) for n in np.random.default_rng(0).choice(total, count, replace=False))


def _gold(part: xr.Dataset) -> list[list[str]]:
    """Return true labels by [condition][example]."""
    if "gold" not in part.coords:
        return []
    gold, _ = xr.broadcast(part["gold"], part[["cell", "example"]])
    return [[str(label) for label in of_cell] for of_cell in gold.transpose("cell", "example").values]


def _bytes(whole: xr.Dataset) -> int:
    """Return the size of one cell's one example, packed."""
    rest = whole.sizes["layer"] * whole.sizes["position"]
    watch, top = whole.sizes.get("watch", 0), whole.sizes.get("top", 0)
    return rest * (3 * 2 + watch * (2 + 4) + top * (2 + 4))


def _arrays(part: xr.Dataset) -> Json:
    """Return arrays of shape [condition, example, layer, position, …]."""
    arrays = {}
    for name, scale in SCALES.items():
        if name in part:
            values = numbers(_ordered(part[name])).values
            arrays[name] = fixed_point(-values if name in NEGATIVE else values, scale)
    if "watch_rank" in part:
        arrays["watch_rank"] = whole_numbers(_ordered(part["watch_rank"]).values)
    return arrays


def _tokens(root: Root, part: xr.Dataset) -> Json:
    """Return the top tokens as places in a list of ids, and their texts where the store has them."""
    if "top_id" not in part:
        return {"ids": [], "texts": None}
    ids, place = np.unique(_ordered(part["top_id"]).values, return_inverse=True)
    known = probed_vocabularies(root, str(part.attrs.get("vocabulary", "")))
    texts = known[0] if len(known) == 1 else None
    named = None if texts is None else [texts[i] if 0 <= i < len(texts) else None for i in ids]
    return {"ids": ids.tolist(), "texts": named, "top_place": whole_numbers(place)}


def _ordered(values: xr.DataArray) -> xr.DataArray:
    return values.transpose("cell", "example", "layer", "position", ...)


def _predictions(node: xr.DataTree, part: xr.Dataset) -> list[list[Json]]:
    """Return what each cell predicted and wrote for each example, [condition][example]."""
    index = part.indexes["cell"]
    predictions: list[list[Json]] = [[{} for _ in part["example"]] for _ in index]
    shapes = stage_nodes(node, "evaluate").values() if "evaluate" in node.children else []
    for dataset in shapes:
        rows_of_cells = dataset.indexes["cell"].get_indexer(index)
        examples = dataset.indexes["example"].get_indexer(part["example"].values)
        names = [n for n in ("prediction", "generated_label", "generated_text") if n in dataset]
        for c, cell in enumerate(rows_of_cells):
            if cell < 0:
                continue
            cell_data = dataset.isel(cell=int(cell))
            columns = {name: cell_data[name].values for name in names}
            for e, example in enumerate(examples):
                if example >= 0:
                    predictions[c][e] = {n: _short(v[example]) for n, v in columns.items()}
    return predictions


def _short(text: Any) -> str:
    whole = str(text)
    return whole if len(whole) <= MOST_CHARACTERS else f"{whole[:MOST_CHARACTERS]}…"
