"""What `engine data` shows before anybody pays for training: splits, labels, explanations, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

import attrs

from engine.cli.grids import Grid
from engine.cli.length_report import Lengths, lengths_table
from engine.data import prepare as data_stage
from engine.data.missing_explanations import explained
from engine.data.row_checks import KINDS
from engine.data.sources import sources
from engine.planning.data_read import test_data
from engine.planning.key_parts import Cell
from engine.planning.plan import Plan, PlannedCell, grouped
from specs.tables.data import Data
from specs.toml import keys
from store.quality import explanation_quality

Rows = dict[str, list[dict[str, str]]]
Facts = dict[str, Any]


def data_facts(plan: Plan) -> Iterator[Facts]:
    """Yield, for every distinct data set of a plan, its splits, explanations and token lengths."""
    trained, tested = (_by_key(plan, name) for name in ("data", "test_data"))
    for data_key in dict.fromkeys([*trained, *tested]):
        cells = trained.get(data_key) or tested[data_key]
        choice = cells[0].choice
        data = plan.matrix.table("data", choice) if data_key in trained else test_data(plan.matrix, choice)
        labels = list(plan.matrix.table("evaluate", choice).labels)
        with TemporaryDirectory() as folder:
            record = data_stage.prepare(data, labels, folder)
            rows = {split: data_stage.load(folder, split, None) for split in data_stage.SPLITS}
        names = [source.name for source in sources(data)]
        lengths = Lengths(plan, rows)
        left_out = {kind: int(record["summary"][f"dropped_{kind}"]) for kind in KINDS}
        yield {
            "sources": names,
            "dimension": data.dimension if _is_meant(plan, choice, data) else None,
            "labels": labels,
            "splits": {split: _split(part, labels, names) for split, part in rows.items()},
            "left_out": {kind: number for kind, number in left_out.items() if number},
            "empty_explanations": data.empty_explanations,
            "explanations_needed_by": _needed_by(plan, trained.get(data_key, [])),
            "training_lengths": list(lengths.of_training(trained[data_key])) if data_key in trained else [],
            "test_lengths": list(lengths.of_test(tested[data_key])) if data_key in tested else [],
        }


def data_rows(facts: Facts) -> Iterator[Facts]:
    """Yield the numbers of one data set as rows: split, what is counted, which, how many."""
    name = " + ".join(facts["sources"])

    def row(split: str, measure: str, of: str, value: Any) -> Facts:
        return {"data": name, "split": split, "measure": measure, "of": of, "value": value}

    for split, told in facts["splits"].items():
        yield row(split, "examples", "", told["examples"])
        yield row(split, "groups", "", told["groups"])
        yield from (row(split, "label", label, number) for label, number in told["labels"].items())
        yield from (row(split, "source", source, number) for source, number in told["sources"].items())
        yield from (row(split, "explanations", kind, value) for kind, value in told["explanations"].items())
    yield from (row("", "left out", kind, number) for kind, number in facts["left_out"].items())
    for split, kind in (("train", "training_lengths"), ("test", "test_lengths")):
        for condition in facts[kind]:
            levels = ", ".join(f"{name}={level}" for name, level in condition["levels"].items())
            for measure, value in condition.items():
                if measure != "levels":
                    yield row(split, f"tokens: {measure}", levels, value)


def data_tables(facts: Facts) -> Iterator[Grid]:
    """Yield the tables of one data set."""
    title = " + ".join(facts["sources"]) + (f", {facts['dimension']}" if facts["dimension"] else "")
    splits, labels = facts["splits"], facts["labels"]
    grid = Grid.of(f"{title}: examples by split and label", ["split"], ["examples", "groups", *labels])
    for split, told in splits.items():
        numbers = (told["examples"], told["groups"], *told["labels"].values())
        grid.add(split, *(f"{number:,}" for number in numbers))
    yield grid
    if len(facts["sources"]) > 1:
        grid = Grid.of(f"{title}: examples by source and split", ["source"], splits)
        for name in sorted(facts["sources"]):
            grid.add(name, *(f"{told['sources'][name]:,}" for told in splits.values()))
        yield grid
    if facts["left_out"]:
        grid = Grid.of(f"{title}: rows left out", ["kind"], ["rows"])
        for kind, number in facts["left_out"].items():
            grid.add(KINDS[kind], f"{number:,}")
        yield grid
    if facts["explanations_needed_by"] or any(told["explanations"]["explained"] for told in splits.values()):
        yield _explanations(title, facts)
    for kind, what in (("training_lengths", "training"), ("test_lengths", "test")):
        if facts[kind]:
            yield lengths_table(title, what, facts[kind])


def _by_key(plan: Plan, name: str) -> dict[str, list[PlannedCell]]:
    return {cells[0].keys[name]: cells for cells in grouped(plan.cells, lambda cell: cell.keys[name])}


def _is_meant(plan: Plan, choice: Cell, data: Data) -> bool:
    """Tell whether somebody named the quality that is rated, so that it is no mere default."""
    written = keys.exists(plan.matrix.spec.raw, ("data", "dimension"))
    chosen = plan.matrix.written("data.dimension", choice) != "data.dimension"
    return written or chosen or any(source.data_set for source in sources(data))


def _split(rows: list[dict[str, str]], labels: list[str], names: list[str]) -> Facts:
    counts = Counter(row["label"] for row in rows)
    origins = Counter(row.get("source", names[0]) for row in rows)
    return {
        "examples": len(rows),
        "groups": len({row["group"] for row in rows}),
        "labels": {label: counts[label] for label in labels},
        "sources": {name: origins[name] for name in names},
        "explanations": {
            "without": sum(not explained(row) for row in rows),
            **attrs.asdict(explanation_quality(rows, labels)),
        },
    }


# What each measure of `Quality` says, in the order of the table.
_MEASURES = {
    "explained": "with an explanation",
    "duplicates": "word for word as an earlier one",
    "templates": "in the commonest template (first three words)",
    "distinct_1": "different words per word",
    "distinct_2": "different pairs of words per pair",
    "names_label": "naming their own label",
    "names_other": "naming another label",
}


def _needed_by(plan: Plan, cells: list[PlannedCell]) -> list[str]:
    targets = {cell.choice: plan.matrix.table("target", cell.choice) for cell in cells}
    return sorted({target.content for target in targets.values() if target.content != "label"})


def _explanations(title: str, facts: Facts) -> Grid:
    told = {split: numbers["explanations"] for split, numbers in facts["splits"].items()}
    grid = Grid.of(f"{title}: explanations", ["measure"], told)
    grid.add(KINDS["unexplained"], *(f"{numbers['without']:,}" for numbers in told.values()))
    for name, meaning in _MEASURES.items():
        grid.add(meaning, *(f"{numbers[name]:.0%}" for numbers in told.values()))
    needed = facts["explanations_needed_by"]
    if any(numbers["without"] for numbers in told.values()) and needed:
        grid.caption = (
            f'data.empty_explanations = "{facts["empty_explanations"]}", needed by {", ".join(needed)}'
        )
    return grid
