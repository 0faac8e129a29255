"""The neutral stage: what a training does to a model beside its task, on text that has nothing to do with it.

Of chunks of neutral text: the cross-entropy of the next token under the cell's model and under the one
without adapter, and the divergence of the first's predictions from the second's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.data.neutral_text import CHUNK, NEUTRAL_TEXT, neutral_documents
from engine.models.base_model import BaseModel
from engine.models.batching import by_length, padding_id
from engine.models.causal_lm import CausalLm, adapter_off
from engine.models.lens import Lens, find_lens
from engine.planning.plan import PlannedCell
from engine.progress import Report, StopRequest
from engine.stages.adapter_layout import adapted_sites
from engine.stages.context import Context
from engine.stages.records import checked
from engine.text.chunks import Chunk, chunks
from engine.text.lengths import position_limit
from kernels import lens_statistics
from store import Coordinate, Family, Variable

AXIS = "example"  # of chunks: analyses know it as that of the units that are measured


def neutral_family(parts: Sequence[Chunk]) -> Family:
    """Give the store's layout of what is measured of these chunks."""

    def value(name: str, meaning: str) -> Variable:
        return Variable(name, (AXIS,), "float32", "nat", meaning)

    names = [f"{part.document}-{part.number}" for part in parts]
    return Family(
        stage="neutral",
        coordinates=(
            Coordinate(AXIS, AXIS, names, long_name="chunk of neutral text, as document-number"),
            Coordinate("group", AXIS, [part.document for part in parts], long_name="document, by number"),
        ),
        variables=(
            value("cross_entropy", "mean cross-entropy of the chunk's tokens"),
            value("base_cross_entropy", "the same of the model without adapter"),
            value("kl_base", "mean KL(model without adapter || model) of the next token"),
            Variable("tokens", (AXIS,), "int32", "1", "tokens that are predicted"),
        ),
    )


@torch.inference_mode()
def measure(
    model: CausalLm,
    parts: Sequence[Chunk],
    batch_size: int,
    padding: int,
    report: Report,
    stop: StopRequest,
    backend: str = "auto",
) -> dict[str, np.ndarray]:
    """Give the family's variables, each [chunks]. No logits are held: the lens kernel makes and reduces them.

    A model without adapter is 0 from itself.
    """
    lens = find_lens(model)
    values = {name: np.zeros(len(parts)) for name in ("cross_entropy", "base_cross_entropy", "kl_base")}
    done = 0
    for batch in by_length([len(part.ids) for part in parts], batch_size):
        stop.check()
        found = _batch(lens, model, [parts[place].ids for place in batch], padding, backend)
        for name, means in found.items():
            values[name][list(batch)] = means
        done += len(batch)
        report(done, len(parts), "")
    counts = np.array([len(part.ids) - 1 for part in parts], np.int32)
    return {name: means.astype(np.float32) for name, means in values.items()} | {"tokens": counts}


def _batch(
    lens: Lens, model: CausalLm, sequences: list[list[int]], padding: int, backend: str
) -> dict[str, list[float]]:
    """Give the means of each of some chunks."""
    wanted = torch.tensor([token for ids in sequences for token in ids[1:]], device=lens.device)[:, None]
    rows = [_rows(lens, sequences, padding)]
    adapted = hasattr(model, "disable_adapter")
    if adapted:
        with adapter_off(model):
            rows.append(_rows(lens, sequences, padding))
    count = len(wanted)
    base = torch.arange(count, device=lens.device) + (len(rows) - 1) * count
    result = lens_statistics(
        torch.cat(rows),
        lens.unembedding,
        watch_ids=wanted.repeat(len(rows), 1),
        top_k=0,
        final_rows=base.repeat(len(rows)),
        backend=backend,
    )
    assert result.kl_final is not None
    losses = -result.watch_logprob[:, 0].double().view(len(rows), count)
    columns = {
        "cross_entropy": losses[0],
        "base_cross_entropy": losses[-1],
        "kl_base": result.kl_final[:count].double(),
    }
    sizes = [len(ids) - 1 for ids in sequences]
    return {
        name: [float(part.mean()) for part in torch.split(column, sizes)] for name, column in columns.items()
    }


def _rows(lens: Lens, sequences: list[list[int]], padding: int) -> Tensor:
    """Give the normed states that predict a token, of all sequences one after another: [R, D]."""
    hidden = lens.last_hidden(*lens.pad(sequences, padding))
    return torch.cat([states[: len(ids) - 1] for states, ids in zip(hidden, sequences, strict=True)])


def summarise(values: dict[str, np.ndarray]) -> dict[str, float]:
    """Give the means over all tokens, and perplexities."""

    def mean(name: str) -> float:
        return float(np.average(values[name], weights=values["tokens"]))

    entropy, base = mean("cross_entropy"), mean("base_cross_entropy")
    return {
        "neutral_cross_entropy": entropy,
        "neutral_perplexity": math.exp(min(entropy, 700.0)),
        "neutral_base_perplexity": math.exp(min(base, 700.0)),
        "neutral_kl": mean("kl_base"),
        "neutral_tokens": float(values["tokens"].sum()),
    }


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Measure the cell's model on the neutral text."""
    settings, key = context.settings("evaluate", cell), cell.keys["neutral"]
    with context.committing("neutral", key, base) as record:
        adapted_sites(model, NEUTRAL_TEXT)  # norm and unembedding are the same for both models
        assert settings.neutral_text is not None
        longest = min(CHUNK, position_limit(model.config) or CHUNK)
        parts = chunks(base.tokenizer, neutral_documents(settings.neutral_text), longest, NEUTRAL_TEXT)
        report = checked(report, context.claim("neutral", key))
        backend = context.settings("probe", cell).backend
        values = measure(
            model, parts, settings.batch_size, padding_id(base.tokenizer), report, context.stop, backend
        )
        with context.sink(neutral_family(parts), key, resume=False) as sink:
            sink.append(values)
        record |= {
            **sink.placement,
            "summary": summarise(values),
            "units": {"neutral_cross_entropy": "nat", "neutral_kl": "nat"},
        }
