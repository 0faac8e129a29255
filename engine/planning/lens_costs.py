"""What it costs to fit a lens: a tuned one by steps, a Jacobian one by D backward passes for every batch."""

from __future__ import annotations

from attrs import frozen

from engine.data.neutral_text import CHUNK, neutral_documents
from engine.planning.cost import Cost
from engine.planning.example_lengths import CHARACTERS_PER_TOKEN, Lengths
from engine.planning.lens_keys import corpus_key, fit_settings
from engine.planning.sizes import ModelCard
from engine.planning.training_memory import BYTES, Batch, kept
from specs.common.names import TRAINED_TEXTS, FitStage
from specs.tables.experiment import Lora, Model, Train
from specs.tables.probe import Probe

AT_ONCE = 2048  # tokens of a backward pass, each coordinate counting its own (models/jacobian_rows.py)


@frozen
class Texts:
    """The texts on which a lens is fitted: how many, and the tokens of one."""

    count: float
    length: float

    @property
    def tokens(self) -> float:
        """The tokens of all."""
        return self.count * self.length


def lens_cost(
    probe: Probe,
    stage: FitStage,
    examples: int,
    lengths: Lengths,
    model: ModelCard,
    settings: Model,
    weights: float,
) -> Cost:
    """Estimate one fit.

    examples: of the training split, whose texts have these lengths. weights: bytes of the frozen model.
    """
    texts = _texts(probe, stage, examples, lengths)
    if stage == "lens":
        return _tuned(probe, texts, model, weights)
    return _jacobian(probe, texts, model, settings, weights)


def _texts(probe: Probe, stage: FitStage, examples: int, lengths: Lengths) -> Texts:
    settings = fit_settings(probe, stage)
    if settings.corpus == TRAINED_TEXTS:
        texts = Texts(examples, lengths.prompt + lengths.completion)
    else:
        documents = neutral_documents(settings.corpus, corpus_key(stage))
        whole = sum(map(len, documents)) / CHARACTERS_PER_TOKEN
        longest = probe.jacobian.max_tokens if stage == "jacobian" else CHUNK
        length = min(longest, whole / len(documents))
        texts = Texts(whole / length, length)
    if stage == "lens":
        return texts
    return Texts(min(probe.jacobian.prompts, texts.count), min(probe.jacobian.max_tokens, texts.length))


def _tuned(probe: Probe, texts: Texts, model: ModelCard, weights: float) -> Cost:
    batch = min(probe.batch_size * texts.length, probe.tuned.tokens)
    tokens = probe.tuned.steps * min(probe.tuned.tokens, texts.tokens)
    translators = 4 * model.layers * model.hidden * (model.hidden + 1)
    rows = tokens * model.layers
    # Of a block of rows, half a GiB on a GPU, and tiles of their slopes beside them.
    logits = 1.7 * min(512 * 2**20, 4 * model.vocabulary * batch * (model.layers + 1))
    # Logits and the gradient of every layer; a translation forward, and backward by its weights.
    per_row = 2 * 2 * model.unembedding + 2 * 2 * model.hidden**2
    return Cost(
        tokens=tokens,
        flops=2 * (model.parameters + model.unembedding) * tokens + per_row * rows,
        memory=weights + 3 * translators + 4 * 4 * batch * model.layers * model.hidden + logits,
        stored=translators + 4 * probe.tuned.steps * model.layers,
        scratch=4 * translators,  # with the momentum, and for a moment two checkpoints
    )


def _jacobian(probe: Probe, texts: Texts, model: ModelCard, settings: Model, weights: float) -> Cost:
    matrices = 4 * model.layers * model.hidden**2
    batch = Batch(max(1, min(probe.batch_size, int(texts.count))), texts.length, 0)
    plain = Train(precision="float32", gradient_checkpointing=False)
    activations = kept(model, batch, settings, Lora(target_modules=[]), plain)
    at_once = max(AT_ONCE, batch.rows * batch.length)
    gradients = at_once * model.hidden * (model.layers * BYTES[settings.dtype] + 8)
    return Cost(
        tokens=texts.tokens,
        # A pass forward, and one backward by activations alone for each of the D coordinates.
        flops=2 * model.parameters * texts.tokens * (1 + model.hidden),
        memory=weights + 2 * matrices + activations.decoder + gradients,
        stored=matrices + 8 * model.layers,
        scratch=2 * matrices,  # for a moment two checkpoints
    )
