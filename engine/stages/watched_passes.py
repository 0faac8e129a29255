"""Passes of the model whose residual streams are watched, and those that two stages share.

Evaluation and probe read the same prompts where every label is one token and the probe watches the prompt's
end: the evaluation then keeps what the probe will read of each pass. A pass is known by its token ids, its
watch positions and the probe's key, so what is kept is to the bit what the probe would compute; it runs the
model itself where nothing was kept. Each stage can run alone, and is claimed and committed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b

import torch
from attrs import define, field, frozen
from torch import Tensor

from engine.errors import EngineError
from engine.models.attention_heads import watching_heads
from engine.models.block_parts import KINDS
from engine.models.block_streams import watching_blocks
from engine.models.head_outputs import watching_head_outputs
from engine.models.lens import Lens
from engine.models.routers import watching_routers
from engine.models.shared_prefix import Prefix, Sequences, last_hidden, shared_length, shared_prefix
from engine.text.positions import position_indices
from engine.text.targets import Encoded, Example
from kernels.backends import OPERATIONS
from specs.tables.probe import Probe

KEPT_BYTES = 1 << 30  # of main memory


@frozen(eq=False)
class Streams:
    """What is read of one pass at the watch positions: of L layers, B examples and P positions."""

    hidden: list[Tensor]  # L of [B, P, D]
    heads: list[Tensor]  # L of [B, P, H]: attention entropies, where they are asked for
    routers: list[Tensor]  # L of [B, P, X]: probabilities of experts, where they are asked for
    # L of [B, P, S, D]: streams within blocks, those of `streams_within`
    within: list[Tensor] = field(factory=list)
    # L of [B, P, H * head width], where heads are told apart
    head_outputs: list[Tensor] = field(factory=list)

    def to(self, device: torch.device) -> Streams:
        """Give the same on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> Streams:
        """Give the same with every tensor changed by a function."""
        return Streams(*([function(tensor) for tensor in part] for part in self.parts))

    @property
    def parts(self) -> tuple[list[Tensor], ...]:
        """All lists of tensors."""
        return self.hidden, self.heads, self.routers, self.within, self.head_outputs


def streams_within(probe: Probe) -> list[str]:
    """Name what a pass keeps within blocks: the streams asked for, and what attribution takes apart."""
    return list(dict.fromkeys([*probe.streams, *(KINDS if probe.attribution else ())]))


def watched_pass(
    lens: Lens, layers: Sequence[int], probe: Probe, padding: int, sequences: Sequences, places: Sequences
) -> Streams:
    """Run the model once: streams at the places [B, P].

    Tokens that all sequences begin with, before the first place, are read once for all (`shared_prefix`).
    layers: ascending, 0 = the embedding.
    """
    prefix = shared_prefix(lens, sequences, first_of(places))
    return pass_behind(prefix, lens, layers, probe, padding, sequences, places)[0]


def first_of(places: Sequences) -> int:
    """Give the first of all places."""
    return min(min(row) for row in places)


def pass_behind(
    prefix: Prefix | None,
    lens: Lens,
    layers: Sequence[int],
    probe: Probe,
    padding: int,
    sequences: Sequences,
    places: Sequences,
) -> tuple[Streams, Tensor]:
    """Run the model once behind a prefix, if any: streams at the places [B, P], and the last normed states.

    These are [B, T - length, D], of all tokens behind the prefix.
    """
    before = prefix.length if prefix else 0
    positions = torch.tensor(places, device=lens.device) - before
    backend = backend_of(probe, "attention_row_entropy")
    with ExitStack() as watching:
        enter = watching.enter_context
        hidden = enter(lens.watching(list(layers), positions))
        heads = enter(watching_heads(lens, layers, positions, backend)) if probe.heads else []
        routers = enter(watching_routers(lens, layers, positions)) if probe.routers else []
        outputs = enter(watching_head_outputs(lens, layers, positions)) if probe.attribution_per_head else []
        names = streams_within(probe)
        within = enter(watching_blocks(lens, layers, positions, names)) if names else []
        last = last_hidden(lens, prefix, sequences, padding)
    return Streams(hidden, heads, routers, within, outputs), last


def backend_of(probe: Probe, operation: str) -> str:
    """Give the probe's backend where it knows an operation beside the lens, else leave the choice open."""
    return probe.backend if probe.backend in OPERATIONS[operation] else "auto"


@define
class KeptPasses:
    """The streams that an evaluation keeps in main memory for the probe of the same cell."""

    key: str = ""  # of that probe, "" where nothing is kept
    _streams: dict[bytes, Streams] = field(factory=dict)
    _size: int = 0

    def begin(self, key: str) -> None:
        """Keep passes for the probe of this key, and no others."""
        self.key, self._streams, self._size = key, {}, 0

    def drop(self) -> None:
        """Let go of all."""
        self.begin("")

    @contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Let go of all before the `with` block, and behind it where it fails: of a changed weight, say."""
        self.drop()
        try:
            yield
        except BaseException:
            self.drop()
            raise

    def keep(self, sequences: Sequences, places: Sequences, streams: Streams) -> None:
        """Keep a pass, if there is room."""
        size = sum(tensor.nbytes for part in streams.parts for tensor in part)
        if self.key and self._size + size <= KEPT_BYTES:
            self._size += size
            self._streams[_name(sequences, places)] = streams.to(torch.device("cpu"))

    def take(self, key: str, sequences: Sequences, places: Sequences) -> Streams | None:
        """Give, once, what was kept of a pass for the probe of this key."""
        return self._streams.pop(_name(sequences, places), None) if key == self.key else None


def _name(sequences: Sequences, places: Sequences) -> bytes:
    whole = repr((list(map(list, sequences)), list(map(list, places))))
    return blake2b(whole.encode(), digest_size=32).digest()


@frozen
class SharedPasses:
    """Runs the model for an evaluation over prompts that a probe reads, too, and keeps what that will need.

    How a prompt is run, whole or behind a prefix that others have in common, changes how numbers round. So
    these run in one way whether the probe is due or done: behind the tokens before all that is watched.
    """

    kept: KeptPasses
    lens: Lens
    layers: Sequence[int]
    padding: int
    probe: Probe
    probed: frozenset[str]  # ids of examples that it reads
    # The probes of other cells with the same evaluation, each with the examples that it reads.
    others: Sequence[tuple[Probe, frozenset[str]]] = ()

    def of(self, batch: Sequence[Example]) -> BatchPasses | None:
        """Give what runs the model over the bare prompts of these examples; None where nothing else does."""
        ids = {row["id"] for row in batch}
        readers = [probe for probe, read in ((self.probe, self.probed), *self.others) if ids <= read]
        return BatchPasses(self, readers, keeps=ids <= self.probed) if readers else None


@frozen
class BatchPasses:
    """Runs the model over the bare prompts of a batch that some probes read as well."""

    shared: SharedPasses
    readers: Sequence[Probe]
    keeps: bool  # what the cell's own probe reads

    def first_read(self, prompts: Sequences) -> int:
        """Give the first place at which any probe reads any prompt."""
        return min(first_of(_places(probe, prompts)) for probe in self.readers)

    def last_hidden(self, prompts: Sequences, prefix: Prefix | None) -> Tensor:
        """Give the last normed hidden states [B, T - length, D]; keep what the cell's probe will read."""
        shared, places = self.shared, _places(self.shared.probe, prompts)
        if self.keeps and shared.kept.key and self._is_the_probes(prompts, places):
            try:
                streams, last = pass_behind(
                    prefix, shared.lens, shared.layers, shared.probe, shared.padding, prompts, places
                )
            except EngineError:  # the probe itself will say what cannot be watched
                shared.kept.drop()
            else:
                shared.kept.keep(prompts, places, streams)
                return last
        return last_hidden(shared.lens, prefix, prompts, shared.padding)

    def _is_the_probes(self, prompts: Sequences, places: Sequences) -> bool:
        """Tell whether the cell's probe by itself would run behind the same prefix."""
        return shared_length(prompts, first_of(places)) == shared_length(prompts, self.first_read(prompts))


def _places(probe: Probe, prompts: Sequences) -> list[list[int]]:
    """Give where a probe of the prompt's end reads bare prompts."""
    return [position_indices(probe, Encoded(list(ids), [], len(ids))) for ids in prompts]
