"""The plan: every cell of a spec with its stage keys, and what of it is done, failed or pending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

from attrs import field, frozen

from engine.data.sources import sources
from engine.errors import UsageError
from engine.planning.data_read import test_data
from engine.planning.identities import file_identities
from engine.planning.key_parts import Cell
from engine.planning.levels import describe
from engine.planning.missing_files import check_texts_and_tasks
from engine.planning.same_examples import same_examples
from engine.planning.stage_keys import Keys, model_key
from specs import Matrix
from specs.tables.data import Data
from specs.tables.experiment import STAGES
from store import Ledger
from store.backend.locate import place_of
from store.backend.location import Place, Root
from store.ledger.manifests import known_files
from store.ledger.overview import overview

STATES = ("cached", "pending", "failed", "running")


@frozen
class PlannedCell:
    """One cell: its place in the matrix, its levels and its stage keys."""

    index: int
    choice: Cell
    keys: dict[str, str]
    # By intervention the train key of what it takes from, "": the model without adapter.
    sources: dict[str, str] = field(factory=dict)
    # The same by the names of `probe.against`.
    references: dict[str, str] = field(factory=dict)
    steered: bool = False  # whether some intervention reads the result of `differences`

    @property
    def donors(self) -> set[str]:
        """The train keys of other cells whose adapters the cell's stages read."""
        return self.donors_of("intervene") | self.donors_of("probe")

    def donors_of(self, stage: str) -> set[str]:
        """Give the train keys of other cells whose adapters a stage reads.

        Args:
            stage: its name.
        """
        compared = {"probe": self.references, "differences": self.references}
        read = (compared | {"intervene": self.sources}).get(stage, {})
        return set(read.values()) - {"", self.keys["train"]}


@frozen
class Plan:
    """All cells of a spec, and the store they go to."""

    matrix: Matrix
    root: Place
    cells: list[PlannedCell]
    states: dict[str, dict[str, str]]  # stage → key → cached, pending, failed or running
    # What the store knows of data files that are not there any more, or have changed and still give the same
    # examples: path → identity of the content that they had.
    remembered: dict[str, str] = field(factory=dict)
    _models: dict[Cell, tuple[str, str]] = field(factory=dict, init=False)

    def __repr__(self) -> str:
        name, pending = self.matrix.experiment.name, sum(self.state(cell) != "cached" for cell in self.cells)
        return f"<Plan of {name}: {len(self.cells):,} cells, {pending:,} of them not done → {self.root}>"

    def levels(self, cell: PlannedCell) -> dict[str, Any]:
        """Give the cell's level on every axis, None where a factor does not apply.

        Args:
            cell: one of the plan's cells.

        Returns:
            factor → level, the seed included.
        """
        return self.matrix.levels(cell.choice)

    def model(self, cell: PlannedCell) -> tuple[str, str]:
        """Identify what a cell's model is loaded as: content and settings, and the device.

        Args:
            cell: one of the plan's cells.

        Returns:
            the hash of content and settings, and the device's name.
        """
        choice = self.matrix.choice("model", cell.choice)
        if choice not in self._models:
            settings = self.matrix.table("model", cell.choice)
            self._models[choice] = model_key(settings), settings.device
        return self._models[choice]

    def state(self, cell: PlannedCell) -> str:
        """Give the state of the whole cell: the worst of its stages.

        Args:
            cell: one of the plan's cells.

        Returns:
            cached, pending, failed or running.
        """
        states = {self.states[stage][cell.keys[stage]] for stage in STAGES if stage in cell.keys}
        return next(state for state in ("failed", "running", "pending", "cached") if state in states)

    def look_up(self) -> None:
        """Look the states of all stages up again, in the store's ledger."""
        ledger = Ledger(overview(self.root, "", STAGES))
        self.states.update({stage: _states(ledger, stage, self.cells) for stage in STAGES})

    def stage_states(self, cell: PlannedCell) -> dict[str, str]:
        """Give the state of each stage of a cell.

        Args:
            cell: one of the plan's cells.

        Returns:
            stage → cached, pending, failed or running.
        """
        return {stage: self.states[stage][cell.keys[stage]] for stage in STAGES if stage in cell.keys}

    def missing(self) -> list[str]:
        """Name the local data files that are not there yet; keys over them will change once they are."""
        lacking = {str(source) for data in self._data() for source in sources(data) if source.missing}
        return sorted(lacking - self.remembered.keys())

    def files(self) -> dict[str, str]:
        """Identify the content of the local data files, by path; as it is remembered, where it is."""
        identities: dict[str, str] = {}
        for data in self._data():
            identities |= file_identities(data)
        return identities | self.remembered

    def _data(self) -> list[Data]:
        trained = {cell.keys["data"]: self.matrix.table("data", cell.choice) for cell in self.cells}
        tested = {cell.keys["test_data"]: test_data(self.matrix, cell.choice) for cell in self.cells}
        return list((trained | tested).values())

    def listed(self) -> list[dict[str, Any]]:
        """Give the cells as a manifest lists them: levels by factor, and keys by stage without the data's."""
        return [
            {
                "levels": self.levels(cell),
                "keys": {stage: cell.keys[stage] for stage in STAGES[1:] if stage in cell.keys},
            }
            for cell in self.cells
        ]

    def data_keys(self) -> list[str]:
        """Give the keys of all training and test data, in order."""
        return sorted({cell.keys[name] for cell in self.cells for name in ("data", "test_data")})

    def trusted(self) -> list[str]:
        """Name the models whose repositories' own code will run."""
        models = {self.matrix.choice("model", cell.choice): cell.choice for cell in self.cells}
        settings = [self.matrix.table("model", choice) for choice in models.values()]
        return sorted({model.id for model in settings if model.trust_remote_code})

    def counts(self) -> dict[str, Counter[str]]:
        """Count the distinct stage keys by state: stage → state → number."""
        return {stage: Counter(states.values()) for stage, states in self.states.items()}

    def _repr_html_(self) -> str:
        from engine.planning.plan_html import plan_html

        return plan_html(self)


def make_plan(matrix: Matrix, store: Root | None = None) -> Plan:
    """Compute all stage keys and look up their states. Reads the store's ledger, writes nothing."""
    check_texts_and_tasks(matrix)
    root = place_of(store or matrix.spec.store)
    plan = Plan(matrix, root, _cells(matrix, Keys(matrix)), {})
    plan.look_up()
    missing, new = plan.missing(), set(plan.states["data"].values()) - {"cached"}
    if missing or (new and plan.files()):
        known = known_files(root)
        remembered = {path: known[path] for path in missing if path in known}
        if new and known:
            remembered |= same_examples(matrix, Ledger(root), known)
        if remembered:
            plan = Plan(matrix, root, _cells(matrix, Keys(matrix, remembered)), {}, remembered)
            plan.look_up()
    return plan


def _cells(matrix: Matrix, keys: Keys) -> list[PlannedCell]:
    return [
        PlannedCell(
            index, cell, keys.of(cell), keys.sources(cell), keys.references(cell), keys.is_steered(cell)
        )
        for index, cell in enumerate(matrix.cells)
    ]


def _states(ledger: Ledger, stage: str, cells: Iterable[PlannedCell]) -> dict[str, str]:
    names = (stage, "test_data") if stage == "data" else (stage,)
    wanted = dict.fromkeys(cell.keys[name] for cell in cells for name in names if name in cell.keys)
    done, failed, running = ledger.done(stage), ledger.failed(stage), ledger.running(stage)

    def state(key: str) -> str:
        if key in done:
            return "cached"
        return "running" if key in running else "failed" if key in failed else "pending"

    return {key: state(key) for key in wanted}


def check_donors(plan: Plan, cells: Sequence[PlannedCell]) -> None:
    """Raise UsageError where a cell reads an adapter that these cells do not train."""
    trained = {cell.keys["train"] for cell in cells}
    states = plan.states["train"]
    for cell in cells:
        reading = {f'the intervention "{name}" takes from': key for name, key in cell.sources.items()}
        reading |= {f'probe.against names "{name}",': key for name, key in cell.references.items()}
        for words, source in reading.items():
            if source in cell.donors and source not in trained and states[source] not in ("cached", "failed"):
                raise UsageError(
                    f"{describe(plan.levels(cell))}: {words} a cell that is not "
                    "trained, and not among those to run; expected --only or --max-cells to take it in"
                )


def grouped(cells: Iterable[PlannedCell], key: Callable[[PlannedCell], Hashable]) -> list[list[PlannedCell]]:
    """Group cells by a key, groups and members in order of first appearance."""
    groups: dict[Hashable, list[PlannedCell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return list(groups.values())


def by_training(plan: Plan, cells: Iterable[PlannedCell]) -> Iterator[list[PlannedCell]]:
    """Yield the cells that share a training together; trainings of one model follow one another.

    Those that take nothing from other cells come first: later ones may take from them.
    """
    for same_model in grouped(cells, plan.model):
        trainings = grouped(same_model, lambda cell: cell.keys["train"])
        yield from sorted(trainings, key=lambda group: any(cell.donors for cell in group))
