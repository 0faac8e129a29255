"""Token lengths of a data set's examples under every condition, as `engine data` shows them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import define, field

from engine.cli.grids import Grid, varying
from engine.models import loading as models
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.text.lengths import Limit, evaluated_length, limit_by
from engine.text.targets import TargetEncoder, cell_writer
from store.ledger.levels import level_text

SAMPLED = 500  # examples that are tokenized per condition
TEXT_TABLES = ("model", "data", "prompt", "target", "train")  # what texts, tokens and their limit depend on


@define
class Lengths:
    """Measures one data set; every tokenizer is read once."""

    plan: Plan
    rows: Mapping[str, Sequence[Mapping[str, str]]]
    _known: dict[Any, tuple[Any, Any]] = field(factory=dict)  # by model: tokenizer and configuration

    def of_training(self, cells: Sequence[PlannedCell]) -> Iterator[dict[str, Any]]:
        """Yield, by condition, the lengths of prompts and targets of training examples."""
        rows = self.rows["train"][:SAMPLED]
        for cell, writer, limit in self._conditions(cells, TEXT_TABLES, test=False):
            encoded = [writer.encode(row) for row in rows]
            targets = [len(example.completion) for example in encoded]
            yield {
                "levels": self._levels(cell),
                "examples": len(rows),
                "prompt": statistics.median(len(example.prompt) for example in encoded),
                "target": statistics.median(targets),
                "from": min(targets),
                "to": max(targets),
                "too_long": sum(len(example) > limit.tokens for example in encoded),
                "at_most": limit.tokens,
            }

    def of_test(self, cells: Sequence[PlannedCell]) -> Iterator[dict[str, Any]]:
        """Yield those of test examples: of prompts, and with what is scored or written behind them."""
        rows = self.rows["test"][:SAMPLED]
        for cell, writer, limit in self._conditions(cells, (*TEXT_TABLES, "evaluate"), test=True):
            settings = self.plan.matrix.table("evaluate", cell.choice)
            whole = [evaluated_length(writer, row, settings) for row in rows]
            yield {
                "levels": self._levels(cell),
                "examples": len(rows),
                "prompt": statistics.median(len(writer.encode_prompt(row)[0]) for row in rows),
                "with_answer": statistics.median(whole),
                "from": min(whole),
                "to": max(whole),
                "too_long": sum(tokens > limit.tokens for tokens in whole),
                "at_most": limit.tokens,
            }

    def _levels(self, cell: PlannedCell) -> dict[str, Any]:
        return {name: level for name, level in self.plan.levels(cell).items() if name != "seed"}

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


def lengths_table(title: str, what: str, conditions: Sequence[Mapping[str, Any]]) -> Grid:
    """Give the lengths as a table; conditions by the factors in which they differ."""
    names, fixed = varying([row["levels"] for row in conditions])
    numbers = [name for name in conditions[0] if name not in ("levels", "examples")]
    heads = names or ["condition"]
    grid = Grid.of(
        f"{title}: median tokens ({conditions[0]['examples']:,} {what} examples)",
        heads,
        [name.replace("_", " ") for name in numbers],
    )
    for row in conditions:
        levels = [level_text(row["levels"].get(name)) for name in names] or ["all"]
        grid.add(*levels, *(f"{row[name]:,.0f}" for name in numbers))
    grid.caption = f"all: {fixed}" if fixed and names else ""
    return grid
