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
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.models.routers import experts_of
from engine.models.tokenizer import Tokenizer
from engine.models.windows import window_size
from engine.planning.plan import PlannedCell
from engine.planning.probe_passes import examples_at_once
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.divergences import Reference, divergences, reference_models
from engine.stages.geometry import Geometry, geometry_variables, with_geometry
from engine.stages.probe_layout import layer_numbers, probe_family
from engine.stages.records import checked
from engine.stages.statistics import LayerStates, function_names, layer_values
from engine.stages.watched_passes import Sequences, Streams, watched_pass
from engine.text.positions import MISSING, WatchedText
from engine.text.targets import Example, TargetEncoder
from kernels import LensStatistics, choose_backend, collision_entropy, lens_statistics
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
    lens: Lens,
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
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the backend that served and the family's variables for the rows from `start` on, part by part.

    Each variable has a leading axis [examples of the part]. Examples of similar length share a batch. Of a
    forward pass only the residual streams at the watch positions are kept, [L, B, P, D], and of these the N
    positions that the examples have. All their rows go through the probe kernel in one call, which never
    holds [rows, vocabulary] logits. take: gives what is known of a pass already, by its sequences and watch
    positions. references: the models that this one is compared with; each runs the same batch. geometry:
    takes the streams of all.
    """
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
            streams = known or watched_pass(lens, wanted, probe, padding, *inputs)[0]
            streams = found.of_streams(streams.to(lens.device))
            states = _states(lens, streams, wanted, probe)
            collect = partial(geometry.add, [first + place for place in batch], found.present)
            collect("", streams.hidden)
            if references:
                again = partial(_other_model, lens, wanted, probe, padding, inputs, found, collect)
                states.others.update(divergences(lens, states.normed, references, again, probe.backend))
            watched = found.next_rows(len(wanted)) if probe.watch == "next" else watch_ids
            result = _statistics(lens, states.normed, watched, probe)
            if "renyi_2" in probe.statistics:
                normed, lse = states.normed.flatten(0, 1), result.logsumexp
                entropies = collision_entropy(normed, lens.unembedding, lse, backend=probe.backend)
                states.others["renyi_2"] = entropies.view(states.normed.shape[:2])
            parts.append(_by_example(result, states, keep, family, found, probe))
            order += batch
            report(first + len(order), len(rows), "")
        kept = np.argsort(order)[max(start - first, 0) :]
        yield (
            result.backend,
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


@frozen(eq=False)
class States:
    """What is kept of one forward pass, of L layers and N positions of its examples."""

    normed: Tensor  # [L, N, D] after the final norm
    others: dict[str, Tensor]  # by variable, [L, N, ...]: functions of hidden states, of heads, divergences


def _states(lens: Lens, streams: Streams, layers: list[int], probe: Probe) -> States:
    """Make of the streams what the probe asks for."""
    others = {"head_entropy": torch.stack(streams.heads)} if streams.heads else {}
    if streams.routers and streams.routers[0].shape[-1]:
        others |= router_values(torch.stack(streams.routers))
    for name in function_names(probe):
        by_layer = [
            layer_values(name, LayerStates(hidden, layer, lens, probe.backend))
            for hidden, layer in zip(streams.hidden, layers, strict=True)
        ]
        others[name] = torch.stack(by_layer)
    return States(_stacked(lens, streams, layers), others)


def router_values(probabilities: Tensor) -> dict[str, Tensor]:
    """Give what is stored of routers, from the probabilities of experts [..., X]."""
    known = ~probabilities.isnan().any(dim=-1)
    entropy = -torch.xlogy(probabilities, probabilities).sum(dim=-1)
    top = probabilities.nan_to_num().argmax(dim=-1).where(known, MISSING).int()
    return {"router_entropy": entropy, "top_expert": top, "expert_probability": probabilities}


def _stacked(lens: Lens, streams: Streams, layers: list[int]) -> Tensor:
    """Give streams behind the final norm, [L, N, D]."""
    normed = [lens.normed(hidden, layer) for hidden, layer in zip(streams.hidden, layers, strict=True)]
    return torch.stack(normed)


def _other_model(
    lens: Lens,
    layers: list[int],
    probe: Probe,
    padding: int,
    inputs: tuple[Sequences, Sequences],
    found: FoundPositions,
    collect: Callable[[str, Sequence[Tensor]], None],
    name: str,
) -> Tensor:
    """Run the model that is set now, a reference, over a batch: streams behind the final norm, [L, N, D]."""
    streams, _ = watched_pass(lens, layers, evolve(probe, heads=False, routers=False), padding, *inputs)
    streams = found.of_streams(streams)
    collect(name, streams.hidden)
    return _stacked(lens, streams, layers)


def _statistics(lens: Lens, hidden: Tensor, watch_ids: list[int] | Tensor, probe: Probe) -> LensStatistics:
    layers, per_layer, width = hidden.shape
    final = torch.arange(per_layer, device=hidden.device) + (layers - 1) * per_layer
    needs_final = {"kl_final", "js_final"} & set(probe.statistics)
    return lens_statistics(
        hidden.reshape(-1, width),
        lens.unembedding,
        watch_ids=watch_ids,
        top_k=probe.top_k,
        final_rows=final.repeat(layers) if needs_final else None,
        backend=probe.backend,
    )


def _by_example(
    result: LensStatistics,
    states: States,
    keep: list[int],
    family: Family,
    found: FoundPositions,
    probe: Probe,
) -> dict[str, np.ndarray]:
    shape = states.normed.shape[:2]
    names = {"top_logprob": "top_logprobs", "top_id": "top_ids"}
    lost = torch.isnan(result.logsumexp).view(shape).sum(dim=0, dtype=torch.int32)
    values = {
        "nonfinite": found.spread(lost.cpu().numpy(), 0).sum(axis=1, dtype=np.int32),
        "next_id": found.next_ids.cpu().numpy().astype(np.int32),
    }
    watched_everywhere = "watch_id" in {coordinate.name for coordinate in family.coordinates}
    of_all = {variable.name for variable in geometry_variables(probe)}
    for variable in family.variables:
        if variable.name in values or variable.name in of_all:
            continue
        if variable.name in states.others:
            by_layer = states.others[variable.name].cpu().numpy()
        else:
            rows = getattr(result, names.get(variable.name, variable.name)).cpu().numpy()
            by_layer = rows.reshape(*shape, *rows.shape[1:])
        fill = np.nan if by_layer.dtype.kind == "f" else MISSING
        by_position = found.spread(np.moveaxis(by_layer[keep], 0, 1), fill)  # [B, P, L, ...]
        if "watch" in family.sizes and variable.name.startswith("watch_") and not watched_everywhere:
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
        family = probe_family(rows, layers, watched, settings, lens.heads, others, experts_of(lens))
        backend = choose_backend(lens.device, settings.backend)
        with (
            reference_models(context, cell, model) as (arranged, references),
            # Geometry is known when all examples have run, so a killed probe of it starts again.
            context.sink(family, key, resume=not settings.geometry) as sink,
        ):
            report = checked(report, context.claim("probe", key))
            lens = evolve(find_lens(arranged), translators=context.translators(cell, lens.device))
            keep = [watched_layers(settings, len(lens.layers)).index(layer) for layer in layers]
            geometry = Geometry(settings, keep, len(rows))
            parts = probe_layers(
                lens,
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
            )
            if settings.geometry:
                parts = with_geometry(parts, geometry, list(references))
            for backend, values in parts:  # noqa: B007 - a backend may leave what it cannot do to another
                sink.append(values)
        record |= {
            **sink.placement,
            "attributes": {
                "backend": backend,
                "lens": settings.lens,
                "vocabulary": context.ranks.lead(
                    lambda: write_vocabulary(context.plan.root, token_texts(tokenizer))
                ),
            },
            "summary": {"probed_examples": float(len(rows)), **test.summary},
        }
