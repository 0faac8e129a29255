"""Two trainings of one small model of any architecture, and what interventions make of the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_study import writer
from tiny_models import MODELS, build

from engine.planning.changes import Change
from engine.progress import StopRequest, silent
from engine.stages.adapter_layout import Arrangement, arrangement
from engine.stages.interventions.intervene import InterventionRun
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.files import Trained, load_adapter, save_adapter
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import Lora
from specs.tables.probe import Probe
from store.backend.locate import place_of
from store.backend.location import Place

EXAMPLES = [
    {"id": str(i), "context": "the model", "response": "rates a reply" + " good" * i, "label": str(1 + i % 3)}
    for i in range(5)
]
LABELS = ["1", "2", "3"]


def small(name: str) -> Any:
    """A model with the vocabulary of the tests' tokenizer, and logits large enough to tell states apart."""
    kind, options = MODELS[name]
    model = build(kind, options | {"vocab_size": 320})
    model.get_output_embeddings().weight.data.mul_(20)
    return model


def trained(name: str, folder: Path, seed: int, **options: Any) -> Place:
    """Save an adapter of random weights, large enough to matter."""
    model = attach_adapter(small(name), Lora(r=2, **options))
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    home = place_of(folder)
    save_adapter(model, Trained({}, {"loss": np.zeros(1)}), home)
    return home


class Study:
    """Two trainings of one architecture, and what is read off a changed model."""

    def __init__(self, name: str, folder: Path, tokenizer: Any, **options: Any) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.own = trained(name, folder / "own", 1, **options)
        self.donor = trained(name, folder / "donor", 2, **options)

    def model(self, adapter: Place | None) -> Any:
        base = small(self.name)
        return base if adapter is None else load_adapter(base, adapter)

    @contextmanager
    def arranged(self, adapter: Place | None = None) -> Iterator[Arrangement]:
        with arrangement(self.model(adapter or self.own), {"donor": self.donor}) as found:
            yield found

    def experiment(self, arranged: Arrangement, **options: Any) -> InterventionRun:
        text = writer(self.tokenizer, labels=options.pop("labels", LABELS))
        settings = Evaluate(labels=text.labels, **options)
        return InterventionRun(arranged, self.tokenizer, text, settings, Probe(batch_size=3, backend="torch"))

    def run(self, arranged: Arrangement, changes: list[Change], **options: Any) -> dict[str, np.ndarray]:
        batches = list(self.experiment(arranged, **options).run(EXAMPLES, changes, silent, StopRequest()))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def plain(self, model: Any, **options: Any) -> dict[str, np.ndarray]:
        """What the model itself gives, without anything of interventions."""
        return self.run(Arrangement(model, "", ()), [Change("none", "none", "none")], **options)
