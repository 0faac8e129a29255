"""What interventions cost: the passes of their changes, what is kept of them, and which sweeps are large."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from attrs import frozen

from engine.errors import UsageError
from engine.planning.cards import Cards
from engine.planning.changes import OWN, Change, Entry, ModelShape, entries
from engine.planning.cost import Cost
from engine.planning.plan import Plan, PlannedCell, grouped
from engine.planning.run_order import PACKED_TOKENS, kept_parts, packs, turns, whole_runs
from engine.planning.sizes import ModelCard
from engine.planning.sweeps import expand
from specs.tables.probe import Probe

MANY_PASSES = 1000  # of a model over one example, above which a plan says so


@frozen
class SweepSize:
    """What all changes to a cell's model take, in numbers of that model's L layers."""

    layers: int
    changes: list[Change]
    passes: float  # of the whole model over an example
    lens_rows: int  # of an example
    streams: int  # kept of each sequence: residual streams, and outputs of parts
    packed: int  # changes that can run together at the most

    @staticmethod
    def of(done: Iterable[Entry], model: ModelShape) -> SweepSize:
        """Count for the interventions of a cell.

        Models whose streams are kept run whole, once; a change runs the layers above what an earlier run has
        in common with it, and a path runs single layers before.
        """
        changes, layers = expand(done, model), model.layers
        ordered = turns(changes, OWN, layers)
        kept = len(whole_runs(changes, OWN))
        above = [layers - turn.start for turn in ordered]
        averages = any(change.part and change.value == "mean" for change in changes)
        alone = sum(_layers_alone(change) for change in changes)
        parts = kept_parts(changes, OWN).values()
        return SweepSize(
            layers,
            changes,
            passes=kept + averages + (sum(above) + alone) / layers,
            lens_rows=kept * (layers + 1) + sum(count + 1 for count in above) + len(changes),
            streams=(kept + 1) * (layers + 1) + sum(len(several) for several in parts),
            packed=max(map(len, packs(ordered))),
        )


def _layers_alone(change: Change) -> int:
    """Count the layers that run by themselves before a path's receiver gives what it reads."""
    if change.path is None:
        return 0
    heads = len(change.path.layers) if change.path.sender == "heads" else 0
    return heads + (change.path.receiver != "final")


def intervention_cost(
    done: list[Entry],
    probe: Probe,
    examples: int,
    model: ModelCard,
    length: float,  # tokens of an example
    weights: float,
    labels: int,
    width: int,  # bytes of a number in the residual streams
) -> Cost:
    """Estimate the interventions on one cell."""
    size = SweepSize.of(done, ModelShape(model.layers, model.heads))
    batch = probe.batch_size * length
    together = max(batch, min(size.packed * batch, PACKED_TOKENS))
    return Cost(
        tokens=examples * length * size.passes,
        flops=2 * model.parameters * examples * length * size.passes
        + 2 * model.unembedding * examples * size.lens_rows,
        memory=weights
        + model.hidden * (batch * size.streams * width + together * 4 * 8)
        + probe.batch_size * (model.layers + 1) * model.hidden * 8
        + 64e6,
        stored=examples * len(size.changes) * 4 * (labels + model.layers + 1 + 4),
    )


def sweep_warnings(plan: Plan) -> Iterator[str]:
    """Yield a sentence per model and set of interventions whose changes take many passes."""
    cards, states = Cards(), plan.states["intervene"]
    pending = [
        cell for cell in plan.cells if states.get(cell.keys.get("intervene", "")) not in (None, "cached")
    ]

    def alike(cell: PlannedCell) -> tuple[object, ...]:
        return (plan.matrix.choice("model", cell.choice), *cell.sources)

    for cells in grouped(pending, alike):
        card = cards.model(plan.matrix.table("model", cells[0].choice))
        if card is None:
            continue
        try:
            size = SweepSize.of(entries(plan, cells[0]), ModelShape(card.layers, card.heads))
        except UsageError:  # the plan's check says what is wrong
            continue
        if size.passes > MANY_PASSES:
            (largest, count), *_ = Counter(change.entry for change in size.changes).most_common(1)
            yield (
                f"interventions: {len(size.changes):,} changes take {size.passes:,.0f} passes of the model "
                f'over every test example, in each of {len(cells):,} cells; "{largest}" has {count:,} of '
                "them; expected fewer layers (stride), heads or positions, or fewer examples (probe.examples)"
            )
