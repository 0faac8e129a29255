"""The type of a function that gives one table of a cell by its name, as the table's own class."""

from __future__ import annotations

from typing import Literal, Protocol, TypeVar, overload

from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora, Model, Train
from specs.tables.probe import Probe
from specs.tables.target import Prompt, Target

Table = Model | Data | Prompt | Target | Lora | Train | Evaluate | Probe
CellT = TypeVar("CellT", contravariant=True)


class TableOf(Protocol[CellT]):
    """Call it with a table's name and a cell."""

    @overload
    def __call__(self, name: Literal["model"], cell: CellT, /) -> Model: ...
    @overload
    def __call__(self, name: Literal["data"], cell: CellT, /) -> Data: ...
    @overload
    def __call__(self, name: Literal["prompt"], cell: CellT, /) -> Prompt: ...
    @overload
    def __call__(self, name: Literal["target"], cell: CellT, /) -> Target: ...
    @overload
    def __call__(self, name: Literal["lora"], cell: CellT, /) -> Lora: ...
    @overload
    def __call__(self, name: Literal["train"], cell: CellT, /) -> Train: ...
    @overload
    def __call__(self, name: Literal["evaluate"], cell: CellT, /) -> Evaluate: ...
    @overload
    def __call__(self, name: Literal["probe"], cell: CellT, /) -> Probe: ...
    @overload
    def __call__(self, name: str, cell: CellT, /) -> Table: ...
