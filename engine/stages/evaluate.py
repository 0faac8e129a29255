"""The evaluate stage: labels by log-likelihood, by constrained decoding and parsed from free generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from engine.errors import UsageError
from engine.models.base_model import BaseModel
from engine.models.batching import padding_id
from engine.models.causal_lm import CausalLm
from engine.models.generation_batches import GenerationBatches
from engine.models.lens import Lens, find_lens
from engine.models.scoring import PromptPasses, Spelling, constrained_spelling, predictions
from engine.models.tokenizer import Tokenizer
from engine.models.windows import window_size
from engine.planning.plan import PlannedCell
from engine.planning.shared_prompts import reads_alike
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.counterfactuals import (
    Drawn,
    counterfactual_coordinates,
    counterfactual_variables,
    score_counterfactuals,
)
from engine.stages.example_coordinates import example_coordinates
from engine.stages.generation_memory import generation_batches
from engine.stages.measured_examples import trained_and_evaluated
from engine.stages.metrics import Predictions, metrics
from engine.stages.probe import watched_layers
from engine.stages.records import checked
from engine.stages.samples import draw_answers, sample_coordinates, sample_summary, sample_variables
from engine.stages.watched_passes import KeptPasses, SharedPasses
from engine.stages.written_answers import Answers
from engine.text.answers import ParsedAnswer
from engine.text.counterfactuals import counterfactuals
from engine.text.targets import Example, TargetEncoder
from specs.tables.evaluate import Evaluate
from specs.tables.probe import Probe
from specs.tables.target import Target
from store import Coordinate, Family, Variable


def evaluation_family(rows: Sequence[Example], settings: Evaluate, target: Target) -> Family:
    """Give the store's layout of the predictions for these examples."""

    def text(name: str, meaning: str) -> Variable:
        return Variable(name, ("example",), "string", "", meaning)

    kinds = settings.of(target).counterfactuals
    scored = (
        text("prediction", "label of the highest log-likelihood"),
        Variable(
            "label_logprob", ("example", "label"), "float32", "nat", "log-likelihood of the label's tokens"
        ),
    )
    constrained = (text("constrained_label", "label written greedily where only labels can be"),)
    completed = (
        text("constrained_text", "greedy text whose label is one of the labels"),
        text("constrained_explanation", "that text without its label"),
    )
    generated = (
        text("generated_label", "label parsed from the generated text"),
        text("generated_text", "greedily generated text"),
        text("generated_explanation", "generated text without its label"),
    )
    return Family(
        stage="evaluate",
        coordinates=(
            *example_coordinates(rows),
            Coordinate("label", "label", list(settings.labels), long_name="label"),
            *sample_coordinates(settings.sampling),
            *counterfactual_coordinates(kinds),
        ),
        variables=(
            *(scored if "loglikelihood" in settings.scoring else ()),
            *(constrained if settings.constrains else ()),
            *(completed if settings.completes else ()),
            *(generated if settings.generates(target) else ()),
            *sample_variables(settings.sampling),
            *counterfactual_variables(kinds),
        ),
    )


@torch.inference_mode()
def evaluate(
    model: CausalLm,
    writer: TargetEncoder,
    rows: Sequence[Example],
    settings: Evaluate,
    batches: GenerationBatches,
    report: Report,
    stop: StopRequest,
    shared: SharedPasses | None = None,
) -> dict[str, np.ndarray]:
    """Give the family's variables, each with a leading axis [examples].

    Examples of similar length share a batch, to pad little. The longest go first, so that what is too much
    for the memory fails at once. batches: those in which text is written. shared: runs the model for those
    examples that the probe reads, too.
    """
    settings = settings.of(writer.target)
    drawn = counterfactuals(rows, settings.counterfactuals, writer.target, writer.seed)
    size = window_size(settings.batch_size)
    text_lengths = [len(writer.prompt_text(row)) for row in rows]
    starts = range(0, len(rows), size)
    order: list[int] = []
    parts: list[dict[str, np.ndarray]] = []
    passed, passes = 0, len(rows) * _passes_over_examples(settings, writer.target)

    def done(examples: int) -> None:
        nonlocal passed
        passed += examples
        report(min(len(rows), len(rows) * passed // passes), len(rows), "")
        stop.check()

    answers = Answers(model, find_lens(model), writer, settings, batches, done)
    for start in sorted(starts, key=lambda place: -max(text_lengths[place : place + size])):
        window = rows[start : start + size]
        stop.check()
        parts.append(_evaluate_window(answers, window, shared, drawn))
        order += range(start, start + len(window))
    back = np.argsort(order)
    return {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}


def _passes_over_examples(settings: Evaluate, target: Target) -> int:
    """Count how often an example is written to or has its labels scored, of what is always done."""
    samples = settings.sampling.samples
    counted = settings.generates(target) + settings.scores + len(settings.counterfactuals)
    return max(1, counted + samples)


def _evaluate_window(
    greedy: Answers, rows: Sequence[Example], shared: SharedPasses | None, drawn: Drawn
) -> dict[str, np.ndarray]:
    settings, writer = greedy.settings, greedy.writer
    answers: list[ParsedAnswer] = []
    values: dict[str, np.ndarray] = {}
    if settings.generates(writer.target):
        texts = greedy.free(rows)
        answers = greedy.read(texts)
        values |= {
            "generated_label": _strings(answer.label for answer in answers),
            "generated_text": _strings(texts),
            "generated_explanation": _strings(answer.explanation for answer in answers),
        }
    if settings.scores:
        questions = greedy.questions(rows, answers)

        def passes(places: list[int]) -> PromptPasses | None:
            return shared.of([rows[place] for place in places]) if shared else None

        scored = greedy.scored(questions, passes)
        values |= _scores(scored, settings)
        if settings.completes:
            completed = greedy.completed(rows, answers, questions, scored)
            values |= {
                "constrained_text": _strings(text for text, _ in completed),
                "constrained_explanation": _strings(answer.explanation for _, answer in completed),
            }
    if settings.sampling.samples:
        values |= draw_answers(greedy, rows)
    if settings.counterfactuals:
        values |= score_counterfactuals(greedy, rows, drawn)
    return values


def _scores(scored: Sequence[Sequence[Spelling]], settings: Evaluate) -> dict[str, np.ndarray]:
    """Read every label's score."""
    labels, values = settings.labels, dict[str, np.ndarray]()
    if "loglikelihood" in settings.scoring:
        predicted, scores = predictions(scored, labels, length_normalized=settings.length_normalized)
        values["prediction"] = _strings(predicted)
        values["label_logprob"] = scores.astype(np.float32)
    if settings.constrains:
        values["constrained_label"] = _strings(
            labels[constrained_spelling(spellings).label] for spellings in scored
        )
    return values


def _strings(texts: Iterable[str]) -> np.ndarray:
    return np.array(list(texts), dtype=object)


def summarise(
    rows: Sequence[Example],
    values: Mapping[str, np.ndarray],
    labels: Sequence[str],
    further: Sequence[str] = (),
) -> dict[str, float]:
    """Give the metrics of predictions, of constrained labels (`constrained_…`) and generated (`generated_…`).

    further: metrics of plug-ins. `ece` is that of the log-likelihoods; `unparsed_share` that of generated
    texts that name no label.
    """
    gold = [row["label"] for row in rows]
    summary: dict[str, float] = {"test_examples": float(len(rows))}
    kinds = {"prediction": "", "constrained_label": "constrained_", "generated_label": "generated_"}
    for variable, kind in kinds.items():
        if variable in values:
            logprobs = values.get("label_logprob") if variable == "prediction" else None
            numbers = metrics(Predictions(gold, values[variable], labels, logprobs), further)
            summary |= {f"{kind}{name}": value for name, value in numbers.items()}
    if "generated_label" in values:
        summary["unparsed_share"] = float(np.mean(values["generated_label"] == ""))
    if "sampled_label" in values:
        summary |= sample_summary(gold, values, labels, further)
    return summary


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Evaluate the cell's model on its test examples."""
    settings, key = context.settings("evaluate", cell), cell.keys["evaluate"]
    with context.kept.unless_it_fails(), context.committing("evaluate", key, base) as record:
        text = context.text(cell, base.tokenizer, test=True)
        test = context.measured(cell, "evaluate", model, text)
        rows = test.rows
        family = evaluation_family(rows, settings, text.target)
        report = checked(report, context.claim("evaluate", key))
        shared = _shared_passes(context, cell, model, text, rows)
        batches = generation_batches(context, cell, model, text, rows)
        values = evaluate(model, text, rows, settings, batches, report, context.stop, shared)
        # Predictions are few, and their summary needs them all: a killed evaluation starts again.
        with context.sink(family, key, resume=False) as sink:
            sink.append(values)
        summary = summarise(rows, values, settings.labels, settings.metrics)
        if settings.train_examples and context.settings("train", cell).steps != 0:
            summary |= _training_accuracy(context, cell, model, base.tokenizer, report)
        record |= {**sink.placement, "summary": summary | test.summary}


def _shared_passes(
    context: Context, cell: PlannedCell, model: CausalLm, text: TargetEncoder, rows: Sequence[Example]
) -> SharedPasses | None:
    """Give what runs the model over prompts that probes of this evaluation read, too; None where none does.

    Passes are kept for the cell's own probe, if that is due.
    """
    others = list[tuple[Probe, frozenset[str]]]()
    for other in context.plan.cells:
        if other.keys["evaluate"] == cell.keys["evaluate"] and other.index != cell.index:
            probe = context.settings("probe", other)
            reader = probe, shared_examples(rows, text, probe, context.settings("evaluate", other))
            others += [reader] if reader[1] and reader not in others else []
    key = cell.keys.get("probe", "")
    is_kept = context.plan.states["probe"].get(key) == "pending" and context.ranks.size == 1
    own = context.settings("probe", cell), context.settings("evaluate", cell)
    kept_for = key if is_kept else ""
    return shared_passes(context.kept, kept_for, find_lens(model), text, rows, *own, others)


def shared_examples(
    rows: Sequence[Example], text: TargetEncoder, probe: Probe, evaluation: Evaluate
) -> frozenset[str]:
    """Give the ids of examples whose prompts alone are what both an evaluation and a probe read."""
    alike = reads_alike(probe, evaluation, text.target)
    return frozenset(row["id"] for row in rows[: probe.examples]) if alike else frozenset()


def shared_passes(
    kept: KeptPasses,
    key: str,
    lens: Lens,
    text: TargetEncoder,
    rows: Sequence[Example],
    probe: Probe,
    evaluation: Evaluate,
    others: Sequence[tuple[Probe, frozenset[str]]] = (),
) -> SharedPasses | None:
    """Give what runs the model for evaluation and probe, and keeps passes for the probe of a key, if any.

    others: further probes, each with the ids of the examples that it reads. None where no probe can need a
    pass.
    """
    probed, layers = shared_examples(rows, text, probe, evaluation), list[int]()
    if not probed and not others:
        return None
    if probed and key:
        try:
            layers = watched_layers(probe, len(lens.layers))
            kept.begin(key)
        except UsageError:  # which the probe will tell
            pass
    return SharedPasses(kept, lens, layers, padding_id(text.tokenizer), probe, probed, others)


def _training_accuracy(
    context: Context, cell: PlannedCell, model: CausalLm, tokenizer: Tokenizer, report: Report
) -> dict[str, float]:
    """Give the accuracies on some of the examples that the model was trained on (`train_…`)."""
    settings = context.settings("evaluate", cell)
    used = context.rows(cell, "data", "train", context.settings("data", cell).train)
    text, limit = context.text(cell, tokenizer, test=False), context.limit(cell, model)
    rows = trained_and_evaluated(used, settings.train_examples, text, limit, settings)
    batches = generation_batches(context, cell, model, text, rows)
    values = evaluate(model, text, rows, settings.plain, batches, report, context.stop)
    accuracies = summarise(rows, values, settings.labels, settings.metrics)
    return {f"train_{name}": value for name, value in accuracies.items() if name.endswith("accuracy")}
