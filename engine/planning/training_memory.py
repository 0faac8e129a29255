"""The memory that a training takes, by a rule that is calibrated against counted tensors.

What a layer keeps for its backward pass, in bytes per token:

- each norm its input in float32: 4 per number; LayerNorm without autocast its input as it is;
- attention the queries, keys, values and its output; `eager` keys and values of every head, shared or not,
  and the scores of all tokens, in float32 and as they are multiplied, once more where soft-capped;
- the MLP the inputs and output of its activation and of the gate's product;
- each adapted module its input, where that is not kept already or has another type than autocast's: under
  autocast a float32 input is cast anew for every module. With dropout a copy of its own and a mask of 1 byte;
- under autocast, once in all and not per token, copies of frozen float32 weights in half precision.

`engine plan --exact` counts the same on tensors without content (`stages/training/saved_tensors.py`);
tests/engine/planning/test_training_memory.py holds the rule within 15 % of that. Beside these: weights, the
embedding, what is trained (weight, gradient and Adam's two moments in float32), the logits of completions,
and the gradients of activations that are under way.
"""

from __future__ import annotations

from attrs import frozen

from engine.planning.layer_facts import Facts, Layer, Linear
from engine.planning.sizes import ModelCard
from specs.tables.experiment import Lora, Model, Train

PROCESS = 5e8  # of a CUDA context; on a CPU, of Python with torch
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINED = 16  # bytes of a trained number: itself, its gradient, Adam's two moments


@frozen
class Types:
    """Bytes of a number, by where in the model it stands."""

    stream: int
    normed: int  # behind a norm
    product: int  # of linear modules and attention
    inner: int  # within the MLP
    adapter: int  # the operands of an adapter's products
    autocast: bool

    @classmethod
    def of(cls, model: Model, train: Train, layer: Layer) -> Types:
        """Give the types in which a training computes on a GPU."""
        stream, half = BYTES[model.dtype], train.precision != "float32"
        normed = 4 if half and not layer.rms else stream
        product = 2 if half else stream
        quantised = model.quantization != "none"  # their outputs have the type of their inputs
        inner = max(product, normed) if quantised else product
        return cls(stream, normed, product, inner, 2 if half else 4, half)


@frozen
class Batch:
    """The largest batch of a training: texts, and tokens of the longest, some of them its completion's."""

    rows: int
    length: float
    completion: float


@frozen
class Kept:
    """Bytes that one forward pass keeps for the backward pass, in the layers and of the loss."""

    decoder: float
    head: float


@frozen
class TrainingMemory:
    """The bytes that a training takes at its peak."""

    weights: float  # with what a process takes by itself
    trained: float  # with gradients and the optimiser's moments
    kept: float
    under_way: float  # gradients of activations, and weights that are dequantised for a product
    batch: Batch

    @property
    def total(self) -> float:
        """Give the sum."""
        return self.weights + self.trained + self.kept + self.under_way


def training_memory(
    card: ModelCard, weights: float, batch: Batch, model: Model, lora: Lora, train: Train
) -> TrainingMemory:
    """Estimate the memory of one training step. weights: bytes of the frozen model."""
    facts = card.facts
    trained = adapter_size(card, lora) + facts.trained(lora.modules_to_save, card.unembedding)
    by_rule = kept(card, batch, model, lora, train)
    types = Types.of(model, train, facts.layer)
    tokens = batch.rows * batch.length
    logits = batch.rows * batch.completion * card.vocabulary * (8 + types.product)
    in_layer = tokens * types.inner * (3 if facts.layer.gated else 2) * facts.layer.intermediate
    matrices = [module.inputs * module.outputs for module in facts.linear if not module.is_expert]
    dequantised = 2 * max(matrices, default=0) * (model.quantization != "none")
    under_way = max(logits, in_layer) + dequantised
    return TrainingMemory(weights, TRAINED * trained, by_rule.decoder + by_rule.head, under_way, batch)


def adapter_size(card: ModelCard, lora: Lora) -> float:
    """Count the parameters of an adapter, without modules that are trained in full."""
    adapted = card.facts.adapted(lora.target_modules)
    return lora.r * sum(module.count * (module.inputs + module.outputs) for module in adapted)


def kept(card: ModelCard, batch: Batch, model: Model, lora: Lora, train: Train) -> Kept:
    """Estimate what a batch keeps for the backward pass."""
    facts, layers, hidden, vocabulary = card.facts, card.layers, card.hidden, card.vocabulary
    heads, rows, length, completion = card.heads, batch.rows, batch.length, batch.completion
    types, layer = Types.of(model, train, facts.layer), facts.layer
    adapted = facts.adapted(lora.target_modules)
    per_token = (
        _norms(layer, hidden, types)
        + _attention(layer, heads, length, model.attention, types)
        + _mlp(layer, hidden, types, experts_adapted=any(module.is_expert for module in adapted))
        + _inputs(layer, adapted, layers, lora, types)
        + 2 * hidden * (layer.dropout > 0)
    )
    whole = rows * length * per_token + _copies(facts, adapted, layers, model, lora, types)
    tokens = rows * length
    decoder = whole * layers
    if train.gradient_checkpointing is True:  # the layers' inputs, and one layer that is computed anew
        decoder = layers * tokens * types.stream * hidden + whole
    decoder += tokens * 4 * hidden  # the final norm
    counted = rows * completion
    head = counted * vocabulary * 4 * (1 + facts.softcapped) + counted * hidden * types.product
    head_trained = "lm_head".endswith(tuple(name.lstrip(".") for name in lora.modules_to_save))
    if types.autocast and (types.stream == 4 or head_trained):  # a copy in half precision
        head += 2 * card.unembedding
    return Kept(decoder, head)


def _norms(layer: Layer, hidden: int, types: Types) -> float:
    width = 4 if layer.rms or types.autocast else types.stream
    return width * (layer.norms * hidden + layer.head_norms)


def _attention(layer: Layer, heads: int, length: float, implementation: str, types: Types) -> float:
    product = types.product
    size = product * 2 * (layer.queries + (layer.queries if implementation == "eager" else layer.keys))
    if (
        layer.fused and types.inner == product
    ):  # rotated queries and keys beside what they were cut from, and an output in another order
        size += product * (2 * layer.keys + layer.queries)
    if implementation == "eager":
        scores = 4 + (product if product == 2 else 0) + product * layer.softcapped
        scores += (1 + product) * (layer.attention_dropout > 0)
        return size + heads * length * scores
    return size + 4 * heads


def _mlp(layer: Layer, hidden: int, types: Types, *, experts_adapted: bool) -> float:
    inner, size = types.inner, layer.intermediate
    if layer.gated:
        activations = 3 * inner * size
    elif layer.activation == "new":
        activations = (inner + 12 if types.autocast else 4 * inner) * size
    else:
        activations = inner * size
    if not layer.experts:
        return activations
    # An expert's output is weighted; with an adapter its input and product are kept, too.
    more = inner * size + types.product * hidden if experts_adapted else 0
    return layer.chosen * (activations + types.product * hidden + more) + types.normed * hidden


def _inputs(layer: Layer, adapted: list[Linear], layers: int, lora: Lora, types: Types) -> float:
    """Give what adapters' inputs take beyond what is kept in any case."""
    widths = {
        "stream": types.normed,
        "mlp": types.normed,
        "attention": types.product,
        "inner": 4 if layer.activation == "new" and types.autocast and not layer.gated else types.inner,
    }
    size, shared = 0.0, dict[str, float]()
    for module in adapted:
        if module.is_expert:
            continue
        width, often = widths[module.part], module.count / layers
        size += often * types.adapter * lora.r
        if lora.dropout:
            size += often * (types.adapter + 1) * module.inputs
        elif width != types.adapter:
            size += often * types.adapter * module.inputs
        else:
            in_place = module.part == "attention" or (
                module.part == "inner" and not layer.gated and layer.activation == "relu"
            )
            shared[module.part] = 0 if in_place else often * width * module.inputs
    return size + sum(shared.values())


def _copies(
    facts: Facts, adapted: list[Linear], layers: int, model: Model, lora: Lora, types: Types
) -> float:
    """Give what a layer keeps of weights, whatever is read."""
    size = 0.0
    if types.autocast:
        size += 2 * lora.r * sum(module.count * (module.inputs + module.outputs) for module in adapted)
        if types.stream == 4 and model.quantization == "none":
            size += 2 * sum(module.count * module.inputs * module.outputs for module in facts.linear)
    # Experts are adapted by a sum of weight and adapter, which is kept whole.
    size += types.product * sum(
        module.count * module.inputs * module.outputs for module in adapted if module.is_expert
    )
    return size / layers
