"""The base stage: what the model says before any training, once for all cells with the same test examples."""

from __future__ import annotations

from attrs import evolve

from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.evaluate import evaluate, evaluation_family, summarise
from engine.stages.generation_memory import generation_batches
from engine.stages.records import checked
from engine.text.targets import cell_writer
from specs.tables.target import Target


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Evaluate the model without adapter on the cell's test examples, asked for the label alone."""
    settings, key, tokenizer = context.settings("evaluate", cell).plain, cell.keys["base"], base.tokenizer
    with context.committing("base", key, base) as record:
        asked = Target(prefix=context.settings("target", cell).prefix)
        text = cell_writer(context.plan, cell, tokenizer, list, asked, test=True)
        test = context.measured(cell, "evaluate", model, text)
        family = evolve(evaluation_family(test.rows, settings, asked), stage="base")
        report = checked(report, context.claim("base", key))
        batches = generation_batches(context, cell, model, text, test.rows)
        values = evaluate(model, text, test.rows, settings, batches, report, context.stop)
        with context.sink(family, key, resume=False) as sink:
            sink.append(values)
        summary = summarise(test.rows, values, settings.labels, settings.metrics) | test.summary
        record |= {**sink.placement, "summary": {f"base_{name}": value for name, value in summary.items()}}
