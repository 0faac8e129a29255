"""The intervene stage of a cell: its changes, expanded for the model at hand and run batch by batch."""

from __future__ import annotations

from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.lens import find_lens
from engine.planning.changes import ModelShape, entries, expand
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.adapter_layout import arrangement
from engine.stages.context import Context
from engine.stages.interventions.intervene import InterventionRun, intervention_family
from engine.stages.records import checked


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Do the cell's interventions; goes on behind the last batch that is on disk."""
    key, probe = cell.keys["intervene"], context.settings("probe", cell)
    evaluate_settings = context.settings("evaluate", cell)
    with context.committing("intervene", key, base) as record:
        text = context.text(cell, base.tokenizer, test=True)
        test = context.measured(cell, "intervene", model, text)
        rows, lens = test.rows, find_lens(model)
        layers = len(lens.layers)
        changes = expand(entries(context.plan, cell), ModelShape(layers, lens.heads))
        family = intervention_family(rows, changes, layers, evaluate_settings.labels)
        donors = {donor: context.adapter(donor) for donor in sorted(cell.donors)}
        with arrangement(model, donors) as arranged, context.sink(family, key) as sink:
            experiment = InterventionRun(arranged, base.tokenizer, text, evaluate_settings, probe)
            report = checked(report, context.claim("intervene", key))
            for values in experiment.run(rows, changes, report, context.stop, start=sink.start):
                sink.append(values)
        record |= {**sink.placement, "summary": {"interventions": float(len(changes))} | test.summary}
