"""Single changes to a model, and the interventions of a spec that they come from."""

from __future__ import annotations

from attrs import frozen

from engine.planning.key_parts import Cell
from engine.planning.plan import Plan, PlannedCell
from specs import Matrix
from specs.checks.interventions import UNCHANGED
from specs.tables.interventions import Intervention

PARTS = frozenset({"attention", "mlp"})
OWN = "default"
"""The name of the adapter that a cell's model was trained with; peft's."""
SAME = "same"
"""The input of a run that reads what the changed model reads."""
OTHERS = ("other example", "other label")
"""The inputs that are other examples."""

# A token's place: n < 0 counted from the label's (-1 predicts it), all tokens of a segment, or its n-th one.
Place = int | str | tuple[str, int]
Part = tuple[str, int]  # attention, mlp or heads, and the layer


@frozen
class Path:
    """From what parts of some layers write, straight to what a part of a later layer reads."""

    sender: str  # attention, mlp or heads
    layers: tuple[int, ...]  # the senders', ascending
    heads: tuple[int, ...]  # the senders', where they are heads
    receiver: str  # final, attention, mlp or heads
    layer: int  # the receiver's
    receiver_heads: tuple[int, ...] = ()

    @property
    def end(self) -> str:
        """The receiver in words: final, mlp 5, head 5.3 (of layer 5)."""
        if self.receiver == "final":
            return "final"
        if len(self.receiver_heads) == 1:
            return f"head {self.layer}.{self.receiver_heads[0]}"
        return f"{self.receiver} {self.layer}"


@frozen
class Addition:
    """A multiple of a mean difference of two models' residual streams, or of a random direction as long."""

    against: str  # the other model, as `probe.against` names it
    layer: int | None  # whose difference it is; None: that of the layer at which it is added
    positions: tuple[str, ...]  # whose difference it is, watch positions by name
    strength: float
    draw: int | None = None  # of a random direction, from 1; None: the difference itself

    @property
    def direction(self) -> str:
        """What is added, in words."""
        return "mean difference" if self.draw is None else f"random {self.draw}"


@frozen
class Change:
    """One change to a model of L layers (blocks), 1 to L: what is done, and in which of them."""

    name: str
    entry: str  # the intervention of the spec that it is part of
    kind: str  # one of the spec's; none: the model as it is; source: what others take from
    layers: tuple[int, ...] = ()  # ascending
    source: str = ""  # train key of the adapter that is taken from, "": none, the model without adapter
    source_name: str = ""
    parts: frozenset[str] = PARTS
    alpha: float = 0.0
    positions: tuple[Place, ...] | None = None  # None: all
    heads: tuple[int, ...] = ()
    ablation: str = "zero"
    stream: str = "residual"  # or attention, mlp
    input: str = SAME  # what the run reads that is taken from
    position: str = ""  # of a grid, in words
    path: Path | None = None
    addition: Addition | None = None
    onto_source: bool = False  # whether it changes the run that it takes from

    @property
    def part(self) -> str:
        """What of a layer something else stands for; "" where the weights change."""
        if self.path:
            return "residual" if self.path.receiver == "final" else self.path.receiver
        streams = {"heads": "heads", "patch": self.stream, "ablate": self.stream, "steer": "residual"}
        return streams.get(self.kind, "")

    @property
    def written(self) -> str:
        """What of its layers is put in or ablated: a stream, or heads; "" where the weights change."""
        return self.path.sender if self.path else self.part

    @property
    def received(self) -> str:
        """The end of its path, "" where it has none."""
        return self.path.end if self.path else ""

    @property
    def value(self) -> str:
        """What stands there: zero, mean, run, path or sum (`run_order.Put`)."""
        ablation = "run" if self.ablation == "resample" else self.ablation
        return {"patch": "run", "path": "path", "steer": "sum"}.get(self.kind, ablation)

    @property
    def unchanged(self) -> str:
        """The name of the change that is the same run without this one."""
        return whole(self.source_name) if self.onto_source else UNCHANGED

    @property
    def takes_parts(self) -> bool:
        """Whether parts of another run are put in, which is kept for that."""
        return bool(self.part) and self.value in ("run", "path")

    @property
    def changed_layers(self) -> tuple[int, ...]:
        """The layers that do something else."""
        return (self.path.layer,) if self.path else self.layers

    @property
    def parts_read(self) -> tuple[set[Part], set[Part]]:
        """What is read of the run that is taken from, and of the model's own, beside residual streams."""
        path = self.path
        if path is None:
            layers = () if self.part == "residual" else self.layers
            return {(self.part, layer) for layer in layers}, set()
        written = "attention" if path.sender == "heads" else path.sender
        own_parts = {(written, layer) for layer in path.layers}
        if path.receiver == "mlp":
            own_parts.add(("attention", path.layer))
        return {(path.sender, layer) for layer in path.layers}, own_parts


@frozen
class ModelShape:
    """The sizes that changes are counted in."""

    layers: int
    heads: int


@frozen
class Entry:
    """An intervention of the spec on one cell, and the run that it takes from."""

    settings: Intervention
    source: str  # train key of its adapter, "": none
    source_name: str
    input: str = SAME
    prompted: Cell | None = None  # the cell whose prompt that run reads, if not the changed one's
    against: str = ""  # how `probe.against` names the donor


def whole(source_name: str) -> str:
    """Give the name of the change that is the whole run which others take from."""
    return f"all of {source_name}"


def against(matrix: Matrix, cell: Cell, donor: Cell | None) -> str | None:
    """Give how `probe.against` names a donor (None: the model without adapter); None where it does not."""
    return next((name for name, other in matrix.references(cell).items() if other == donor), None)


def entries(plan: Plan, cell: PlannedCell) -> list[Entry]:
    """Give the interventions that change the cell's model."""
    return [
        _entry(plan.matrix, cell, settings, donor)
        for settings, donor in plan.matrix.interventions(cell.choice)
        if settings.name in cell.sources
    ]


def _entry(matrix: Matrix, cell: PlannedCell, settings: Intervention, donor: Cell | None) -> Entry:
    source, name = cell.sources[settings.name], matrix.donor_name(cell.choice, donor)
    if settings.takes_own:
        name = "own"
    if source == cell.keys["train"]:
        source = OWN
    read = settings.reads
    if settings.kind == "steer":
        return Entry(settings, source, name, against=against(matrix, cell.choice, donor) or "")
    if read == SAME:
        return Entry(settings, source, name)
    if read == "donor":
        return Entry(settings, source, f"{name}, its prompt", f"prompt of {name}", donor)
    return Entry(settings, source, f"{name}, {read.replace('other', 'another')}", read)
