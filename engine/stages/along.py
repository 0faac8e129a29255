"""The along stage: evaluation and probe of the adapters that `probe.at` names, step by step of a training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
from attrs import evolve

from engine.errors import DataError
from engine.models.base_model import BaseModel
from engine.models.causal_lm import AdaptedLm, CausalLm
from engine.models.lens import find_lens
from engine.planning.plan import PlannedCell
from engine.progress import Report
from engine.stages.context import Context
from engine.stages.evaluate import evaluate, evaluation_family, shared_passes
from engine.stages.generation_memory import generation_batches
from engine.stages.probe import probe_layers, token_texts, watched_tokens
from engine.stages.probe_layout import layer_numbers, probe_family
from engine.stages.records import checked
from engine.stages.training.files import saved_training
from engine.stages.training.kept import measured_adapters, using
from engine.stages.watched_passes import KeptPasses
from engine.text.targets import Example, TargetEncoder
from specs.tables.probe import Probe
from store import Coordinate, Family, Variable, write_vocabulary

STEP = "step"


def along_family(at: Sequence[float], evaluation: Family, probe: Family) -> Family:
    """Give the store's layout of both families' variables, each with a leading dim `step`."""
    shares = any(isinstance(value, float) for value in at)
    meaning = "share of the training's planned steps" if shares else "steps asked for"
    known = {coordinate.name: coordinate for coordinate in (*evaluation.coordinates, *probe.coordinates)}
    return Family(
        stage="along",
        coordinates=(Coordinate(STEP, STEP, list(at), "1", meaning), *known.values()),
        variables=(
            Variable("optimizer_step", (STEP,), "int32", "1", "optimiser steps of the adapter"),
            *(
                evolve(variable, dims=(STEP, *variable.dims))
                for variable in (*evaluation.variables, *probe.variables)
            ),
        ),
    )


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Evaluate and probe the adapters along the cell's training; goes on behind the last step on disk."""
    key, settings = cell.keys["along"], context.settings("probe", cell)
    settings = settings.alone()
    with context.committing("along", key, base) as record:
        text = context.text(cell, base.tokenizer, test=True)
        rows, summary = _rows(context, cell, model, text)
        families = _families(context, cell, model, text, rows, settings)
        home = context.adapter(cell.keys["train"])
        trained, early = saved_training(home), context.settings("train", cell).early_stopping > 0
        assert trained is not None
        adapted = cast("AdaptedLm", model)  # cells without a training have no such stage
        adapters = measured_adapters(settings.at, trained, early_stopping=early)
        with context.sink(along_family(settings.at, *families), key) as sink:
            report = checked(report, context.claim("along", key))
            for place in range(sink.start, len(adapters)):
                with using(adapted, home, adapters[place]):
                    parts = [_part(report, 2 * place + half, 2 * len(adapters)) for half in (0, 1)]
                    values = _measured(context, cell, model, text, rows, families[1], settings, parts)
                sink.append(
                    {
                        "optimizer_step": np.array([adapters[place].step], np.int32),
                        **{name: array[None] for name, array in values.items()},
                    }
                )
        vocabulary = context.ranks.lead(
            lambda: write_vocabulary(context.plan.root, token_texts(base.tokenizer))
        )
        record |= {
            **sink.placement,
            "attributes": {"vocabulary": vocabulary},
            "summary": {"along_examples": float(len(rows))} | summary,
        }


def _rows(
    context: Context, cell: PlannedCell, model: CausalLm, text: TargetEncoder
) -> tuple[list[Example], dict[str, float]]:
    """Give the examples that are both evaluated and probed, and how many of those to probe are too long."""
    probed = context.measured(cell, "probe", model, text).rows
    evaluated = {row["id"] for row in context.measured(cell, "evaluate", model, text).rows}
    rows = [row for row in probed if row["id"] in evaluated]
    if not rows:
        raise DataError("probe.at: none of the examples to probe is short enough to be evaluated, too")
    return rows, {"along_examples_too_long": float(len(probed) - len(rows))}


def _families(
    context: Context,
    cell: PlannedCell,
    model: CausalLm,
    text: TargetEncoder,
    rows: Sequence[Example],
    settings: Probe,
) -> tuple[Family, Family]:
    lens = find_lens(model)
    watched = watched_tokens(text.tokenizer, text, rows[0], settings)
    layers = layer_numbers(settings, len(lens.layers))
    return (
        evaluation_family(rows, context.settings("evaluate", cell).plain, text.target),
        probe_family(rows, layers, watched, settings, lens.heads),
    )


def _measured(
    context: Context,
    cell: PlannedCell,
    model: CausalLm,
    text: TargetEncoder,
    rows: Sequence[Example],
    family: Family,
    settings: Probe,
    reports: Sequence[Report],
) -> dict[str, np.ndarray]:
    """Evaluate and probe the model as it is now; the probe takes what it can of the evaluation's passes."""
    kept, key, evaluation = KeptPasses(), cell.keys["along"], context.settings("evaluate", cell).plain
    kept_for = key if context.ranks.size == 1 else ""
    shared = shared_passes(kept, kept_for, find_lens(model), text, rows, settings, evaluation)
    batches = generation_batches(context, cell, model, text, rows)
    values = evaluate(model, text, rows, evaluation, batches, reports[0], context.stop, shared)
    parts = probe_layers(
        context.lenses(cell, find_lens(model)),
        text.tokenizer,
        text,
        rows,
        family,
        settings,
        reports[1],
        context.stop,
        take=partial(kept.take, key),
    )
    probed = [part for _, part in parts]
    return values | {name: np.concatenate([part[name] for part in probed]) for name in probed[0]}


def _part(report: Report, number: int, parts: int) -> Report:
    """Give the report of one of several parts of a stage, all alike."""
    return lambda done, total, text: report(number * total + done, parts * total, text)
