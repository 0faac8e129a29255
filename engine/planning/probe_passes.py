"""What a probe reads at once and stores of an example: more positions watched take no more memory."""

from __future__ import annotations

from attrs import frozen

from specs.common.names import GRAM, SIMILARITIES
from specs.tables.probe import Probe

_ADDED = ("attention", "mlp", "other")  # what blocks add
_SIZES_STORED = 4  # of a mean difference: three norms, and the number of examples
_COMPONENTS = 4  # of a logit: the embedding, attention, the MLP, and biases
KEPT_BYTES = 1 << 30  # of the streams at a pass's watch positions


@frozen
class ProbeSize:
    """What a probe takes of one example, and of a forward pass."""

    rows: int  # of one lens, of one example
    within: int  # the same of streams within blocks
    stored: int  # bytes of one example in the store
    kept: int  # bytes of the streams of a forward pass, and of all examples' for geometry
    flops: int  # of geometry, and of heads taken apart, in all


def probe_size(
    probe: Probe, examples: int, blocks: int, width: int, heads: int, labels: int, experts: int = 0
) -> ProbeSize:
    """Count for so many examples, and a model of some blocks, a width, heads, labels and experts."""
    layers = blocks + 1 if probe.layers == "all" else len(probe.layers)
    positions = len(probe.position_names)
    watched = {"labels": labels, "next": 1}.get(str(probe.watch), len(probe.watch))
    of_lens = 4 * (len(probe.recorded) - probe.records_activation)
    of_lens += 8 * (watched + probe.top_k + len(probe.against))
    per_row = 4 * (probe.records_activation + probe.heads * heads) + len(probe.lenses) * of_lens
    per_row += 4 * (2 + experts) * (probe.routers and experts > 0)
    of_streams = 4 * (len(probe.recorded) - probe.records_activation) + 8 * (watched + probe.top_k)
    per_row += len(probe.streams) * of_streams
    per_row += 4 * watched * (_COMPONENTS * probe.attribution + heads * probe.attribution_per_head)
    stored = layers * positions * per_row + 4 * positions * (probe.watch == "next")
    kept = examples_at_once(probe, layers, width) * _kept(probe, layers, width)
    rows = layers * positions
    within = rows * len(probe.streams)
    # Each head by itself goes through the output projection.
    apart = 2 * examples * rows * (heads + 1) * width**2 * probe.attribution_per_head
    if not probe.geometry:
        return ProbeSize(rows, within, stored, kept, apart)
    similarities = len(set(SIMILARITIES) & set(probe.geometry))
    numbers = len(probe.geometry) - similarities + similarities * len(probe.against)
    numbers += (examples - 1) * (GRAM in probe.geometry)
    models = 1 + len(probe.against) * (similarities > 0)
    streams = examples * layers * positions * width
    # Inner products, and an eigendecomposition of the Gram matrix.
    least = min(examples, width)
    flops = models * (2 * examples * streams + 10 * layers * positions * least**3)
    stored += 4 * layers * positions * numbers
    return ProbeSize(rows, within, stored, kept + 4 * models * streams, flops + apart)


@frozen
class DifferencesSize:
    """What mean differences between models take, whatever the number of examples."""

    rows: int  # of the lens
    stored: int  # bytes in the store
    kept: int  # bytes of a pass's streams, of both models, and of sums


def differences_size(probe: Probe, blocks: int, width: int) -> DifferencesSize:
    """Count for a model of so many blocks and this width."""
    layers = blocks + 1 if probe.layers == "all" else len(probe.layers)
    positions = len(probe.position_names)
    rows = layers * positions * len(probe.against)
    stored = 4 * rows * (width + _SIZES_STORED + 2 * probe.top_k)
    passes = examples_at_once(probe, layers, width) * layers * positions * width
    return DifferencesSize(rows, stored, 2 * 4 * passes + 8 * rows * width)


def examples_at_once(probe: Probe, layers: int, width: int) -> int:
    """Give the examples of a forward pass, at most `probe.batch_size`."""
    return max(1, min(probe.batch_size, KEPT_BYTES // _kept(probe, layers, width)))


def _kept(probe: Probe, layers: int, width: int) -> int:
    """Give the bytes that are kept of one example: streams before the norm, behind it, and of references.

    Streams within blocks are kept as well, and behind the norm one of them at a time.
    """
    within = len({*probe.streams, *(_ADDED if probe.attribution else ())})
    numbers = 1 + len(probe.lenses) + 4 * (len(probe.against) > 0)
    numbers += within + (within > 0) + probe.attribution_per_head
    return 4 * layers * len(probe.position_names) * width * numbers
