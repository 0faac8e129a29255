"""How statistics of streams within blocks, and direct logit attribution, lie in the store."""

from __future__ import annotations

from collections.abc import Sequence

from engine.stages.statistics import Statistic, function_names
from specs.common.names import ATTRIBUTION, HEAD_ATTRIBUTION, STREAM
from specs.registry import STATISTICS
from specs.tables.probe import Probe
from store import Coordinate, Variable

AXES = ("example", "layer", "position")
EMBEDDING, BIAS = "embedding", "bias"


def lens_names(probe: Probe) -> list[str]:
    """Name the statistics that the lens kernels give, in the order of the store."""
    others = function_names(probe)
    return [name for name in STATISTICS.built_in if name in probe.statistics and name not in others]


def components(layers: Sequence[int], added: Sequence[str]) -> list[str]:
    """Name the parts that a logit is the sum of: the embedding's and the biases' stand at layer 0."""
    return [EMBEDDING, *added, BIAS] if 0 in layers else list(added)


def stream_variables(probe: Probe, watched: bool) -> list[Variable]:
    """Give the variables of streams and of attribution; watched: whether there are watched tokens."""
    axes, variables = (*AXES, "stream"), list[Variable]()
    if probe.streams:
        for name in lens_names(probe):
            statistic = STATISTICS.get(name, Statistic)
            meaning = f"{statistic.meaning}, of a stream within the block"
            variables.append(Variable(STREAM + name, axes, "float32", statistic.units, meaning))
        if watched:
            variables += [
                Variable(f"{STREAM}watch_logprob", (*axes, "watch"), "float32", "nat", "log-probability"),
                Variable(f"{STREAM}watch_rank", (*axes, "watch"), "int32", "1", "rank, 0 = top"),
            ]
        if probe.top_k:
            variables += [
                Variable(f"{STREAM}top_logprob", (*axes, "top"), "float32", "nat", "log-probability"),
                Variable(f"{STREAM}top_id", (*axes, "top"), "int32", "1", "token id"),
            ]
    if probe.attribution:
        meaning = "what the component adds to the token's logit"
        variables.append(Variable(ATTRIBUTION, (*AXES, "component", "watch"), "float32", "nat", meaning))
    if probe.attribution_per_head:
        meaning = "what the attention head adds to the token's logit"
        variables.append(Variable(HEAD_ATTRIBUTION, (*AXES, "head", "watch"), "float32", "nat", meaning))
    return variables


def stream_coordinates(probe: Probe, layers: Sequence[int], added: Sequence[str]) -> list[Coordinate]:
    """Give the coordinates that these variables have beside those of all, but for the heads."""
    coordinates = []
    if probe.streams:
        coordinates.append(Coordinate("stream", "stream", list(probe.streams), long_name="stream"))
    if probe.attribution:
        parts = components(layers, added)
        coordinates.append(Coordinate("component", "component", parts, long_name="part of the logit"))
    return coordinates
