"""The intervene stage of a cell: its changes, expanded for the model at hand and run batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engine.models.base_model import BaseModel
from engine.models.causal_lm import CausalLm
from engine.models.lens import find_lens
from engine.planning.changes import ModelShape, entries
from engine.planning.key_parts import Cell
from engine.planning.plan import PlannedCell
from engine.planning.sweeps import expand
from engine.progress import Report
from engine.stages.adapter_layout import arrangement
from engine.stages.context import Context
from engine.stages.interventions.directions import Directions, check_layers
from engine.stages.interventions.inputs import Input, inputs_of
from engine.stages.interventions.intervene import InterventionRun
from engine.stages.interventions.layer_parts import parts_of
from engine.stages.interventions.layout import intervention_family
from engine.stages.probe_layout import layer_numbers
from engine.stages.records import checked
from engine.text.lengths import fitting, intervened_length
from engine.text.targets import Example, TargetEncoder
from store import stage_result


def check(
    context: Context, cell: PlannedCell, base: BaseModel, text: TargetEncoder, rows: Sequence[Example]
) -> None:
    """Raise what the stage would fail of: layers that cannot be taken apart, examples without another."""
    lens, done = find_lens(base.model), entries(context.plan, cell)
    changes = expand(done, ModelShape(len(lens.layers), lens.heads))
    check_layers(changes, layer_numbers(context.settings("probe", cell), len(lens.layers)))
    parts_of(lens, changes, text.encode_spellings(rows[0])[0])
    _inputs(context, cell, base, text, rows)


def _inputs(
    context: Context, cell: PlannedCell, base: BaseModel, text: TargetEncoder, rows: Sequence[Example]
) -> dict[str, Input]:
    """Give what runs read that are taken from; DataError where they cannot, or it is too long."""

    def prompted(choice: Cell) -> TargetEncoder:
        donor = next(other for other in context.plan.cells if other.choice == choice)
        return context.text(donor, base.tokenizer, test=True)

    inputs = inputs_of(entries(context.plan, cell), rows, text, prompted)
    for read in inputs.values():
        length = partial(intervened_length, read.writer)
        fitting(read.rows, length, context.limit(cell, base.model), "error")
    return inputs


def _directions(context: Context, cell: PlannedCell) -> Directions:
    """Give what is read of the cell's mean differences."""
    key = cell.keys["differences"]
    found = stage_result(context.plan.root, "differences", key, context.ledger.record("differences", key))
    return Directions(found, context.plan.matrix.seed(cell.choice))


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
        inputs = _inputs(context, cell, base, text, rows)
        family = intervention_family(rows, changes, layers, evaluate_settings.labels)
        donors = {donor: context.adapter(donor) for donor in sorted(cell.donors)}
        with arrangement(model, donors) as arranged, context.sink(family, key) as sink:
            directions = _directions(context, cell) if cell.steered else None
            experiment = InterventionRun(
                arranged, base.tokenizer, text, evaluate_settings, probe, inputs, directions
            )
            report = checked(report, context.claim("intervene", key))
            for values in experiment.run(rows, changes, report, context.stop, start=sink.start):
                sink.append(values)
        record |= {**sink.placement, "summary": {"interventions": float(len(changes))} | test.summary}
