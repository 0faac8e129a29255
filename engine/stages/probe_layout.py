"""A probe's results as they lie in the store: variables, and the coordinates along them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import UsageError
from engine.stages.example_coordinates import example_coordinates
from engine.stages.geometry import AXES, geometry_coordinates, geometry_variables
from engine.stages.statistics import Statistic, function_names
from engine.stages.stream_layout import lens_names, stream_coordinates, stream_variables
from engine.text.targets import Example
from specs.common.names import LENS, LENS_TITLE
from specs.registry import STATISTICS
from specs.tables.probe import Probe
from store import Coordinate, Family, Variable


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
    experts: int = 0,
    added: Sequence[str] = (),
) -> Family:
    """Give the store's layout of the statistics for these examples, layers, watched tokens and heads.

    watched: text → token id; empty where each position's own next token is watched. against: the names of
    the models that this one is compared with. experts: of each router, 0 where the model has none. added: the
    kinds of what the model's blocks add, where logits are attributed to them.
    """
    several = len(probe.lenses) > 1
    read = (*AXES, LENS) if several else AXES  # of what a lens has a part in
    variables = [_variable(name, read) for name in lens_names(probe)]
    counted = "layers x positions x lenses" if several else "layers x positions"
    variables.append(
        Variable("nonfinite", ("example",), "int32", "1", f"rows with a NaN or Inf, of {counted}")
    )
    of_lens = function_names(probe, of_lens=True)
    variables += (_variable(name, read if name in of_lens else AXES) for name in function_names(probe))
    if probe.heads:
        meaning = "entropy of the head's attention weights; none at the embedding"
        variables.append(Variable("head_entropy", (*AXES, "head"), "float32", "nat", meaning))
    if against:
        meanings = {"kl_against": "KL(other || model)", "js_against": "Jensen-Shannon divergence"}
        variables += [
            Variable(name, (*read, "against"), "float32", "nat", f"{meaning} of lens distributions, by layer")
            for name, meaning in meanings.items()
        ]
    own_tokens = probe.watch == "next"
    if own_tokens:
        meaning = "id of the text's next token, -1 behind the last"
        variables.append(Variable("next_id", ("example", "position"), "int32", "1", meaning))
    variables += geometry_variables(probe)
    if probe.routers and experts:
        variables += [
            Variable("router_entropy", AXES, "float32", "nat", "entropy of the router's probabilities"),
            Variable("top_expert", AXES, "int32", "1", "expert of the highest probability"),
            Variable("expert_probability", (*AXES, "expert"), "float32", "1", "the router's probability"),
        ]
    variables += stream_variables(probe, bool(watched or own_tokens))
    if watched or own_tokens:
        variables += [
            Variable("watch_logprob", (*read, "watch"), "float32", "nat", "log-probability"),
            Variable("watch_rank", (*read, "watch"), "int32", "1", "rank in the vocabulary, 0 = top"),
        ]
    if probe.top_k:
        variables += [
            Variable("top_logprob", (*read, "top"), "float32", "nat", "log-probability"),
            Variable("top_id", (*read, "top"), "int32", "1", "token id"),
        ]
    coordinates = [
        *example_coordinates(rows),
        Coordinate("layer", "layer", list(layers), long_name="layer, 0 = embedding"),
        Coordinate("position", "position", probe.position_names, long_name="watch position"),
    ]
    if several:
        coordinates.append(Coordinate(LENS, LENS, probe.lenses, long_name=LENS_TITLE))
    if own_tokens:
        coordinates.append(Coordinate("watch", "watch", ["next"], long_name="the text's next token"))
    if watched:
        coordinates += [
            Coordinate("watch", "watch", list(watched), long_name="watched text"),
            Coordinate("watch_id", "watch", list(watched.values()), long_name="token id of its first token"),
        ]
    if against:
        coordinates.append(Coordinate("against", "against", list(against), long_name="the other model"))
    coordinates += geometry_coordinates(probe, [row["id"] for row in rows])
    if probe.routers and experts:
        coordinates.append(Coordinate("expert", "expert", list(range(experts)), long_name="expert"))
    coordinates += stream_coordinates(probe, layers, added)
    if probe.heads or probe.attribution_per_head:
        coordinates.append(Coordinate("head", "head", list(range(heads)), long_name="attention head"))
    if probe.top_k:
        coordinates.append(Coordinate("top", "top", list(range(probe.top_k)), long_name="place, 0 = top"))
    return Family(stage="probe", coordinates=tuple(coordinates), variables=tuple(variables))


def _variable(name: str, axes: tuple[str, ...]) -> Variable:
    statistic = STATISTICS.get(name, Statistic)
    return Variable(name, axes, "float32", statistic.units, statistic.meaning)
