"""The differences stage: how the residual streams of a cell's model differ, on average, from other models'.

Of every layer and watch position it stores one direction for each model of `probe.against`, and the tokens
that this direction promotes (ActDiff: Minder et al., arXiv 2510.13900).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from attrs import define
from torch import Tensor

from engine.models.base_model import BaseModel
from engine.models.batching import by_length, padding_id
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.planning.plan import PlannedCell
from engine.planning.probe_passes import examples_at_once
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.divergences import Reference, reference_models
from engine.stages.probe import FoundPositions, token_texts
from engine.stages.probe_layout import layer_numbers
from engine.stages.records import checked
from engine.stages.watched_passes import watched_pass
from engine.text.positions import WatchedText
from engine.text.targets import Example, TargetEncoder
from kernels import lens_statistics
from specs.tables.probe import Probe
from store import Coordinate, Family, Variable, write_vocabulary

AXES = ("layer", "position", "against")


def differences_family(layers: Sequence[int], probe: Probe, against: Sequence[str], width: int) -> Family:
    """Give the store's layout of mean differences of streams of this width from these other models."""

    def size(name: str, meaning: str) -> Variable:
        return Variable(name, AXES, "float32", "1", meaning)

    variables = [
        Variable(
            "mean_difference", (*AXES, "coordinate"), "float32", "1",
            "mean over examples of the residual stream, less that of the other model",
        ),
        size("difference_norm", "norm of the mean difference"),
        size("example_difference_norm", "mean norm of an example's own difference"),
        size("stream_norm", "mean norm of the other model's residual stream"),
        Variable("difference_examples", AXES, "int32", "1", "examples that have the position"),
    ]  # fmt: skip
    coordinates = [
        Coordinate("layer", "layer", list(layers), long_name="layer, 0 = embedding"),
        Coordinate("position", "position", probe.position_names, long_name="watch position"),
        Coordinate("against", "against", list(against), long_name="the other model"),
        Coordinate("coordinate", "coordinate", list(range(width)), long_name="coordinate of the stream"),
    ]
    if probe.top_k:
        variables += [
            Variable("top_logprob", (*AXES, "top"), "float32", "nat", "log-probability"),
            Variable("top_id", (*AXES, "top"), "int32", "1", "token id"),
        ]
        coordinates.append(Coordinate("top", "top", list(range(probe.top_k)), long_name="place, 0 = top"))
    return Family(stage="differences", coordinates=tuple(coordinates), variables=tuple(variables))


@define(eq=False)
class Sums:
    """Running sums over examples, of L layers, P positions and A other models, in float64."""

    difference: Tensor  # [L, P, A, D]
    own_norm: Tensor  # [L, P, A]: of each example's difference
    stream_norm: Tensor  # [L, P, A]: of the other model's streams
    examples: Tensor  # [P]

    @staticmethod
    def of(layers: int, positions: int, others: int, width: int) -> Sums:
        """Begin with nothing."""
        axes = layers, positions, others
        own, stream = (torch.zeros(*axes, dtype=torch.float64) for _ in range(2))
        return Sums(torch.zeros(*axes, width, dtype=torch.float64), own, stream, torch.zeros(positions))

    def count(self, present: Tensor) -> None:
        """Count the examples of a batch, [B, P], at the positions that they have."""
        self.examples += present.sum(dim=0).cpu()

    def add(self, other: int, present: Tensor, own: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Take the streams [N, D] of each layer, of the N positions that a batch has, of both models.

        other: the place of the other model.
        """
        position = torch.nonzero(present, as_tuple=True)[1].cpu()
        for layer, (mine, their) in enumerate(zip(own, theirs, strict=True)):
            mine, their = mine.double().cpu(), their.double().cpu()
            difference = mine - their
            self.difference[layer, :, other].index_add_(0, position, difference)
            self.own_norm[layer, :, other].index_add_(0, position, difference.norm(dim=-1))
            self.stream_norm[layer, :, other].index_add_(0, position, their.norm(dim=-1))


@torch.inference_mode()
def summed(
    lens: Lens,
    writer: TargetEncoder,
    rows: Sequence[Example],
    layers: Sequence[int],
    probe: Probe,
    references: Mapping[str, Reference],
    report: Report,
    stop: StopRequest,
) -> Sums:
    """Run the model, and each that it is compared with, over all examples; no stream outlives its batch."""
    texts = [WatchedText.of(writer, row, probe) for row in rows]
    sums = Sums.of(len(layers), len(probe.position_names), len(references), lens.width)
    padding, read = padding_id(writer.tokenizer), probe.residual()
    done = 0
    for batch in by_length(
        [len(text.ids) for text in texts], examples_at_once(probe, len(layers), lens.width)
    ):
        stop.check()
        several = [texts[place] for place in batch]
        inputs = [text.ids for text in several], [text.read for text in several]
        found = FoundPositions.of(several, lens.device)

        def streams() -> Sequence[Tensor]:
            whole = watched_pass(lens, layers, read, padding, *inputs)  # noqa: B023
            return found.of_streams(whole).hidden  # noqa: B023

        own = streams()
        sums.count(found.present)
        for place, reference in enumerate(references.values()):
            if reference is None:  # the model itself
                theirs = own
            else:
                with reference():
                    theirs = streams()
            sums.add(place, found.present, own, theirs)
        done += len(batch)
        report(done, len(rows), "")
    return sums


@torch.inference_mode()
def promoted(lens: Lens, directions: Tensor, top_k: int, backend: str) -> tuple[Tensor, Tensor]:
    """Give the tokens that directions [..., D] promote, through final norm and unembedding.

    Returns ids and log-probabilities, [..., top_k] each; -1 and NaN for a direction of length 0.
    """
    rows = directions.flatten(0, -2).to(lens.device, lens.unembedding.weight.dtype)
    result = lens_statistics(lens.norm(rows), lens.unembedding, top_k=top_k, backend=backend)
    known = (directions.norm(dim=-1) > 0)[..., None]
    ids, logprobs = (
        values.cpu().view(*directions.shape[:-1], top_k) for values in (result.top_ids, result.top_logprobs)
    )
    return torch.where(known, ids, -1), torch.where(known, logprobs, torch.nan)


def values_of(sums: Sums, lens: Lens, probe: Probe) -> dict[str, np.ndarray]:
    """Give the family's variables, each with the leading axis [layers]; NaN at positions no example has."""
    count = torch.where(sums.examples > 0, sums.examples.double(), torch.nan)[:, None]  # [P, 1]
    mean = sums.difference / count[..., None]
    values = {
        "mean_difference": mean,
        "difference_norm": mean.norm(dim=-1),
        "example_difference_norm": sums.own_norm / count,
        "stream_norm": sums.stream_norm / count,
    }
    arrays = {name: value.float().numpy() for name, value in values.items()}
    counted = sums.examples.int()[None, :, None].expand(mean.shape[:-1])
    arrays["difference_examples"] = counted.numpy().astype(np.int32)
    if probe.top_k:
        ids, logprobs = promoted(lens, mean.nan_to_num(), probe.top_k, probe.backend)
        arrays |= {"top_id": ids.int().numpy(), "top_logprob": logprobs.float().numpy()}
    return arrays


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Compare the cell's model with those of `probe.against` on its probed examples."""
    settings, key, tokenizer = context.settings("probe", cell), cell.keys["differences"], base.tokenizer
    with context.committing("differences", key, base) as record:
        text = context.text(cell, tokenizer, test=True)
        test = context.measured(cell, "probe", model, text)
        lens = find_lens(model)
        layers = layer_numbers(settings, len(lens.layers))
        family = differences_family(layers, settings, list(cell.references), lens.width)
        # Means are known when all examples have run: a killed stage starts again.
        with (
            reference_models(context, cell, model) as (arranged, references),
            context.sink(family, key, resume=False) as sink,
        ):
            report = checked(report, context.claim("differences", key))
            lens = find_lens(arranged)
            sums = summed(lens, text, test.rows, layers, settings, references, report, context.stop)
            sink.append(values_of(sums, lens, settings))
        record |= {
            **sink.placement,
            "attributes": {
                "vocabulary": context.ranks.lead(
                    lambda: write_vocabulary(context.plan.root, token_texts(tokenizer))
                )
            },
            "summary": {},
        }
