"""The sizes of a plan's models and data sets, as estimates of costs need them."""

from __future__ import annotations

from collections.abc import Hashable

from attrs import define, field

from engine.planning.hub_sizes import hub_card
from engine.planning.known_models import known_model
from engine.planning.sizes import DataCard, ModelCard, data_card, model_card
from specs.tables.data import Data
from specs.tables.experiment import Model


@define
class Cards:
    """The cards of this plan's models and data sets, each read once."""

    models: dict[Hashable, ModelCard | None] = field(factory=dict)
    data_sets: dict[Hashable, DataCard | None] = field(factory=dict)

    def model(self, model: Model) -> ModelCard | None:
        """Give a model's card; None where neither its files, nor a table, nor the hub tell its sizes."""
        key = (model.id, model.revision, model.gguf_file)
        if key not in self.models:
            card = model_card(model)
            if card is None:
                known = known_model(model)
                card = known.card if known else hub_card(model)
            self.models[key] = card
        return self.models[key]

    def data(self, data: Data) -> DataCard | None:
        """Give a data set's card; None where it is not at hand."""
        key = (str(data.source), data.dimension)
        if key not in self.data_sets:
            self.data_sets[key] = data_card(data)
        return self.data_sets[key]
