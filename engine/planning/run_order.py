"""The order in which a sweep's changes run, each from the layer where it differs from an earlier run.

A changed model is a word of L letters, one for what each of its layers does. In alphabetical order a word
shares no more of its beginning with any word before it than with the last of them. So it is enough to keep
the last run's residual streams: every layer of a beginning that several changes have in common runs once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve, frozen

from engine.planning.changes import SAME, Addition, Change, Part, Path, Place
from specs.checks.interventions import SOURCE

# Tokens of a forward pass up to which changes that differ in what is put in alone are rows of one batch.
PACKED_TOKENS = 8192
Adapter = tuple[str, float]  # the train key of the adapter at work, "" for none, and the factor on its deltas


@frozen
class Run:
    """A run of a whole model: the train key of its adapter, "" for none, and which input it reads."""

    adapter: str
    input: str = SAME


@frozen
class Put:
    """What stands in the place of a part of what a layer computes."""

    part: str  # residual (the stream behind the layer), attention, mlp (what they add to it) or heads
    # zero, mean, run (what the part is in another run), path (what it is for another input), or sum (of what
    # it is and an addition)
    value: str
    run: Run | None = None
    positions: tuple[Place, ...] | None = None  # None: all
    heads: tuple[int, ...] = ()
    path: Path | None = None
    addition: Addition | None = None


@frozen
class Step:
    """What one layer of a changed model does."""

    attention: Adapter
    mlp: Adapter
    put: Put | None = None
    input: str = SAME  # what the model reads


@frozen
class Turn:
    """A change, and what it takes to run it once those before it have run."""

    place: int  # among the changes of the sweep
    change: Change
    steps: tuple[Step, ...]
    past: Run | None  # the whole model from whose run it goes on, None: the turn's before it
    start: int  # the layer behind which it does, 0: the embedding
    keep: int = 0  # the highest layer whose residual stream the next turn may ask for
    puts: tuple[tuple[int, Put], ...] = ()  # of its own, ascending by layer; that at `start` is of residual

    @property
    def fresh(self) -> int:
        """The lowest layer behind which the stream differs from that of the run that it goes on from."""
        return self.start if self.puts and self.puts[0][0] == self.start else self.start + 1


def whole_runs(changes: Iterable[Change], trained: str) -> list[Run]:
    """Give the runs that are kept as a whole: of the cell's own model, and those taken from or changed."""
    taken = (
        Run(change.source, change.input) for change in changes if change.takes_parts or change.onto_source
    )
    return list(dict.fromkeys([Run(trained), *taken]))


def kept_parts(changes: Iterable[Change], trained: str) -> dict[Run, frozenset[Part]]:
    """Give what else than residual streams is kept of each run of a whole model."""
    parts: dict[Run, set[Part]] = {}
    for change in changes:
        if change.takes_parts:
            taken, own_parts = change.parts_read
            parts.setdefault(Run(change.source, change.input), set()).update(taken)
            parts.setdefault(Run(trained), set()).update(own_parts)
    return {run: frozenset(found) for run, found in parts.items() if found}


def replaced_parts(changes: Iterable[Change]) -> set[Part]:
    """Give the parts of layers that changes put something in the place of."""
    return {(change.part, layer) for change in changes if change.part for layer in change.changed_layers}


def turns(changes: Sequence[Change], trained: str, layers: int) -> list[Turn]:
    """Order the changes to a model of so many layers, whose own adapter has this train key ("": none)."""
    words = [steps_of(change, trained, layers) for change in changes]
    wholes: dict[Run | None, tuple[Step, ...]] = {
        run: (_with(run),) * layers for run in whole_runs(changes, trained)
    }
    letters: dict[Step, int] = {}
    spelled = [[letters.setdefault(step, len(letters)) for step in word] for word in words]
    ordered: list[Turn] = []
    for place in sorted(range(len(changes)), key=spelled.__getitem__):
        known = wholes | ({None: ordered[-1].steps} if ordered else {})
        starts = {run: shared(steps, words[place]) for run, steps in known.items()}
        past = max(starts, key=starts.__getitem__)
        start = starts[past]
        puts = tuple(_puts(known[past], words[place], start))
        if past is None:
            ordered[-1] = evolve(ordered[-1], keep=start)
        ordered.append(Turn(place, changes[place], words[place], past, start, puts=puts))
    return ordered


def packs(ordered: Iterable[Turn]) -> Iterator[list[Turn]]:
    """Group successive turns that can be rows of one batch.

    They go on from one run at one layer, differ in what is put in alone, and none goes on from another.
    """
    pack: list[Turn] = []
    for turn in ordered:
        if pack and not _alike(pack[-1], turn):
            yield pack
            pack = []
        pack.append(turn)
    if pack:
        yield pack


def _alike(first: Turn, second: Turn) -> bool:
    if first.past is None or (first.past, first.start) != (second.past, second.start):
        return False
    bare = ([evolve(step, put=None) for step in turn.steps] for turn in (first, second))
    return not (first.keep or second.keep) and next(bare) == next(bare)


def steps_of(change: Change, trained: str, layers: int) -> tuple[Step, ...]:
    """Give what each of so many layers does in a changed model."""
    return tuple(_step(change, trained, layer) for layer in range(1, layers + 1))


def shared(past: Sequence[Step], steps: Sequence[Step]) -> int:
    """Give the highest layer up to which two models are the same, but for what the second puts in behind it.

    Two that read different inputs have not even their embeddings in common.
    """
    for layer, (former, step) in enumerate(zip(past, steps, strict=True), start=1):
        if former != step:
            behind = step.put is not None and step.put.part == "residual"
            return layer if behind and former == evolve(step, put=None) else layer - 1
    return len(steps)


def _puts(past: Sequence[Step], steps: Sequence[Step], start: int) -> Iterator[tuple[int, Put]]:
    for layer in range(max(start, 1), len(steps) + 1):
        put = steps[layer - 1].put
        if put is not None and (layer > start or past[layer - 1].put != put):
            yield layer, put


def _step(change: Change, trained: str, layer: int) -> Step:
    if change.kind == SOURCE:
        return _with(Run(change.source, change.input))
    plain = _with(Run(change.source if change.onto_source else trained))
    if layer not in change.changed_layers:
        return plain
    if change.part:
        return evolve(plain, put=_put(change))
    adapter = (trained, change.alpha) if change.alpha else (change.source, 1.0)
    return evolve(
        plain,
        attention=adapter if "attention" in change.parts else plain.attention,
        mlp=adapter if "mlp" in change.parts else plain.mlp,
    )


def _put(change: Change) -> Put:
    run = Run(change.source, change.input) if change.takes_parts else None
    heads = change.path.receiver_heads if change.path else change.heads
    return Put(change.part, change.value, run, change.positions, heads, change.path, change.addition)


def _with(run: Run) -> Step:
    return Step((run.adapter, 1.0), (run.adapter, 1.0), input=run.input)
