"""What a store knows of one trained adapter: where it comes from, what it is for, how well it does."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from engine.errors import DataError, UsageError
from engine.planning.identities import source_identity
from engine.planning.levels import Wanted, describe
from engine.planning.recorded_cells import one_training, recorded_cell, select_cells
from engine.stages.training.files import check_adapter
from specs import Matrix
from specs.tables.experiment import TABLE_STAGES
from specs.toml.convert import unstructure
from specs.toml.paths import looks_local
from store import Ledger, StoreError, cells, read_manifests
from store.analysis import means
from store.backend.location import Place
from store.errors import FAULTS
from store.reader import open_store

# Outcomes by example that a card has with intervals, as far as the evaluation recorded them.
OUTCOMES = {
    "correct": "accuracy",
    "generated_correct": "accuracy of generated answers",
    "absolute_error": "mean absolute error",
    "brier": "Brier score",
    "nll": "negative log-likelihood of the true label",
}


@frozen
class Measured:
    """A mean with its interval, over test examples of one training, or over seeds as well."""

    levels: str  # of the cell, or of its condition
    outcome: str
    mean: float
    low: float
    high: float
    examples: int
    seeds: int


@frozen
class PublishedCell:
    """One trained adapter and what is told of it."""

    home: Place
    key: str
    experiment: str
    levels: dict[str, Any]
    matrix: Matrix
    cell: tuple[int, ...]
    record: dict[str, Any]
    data: dict[str, float]  # the data stage's summary
    fingerprint: str  # of the content of the data's sources
    measured: list[Measured]
    untrained: float | None  # accuracy of the base model

    @property
    def title(self) -> str:
        """Experiment and levels on a line."""
        return f"{self.experiment}: {describe(self.levels)}"


def published_cell(place: Place, cell: Wanted, experiment: str | None = None) -> PublishedCell:
    """Gather what is published of the one training that levels name, its files checked.

    Raises:
        UsageError: for levels that are not there or not single, and a cell without adapter.
        StoreError: for a training that is not done.
        DamagedAdapterError: for files that are not those that were recorded.
    """
    name, key, levels = one_training(place, cell, experiment)
    ledger, manifest = Ledger(place), read_manifests(place)[name]
    record, home = ledger.record("train", key), place.under(f"train/{key}")
    if not record.get("files"):
        raise UsageError(
            f"{place}: {describe(levels)} is an untrained model; expected a cell with an adapter"
        )
    check_adapter(home, record["files"])
    matrix, choice = recorded_cell(manifest["spec"], levels)
    same = [known["levels"] for known in cells(place, name) if known["keys"]["train"] == key]
    measured, untrained = _measured(place, name, same)
    return PublishedCell(
        home=home,
        key=key,
        experiment=name,
        levels=levels,
        matrix=matrix,
        cell=choice,
        record=record,
        data={stage: record["summary"][stage] for stage in sorted(record["summary"]) if "examples" in stage},
        fingerprint=_fingerprint(matrix, choice, manifest.get("files", {})),
        measured=measured,
        untrained=untrained,
    )


def settings_of(matrix: Matrix, cell: tuple[int, ...]) -> dict[str, Any]:
    """Give the spec of one cell without its defaults; of local files the names alone."""
    spec: dict[str, Any] = {"name": matrix.experiment.name, "seeds": [matrix.seed(cell)]}
    for name in TABLE_STAGES:
        settings = matrix.table(name, cell)
        if kept := _not_default(settings):
            spec[name] = kept
    spec["model"]["id"] = public_name(spec["model"]["id"])
    source = spec["data"]["source"]
    spec["data"]["source"] = (
        public_name(source) if isinstance(source, str) else [public_name(text) for text in source]
    )
    return spec


def public_name(text: str) -> str:
    """Give a hub id or a built-in name as it is, and of a path on this machine the last part."""
    return Path(text).name if looks_local(text) else text


def _not_default(settings: Any) -> dict[str, Any]:
    plain = unstructure(settings)
    kept = {}
    for field in attrs.fields(type(settings)):
        value, default = getattr(settings, field.name), field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        if value is None or value == default:
            continue
        inner = attrs.has(type(value)) and field.default is not attrs.NOTHING
        kept[field.name] = _not_default(value) if inner else plain[field.name]
    return kept


def _fingerprint(matrix: Matrix, cell: tuple[int, ...], remembered: dict[str, str]) -> str:
    try:
        return source_identity(matrix.table("data", cell), remembered)
    except DataError:  # the file has changed since
        return "unknown"


def _measured(place: Place, name: str, alike: list[dict[str, Any]]) -> tuple[list[Measured], float | None]:
    """Give outcomes of the cells that share a training, and of their conditions over all seeds."""
    rows: list[Measured] = []
    node, untrained = open_store(place, name).children[name], None
    for levels in alike:
        condition = {factor: level for factor, level in levels.items() if factor != "seed"}
        for wanted in (levels, condition):
            try:
                chosen = select_cells(node, wanted)
            except FAULTS:
                raise
            except StoreError:  # not whole yet
                continue
            if "summary" not in chosen.children:
                continue
            for outcome, title in OUTCOMES.items():
                if (row := _mean(chosen, wanted, outcome, title)) and (row.seeds > 1 or wanted is levels):
                    rows.append(row)
            summary = chosen["summary"].to_dataset()
            if "base_accuracy" in summary:
                untrained = float(summary["base_accuracy"].mean())
    return rows, untrained


def _mean(chosen: Any, levels: dict[str, Any], outcome: str, title: str) -> Measured | None:
    try:
        result = means(chosen, outcome)
    except FAULTS:
        raise
    except StoreError:  # not recorded
        return None
    mean, low, high = (float(result[name].squeeze()) for name in ("mean", "low", "high"))
    if isnan(mean):  # of labels that are words, say
        return None
    examples, seeds = int(result["examples"].squeeze()), int(result["seeds"].squeeze())
    return Measured(describe(levels), title, mean, low, high, examples, seeds)
