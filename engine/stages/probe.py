"""The probe stage: lens statistics of every layer at the watch positions, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from engine.errors import UsageError
from engine.models.base_model import BaseModel
from engine.models.batching import by_length, padding_id
from engine.models.block_streams import BlockKinds, check_blocks
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.models.routers import experts_of
from engine.models.shared_prefix import Sequences
from engine.models.tokenizer import Tokenizer
from engine.models.windows import window_size
from engine.planning.plan import PlannedCell
from engine.planning.probe_passes import examples_at_once
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.divergences import Reference, divergences, reference_models
from engine.stages.geometry import Geometry, geometry_variables, with_geometry
from engine.stages.lens_values import lens_values, of_layers, together
from engine.stages.probe_layout import layer_numbers, probe_family
from engine.stages.probe_streams import attribution_values, stream_values
from engine.stages.records import checked
from engine.stages.statistics import function_names
from engine.stages.watched_passes import Streams, watched_pass
from engine.text.positions import MISSING, WatchedText
from engine.text.targets import Example, TargetEncoder
from kernels import choose_backend
from specs.common.names import STREAM
from specs.tables.probe import Probe
from store import Family, write_vocabulary

NO_REFERENCES: Mapping[str, Reference] = MappingProxyType({})


def watched_tokens(tokenizer: Tokenizer, writer: TargetEncoder, row: Example, probe: Probe) -> dict[str, int]:
    """Give text → token id for every watched token: the first token of each label, or of each text.

    Without entries where every position watches its own.
    """
    if probe.watch == "labels":
        return writer.first_tokens(row)
    if probe.watch == "next":
        return {}
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in probe.watch}
    empty = [text for text, tokens in ids.items() if not tokens]
    if empty:
        raise UsageError(f"probe.watch: found {empty[0]!r}, which has no token; expected some text")
    return {text: tokens[0] for text, tokens in ids.items()}


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """Give the text of every token id; of a token that is part of a character, its name in the vocabulary."""
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    texts = (tokenizer.decode([number]) for number in range(len(names)))
    return [str(name) if "\ufffd" in text else text for name, text in zip(names, texts, strict=True)]


def watched_layers(probe: Probe, count: int) -> list[int]:
    """Give the layers that are read of a model of so many blocks: KL and JS refer to the final one."""
    return sorted({*layer_numbers(probe, count), count})


@torch.inference_mode()
def probe_layers(
    lenses: Sequence[Lens],
    tokenizer: Tokenizer,
    writer: TargetEncoder,
    rows: Sequence[Example],
    family: Family,
    probe: Probe,
    report: Report,
    stop: StopRequest,
    *,
    start: int = 0,
    take: Callable[[Sequences, Sequences], Streams | None] = lambda _sequences, _places: None,
    references: Mapping[str, Reference] = NO_REFERENCES,
    geometry: Geometry | None = None,
    blocks: BlockKinds | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the backend that served and the family's variables for the rows from `start` on, part by part.

    Each variable has a leading axis [examples of the part]. Examples of similar length share a batch. Of a
    forward pass only the residual streams at the watch positions are kept, [L, B, P, D], and of these the N
    positions that the examples have. All their rows go through the probe kernel in one call for each lens,
    which never holds [rows, vocabulary] logits. lenses: of one model, in the family's order. take: gives what
    is known of a pass already, by its sequences and watch positions. references: the models that this one is
    compared with; each runs the same batch. geometry: takes the streams of all. blocks: what the model's
    blocks add, where logits are attributed to it.
    """
    lens = lenses[0]
    logit_lens = evolve(lens, maps=None)
    wanted = watched_layers(probe, len(lens.layers))
    keep = [wanted.index(layer) for layer in layer_numbers(probe, len(lens.layers))]
    watch_ids = [int(i) for c in family.coordinates if c.name == "watch_id" for i in c.values]
    geometry = geometry or Geometry(probe, keep, 0)
    size, padding = window_size(probe.batch_size), padding_id(tokenizer)
    at_once = examples_at_once(probe, len(wanted), lens.width)
    for first in range(start // size * size, len(rows), size):
        texts = [WatchedText.of(writer, row, probe) for row in rows[first : first + size]]
        order: list[int] = []
        parts: list[dict[str, np.ndarray]] = []
        for batch in by_length([len(text.ids) for text in texts], at_once):
            stop.check()
            several = [texts[place] for place in batch]
            inputs = [text.ids for text in several], [text.read for text in several]
            found = FoundPositions.of(several, lens.device)
            known = take(*inputs)
            streams = known or watched_pass(lens, wanted, probe, padding, *inputs)
            streams = found.of_streams(streams.to(lens.device))
            values = _beside_lenses(lens, streams, wanted, probe)
            collect = partial(geometry.add, [first + place for place in batch], found.present)
            collect("", streams.hidden)
            watched = found.next_rows if probe.watch == "next" else (lambda _: watch_ids)
            read = [lens_values(each, streams.hidden, wanted, watched(len(wanted)), probe) for each in lenses]
            values |= together(read)
            values |= stream_values(logit_lens, streams, wanted, watched, probe)
            if blocks is not None:
                values |= attribution_values(logit_lens, streams, wanted, blocks, watched, probe)
            if references:
                again = partial(_other_model, lens, wanted, probe, padding, inputs, found, collect)
                values |= divergences(lenses, read, references, again, wanted, probe.backend)
            lost = torch.stack([one.lost for one in read]).sum(dim=0, dtype=torch.int32)
            parts.append(_by_example(values, lost, keep, family, found, probe))
            order += batch
            report(first + len(order), len(rows), "")
        kept = np.argsort(order)[max(start - first, 0) :]
        yield (
            read[0].backend,
            {name: np.concatenate([part[name] for part in parts])[kept] for name in parts[0]},
        )


@frozen(eq=False)
class FoundPositions:
    """Which watch positions the B examples of a batch have, N in all, and the next tokens there."""

    present: Tensor  # [B, P]
    next_ids: Tensor  # [B, P], MISSING where there is none

    @staticmethod
    def of(texts: Sequence[WatchedText], device: torch.device) -> FoundPositions:
        """Read them off a batch's texts."""
        places = torch.tensor([text.places for text in texts], device=device)
        return FoundPositions(
            places != MISSING, torch.tensor([text.next_ids for text in texts], device=device)
        )

    def of_streams(self, streams: Streams) -> Streams:
        """Leave out what was read at missing positions: [N, ...] of [B, P, ...]."""
        return streams.map(self._kept)

    def _kept(self, values: Tensor) -> Tensor:
        return values.flatten(0, 1) if self.present.all() else values[self.present]

    def next_rows(self, layers: int) -> Tensor:
        """Give the next token of every row of so many layers, [L N, 1]; any where there is none."""
        return self._kept(self.next_ids).clamp_min(0).repeat(layers)[:, None]

    def spread(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Put values [N, ...] back to their places, [B, P, ...]."""
        present = self.present.cpu().numpy()
        spread = np.full((*present.shape, *values.shape[1:]), fill, values.dtype)
        spread[present] = values
        return spread


def _beside_lenses(lens: Lens, streams: Streams, layers: list[int], probe: Probe) -> dict[str, Tensor]:
    """Give what the probe asks of streams that no lens has a part in, by variable: [L, N, …]."""
    values = {"head_entropy": torch.stack(streams.heads)} if streams.heads else {}
    if streams.routers and streams.routers[0].shape[-1]:
        values |= router_values(torch.stack(streams.routers))
    for name in function_names(probe, of_lens=False):
        values[name] = of_layers(name, lens, streams.hidden, layers, probe)
    return values


def router_values(probabilities: Tensor) -> dict[str, Tensor]:
    """Give what is stored of routers, from the probabilities of experts [..., X]."""
    known = ~probabilities.isnan().any(dim=-1)
    entropy = -torch.xlogy(probabilities, probabilities).sum(dim=-1)
    top = probabilities.nan_to_num().argmax(dim=-1).where(known, MISSING).int()
    return {"router_entropy": entropy, "top_expert": top, "expert_probability": probabilities}


def _other_model(
    lens: Lens,
    layers: list[int],
    probe: Probe,
    padding: int,
    inputs: tuple[Sequences, Sequences],
    found: FoundPositions,
    collect: Callable[[str, Sequence[Tensor]], None],
    name: str,
) -> Sequence[Tensor]:
    """Run the model that is set now, a reference, over a batch: streams [N, D] of each layer."""
    streams = found.of_streams(watched_pass(lens, layers, probe.residual(), padding, *inputs))
    collect(name, streams.hidden)
    return streams.hidden


def _by_example(
    by_layer: Mapping[str, Tensor],
    lost: Tensor,
    keep: list[int],
    family: Family,
    found: FoundPositions,
    probe: Probe,
) -> dict[str, np.ndarray]:
    """Give the family's variables, [B, L, P, …], of values by layer [L, N, …] and of lost layers [N]."""
    values = {
        "nonfinite": found.spread(lost.cpu().numpy(), 0).sum(axis=1, dtype=np.int32),
        "next_id": found.next_ids.cpu().numpy().astype(np.int32),
    }
    watched_everywhere = "watch_id" in {coordinate.name for coordinate in family.coordinates}
    of_all = {variable.name for variable in geometry_variables(probe)}
    for variable in family.variables:
        if variable.name in values or variable.name in of_all:
            continue
        rows = by_layer[variable.name].cpu().numpy()
        fill = np.nan if rows.dtype.kind == "f" else MISSING
        by_position = found.spread(np.moveaxis(rows[keep], 0, 1), fill)  # [B, P, L, ...]
        of_tokens = "watch" in variable.dims or variable.name.removeprefix(STREAM).startswith("watch_")
        if "watch" in family.sizes and of_tokens and not watched_everywhere:
            by_position[values["next_id"] == MISSING] = fill
        values[variable.name] = np.moveaxis(by_position, 1, 2)  # [B, L, P, ...]
    return {variable.name: values[variable.name] for variable in family.variables if variable.name in values}


def run(context: Context, cell: PlannedCell, model: CausalLm, base: BaseModel, report: Report) -> None:
    """Probe every layer of the cell's model; goes on behind the last part that is on disk."""
    settings, key, tokenizer = context.settings("probe", cell), cell.keys["probe"], base.tokenizer
    with context.committing("probe", key, base) as record:
        text = context.text(cell, tokenizer, test=True)
        test = context.measured(cell, "probe", model, text)
        rows = test.rows
        lens = find_lens(model)
        layers = layer_numbers(settings, len(lens.layers))
        watched = watched_tokens(tokenizer, text, rows[0], settings)
        others = list(cell.references)
        blocks = check_blocks(lens, settings.streams) if settings.attribution else None
        added = blocks.kinds if blocks else ()
        family = probe_family(rows, layers, watched, settings, lens.heads, others, experts_of(lens), added)
        backend = choose_backend(lens.device, settings.backend)
        with (
            reference_models(context, cell, model) as (arranged, references),
            # Geometry is known when all examples have run, so a killed probe of it starts again.
            context.sink(family, key, resume=not settings.geometry) as sink,
        ):
            report = checked(report, context.claim("probe", key))
            lens = find_lens(arranged)
            lenses = context.lenses(cell, lens)
            keep = [watched_layers(settings, len(lens.layers)).index(layer) for layer in layers]
            geometry = Geometry(settings, keep, len(rows))
            parts = probe_layers(
                lenses,
                tokenizer,
                text,
                rows,
                family,
                settings,
                report,
                context.stop,
                start=sink.start,
                take=partial(context.kept.take, key),
                references=references,
                geometry=geometry,
                blocks=blocks,
            )
            if settings.geometry:
                parts = with_geometry(parts, geometry, list(references))
            for backend, values in parts:  # noqa: B007 - a backend may leave what it cannot do to another
                sink.append(values)
        record |= {
            **sink.placement,
            "attributes": {
                "backend": backend,
                "lens": ", ".join(settings.lenses),
                "vocabulary": context.ranks.lead(
                    lambda: write_vocabulary(context.plan.root, token_texts(tokenizer))
                ),
            },
            "summary": {"probed_examples": float(len(rows)), **test.summary},
        }
