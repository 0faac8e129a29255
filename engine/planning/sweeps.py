"""From `[[interventions]]` to single changes of a model with so many layers and heads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Literal

from attrs import evolve, frozen

from engine.errors import UsageError
from engine.planning.changes import Addition, Change, Entry, ModelShape, Path, Place, whole
from specs.checks.interventions import SOURCE, UNCHANGED
from specs.tables.interventions import Heads, Intervention
from specs.tables.probe import PositionRange

MOST_CHANGES = 50_000  # of one intervention on a model


def expand(entries: Iterable[Entry], model: ModelShape) -> list[Change]:
    """Give all changes, after the model as it is (`none`) and every run that one of them takes from.

    Raises UsageError where an entry names layers or heads that the model lacks, or gives no change.
    """
    entries = list(entries)
    sources = {(e.source, e.input): e.source_name for e in entries if e.settings.takes}
    all_changes = [Change(UNCHANGED, UNCHANGED, UNCHANGED)]
    for (source, read), name in sources.items():
        all_changes.append(Change(whole(name), SOURCE, SOURCE, source=source, source_name=name, input=read))
    for entry in entries:
        changes = list(_Sweep(entry, model).changes())
        if not changes:
            raise UsageError(
                f"interventions: {entry.settings.name}.receiver_layers: no receiver reads behind a sender; "
                "expected later layers"
            )
        all_changes += changes
    return all_changes


@frozen
class _Sweep:
    entry: Entry
    model: ModelShape

    @property
    def at(self) -> str:
        return f"interventions: {self.entry.settings.name}"

    def changes(self) -> Iterator[Change]:
        entry, settings = self.entry, self.entry.settings
        change = Change(
            "",
            settings.name,
            settings.kind,
            source=entry.source if settings.takes else "",
            source_name=entry.source_name if settings.takes else "",
            parts=frozenset(settings.modules),
            alpha=settings.alpha if settings.kind == "mask" else 0.0,
            ablation=settings.ablation,
            stream=settings.stream,
            input=entry.input,
            onto_source=settings.kind == "steer" and settings.onto == "donor",
        )
        places = position_sets(settings)
        self._check_size(len(places))
        for layers in self._layer_sets():
            for heads in self._head_sets(settings.heads, settings.writes_heads, "heads"):
                named = f"{settings.name}, {_spelled(layers, 'layer')}"
                if 0 < len(heads) < self.model.heads:
                    named += f", {_spelled(heads, 'head')}"
                for path, added in product(self._paths(layers, heads), self._additions()):
                    to = f" to {path.end}" if path else ""
                    of = f", {added.strength:g} × {added.direction}" if added else ""
                    for word, positions in places:
                        yield evolve(
                            change,
                            name=f"{named}{to}{of}{f', {word}' if word else ''}",
                            layers=layers,
                            heads=heads,
                            positions=positions,
                            position=word,
                            path=path,
                            addition=added,
                        )

    def _check_size(self, positions: int) -> None:
        """Raise UsageError before so many changes are made that no one can have meant them."""
        settings = self.entry.settings
        sets, receivers = len(self._layer_sets()), 1
        heads = len(self._head_sets(settings.heads, settings.writes_heads, "heads"))
        if settings.kind == "path" and settings.receiver != "final":
            receivers = len(self._layers(settings.receiver_layers, "receiver_layers"))
            receivers *= len(
                self._head_sets(settings.receiver_heads, settings.receiver == "heads", "receiver_heads")
            )
        numbers = {
            "sets of layers": sets, "heads": heads, "receivers": receivers, "positions": positions,
            "directions and strengths": len(self._additions()),
        }  # fmt: skip
        count = math.prod(numbers.values())
        if count > MOST_CHANGES:
            made = " × ".join(f"{number:,} {thing}" for thing, number in numbers.items() if number > 1)
            raise UsageError(
                f"{self.at}.layers: found {count:,} changes of a model ({made}); expected at most "
                f"{MOST_CHANGES:,}"
            )

    def _additions(self) -> list[Addition | None]:
        """Give what is added to streams: multiples of the difference and of random directions, or None."""
        settings = self.entry.settings
        if settings.kind != "steer":
            return [None]
        layer, count = None, self.model.layers
        if settings.from_layer != "same":
            if not -count <= (asked := settings.from_layer) <= count:
                raise UsageError(
                    f"{self.at}.from_layer: found {asked}; expected 0 to {count}, or -{count} to -1"
                )
            layer = settings.from_layer % (count + 1)
        return [
            Addition(self.entry.against, layer, tuple(settings.from_positions), strength, draw)
            for draw in (None, *range(1, settings.random_directions + 1))
            for strength in settings.strength
        ]

    def _paths(self, layers: tuple[int, ...], heads: tuple[int, ...]) -> Iterator[Path | None]:
        """Give the paths from some senders, all of them below the receiver; None: the change is no path."""
        settings = self.entry.settings
        if settings.kind != "path":
            yield None
            return
        sender, receiver = settings.sender, settings.receiver
        if receiver == "final":
            yield Path(sender, layers, heads, receiver, self.model.layers)
            return
        # The MLP reads behind the attention of its own layer.
        nearest = layers[-1] if receiver == "mlp" and sender != "mlp" else layers[-1] + 1
        for layer in self._layers(settings.receiver_layers, "receiver_layers"):
            if layer >= nearest:
                for ends in self._head_sets(settings.receiver_heads, receiver == "heads", "receiver_heads"):
                    yield Path(sender, layers, heads, receiver, layer, ends)

    def _layer_sets(self) -> list[tuple[int, ...]]:
        """Give the sets of layers, each ascending."""
        settings = self.entry.settings
        layers = self._layers(settings.layers, "layers")
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

    def _layers(self, named: Literal["all"] | list[int], key: str) -> tuple[int, ...]:
        count = self.model.layers
        if named == "all":
            return tuple(range(1, count + 1))
        for layer in named:
            if not (1 <= layer <= count or -count <= layer <= -1):
                raise UsageError(f"{self.at}.{key}: found {layer}; expected 1 to {count}, or -{count} to -1")
        return tuple(sorted({layer if layer > 0 else count + 1 + layer for layer in named}))

    def _head_sets(self, named: Heads, wanted: bool, key: str) -> list[tuple[int, ...]]:
        count = self.model.heads
        if not wanted:
            return [()]
        if not count:
            raise UsageError(f"{self.at}.kind: found heads, but the model's config names no number of heads")
        if named == "each":
            return [(head,) for head in range(count)]
        if named == "all":
            return [tuple(range(count))]
        for head in named:
            if head >= count:
                raise UsageError(f"{self.at}.{key}: found {head}; expected 0 to {count - 1} for this model")
        return [tuple(sorted(named))]


def position_sets(settings: Intervention) -> list[tuple[str, tuple[Place, ...] | None]]:
    """Give the sets of positions at which something is put in: each in words, where there are several."""
    if settings.positions == "all":
        return [("", None)]
    places: dict[Place, str] = {}
    for position in settings.positions:
        if isinstance(position, PositionRange):
            places |= {
                (position.range, place * position.every): name for place, name in enumerate(position.names)
            }
        else:
            place = -1 if position == "prompt_end" else position
            places.setdefault(place, "prompt_end" if place == -1 else str(place))
    if not settings.grid:
        return [("", tuple(places))]
    return [(word, (place,)) for place, word in places.items()]


def _spelled(numbers: tuple[int, ...], thing: str) -> str:
    """Give "layer 3", "layers 3-6" or "layers 1,4"."""
    if len(numbers) == 1:
        return f"{thing} {numbers[0]}"
    if numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{thing}s {numbers[0]}-{numbers[-1]}"
    return f"{thing}s {','.join(map(str, numbers))}"
