"""What the analyses read: a stage's data with one `cell` axis, and the outcomes derived from it."""

import json
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import xarray as xr
from numpy.typing import NDArray
from scipy.special import log_softmax

from specs.common.names import (
    DERIVED_ATTRIBUTIONS,
    DERIVED_STATISTICS,
    LENS,
    LENS_TITLE,
    NOT_APPLICABLE,
)
from specs.common.spelling import alike, hint
from store.analysis.counterfactuals import MEASURES, measure
from store.analysis.layer_variables import layer_variable, layer_variables
from store.analysis.recorded import made_by, made_by_stage
from store.analysis.samples import check_samples, of_samples, sample_measure, sample_sources, sample_title
from store.analysis.shapes import merge_shapes
from store.analysis.task_scores import on_own_documents, task_stage
from store.errors import StoreError
from store.ledger.levels import level_text

SEED = "seed"
DIMS = frozenset({
    "against", "cell", "component", "counterfactual", "example", "expert", "head", "intervention", "label",
    "layer", LENS, "neighbour", "position", "sample", "step", "stream", "top", "watch",
})  # fmt: skip
BLOCK_BYTES = 2**28
BY_DOCUMENT = '; numbers of tasks that are no means of their documents have stage="summary" alone'
Data = xr.Dataset | xr.DataTree
Floats = NDArray[np.float64]


def stage_nodes(data: Data, stage: str, name: str | None = None) -> dict[str, xr.Dataset]:
    """Return the datasets of a stage, one per test set, each with a `cell` index of all its factors.

    `data`: a dataset with cells, the node of a stage or of an experiment, or a store's tree with only one
    experiment. `name`: a variable, or one derived from predictions; where cells have unlike variables, those
    that have this one stand together with it alone. StoreError when the stage is not there, or the tree
    leaves open which experiment is meant, or when no cell has the samples that a name asks for.
    """
    nodes = _nodes_of(data, stage, name)
    if name is not None:
        check_samples(nodes.values(), name)
        if task_stage(name) == stage:
            nodes = {shape: on_own_documents(node, name) for shape, node in _with(nodes, name).items()}
    return nodes


def _with(nodes: dict[str, xr.Dataset], name: str) -> dict[str, xr.Dataset]:
    """Return the datasets that have a variable; StoreError where none has."""
    found = {shape: node for shape, node in nodes.items() if name in node.data_vars}
    if not found:
        known = sorted({str(known) for node in nodes.values() for known in node.data_vars})
        raise StoreError(f"no variable {name!r}{hint(name, known)}{BY_DOCUMENT}")
    return found


def _nodes_of(data: Data, stage: str, name: str | None) -> dict[str, xr.Dataset]:
    if isinstance(data, xr.Dataset):
        return {"": with_cell_index(data)}
    if "cell" in data.dims:
        return {data.name or "": with_cell_index(data.to_dataset())}
    if stage in data.children:
        return _nodes_of(data.children[stage], stage, name)
    shapes = {name: with_cell_index(c.to_dataset()) for name, c in data.children.items() if "cell" in c.dims}
    if shapes and "summary" not in shapes:
        merged = merge_shapes(shapes)
        return merged if name is None or len(merged) == 1 else merge_shapes(_having(shapes, name)) or merged
    if len(data.children) == 1 and not shapes:
        return _nodes_of(next(iter(data.children.values())), stage, name)
    listed = ", ".join(data.children) or "no nodes"
    more = BY_DOCUMENT if task_stage(name or "") == stage else made_by_stage(stage)
    raise StoreError(f"{data.path}: expected an experiment with a node {stage!r}, found {listed}{more}")


def _having(shapes: dict[str, xr.Dataset], name: str) -> dict[str, xr.Dataset]:
    """Return of the datasets that have a variable, or what it is derived from, that alone."""
    alone = {}
    for shape, dataset in shapes.items():
        sources = [name] if name in dataset.data_vars else _sources(name)
        if all(source in dataset.data_vars for source in sources):
            alone[shape] = on_own_documents(dataset, name) if task_stage(name) else dataset[sources]
    return alone


def _sources(name: str) -> list[str]:
    """Return the variables that one is derived from."""
    if of_samples(name):
        return sample_sources(name)
    return list(MEASURES[name][0]) if name in MEASURES else [DERIVED.get(name, (name, ""))[0]]


def stage_node(data: Data, stage: str, name: str | None = None) -> xr.Dataset:
    """Return the one dataset of a stage, as `stage_nodes`; StoreError when there are several test sets."""
    nodes = stage_nodes(data, stage, name)
    if len(nodes) > 1:
        varying = [
            name
            for name in next(iter(nodes.values())).indexes["cell"].names
            if len({tuple(levels(node, name)) for node in nodes.values()}) > 1
        ]
        raise StoreError(
            f"{stage}: its cells have {len(nodes)} test sets or shapes, by {' and '.join(varying)}; "
            f"select one, as with select({varying[0] if varying else 'factor'}=…)"
        )
    return next(iter(nodes.values()))


def select(data: Data, **chosen: Any) -> xr.DataTree:
    """Return an experiment with only the cells of some levels, factor=level or factor=[level, …].

    Unlike `.sel` of a dataset it selects in all stages and shapes at once, and keeps the factors. Nothing is
    read.

    Raises:
        StoreError: for an unknown factor or level.
    """
    if isinstance(data, xr.Dataset):
        raise StoreError("select: expected an experiment; a dataset has .sel for that")
    summary = stage_node(data, "summary")
    wanted = {
        factor: {check_level(summary, factor, level) for level in _listed(value)}
        for factor, value in chosen.items()
    }
    experiment = data if "summary" in data.children else next(iter(data.children.values()))
    nodes = {"/": experiment.to_dataset()}
    for node in experiment.descendants:
        if "cell" in node.dims:
            dataset = node.to_dataset()
            index = with_cell_index(dataset).indexes["cell"]
            kept = [index.get_level_values(factor).isin(levels_) for factor, levels_ in wanted.items()]
            cells = np.flatnonzero(np.logical_and.reduce(kept))
            if cells.size:
                nodes[f"/{node.relative_to(experiment)}"] = dataset.isel(cell=cells)
    return xr.DataTree.from_dict(nodes)


def spec_of(data: Data) -> dict[str, Any]:
    """Return the spec of an experiment, or of the one that a node belongs to; {} where none is known."""
    node: Any = data
    while isinstance(node, xr.DataTree) and "spec" not in node.attrs and node.parent is not None:
        node = node.parent
    if isinstance(node, xr.DataTree) and "spec" not in node.attrs and len(node.children) == 1:
        node = next(iter(node.children.values()))
    spec = node.attrs.get("spec", {})
    spec_read: dict[str, Any] = json.loads(spec) if isinstance(spec, str) else spec
    return spec_read


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def with_cell_index(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with its cells along `cell`, as a MultiIndex of the coordinates along it alone.

    Selecting a level takes its factor out of the index, and the last factor left gives its name to the
    dimension; that is undone here, so that what was selected can be analysed like the whole.
    """
    if isinstance(dataset.indexes.get("cell"), pd.MultiIndex):
        return dataset
    cell_dims = [dim for dim in dataset.dims if dim not in DIMS or _is_factor(dataset, dim)]
    names = [name for name, values in dataset.coords.items() if values.dims == ("cell",)]
    if names:
        index = pd.MultiIndex.from_arrays([_levels(dataset[name]) for name in names], names=names)
        dataset = dataset.drop_vars(names)
    elif "cell" not in dataset.dims and len(cell_dims) == 1:
        values = dataset.indexes[cell_dims[0]]
        index = pd.MultiIndex.from_arrays([values], names=[cell_dims[0]])
        dataset = dataset.drop_vars(str(cell_dims[0])).rename({cell_dims[0]: "cell"})
    elif "cell" not in dataset.dims and not cell_dims:
        index = pd.MultiIndex.from_arrays([[0]], names=[SEED])
        dataset = dataset.drop_vars(SEED, errors="ignore").expand_dims("cell")
    else:
        raise StoreError(f"expected data with a dimension 'cell', found {tuple(map(str, dataset.dims))}")
    return dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "cell"))


def _is_factor(dataset: xr.Dataset, dim: Hashable) -> bool:
    """Tell whether what could be the dim of several lenses is a factor over them, as specs may have one."""
    return dim == LENS and "cell" not in dataset.dims and dataset[LENS].attrs.get("long_name") != LENS_TITLE


def first_lens(dataset: xr.Dataset) -> xr.Dataset:
    """Return a probe's data as its spec's first lens reads them, where several do."""
    return dataset.isel({LENS: 0}, drop=True) if LENS in dataset.dims else dataset


def _levels(values: xr.DataArray) -> NDArray[Any]:
    """Return a factor's level of each cell; text as objects, also where a file has given another type."""
    levels_of_cells: NDArray[Any] = np.asarray(values.values)
    return levels_of_cells if levels_of_cells.dtype.kind in "biuf" else levels_of_cells.astype(object)


def indexed(data: Data) -> Data:
    """Return the data with a pandas MultiIndex of the factors along `cell`, as `.unstack("cell")` needs it.

    Nodes of an experiment that have no cells stay as they are.
    """
    if isinstance(data, xr.Dataset):
        return with_cell_index(data)
    nodes = {
        "/" if node is data else f"/{node.relative_to(data)}": with_cell_index(node.to_dataset(inherit=False))
        if "cell" in node.dims
        else node.to_dataset(inherit=False)
        for node in data.subtree
    }
    return xr.DataTree.from_dict(nodes)


def factors(dataset: xr.Dataset) -> list[str]:
    """Return the names of the cells' factors, the seed left out."""
    return [str(name) for name in dataset.indexes["cell"].names if name != SEED]


def check_factor(dataset: xr.Dataset, factor: str) -> int:
    """Return the place of a factor in the cells' index; StoreError names the nearest factor."""
    names = list(dataset.indexes["cell"].names)
    if factor not in names:
        raise StoreError(f"no factor {factor!r}{hint(factor, names)}")
    return names.index(factor)


def levels(dataset: xr.Dataset, factor: str) -> list[Any]:
    """Return a factor's levels in the order of the cells."""
    check_factor(dataset, factor)
    index = dataset.indexes["cell"]
    return list(dict.fromkeys(index.get_level_values(factor)))


def check_level(dataset: xr.Dataset, factor: str, level: Any) -> Any:
    """Return `level` when the factor has it; StoreError names the nearest."""
    known = levels(dataset, factor)
    if level not in known:
        raise StoreError(f"{factor}: no level {level!r}{hint(str(level), map(str, known))}")
    return level


def other_levels(dataset: xr.Dataset, taken: list[str]) -> list[dict[str, Any]]:
    """Return the combinations of levels that occur of the factors beside `taken`; [{}] without others."""
    names = [name for name in factors(dataset) if name not in taken]
    index = dataset.indexes["cell"]
    columns = [index.get_level_values(name) for name in names]
    return [
        dict(zip(names, levels_, strict=True)) for levels_ in dict.fromkeys(zip(*columns, strict=True))
    ] or [{}]


def at(dataset: xr.Dataset, chosen: dict[str, Any]) -> xr.Dataset:
    """Return the cells at the chosen levels, their index whole."""
    index = dataset.indexes["cell"]
    keep = np.ones(len(index), bool)
    for name, level in chosen.items():
        keep &= index.get_level_values(name) == level
    return dataset.isel(cell=np.flatnonzero(keep))


def seed_values(index: pd.MultiIndex) -> pd.Index:
    """Return the seed of each entry; 0 for all where the seed has been selected."""
    return index.get_level_values(SEED) if SEED in index.names else pd.Index([0] * len(index))


def by_condition(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with one factor, `condition`, in the place of all: its levels in words."""
    names = factors(dataset)
    index = dataset.indexes["cell"]
    columns = [index.get_level_values(name) for name in names]
    words = [spell(names, [column[number] for column in columns]) for number in range(len(index))]
    merged = pd.MultiIndex.from_arrays([words, seed_values(index)], names=["condition", SEED])
    kept = dataset.drop_vars(["cell", *index.names])
    return kept.assign_coords(xr.Coordinates.from_pandas_multiindex(merged, "cell"))


def spell(names: Sequence[Hashable], key: Sequence[Any]) -> str:
    """Return a condition in words, levels as in a spec: target=label, chat=true."""
    held = ((name, level) for name, level in zip(names, key, strict=True) if level != NOT_APPLICABLE)
    return ", ".join(f"{name}={level_text(level)}" for name, level in held) or "all"


DERIVED = {
    "correct": ("prediction", "accuracy"),
    "generated_correct": ("generated_label", "accuracy of generated labels"),
    "majority_correct": ("majority_label", "accuracy of majority labels"),
    "absolute_error": ("prediction", "absolute error"),
    "brier": ("label_logprob", "Brier score of the label probabilities"),
    "nll": ("label_logprob", "negative log-likelihood of the true label among the labels"),
}
UNITS = {"nll": "nat"}


def variable(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return a variable, or one derived from predictions (`DERIVED`, `MEASURES`) or of layers.

    `correct` is 0 or 1; "" is no label, so it is wrong for `correct` and missing for `absolute_error`.
    `brier` is the sum over labels of the squared distance of their probabilities, renormalised among them,
    from 1 for the true label and 0 for others (Brier, 1950), `nll` minus the true label's log-probability.
    What is derived from predictions is read by this, nothing else.
    """
    if name in dataset.data_vars:
        return dataset[name]
    if {*_sources(name)} <= {*dataset.data_vars} and "gold" in dataset.coords:
        if name in MEASURES:
            return measure(dataset, name)
        if of_samples(name):
            return sample_measure(dataset, name)
    if (of_layers := layer_variable(dataset, name)) is not None:
        return of_layers
    source, long_name = DERIVED.get(name, ("", ""))
    if source not in dataset.data_vars or "gold" not in dataset.coords:
        known = [*map(str, dataset.data_vars), *(n for n, (s, _) in DERIVED.items() if s in dataset)]
        known += layer_variables(dataset)
        why = made_by(name) or alike(name, [*known, *DERIVED]) or hint(name, known)
        raise StoreError(f"no variable {name!r}{why}")
    guess, truth = dataset[source], dataset["gold"]
    if name == "absolute_error":
        values = abs(ratings(guess) - ratings(truth))
    elif source == "label_logprob":
        values = _score(name, guess, truth)
    else:
        values = (guess == truth).astype(float)
    return values.rename(name).assign_attrs(units=UNITS.get(name, "1"), long_name=long_name)


def _score(name: str, logprobs: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """Return a score of the probabilities of labels, NaN where the true label is none of them."""
    axis = logprobs.get_axis_num("label")
    logs = logprobs.copy(data=log_softmax(logprobs.values.astype(float), axis=axis))
    right = logprobs["label"] == truth
    if name == "brier":
        brier = ((logs.copy(data=np.exp(logs.values)) - right) ** 2).sum("label")
    else:
        brier = -logs.where(right).max("label")
    score: xr.DataArray = brier.where(right.any("label"))
    return score.transpose(*(dim for dim in logprobs.dims if dim != "label"))


def in_words(name: str) -> str:
    """Return what a sentence calls a variable: a derived one by its title, one of a stage by its name."""
    if of_samples(name):
        return sample_title(name)
    if name in MEASURES:
        return MEASURES[name][2]
    known = DERIVED | DERIVED_STATISTICS | DERIVED_ATTRIBUTIONS
    return known[name][1] if name in known else name


def ratings(labels: xr.DataArray) -> xr.DataArray:
    """Return labels as numbers, NaN for those that are none."""
    flat = pd.to_numeric(pd.Series(np.asarray(labels.values, object).ravel()), errors="coerce")
    return labels.copy(data=flat.to_numpy(float).reshape(labels.shape))


def numbers(block: xr.DataArray) -> xr.DataArray:
    """Read some cells as float64, the store's fill value of whole numbers (-1) as NaN."""
    values = np.asarray(block.values)
    if values.dtype.kind in "iu":
        return block.copy(data=np.where(values < 0, np.nan, values.astype(float)))
    return block.copy(data=values.astype(float))


def read_cell(values: xr.DataArray, cell: int) -> Floats:
    """Read one cell of a variable: `numbers` without labels."""
    return numbers(values.isel(cell=cell, drop=True)).values


def layer_blocks(values: xr.DataArray) -> list[slice]:
    """Return `blocks` of layers.

    Few and large ones: a chunk on disk holds all layers of some examples, and is decoded once per slice.
    """
    return blocks(values, "layer")


def blocks(values: xr.DataArray, dim: str) -> list[slice]:
    """Return slices along a dim, each at most BLOCK_BYTES of the variable as float64 (or one entry)."""
    size = values.sizes.get(dim, 1)
    step = max(1, BLOCK_BYTES * size // max(1, 8 * values.size))
    return [slice(start, start + step) for start in range(0, size, step)]
