"""What `engine data` shows before anybody pays for training: splits, labels, explanations, lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from tempfile import TemporaryDirectory

from rich.table import Table

from engine.cli.length_report import Lengths
from engine.data import prepare as data_stage
from engine.data.missing_explanations import explained
from engine.data.row_checks import KINDS
from engine.data.sources import sources
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.stage_keys import test_data
from specs.tables.data import Data
from store.quality import explanation_quality


def data_tables(plan: Plan) -> Iterator[Table]:
    """Yield, for every distinct data set of a plan, its splits, explanations and token lengths."""
    trained, tested = (_by_key(plan, name) for name in ("data", "test_data"))
    for key in dict.fromkeys([*trained, *tested]):
        cells = trained.get(key) or tested[key]
        choice = cells[0].choice
        data = plan.matrix.table("data", choice) if key in trained else test_data(plan.matrix, choice)
        labels = list(plan.matrix.table("evaluate", choice).labels)
        with TemporaryDirectory() as folder:
            record = data_stage.prepare(data, labels, folder)
            rows = {split: data_stage.load(folder, split, None) for split in data_stage.SPLITS}
        names = [source.name for source in sources(data)]
        title = f"{' + '.join(names)}, {data.dimension}"
        yield _splits(title, rows, labels)
        if len(names) > 1:
            yield _sources(title, rows)
        if left_out := {kind: number for kind in KINDS if (number := record["summary"][f"dropped_{kind}"])}:
            yield _left_out(title, left_out)
        yield _explanations(title, rows, labels, data, plan, trained.get(key, []))
        lengths = Lengths(plan, title, rows)
        if key in trained:
            yield lengths.of_training(trained[key])
        if key in tested:
            yield lengths.of_test(tested[key])


def _by_key(plan: Plan, name: str) -> dict[str, list[PlannedCell]]:
    return {cells[0].keys[name]: cells for cells in grouped(plan.cells, lambda cell: cell.keys[name])}


def _splits(title: str, rows: dict[str, list[dict[str, str]]], labels: list[str]) -> Table:
    table = Table(title=f"{title}: examples by split and label")
    for column in ("split", "examples", "groups", *labels):
        table.add_column(column, justify="left" if column == "split" else "right")
    for split, part in rows.items():
        counts = Counter(row["label"] for row in part)
        groups = len({row["group"] for row in part})
        cells = (len(part), groups, *(counts[label] for label in labels))
        table.add_row(split, *(f"{count:,}" for count in cells))
    return table


def _sources(title: str, rows: dict[str, list[dict[str, str]]]) -> Table:
    table = Table(title=f"{title}: examples by source and split")
    table.add_column("source")
    for split in rows:
        table.add_column(split, justify="right")
    counts = {split: Counter(row["source"] for row in part) for split, part in rows.items()}
    for name in sorted(set().union(*counts.values())):
        table.add_row(name, *(f"{count[name]:,}" for count in counts.values()))
    return table


def _left_out(title: str, numbers: dict[str, int]) -> Table:
    table = Table(title=f"{title}: rows left out")
    table.add_column("kind")
    table.add_column("rows", justify="right")
    for kind, number in numbers.items():
        table.add_row(KINDS[kind], f"{number:,}")
    return table


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


def _explanations(
    title: str,
    rows: dict[str, list[dict[str, str]]],
    labels: list[str],
    data: Data,
    plan: Plan,
    cells: list[PlannedCell],
) -> Table:
    table = Table(title=f"{title}: explanations")
    table.add_column("measure")
    for split in rows:
        table.add_column(split, justify="right")
    without = {split: sum(not explained(row) for row in part) for split, part in rows.items()}
    table.add_row(KINDS["unexplained"], *(f"{number:,}" for number in without.values()))
    measured = [explanation_quality(part, labels) for part in rows.values()]
    for name, meaning in _MEASURES.items():
        table.add_row(meaning, *(f"{getattr(quality, name):.0%}" for quality in measured))
    targets = {cell.choice: plan.matrix.table("target", cell.choice) for cell in cells}
    needed = sorted({target.content for target in targets.values() if target.content != "label"})
    if any(without.values()) and needed:
        table.caption = (
            f'data.empty_explanations = "{data.empty_explanations}", needed by {", ".join(needed)}'
        )
    return table
