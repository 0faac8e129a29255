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
from engine.models.scoring import Run
from engine.text.positions import position_indices
from engine.text.targets import Encoded, Example
from kernels.backends import OPERATIONS
from specs.tables.probe import Probe

KEPT_BYTES = 1 << 30  # of main memory

Sequences = Sequence[Sequence[int]]  # of token ids, or of positions


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
) -> tuple[Streams, Tensor]:
    """Run the model once: streams at the places [B, P], and the last layer's normed states [B, T, D].

    layers: ascending, 0 = the embedding.
    """
    positions = torch.tensor(places, device=lens.device)
    ids, mask = lens.pad(sequences, padding)
    backend = backend_of(probe, "attention_row_entropy")
    with ExitStack() as watching:
        enter = watching.enter_context
        hidden = enter(lens.watching(list(layers), positions))
        heads = enter(watching_heads(lens, layers, positions, backend)) if probe.heads else []
        routers = enter(watching_routers(lens, layers, positions)) if probe.routers else []
        outputs = enter(watching_head_outputs(lens, layers, positions)) if probe.attribution_per_head else []
        names = streams_within(probe)
        within = enter(watching_blocks(lens, layers, positions, names)) if names else []
        last = lens.last_hidden(ids, mask)
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
    these run whole whether the probe is due or done.
    """

    kept: KeptPasses
    lens: Lens
    layers: Sequence[int]
    probe: Probe
    padding: int
    probed: frozenset[str]  # ids of examples
    others: frozenset[str] = frozenset()  # that the probe of another cell with the same evaluation reads

    def run_of(self, batch: Sequence[Example]) -> Run | None:
        """Give what runs the model over the bare prompts of these examples; None where nothing else does."""
        ids = {row["id"] for row in batch}
        if ids <= self.probed and self.kept.key:
            return self._kept
        return self._whole if ids <= self.probed or ids <= self.others else None

    def _kept(self, sequences: Sequences) -> Tensor:
        places = [position_indices(self.probe, Encoded(list(ids), [], len(ids))) for ids in sequences]
        if self.kept.key:
            try:
                streams, last = watched_pass(
                    self.lens, self.layers, self.probe, self.padding, sequences, places
                )
            except EngineError:  # the probe itself will say what cannot be watched
                self.kept.drop()
            else:
                self.kept.keep(sequences, places, streams)
                return last
        return self._whole(sequences)

    def _whole(self, sequences: Sequences) -> Tensor:
        return self.lens.last_hidden(*self.lens.pad(sequences, self.padding))
