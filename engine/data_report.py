"""What `engine data` shows before anybody pays for training: splits, labels, explanations, lengths."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from engine import data as data_stage
from engine import models
from engine.plan import Plan, PlannedCell, describe, grouped
from engine.row_checks import KINDS
from engine.sources import sources
from engine.text import cell_writer
from store.quality import explanation_quality

SAMPLED = 500  # examples whose targets are tokenized per condition
TEXT_TABLES = ("model", "data", "prompt", "target")  # what a target's text and tokens depend on


def data_tables(plan: Plan) -> Iterator[Table]:
    """Yield, for every distinct training set of a plan, its splits, explanations and target lengths."""
    for cells in grouped(plan.cells, lambda cell: cell.keys["data"]):
        data = plan.matrix.table("data", cells[0].choice)
        labels = list(plan.matrix.table("evaluate", cells[0].choice).labels)
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
        yield _explanations(title, rows, labels)
        yield _lengths(title, plan, cells, rows["train"])


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


def _explanations(title: str, rows: dict[str, list[dict[str, str]]], labels: list[str]) -> Table:
    measured = [explanation_quality(part, labels) for part in rows.values()]
    table = Table(title=f"{title}: explanations")
    table.add_column("measure")
    for split in rows:
        table.add_column(split, justify="right")
    for name, meaning in _MEASURES.items():
        table.add_row(meaning, *(f"{getattr(quality, name):.0%}" for quality in measured))
    return table


def _lengths(title: str, plan: Plan, cells: list[PlannedCell], rows: list[dict[str, str]]) -> Table:
    """Give the token lengths of prompts and targets, one row per condition that writes other text."""
    table = Table(title=f"{title}: median tokens ({min(SAMPLED, len(rows)):,} training examples)")
    table.add_column("condition", no_wrap=True)
    for column in ("prompt", "target", "from", "to", "too long"):
        table.add_column(column, justify="right")
    choose = plan.matrix.chooser(*TEXT_TABLES)
    tokenizers: dict[Any, Any] = {}
    for cell, *_ in grouped(cells, lambda cell: choose(cell.choice)):
        model = plan.matrix.choice("model", cell.choice)
        if model not in tokenizers:
            tokenizers[model] = models.load_tokenizer(plan.matrix.table("model", cell.choice))
        data = plan.matrix.table("data", cell.choice)
        writer = cell_writer(plan, cell, tokenizers[model], data, lambda: rows)
        encoded = [writer.encode(row) for row in rows[:SAMPLED]]
        limit = plan.matrix.table("train", cell.choice).max_length
        targets = [len(example.completion) for example in encoded]
        prompts = [len(example.prompt) for example in encoded]
        levels = {name: level for name, level in plan.levels(cell).items() if name != "seed"}
        numbers = (statistics.median(prompts), statistics.median(targets), min(targets), max(targets))
        too_long = sum(len(example) > limit for example in encoded)
        table.add_row(describe(levels) or "all", *(f"{n:,.0f}" for n in (*numbers, too_long)))
    return table
