"""From `[[interventions]]` to single changes of a model with so many layers and heads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve, frozen

from engine.errors import UsageError
from engine.planning.plan import Plan, PlannedCell
from specs.checks.interventions import SOURCE, UNCHANGED
from specs.tables.interventions import Intervention

PARTS = frozenset({"attention", "mlp"})


@frozen
class Change:
    """One change to a model of L layers (blocks), 1 to L: what is done, and in which of them."""

    name: str
    entry: str  # the intervention of the spec that it is part of
    kind: str  # mask, graft, patch, heads; none: the model as it is; source: what others take from
    layers: tuple[int, ...] = ()  # ascending
    source: str = ""  # train key of the adapter that is taken from, "": none, the model without adapter
    source_name: str = ""
    parts: frozenset[str] = PARTS
    alpha: float = 0.0
    positions: tuple[int, ...] | None = None  # relative to the label's, -1: the one that predicts it
    heads: tuple[int, ...] = ()
    ablation: str = "zero"


@frozen
class ModelShape:
    """The sizes that changes are counted in."""

    layers: int
    heads: int


@frozen
class Entry:
    """An intervention of the spec on one cell, with the train key and the name of what it takes from."""

    settings: Intervention
    source: str
    source_name: str


def entries(plan: Plan, cell: PlannedCell) -> list[Entry]:
    """Give the interventions that change the cell's model."""
    return [
        Entry(settings, cell.sources[settings.name], plan.matrix.donor_name(cell.choice, donor))
        for settings, donor in plan.matrix.interventions(cell.choice)
        if settings.name in cell.sources
    ]


def expand(entries: Iterable[Entry], model: ModelShape) -> list[Change]:
    """Give all changes, after the model as it is (`none`) and every model that one of them takes from.

    Raises UsageError where an entry names layers or heads that the model lacks, or gives no change.
    """
    entries = list(entries)
    sources = {e.source: e.source_name for e in entries if e.settings.kind != "heads"}
    all_changes = [Change(UNCHANGED, UNCHANGED, UNCHANGED)]
    for source, name in sources.items():
        all_changes.append(Change(f"all of {name}", SOURCE, SOURCE, source=source, source_name=name))
    for entry in entries:
        all_changes += _Sweep(entry, model).changes()
    return all_changes


@frozen
class _Sweep:
    entry: Entry
    model: ModelShape

    @property
    def at(self) -> str:
        return f"interventions: {self.entry.settings.name}"

    def changes(self) -> Iterator[Change]:
        settings = self.entry.settings
        takes = settings.kind != "heads"
        whole = Change(
            "",
            settings.name,
            settings.kind,
            source=self.entry.source if takes else "",
            source_name=self.entry.source_name if takes else "",
            parts=frozenset(settings.modules),
            alpha=settings.alpha if settings.kind == "mask" else 0.0,
            positions=_offsets(settings),
            ablation=settings.ablation,
        )
        for layers in self._layer_sets():
            for heads in self._head_sets():
                name = f"{settings.name}, {_spelled(layers, 'layer')}"
                if 0 < len(heads) < self.model.heads:
                    name += f", {_spelled(heads, 'head')}"
                yield evolve(whole, name=name, layers=layers, heads=heads)

    def _layer_sets(self) -> list[tuple[int, ...]]:
        """Give the sets of layers, each ascending."""
        settings, layers = self.entry.settings, self._layers()
        count = len(layers)
        if settings.sweep == "together":
            return [layers]
        if settings.sweep == "below":
            return [layers[: end + 1] for end in range(0, count, settings.stride)]
        if settings.sweep == "above":
            return [layers[start:] for start in range(0, count, settings.stride)]
        if max(settings.width) > count:
            raise UsageError(f"{self.at}.width: found {max(settings.width)}; expected at most {count} layers")
        return [
            layers[start : start + width]
            for width in settings.width
            for start in range(0, count - width + 1, settings.stride)
        ]

    def _layers(self) -> tuple[int, ...]:
        count, named = self.model.layers, self.entry.settings.layers
        if named == "all":
            return tuple(range(1, count + 1))
        for layer in named:
            if not (1 <= layer <= count or -count <= layer <= -1):
                raise UsageError(f"{self.at}.layers: found {layer}; expected 1 to {count}, or -{count} to -1")
        return tuple(sorted({layer if layer > 0 else count + 1 + layer for layer in named}))

    def _head_sets(self) -> list[tuple[int, ...]]:
        count, named = self.model.heads, self.entry.settings.heads
        if self.entry.settings.kind != "heads":
            return [()]
        if not count:
            raise UsageError(f"{self.at}.kind: found heads, but the model's config names no number of heads")
        if named == "each":
            return [(head,) for head in range(count)]
        if named == "all":
            return [tuple(range(count))]
        for head in named:
            if head >= count:
                raise UsageError(f"{self.at}.heads: found {head}; expected 0 to {count - 1} for this model")
        return [tuple(sorted(named))]


def _offsets(settings: Intervention) -> tuple[int, ...] | None:
    if settings.positions == "all":
        return None
    return tuple(sorted({-1 if position == "prompt_end" else position for position in settings.positions}))


def _spelled(numbers: tuple[int, ...], thing: str) -> str:
    """Give "layer 3", "layers 3-6" or "layers 1,4"."""
    if len(numbers) == 1:
        return f"{thing} {numbers[0]}"
    if numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{thing}s {numbers[0]}-{numbers[-1]}"
    return f"{thing}s {','.join(map(str, numbers))}"
