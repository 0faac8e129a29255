"""Statistics of every layer: those of the lens, which one kernel computes, and functions of hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import frozen

from specs.errors import PluginError
from specs.registry import STATISTICS
from specs.tables.probe import Probe

if TYPE_CHECKING:
    from torch import Tensor

    from engine.models.lens import Lens


@frozen(eq=False)
class LayerStates:
    """The residual stream of one layer at the watch positions of a batch."""

    hidden: Tensor  # [R, D], before the final norm; a row per example and position
    layer: int  # 0: the embedding
    lens: Lens  # `lens.normed(hidden, layer)` and `lens.unembedding` lead to logits
    backend: str  # that `probe.backend` asks kernels to use


@frozen
class Statistic:
    """One name of `probe.statistics`: a variable of the store over example, layer and position."""

    units: str  # "nat"; "1" for numbers without a unit
    meaning: str
    values: Callable[[LayerStates], Tensor] | None = None  # [R]; None: lens kernels have it by this name
    version: str = "1"  # of a plug-in: part of stage keys, to be raised when any value changes
    of_lens: bool = True  # False: of hidden states alone, the same whatever lens reads them


def function_names(probe: Probe, *, of_lens: bool | None = None) -> list[str]:
    """Name the statistics that a probe records beside the kernel's, each once.

    of_lens: those alone that a lens has a part in (True), or none (False); None: both.
    """
    known = {name: STATISTICS.get(name, Statistic) for name in probe.recorded}
    return [
        name
        for name, statistic in known.items()
        if statistic.values is not None and of_lens in (None, statistic.of_lens)
    ]


def layer_values(name: str, states: LayerStates) -> Tensor:
    """Compute a statistic [R] of a layer."""
    compute = STATISTICS.get(name, Statistic).values
    assert compute is not None, name
    values = compute(states)
    if getattr(values, "shape", None) != states.hidden.shape[:1]:
        raise PluginError(
            f"{STATISTICS.plugin(name) or name}: expected a tensor of {len(states.hidden)} values, one per "
            f"row of hidden states; found {getattr(values, 'shape', type(values).__name__)}"
        )
    return values.float()


def _activation_entropy(states: LayerStates) -> Tensor:
    from kernels import activation_entropy
    from kernels.backends import OPERATIONS

    known = states.backend in OPERATIONS["activation_entropy"]
    return activation_entropy(states.hidden, backend=states.backend if known else "auto")


for _name, _built_in in {
    "logsumexp": Statistic("nat", "log of the sum of exponentiated lens logits"),
    "entropy": Statistic("nat", "entropy of the lens distribution"),
    "max_prob": Statistic("1", "probability of the most likely token"),
    "kl_final": Statistic("nat", "KL divergence of the layer from the final layer, KL(final || layer)"),
    "js_final": Statistic("nat", "Jensen-Shannon divergence between the layer and the final layer"),
    "watch_mass": Statistic("1", "probability on the watched tokens"),
    "watch_entropy": Statistic("nat", "entropy within the watched tokens, renormalised"),
    "renyi_2": Statistic("nat", "Rényi entropy of order 2 of the lens distribution, -log of the sum of p²"),
    "activation_entropy": Statistic(
        "nat",
        "entropy of the residual stream's energy over its coordinates",
        _activation_entropy,
        of_lens=False,
    ),
}.items():
    STATISTICS.add(_name, _built_in)
