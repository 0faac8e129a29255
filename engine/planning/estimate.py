"""What a plan will cost: tokens, FLOPs, peak memory and bytes in the store, before anything runs.

Rules of thumb, stated so that they can be checked:

- 4 characters per token; 2 FLOPs per parameter and token forward.
- Backward through frozen weights costs as much as forward: LoRA needs the gradients of activations, but not
  those of the weights.
- With checkpointing of gradients the layers run forward once more.
- The memory of a training: `engine.planning.training_memory`. Every process takes half a GB by itself. For a
  known device, `engine.planning.passes` chooses what `train` leaves to "auto".
- An evaluation that generates keeps keys and values of the longest prompts and answers; on a known device
  of as many as fit (`engine.planning.generation_rows`).
- What stands before anything of an example in its prompt is read once for a batch whose labels are scored,
  unless the probe reads the same prompts (`engine.planning.shared_prompts`).
- A change of an intervention runs the layers above those that an earlier run has in common with it. Of that
  run, and of each model that runs whole, L + 1 residual streams of a batch are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping

from attrs import evolve

from engine.data.neutral_text import CHUNK, neutral_documents
from engine.planning import changes
from engine.planning.cards import Cards
from engine.planning.cost import Cost
from engine.planning.data_read import test_data, test_prompt
from engine.planning.devices import DEVICES
from engine.planning.example_lengths import CHARACTERS_PER_TOKEN, Lengths
from engine.planning.executor_settings import executor_settings
from engine.planning.generation_rows import generation_rows, row_bytes
from engine.planning.intervention_cost import intervention_cost
from engine.planning.lens_costs import lens_cost
from engine.planning.own_machine import expected_seconds
from engine.planning.passes import FILLED, Passes, choose_passes, without_estimate
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.probe_passes import differences_size, probe_size
from engine.planning.schedule import trained_examples
from engine.planning.shared_prompts import spared_by_probe, spared_tokens
from engine.planning.sizes import ModelCard
from engine.planning.task_costs import TASKS, task_cost
from engine.planning.training_memory import (
    BYTES,
    PROCESS,
    Batch,
    TrainingMemory,
    adapter_size,
    training_memory,
)
from specs.common.names import BUILT_IN_TEXT, FIT_STAGES
from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.executor import Executor
from specs.tables.experiment import Lora, Model, Train
from specs.tables.probe import Probe
from specs.tables.target import Target

UNKNOWN_EXAMPLES = 1000  # of a split whose size neither the spec nor the data at hand tells
CHECKPOINTS = 3  # of one training: two are kept, and for a moment there is the next
WEIGHT_BYTES = {"none": None, "int8": 1.0, "nf4": 0.55}


def estimate(
    plan: Plan, cells: Iterable[PlannedCell] | None = None, room: float | None = None
) -> dict[str, Cost] | None:
    """Estimate every stage's work that is not done, of some cells or of all; memory is that of one rank.

    None where the model's files are not on this machine, and no table has its sizes. room: bytes of memory
    that a training may take, by default those of `executor.device`.
    """
    cards, wanted = Cards(), plan.cells if cells is None else list(cells)
    total: dict[str, Cost] = {}
    for stage in _TABLES:
        total[stage] = Cost()
        for alike, cost in _stage_costs(plan, wanted, stage, cards, room):
            if cost is None:
                return None
            total[stage] += cost.times(len(alike))
    return total


def stage_costs(plan: Plan) -> Iterator[tuple[str, list[PlannedCell], Cost | None]]:
    """Yield a stage, cells with such a run to do, and what one costs; None where that is unknown."""
    cards = Cards()
    for stage in _TABLES:
        for alike, cost in _stage_costs(plan, plan.cells, stage, cards):
            yield stage, alike, cost


def _stage_costs(
    plan: Plan, wanted: Iterable[PlannedCell], stage: str, cards: Cards, room: float | None = None
) -> Iterator[tuple[list[PlannedCell], Cost | None]]:
    """Yield a stage's pending runs, each by one of its cells; those of equal settings are estimated once."""
    settings = executor_settings(plan.matrix.spec, {})
    room = device_room(settings) if room is None else room
    states = plan.states[stage]
    pending = {key: cell for cell in wanted if (key := cell.keys.get(stage)) and states[key] != "cached"}
    for alike in grouped(pending.values(), likeness(plan, stage)):
        cost = _cost(plan, alike[0], stage, cards, settings.ranks, room=room)
        if cost is not None:
            table, choice = plan.matrix.table, alike[0].choice
            model, train = table("model", choice), table("train", choice)
            dtype = train.precision if stage == "train" and train.precision != "float32" else model.dtype
            seconds = expected_seconds(settings, model.device, cost.flops, cost.streamed, dtype)
            cost = evolve(cost, seconds=seconds)
        yield alike, cost


def stage_memory(plan: Plan, cell: PlannedCell, stage: str, room: float | None = None) -> float | None:
    """Estimate the peak memory, in bytes, of one stage of a cell, done or not; None where that is unknown.

    room: bytes that a training may take, by default those of `executor.device`.
    """
    if stage not in _TABLES:
        return None
    settings = executor_settings(plan.matrix.spec, {})
    cost = _cost(plan, cell, stage, Cards(), settings.ranks, room=room or device_room(settings))
    return cost.memory if cost else None


def device_room(settings: Executor) -> float | None:
    """Give the bytes that a worker gets of `executor.device`; None where none is named."""
    if settings.device is None:
        return None
    return DEVICES[settings.device].memory * 1e9 / settings.workers_per_gpu


def training_cost(
    plan: Plan,
    cell: PlannedCell,
    room: float | None,
    ranks: int = 1,
    longest: tuple[float, float] | None = None,
    cards: Cards | None = None,
) -> Cost | None:
    """Estimate a training where it runs, with its memory and passes; None where that is unknown.

    longest: tokens of the longest example, and of the longest completion. room: bytes that this process may
    take on its device.
    """
    return _cost(plan, cell, "train", cards or Cards(), ranks, room=room, longest=longest)


def training_passes(
    plan: Plan, cell: PlannedCell, longest: tuple[float, float], room: float | None, ranks: int
) -> Passes:
    """Choose how a training's batches go through the model; the arguments are those of `training_cost`."""
    cost = training_cost(plan, cell, room, ranks, longest)
    known = cost.passes if cost else None
    return known or without_estimate(plan.matrix.table("train", cell.choice))


def estimator(
    plan: Plan, examples: Mapping[str, int] | None = None
) -> Callable[[Iterable[PlannedCell]], Cost | None]:
    """Give a function from cells to what all their stages cost, done or not; None where that is unknown.

    examples: by stage, how many test examples it measures instead of the spec's number.
    """
    cards, room = Cards(), device_room(executor_settings(plan.matrix.spec, {}))
    alike = {stage: likeness(plan, stage) for stage in _TABLES}
    known: dict[Hashable, Cost | None] = {}

    def cost_of(cells: Iterable[PlannedCell]) -> Cost | None:
        runs = {(stage, cell.keys[stage]): cell for cell in cells for stage in _TABLES if stage in cell.keys}
        total = None
        for (stage, _), cell in runs.items():
            choice = (stage, alike[stage](cell))
            if choice not in known:
                known[choice] = _cost(
                    plan, cell, stage, cards, examples=(examples or {}).get(stage), room=room
                )
            if cost := known[choice]:
                total = cost + (total or Cost())
        return total

    return cost_of


_TEXTS = ("model", "data", "prompt", "target", "train")
# The tables that each stage's cost depends on; max_length of `train` bounds every text.
_TABLES = {
    "train": (*_TEXTS, "lora", "probe"),
    "base": (*_TEXTS, "evaluate"),
    "evaluate": (*_TEXTS, "evaluate", "probe"),
    "neutral": ("model", "train", "evaluate"),
    "lens": (*_TEXTS, "probe"),
    "jacobian": (*_TEXTS, "probe"),
    "probe": (*_TEXTS, "evaluate", "probe"),
    "along": (*_TEXTS, "evaluate", "probe"),
    "differences": (*_TEXTS, "evaluate", "probe"),
    "intervene": (*_TEXTS, "evaluate", "probe"),
    **dict.fromkeys(TASKS, ("model", "evaluate")),
}


def likeness(plan: Plan, stage: str) -> Callable[[PlannedCell], Hashable]:
    """Give a function from a cell to what its cost depends on; of data stages that is not told."""
    choose = plan.matrix.chooser(*_TABLES.get(stage, ()))
    if stage != "intervene":
        return lambda cell: choose(cell.choice)
    return lambda cell: (choose(cell.choice), *cell.sources, len(set(cell.sources.values())))


def _cost(
    plan: Plan,
    cell: PlannedCell,
    stage: str,
    cards: Cards,
    ranks: int = 1,
    *,
    examples: int | None = None,
    room: float | None = None,
    longest: tuple[float, float] | None = None,
) -> Cost | None:
    table, choice = plan.matrix.table, cell.choice
    trains = stage in ("train", *FIT_STAGES)
    data = table("data", choice) if trains else test_data(plan.matrix, choice)
    settings, train = table("model", choice), table("train", choice)
    model, texts = cards.model(settings), cards.data(data)
    if model is None:
        return None
    weights = _weight_bytes(settings, model, ranks)
    if stage in TASKS:
        return task_cost(plan, cell, stage, model, weights)
    plain = stage == "base" or stage in table("probe", choice).fitted("base")
    target = Target() if plain else table("target", choice)
    prompt = table("prompt", choice) if trains else test_prompt(plan.matrix, choice)
    lengths = Lengths.of(train, prompt, target, texts)
    if stage == "train":
        lora = table("lora", choice)
        length, completion = longest or lengths.longest(train)

        def needed(rows: int, checkpointing: bool) -> TrainingMemory:
            settled = evolve(train, gradient_checkpointing=checkpointing)
            batch = Batch(math.ceil(rows / ranks), length, completion)
            return training_memory(model, weights, batch, settings, lora, settled)

        passes, memory = choose_passes(train, needed, room, ranks)
        kept = len(table("probe", choice).kept_along)
        return _train(passes.applied(train), lora, data, model, lengths, memory, passes, kept)
    if stage in FIT_STAGES:
        count = data.train or UNKNOWN_EXAMPLES
        return lens_cost(table("probe", choice), stage, count, lengths, model, settings, weights)
    evaluate, probe = table("evaluate", choice), table("probe", choice)
    count = examples or data.test or UNKNOWN_EXAMPLES
    width = BYTES[settings.dtype]
    gpu = device_room(executor_settings(plan.matrix.spec, {}))
    if stage in ("base", "evaluate"):
        asked = evaluate.plain if stage == "base" else evaluate
        return _evaluate(asked, target, count, model, lengths, weights, width, gpu)
    if stage == "neutral":
        return _neutral(evaluate, train, model, weights)
    count = examples or min(count, probe.examples or count)
    labels = len(evaluate.labels)
    if stage == "intervene":
        length = lengths.prompt + (lengths.completion if target.explains_first else 0)
        entries = changes.entries(plan, cell)
        return intervention_cost(entries, probe, count, model, length, weights, labels, width)
    if stage == "differences":
        return _differences(probe, count, model, lengths, weights, width)
    if stage == "along":
        once = _evaluate(evaluate.plain, target, count, model, lengths, weights, width, gpu)
        once += _probe(probe.alone(), count, model, lengths, weights, labels, width)
        return once.times(len(probe.at))
    return _probe(probe, count, model, lengths, weights, labels, width)


def _weight_bytes(settings: Model, model: ModelCard, ranks: int) -> float:
    dense = BYTES[settings.dtype]
    blocks = model.parameters * (WEIGHT_BYTES[settings.quantization] or dense)
    return PROCESS + blocks / ranks + (model.unembedding + model.outside) * dense


def _train(
    train: Train,
    lora: Lora,
    data: Data,
    model: ModelCard,
    lengths: Lengths,
    memory: TrainingMemory,
    passes: Passes,
    kept: int,  # adapters along the training
) -> Cost:
    length = lengths.prompt + lengths.completion
    examples = trained_examples(train, data.train or UNKNOWN_EXAMPLES, length)
    adapter = 4 * (adapter_size(model, lora) + model.facts.trained(lora.modules_to_save, model.unembedding))
    forward = 2 * (model.parameters * length + model.unembedding * lengths.completion)
    return Cost(
        tokens=examples * length,
        flops=(3 if passes.checkpointing else 2) * forward * examples,
        memory=memory.total,
        training=memory,
        passes=passes,
        stored=(1 + kept) * adapter if train.steps != 0 else 0,
        # The adapter, Adam's two moments, and the best adapter so far.
        scratch=(CHECKPOINTS * (3 + bool(train.early_stopping)) + kept) * adapter if train.steps != 0 else 0,
    )


def _evaluate(
    evaluate: Evaluate,
    target: Target,
    examples: int,
    model: ModelCard,
    lengths: Lengths,
    weights: float,
    width: int,
    gpu: float | None,  # bytes of its memory, where it is known
) -> Cost:
    sampling, length = evaluate.sampling, evaluate.new_tokens(target)
    drawn = sampling.samples * (1 + (sampling.constrained and target.content != "label"))
    written = evaluate.generates(target) + (evaluate.completes and target.content != "label") + drawn
    generated = written * length
    passes = written + evaluate.scores + sampling.samples * sampling.constrained
    behind = len(evaluate.of(target).counterfactuals)
    tokens = examples * (passes * lengths.prompt + generated)
    tokens += examples * behind * (lengths.prompt + lengths.completion)
    scored = evaluate.scores + sampling.samples * sampling.constrained + behind
    tokens -= examples * scored * (spared := spared_tokens(model, lengths, evaluate.batch_size))
    heads = examples * (1 + generated + behind)
    scoring = evaluate.batch_size * lengths.longest_prompt * model.hidden * 4 * 8
    if scored and spared:
        scoring += _cached(model, lengths, evaluate.batch_size, width)
    row = row_bytes(model, lengths.longest_prompt + length, width)
    rows = generation_rows(evaluate, row, None if gpu is None else FILLED * gpu - weights)
    return Cost(
        tokens=tokens,
        flops=2 * (model.parameters * tokens + model.unembedding * heads),
        memory=weights + max(scoring, rows * row * (written > 0)),
        streamed=weights * generated * math.ceil(examples / rows),
        stored=examples * 4 * ((1 + behind) * (len(evaluate.labels) + 4) + 2 * sampling.samples),
    )


def _cached(model: ModelCard, lengths: Lengths, batch: int, width: int) -> float:
    """Give the bytes of the keys and values of a batch that goes on from what all its prompts begin with."""
    return batch * lengths.longest_prompt * model.cached_numbers * width


def _neutral(evaluate: Evaluate, train: Train, model: ModelCard, weights: float) -> Cost:
    source = evaluate.neutral_text or BUILT_IN_TEXT
    tokens = sum(map(len, neutral_documents(source))) / CHARACTERS_PER_TOKEN
    models = 1 if train.steps == 0 else 2  # with the adapter, and without
    working = evaluate.batch_size * CHUNK * model.hidden * 4 * 8
    return Cost(
        tokens=models * tokens,
        flops=2 * models * (model.parameters + model.unembedding) * tokens,
        memory=weights + working + 64e6,
        stored=16 * math.ceil(tokens / CHUNK),
    )


def _probe(
    probe: Probe,
    examples: int,
    model: ModelCard,
    lengths: Lengths,
    weights: float,
    labels: int,
    width: int,
) -> Cost:
    experts = model.facts.layer.experts
    size = probe_size(probe, examples, model.layers, model.hidden, model.heads, labels, experts)
    rows = examples * size.rows
    spared = spared_by_probe(model, lengths, probe)
    tokens = examples * (lengths.prompt + lengths.completion - spared)
    cached = _cached(model, lengths, probe.batch_size, width) * (spared > 0)
    others = len(probe.against)  # each runs the model once more, and compares rows of both
    products = len(probe.lenses) * (1 + 2 * others + ("renyi_2" in probe.statistics))
    return Cost(
        tokens=tokens,
        flops=2 * (1 + others) * model.parameters * tokens
        + 2 * products * model.unembedding * rows
        + 2 * (1 + ("renyi_2" in probe.statistics)) * model.unembedding * examples * size.within
        + 2 * (len(probe.lenses) - ("logit" in probe.lenses)) * model.hidden**2 * rows * (1 + others)
        + size.flops,
        memory=weights + size.kept + cached + 64e6,
        stored=examples * size.stored,
    )


def _differences(
    probe: Probe, examples: int, model: ModelCard, lengths: Lengths, weights: float, width: int
) -> Cost:
    size = differences_size(probe, model.layers, model.hidden)
    spared = spared_by_probe(model, lengths, probe)
    tokens = examples * (lengths.prompt + lengths.completion - spared)
    cached = _cached(model, lengths, probe.batch_size, width) * (spared > 0)
    return Cost(
        tokens=tokens,
        flops=2 * (1 + len(probe.against)) * model.parameters * tokens + 2 * model.unembedding * size.rows,
        memory=weights + size.kept + cached + 64e6,
        stored=size.stored,
    )
