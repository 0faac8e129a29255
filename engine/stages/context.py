"""What the stages of a cell read: its settings, data, texts, adapter and translators, all checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from attrs import evolve, field, frozen

from engine.data import prepare
from engine.data.missing_explanations import check_explanations
from engine.errors import DamagedAdapterError, DamagedDataError, DamagedLensError, DataError
from engine.models import jacobians, translators
from engine.models.causal_lm import CausalLm
from engine.models.jacobians import Jacobians
from engine.models.lens import Lens, Maps
from engine.models.tokenizer import Tokenizer
from engine.planning.data_read import tested_data, trained_data
from engine.planning.plan import PlannedCell
from engine.stages.measured_examples import Measured, Stage, measured
from engine.stages.records import StageRecords
from engine.stages.training.files import ADAPTER, check_adapter
from engine.stages.watched_passes import KeptPasses
from engine.text.lengths import Limit, limit_of
from engine.text.targets import TargetEncoder, cell_writer
from specs.common.names import FitStage
from specs.tables.data import Data
from store.backend.location import Place

if TYPE_CHECKING:
    import torch


Map = TypeVar("Map", covariant=True)


class LensModule(Protocol[Map]):
    """A module of the maps of a kind of lens."""

    FILE: str

    def checked(self, home: Place, device: torch.device, recorded: Mapping[str, Any]) -> Map:
        """Give saved maps; DamagedLensError where they are not those that were recorded."""


@frozen
class Context(StageRecords):
    """A plan, the store that it is run into, and what its cells read of both."""

    kept: KeptPasses = field(factory=KeptPasses, init=False, repr=False)

    def data(self, cell: PlannedCell, *, test: bool) -> Data:
        """Give the data settings of a cell's training or test examples."""
        return (tested_data if test else trained_data)(self.plan.matrix, cell.choice)

    def rows(self, cell: PlannedCell, key: str, split: str, count: int | None) -> list[dict[str, str]]:
        """Give the first `count` examples of a split of prepared data (None: all)."""
        return prepare.load(self.examples(cell.keys[key]), split, count)

    def examples(self, key: str) -> Place:
        """Give the home of prepared data, checked against what was recorded of them."""
        home, files = self.home("data", key), self.ledger.record("data", key).get("files", {})
        try:
            prepare.check(home, files)
        except DamagedDataError as error:
            self.put_aside(home, prepare.FILE)
            self.ledger.clear("data", key)
            raise DamagedDataError(f"{error}; --retry-failed makes it again") from error
        return home

    def trained_rows(self, cell: PlannedCell) -> dict[str, list[dict[str, str]]]:
        """Give the examples of a training by split; DataError for a split or explanation that lacks."""
        data, target = self.data(cell, test=False), self.settings("target", cell)
        rows = {"train": self.rows(cell, "data", "train", data.train)}
        if self.settings("train", cell).early_stopping:
            rows["validation"] = self.rows(cell, "data", "validation", data.validation)
            if not rows["validation"]:
                raise DataError(prepare.no_validation(self.settings("train", cell).early_stopping))
        for split, part in rows.items():
            check_explanations(part, split, data, target)
        return rows

    def measured(self, cell: PlannedCell, stage: Stage, model: CausalLm, text: TargetEncoder) -> Measured:
        """Give the test examples of a stage; DataError for those that cannot be measured."""
        data, probe = self.data(cell, test=True), self.settings("probe", cell)
        rows = self.rows(cell, "test_data", "test", data.test)
        return measured(
            stage,
            rows if stage == "evaluate" else rows[: probe.examples],
            text,
            self.limit(cell, model),
            data=data,
            evaluate=self.settings("evaluate", cell),
            probe=probe,
        )

    def limit(self, cell: PlannedCell, model: CausalLm) -> Limit:
        """Give the length that the cell's examples may have on this model."""
        return limit_of(model, self.settings("train", cell).max_length)

    def text(self, cell: PlannedCell, tokenizer: Tokenizer, *, test: bool) -> TargetEncoder:
        """Give the writer of a cell's training or test examples."""
        key = "test_data" if test else "data"
        return cell_writer(self.plan, cell, tokenizer, lambda: self.rows(cell, key, "train", None), test=test)

    def adapter(self, key: str) -> Place:
        """Give the home of a trained adapter, checked against what was recorded of it."""
        home = self.home("train", key)
        try:
            check_adapter(home, self.ledger.record("train", key).get("files", {}))
        except DamagedAdapterError as error:
            self.put_aside(home, ADAPTER)
            self.ledger.clear("train", key)
            raise DamagedAdapterError(f"{error}; --retry-failed trains it again") from error
        return home

    def lenses(self, cell: PlannedCell, lens: Lens) -> list[Lens]:
        """Give the lenses through which the cell's probe reads a model, whose logit lens is given."""
        maps: dict[str, Callable[[], Maps | None]] = {
            "logit": lambda: None,
            "tuned": lambda: self._fitted(cell, "lens", translators, lens.device),
            "jacobian": lambda: self._jacobians(cell, lens),
        }
        return [evolve(lens, maps=maps[name]()) for name in self.settings("probe", cell).lenses]

    def _jacobians(self, cell: PlannedCell, lens: Lens) -> Jacobians:
        if (path := self.settings("probe", cell).jacobian.path) is not None:
            return jacobians.published(Path(path), len(lens.layers), lens.width, lens.device)
        return self._fitted(cell, "jacobian", jacobians, lens.device)

    def _fitted(self, cell: PlannedCell, stage: FitStage, kind: LensModule[Map], device: torch.device) -> Map:
        """Give the maps of a fitted lens, checked against what was recorded of them."""
        key = cell.keys[stage]
        home, files = self.home(stage, key), self.ledger.record(stage, key)["files"]
        try:
            return kind.checked(home, device, files)
        except DamagedLensError as error:
            self.put_aside(home, kind.FILE)
            self.ledger.clear(stage, key)
            raise DamagedLensError(f"{error}; --retry-failed fits it again") from error
