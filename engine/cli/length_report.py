"""Token lengths of a data set's examples under every condition, as `engine data` shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field
from rich.table import Table

from engine.models import loading as models
from engine.planning.plan import Plan, PlannedCell, describe, grouped
from engine.text.lengths import Limit, evaluated_length, limit_by
from engine.text.targets import TargetEncoder, cell_writer

SAMPLED = 500  # examples that are tokenized per condition
TEXT_TABLES = ("model", "data", "prompt", "target", "train")  # what texts, tokens and their limit depend on


@define
class Lengths:
    """Makes the tables of one data set; every tokenizer is read once."""

    plan: Plan
    title: str
    rows: Mapping[str, Sequence[Mapping[str, str]]]
    _known: dict[Any, tuple[Any, Any]] = field(factory=dict)  # by model: tokenizer and configuration

    def of_training(self, cells: Sequence[PlannedCell]) -> Table:
        """Give the lengths of prompts and targets of training examples."""
        rows = self.rows["train"][:SAMPLED]
        table = self._table(f"{len(rows):,} training examples", "prompt", "target", "from", "to", "too long")
        for cell, writer, limit in self._conditions(cells, TEXT_TABLES, test=False):
            encoded = [writer.encode(row) for row in rows]
            prompts = [len(example.prompt) for example in encoded]
            targets = [len(example.completion) for example in encoded]
            medians = (statistics.median(prompts), statistics.median(targets))
            too_long = sum(len(example) > limit.tokens for example in encoded)
            self._add(table, cell, *medians, min(targets), max(targets), too_long)
        return table

    def of_test(self, cells: Sequence[PlannedCell]) -> Table:
        """Give the lengths of test examples: of prompts, and with what is scored or written behind them."""
        rows = self.rows["test"][:SAMPLED]
        table = self._table(
            f"{len(rows):,} test examples", "prompt", "with answer", "from", "to", "too long", "at most"
        )
        for cell, writer, limit in self._conditions(cells, (*TEXT_TABLES, "evaluate"), test=True):
            settings = self.plan.matrix.table("evaluate", cell.choice)
            prompts = [len(writer.encode_prompt(row)[0]) for row in rows]
            whole = [evaluated_length(writer, row, settings) for row in rows]
            medians = (statistics.median(prompts), statistics.median(whole))
            too_long = sum(tokens > limit.tokens for tokens in whole)
            self._add(table, cell, *medians, min(whole), max(whole), too_long, limit.tokens)
        return table

    def _table(self, of: str, *columns: str) -> Table:
        table = Table(title=f"{self.title}: median tokens ({of})")
        table.add_column("condition", no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right")
        return table

    def _add(self, table: Table, cell: PlannedCell, *numbers: float) -> None:
        levels = {name: level for name, level in self.plan.levels(cell).items() if name != "seed"}
        table.add_row(describe(levels) or "all", *(f"{number:,.0f}" for number in numbers))

    def _conditions(
        self, cells: Sequence[PlannedCell], tables: Sequence[str], *, test: bool
    ) -> Iterator[tuple[PlannedCell, TargetEncoder, Limit]]:
        """Yield a cell of each condition that writes other text, its writer, and the most tokens there."""
        matrix = self.plan.matrix
        choose = matrix.chooser(*tables)
        for cell, *_ in grouped(cells, lambda cell: choose(cell.choice)):
            model = matrix.choice("model", cell.choice)
            if model not in self._known:
                settings = matrix.table("model", cell.choice)
                self._known[model] = models.load_tokenizer(settings), models.load_config(settings)
            tokenizer, config = self._known[model]
            writer = cell_writer(self.plan, cell, tokenizer, lambda: self.rows["train"], test=test)
            yield cell, writer, limit_by(config, matrix.table("train", cell.choice).max_length)
