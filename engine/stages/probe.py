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
from engine.models.batching import by_length, padding_id, window_size
from engine.models.causal_lm import CausalLm
from engine.models.lens import Lens, find_lens
from engine.models.tokenizer import Tokenizer
from engine.planning.plan import PlannedCell
from engine.progress import Report, StopRequest
from engine.stages.context import Context
from engine.stages.divergences import Reference, divergences, reference_models
from engine.stages.example_coordinates import example_coordinates
from engine.stages.records import checked
from engine.stages.statistics import LayerStates, Statistic, function_names, layer_values
from engine.stages.watched_passes import Sequences, Streams, watched_pass
from engine.text.positions import position_indices
from engine.text.targets import Example, TargetEncoder
from kernels import LensStatistics, choose_backend, lens_statistics
from specs.registry import STATISTICS
from specs.tables.probe import Probe
from store import Coordinate, Family, Variable, write_vocabulary

AXES = ("example", "layer", "position")
NO_REFERENCES: Mapping[str, Reference] = MappingProxyType({})


def watched_tokens(tokenizer: Tokenizer, writer: TargetEncoder, row: Example, probe: Probe) -> dict[str, int]:
    """Give text → token id for every watched token: the first token of each label, or of each text."""
    if probe.watch == "labels":
        return writer.first_tokens(row)
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


def layer_numbers(probe: Probe, count: int) -> list[int]:
    """Resolve `probe.layers` for a model of so many blocks: ascending, 0 is the embedding."""
    if probe.layers == "all":
        return list(range(count + 1))
    wrong = [layer for layer in probe.layers if not -count - 1 <= layer <= count]
    if wrong:
        raise UsageError(f"probe.layers: found {wrong[0]}; expected -{count + 1} to {count} for this model")
    return sorted({layer % (count + 1) for layer in map(int, probe.layers)})


def probe_family(
    rows: Sequence[Example],
    layers: Sequence[int],
    watched: dict[str, int],
    probe: Probe,
    heads: int,
    against: Sequence[str] = (),
) -> Family:
    """Give the store's layout of the statistics for these examples, layers, watched tokens and heads.

    against: the names of the models that this one is compared with.
    """
    variables = [
        _variable(name)
        for name in STATISTICS.built_in
        if name in probe.statistics and name not in function_names(probe)
    ]
    variables.append(
        Variable("nonfinite", ("example",), "int32", "1", "rows with a NaN or Inf, of layers x positions")
    )
    variables += map(_variable, function_names(probe))
    if probe.heads:
        meaning = "entropy of the head's attention weights; none at the embedding"
        variables.append(Variable("head_entropy", (*AXES, "head"), "float32", "nat", meaning))
    if against:
        meanings = {"kl_against": "KL(other || model)", "js_against": "Jensen-Shannon divergence"}
        variables += [
            Variable(name, (*AXES, "against"), "float32", "nat", f"{meaning} of lens distributions, by layer")
            for name, meaning in meanings.items()
        ]
    if watched:
        variables += [
            Variable("watch_logprob", (*AXES, "watch"), "float32", "nat", "log-probability"),
            Variable("watch_rank", (*AXES, "watch"), "int32", "1", "rank in the vocabulary, 0 = top"),
        ]
    if probe.top_k:
        variables += [
            Variable("top_logprob", (*AXES, "top"), "float32", "nat", "log-probability"),
            Variable("top_id", (*AXES, "top"), "int32", "1", "token id"),
        ]
    coordinates = [
        *example_coordinates(rows),
        Coordinate("layer", "layer", list(layers), long_name="layer, 0 = embedding"),
        Coordinate("position", "position", [str(p) for p in probe.positions], long_name="watch position"),
    ]
    if watched:
        coordinates += [
            Coordinate("watch", "watch", list(watched), long_name="watched text"),
            Coordinate("watch_id", "watch", list(watched.values()), long_name="token id of its first token"),
        ]
    if against:
        coordinates.append(Coordinate("against", "against", list(against), long_name="the other model"))
    if probe.heads:
        coordinates.append(Coordinate("head", "head", list(range(heads)), long_name="attention head"))
    if probe.top_k:
        coordinates.append(Coordinate("top", "top", list(range(probe.top_k)), long_name="place, 0 = top"))
    return Family(stage="probe", coordinates=tuple(coordinates), variables=tuple(variables))


def _variable(name: str) -> Variable:
    statistic = STATISTICS.get(name, Statistic)
    return Variable(name, AXES, "float32", statistic.units, statistic.meaning)


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
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield the backend that served and the family's variables for the rows from `start` on, part by part.

    Each variable has a leading axis [examples of the part]. Examples of similar length share a batch. Of a
    forward pass only the residual streams at the watch positions are kept: [L, B, P, D]. All their rows go
    through the probe kernel in one call, which never holds [rows, vocabulary] logits. take: gives what is
    known of a pass already, by its sequences and watch positions. references: the models that this one is
    compared with; each runs the same batch.
    """
    wanted = watched_layers(probe, len(lens.layers))
    keep = [wanted.index(layer) for layer in layer_numbers(probe, len(lens.layers))]
    watch_ids = [int(i) for c in family.coordinates if c.name == "watch_id" for i in c.values]
    size, padding = window_size(probe.batch_size), padding_id(tokenizer)
    for first in range(start // size * size, len(rows), size):
        encoded = [writer.encode(row) for row in rows[first : first + size]]
        places = [position_indices(probe, example) for example in encoded]
        # Causal attention: what stands behind the last watch position cannot reach it.
        texts = [
            (e.prompt + e.completion)[: max(positions) + 1]
            for e, positions in zip(encoded, places, strict=True)
        ]
        order: list[int] = []
        parts: list[dict[str, np.ndarray]] = []
        for batch in by_length([len(text) for text in texts], probe.batch_size):
            stop.check()
            inputs = [texts[place] for place in batch], [places[place] for place in batch]
            known = take(*inputs)
            streams = known or watched_pass(lens, wanted, probe, padding, *inputs)[0]
            states = _states(lens, streams.to(lens.device), wanted, probe)
            if references:
                again = partial(_normed, lens, wanted, evolve(probe, heads=False), padding, *inputs)
                states.others.update(divergences(lens, states.normed, references, again, probe.backend))
            result = _statistics(lens, states.normed, watch_ids, probe)
            parts.append(_by_example(result, states, keep, family))
            order += batch
            report(first + len(order), len(rows), "")
        kept = np.argsort(order)[max(start - first, 0) :]
        yield (
            result.backend,
            {name: np.concatenate([part[name] for part in parts])[kept] for name in parts[0]},
        )


@frozen(eq=False)
class States:
    """What is kept of one forward pass, at the watch positions: L layers, B examples, P positions."""

    normed: Tensor  # [L, B, P, D] after the final norm
    others: dict[
        str, Tensor
    ]  # by variable, [L, B, P, ...]: functions of hidden states, of heads, divergences


def _states(lens: Lens, streams: Streams, layers: list[int], probe: Probe) -> States:
    """Make of the streams what the probe asks for."""
    others = {"head_entropy": torch.stack(streams.heads)} if streams.heads else {}
    for name in function_names(probe):
        by_layer = [
            layer_values(name, LayerStates(hidden.flatten(0, 1), layer, lens, probe.backend))
            for hidden, layer in zip(streams.hidden, layers, strict=True)
        ]
        others[name] = torch.stack(by_layer).reshape(len(layers), *streams.hidden[0].shape[:2])
    return States(_stacked(lens, streams, layers), others)


def _stacked(lens: Lens, streams: Streams, layers: list[int]) -> Tensor:
    """Give streams behind the final norm, [L, B, P, D]."""
    normed = [lens.normed(hidden, layer) for hidden, layer in zip(streams.hidden, layers, strict=True)]
    return torch.stack(normed)


def _normed(
    lens: Lens, layers: list[int], probe: Probe, padding: int, sequences: Sequences, places: Sequences
) -> Tensor:
    """Run the model that is set now over a batch: its streams behind the final norm, [L, B, P, D]."""
    return _stacked(lens, watched_pass(lens, layers, probe, padding, sequences, places)[0], layers)


def _statistics(lens: Lens, hidden: torch.Tensor, watch_ids: list[int], probe: Probe) -> LensStatistics:
    layers, examples, positions, width = hidden.shape
    per_layer = examples * positions
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
    result: LensStatistics, states: States, keep: list[int], family: Family
) -> dict[str, np.ndarray]:
    shape = states.normed.shape[:3]
    names = {"top_logprob": "top_logprobs", "top_id": "top_ids"}
    lost = torch.isnan(result.logsumexp).reshape(*shape).sum(dim=(0, 2), dtype=torch.int32)
    values = {"nonfinite": lost.cpu().numpy()}
    for variable in family.variables:
        if variable.name in values:
            continue
        if variable.name in states.others:
            by_layer = states.others[variable.name].cpu().numpy()
        else:
            rows = getattr(result, names.get(variable.name, variable.name)).cpu().numpy()
            by_layer = rows.reshape(*shape, *rows.shape[1:])
        values[variable.name] = np.moveaxis(by_layer[keep], 0, 1)  # [B, L, P, ...]
    return values


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
        family = probe_family(rows, layers, watched, settings, lens.heads, list(cell.references))
        backend = choose_backend(lens.device, settings.backend)
        with (
            reference_models(context, cell, model) as (arranged, references),
            context.sink(family, key) as sink,
        ):
            report = checked(report, context.claim("probe", key))
            lens = evolve(find_lens(arranged), translators=context.translators(cell, lens.device))
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
            )
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
