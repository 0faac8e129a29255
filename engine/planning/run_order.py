"""The order in which a sweep's changes run, each from the layer where it differs from an earlier run.

A changed model is a word of L letters, one for what each of its layers does. In alphabetical order a word
shares no more of its beginning with any word before it than with the last of them. So it is enough to keep
the last run's residual streams: every layer of a beginning that several changes have in common runs once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import evolve, frozen

from engine.planning.changes import Change
from specs.checks.interventions import SOURCE

Adapter = tuple[str, float]  # the train key of the adapter at work, "" for none, and the factor on its deltas
Patch = tuple[str, tuple[int, ...] | None]  # the model that a stream is taken from, and the positions


@frozen
class Step:
    """What one layer of a changed model does."""

    attention: Adapter
    mlp: Adapter
    heads: tuple[int, ...] = ()  # ablated
    ablation: str = ""
    patch: Patch | None = None  # of the residual stream behind it


@frozen
class Turn:
    """A change, and what it takes to run it once those before it have run."""

    place: int  # among the changes of the sweep
    change: Change
    steps: tuple[Step, ...]
    past: str | None  # the whole model from whose run it goes on, None: the turn's before it
    start: int  # the layer behind which it does, 0: the embedding
    keep: int = 0  # the highest layer whose residual stream the next turn may ask for
    patches: tuple[tuple[int, Patch], ...] = ()  # of its own, ascending by layer; the first may be at `start`

    @property
    def fresh(self) -> int:
        """The lowest layer behind which the stream differs from that of the run that it goes on from."""
        return self.start if self.patches and self.patches[0][0] == self.start else self.start + 1


def whole_models(changes: Sequence[Change], trained: str) -> list[str]:
    """Give the models whose runs are kept as a whole: the cell's own, and those that patches take from."""
    return list(dict.fromkeys([trained, *(change.source for change in changes if change.kind == "patch")]))


def turns(changes: Sequence[Change], trained: str, layers: int) -> list[Turn]:
    """Order the changes to a model of so many layers, whose own adapter has this train key ("": none)."""
    words = [steps_of(change, trained, layers) for change in changes]
    wholes: dict[str | None, tuple[Step, ...]] = {
        name: (_with(name),) * layers for name in whole_models(changes, trained)
    }
    letters: dict[Step, int] = {}
    spelled = [[letters.setdefault(step, len(letters)) for step in word] for word in words]
    ordered: list[Turn] = []
    for place in sorted(range(len(changes)), key=spelled.__getitem__):
        known = wholes | ({None: ordered[-1].steps} if ordered else {})
        starts = {name: shared(steps, words[place]) for name, steps in known.items()}
        past = max(starts, key=starts.__getitem__)
        start = starts[past]
        patches = tuple(_patches(known[past], words[place], start))
        if past is None:
            ordered[-1] = evolve(ordered[-1], keep=start)
        ordered.append(Turn(place, changes[place], words[place], past, start, patches=patches))
    return ordered


def steps_of(change: Change, trained: str, layers: int) -> tuple[Step, ...]:
    """Give what each of so many layers does in a changed model."""
    return tuple(_step(change, trained, layer) for layer in range(1, layers + 1))


def shared(past: Sequence[Step], steps: Sequence[Step]) -> int:
    """Give the highest layer up to which two models are the same, but for a patch of the second behind it."""
    for layer, (former, step) in enumerate(zip(past, steps, strict=True), start=1):
        if former != step:
            return layer if former == evolve(step, patch=None) else layer - 1
    return len(steps)


def _patches(past: Sequence[Step], steps: Sequence[Step], start: int) -> Iterator[tuple[int, Patch]]:
    for layer in range(max(start, 1), len(steps) + 1):
        patch = steps[layer - 1].patch
        if patch is not None and (layer > start or past[layer - 1].patch != patch):
            yield layer, patch


def _step(change: Change, trained: str, layer: int) -> Step:
    if change.kind == SOURCE:
        return _with(change.source)
    plain = _with(trained)
    if layer not in change.layers:
        return plain
    if change.kind == "heads":
        return evolve(plain, heads=change.heads, ablation=change.ablation)
    if change.kind == "patch":
        return evolve(plain, patch=(change.source, change.positions))
    adapter = (trained, change.alpha) if change.alpha else (change.source, 1.0)
    return evolve(
        plain,
        attention=adapter if "attention" in change.parts else plain.attention,
        mlp=adapter if "mlp" in change.parts else plain.mlp,
    )


def _with(adapter: str) -> Step:
    return Step((adapter, 1.0), (adapter, 1.0))
