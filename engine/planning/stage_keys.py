"""Stage keys: the hash of exactly the inputs that can change a stage's result.

A key is a BLAKE2b over the stage's name and version, the settings that the stage reads, and the keys of the
stages it consumes: a Merkle tree. Names, comments, key order, spelled-out defaults, output paths and settings
that only say how to run (an empty `stages` in the field's metadata) are not part of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve

from engine.data.neutral_text import text_identity
from engine.data.sources import sources
from engine.planning.data_read import test_data, test_prompt, tested_data, trained_data
from engine.planning.harness import tasks_identity
from engine.planning.identities import NONE, digest, model_identity, source_identity
from engine.planning.inspect_tasks import inspect_identity
from engine.planning.key_parts import Cell, Part, done_by, joined, settings_read, table_part
from engine.planning.lens_keys import LensKeys
from specs import Matrix
from specs.common.names import FIT_STAGES
from specs.tables.data import Data
from specs.tables.evaluate import Evaluate
from specs.tables.experiment import STAGES, Model
from specs.tables.interventions import Intervention
from specs.tables.target import CONTENT, Target
from specs.toml.paths import data_suffix

# Raise a stage's number when a change to the code alters its results.
VERSIONS = {
    "data": 4, "base": 1, "base_tasks": 1, "base_inspect": 1, "train": 3, "evaluate": 5, "neutral": 1,
    "tasks": 2, "inspect": 1, "lens": 2, "jacobian": 1, "probe": 3, "along": 1,
    "differences": 1, "intervene": 2,
}  # fmt: skip


class Keys:
    """The stage keys of a matrix's cells. Each part of a key is hashed once and remembered."""

    def __init__(self, matrix: Matrix, remembered: Mapping[str, str] = NONE) -> None:
        self._matrix = matrix

        def parts(stage: str, *tables: str) -> list[Part]:
            return [table_part(matrix, table, stage) for table in tables]

        def test_parts(stage: str, *tables: str) -> list[Part]:
            """Give the parts of what the cell is tested with: its test prompt in place of the training's."""
            asked = Part(
                ("prompt", "evaluate"),
                lambda cell: digest(settings_read(test_prompt(matrix, cell), "prompt", stage)),
            )
            return [asked, *parts(stage, *tables)]

        def evaluated(settings: Callable[[Cell], Evaluate]) -> Part:
            """Give the part of an evaluation's settings."""
            return Part(
                ("evaluate", "target"),
                lambda cell: digest(settings_read(settings(cell), "evaluate", "evaluate")),
            )

        def test_size(stage: str) -> Part:
            return Part(
                ("data", "evaluate"),
                lambda cell: digest(settings_read(test_data(matrix, cell), "data", stage)),
            )

        model = Part(("model",), lambda cell: model_key(matrix.table("model", cell)))
        seed = Part(("seed",), lambda cell: f"seed {matrix.seed(cell)};")
        shuffling_seed = Part(("target", "seed"), self._shuffling_seed)
        data = Part(
            ("data", "evaluate", "prompt"),
            lambda cell: data_key(trained_data(matrix, cell), self._labels(cell), remembered),
        )
        test = Part(
            ("data", "evaluate", "prompt"),
            lambda cell: data_key(tested_data(matrix, cell), self._labels(cell), remembered),
        )
        size = Part(("data", "train"), self._trained_size)
        alone = Part(("data", "target"), lambda cell: self._label_alone(cell, matrix.table("data", cell)))
        test_alone = Part(
            ("data", "evaluate", "target"), lambda cell: self._label_alone(cell, test_data(matrix, cell))
        )
        closed = Part(("evaluate",), self._labels_closed)
        tables = ("target", "train", "evaluate")
        self._data, self._test = joined(matrix, data), joined(matrix, test)
        self._model = joined(matrix, model)
        self._train = joined(
            matrix, model, data, size, *parts("train", "lora", "prompt", *tables), seed, alone, closed
        )
        self._evaluate = joined(
            matrix,
            test,
            test_size("evaluate"),
            *test_parts("evaluate", "target", "train"),
            evaluated(self._evaluated),
            Part(("evaluate", "target", "seed"), self._evaluation_seed),
        )
        prefix = Part(("target",), lambda cell: digest(matrix.table("target", cell).prefix))
        asked = test_parts("evaluate", "train")
        plain = evaluated(lambda cell: matrix.table("evaluate", cell).plain)
        self._base = joined(matrix, model, test, test_size("evaluate"), prefix, *asked, plain)
        self._neutral = joined(matrix, Part(("evaluate",), self._neutral_text))
        self._tasks = joined(
            matrix, Part(("evaluate",), lambda cell: tasks_identity(matrix.table("evaluate", cell)))
        )
        self._inspect = joined(
            matrix,
            Part(("evaluate",), lambda cell: inspect_identity(matrix.table("evaluate", cell).inspect)),
        )
        self._evaluated_base = joined(matrix, Part(("evaluate",), self._is_base_evaluated))
        self._lenses = LensKeys(matrix, data, (shuffling_seed, alone))
        self._probe = joined(
            matrix,
            test,
            test_size("probe"),
            *test_parts("probe", *tables, "probe"),
            shuffling_seed,
            test_alone,
        )
        self._along = joined(
            matrix,
            test,
            test_size("along"),
            *test_parts("along", *tables, "probe"),
            shuffling_seed,
            test_alone,
        )
        self._differences = joined(
            matrix,
            test,
            test_size("differences"),
            *test_parts("differences", *tables, "probe"),
            shuffling_seed,
            test_alone,
        )
        self._intervene = joined(
            matrix,
            test,
            test_size("intervene"),
            *test_parts("intervene", *tables, "probe"),
            shuffling_seed,
            test_alone,
        )
        self._untrained = joined(matrix, Part(("train",), self._is_untrained))
        self._probed = joined(matrix, Part(("probe",), self._is_probed))
        self._followed = joined(matrix, Part(("train", "probe"), self._is_followed))
        self._compared = joined(matrix, Part(("probe",), self._is_compared))

    def of(self, cell: Cell) -> dict[str, str]:
        """Give the cell's keys: data, test_data, train, evaluate; others where done.

        `test_data` is the data stage's key for the test examples, the same as `data` unless `evaluate.data`
        is given, or only one of training and test prompt shows the dimension. An untrained model's train key
        depends on the model alone; a tuned lens's on the training examples, too, trained on or not.
        """
        train = self._train_key(cell)
        keys = {
            "data": self._data(cell),
            "test_data": self._test(cell),
            "train": train,
            "evaluate": _combine("evaluate", train + self._evaluate(cell)),
        }
        if self._evaluated_base(cell):
            keys["base"] = _combine("base", f"evaluate {VERSIONS['evaluate']};{self._base(cell)}")
        if text := self._neutral(cell):
            keys["neutral"] = _combine("neutral", train + text)
        for stage, identity in (("tasks", self._tasks), ("inspect", self._inspect)):
            if asked := identity(cell):
                keys[stage] = _combine(stage, train + asked)
                if "base" in keys:
                    versioned = f"{stage} {VERSIONS[stage]};{self._model(cell)}{asked}"
                    keys[f"base_{stage}"] = _combine(f"base_{stage}", versioned)
        lenses = ""
        if self._probed(cell):
            keys |= (fitted := self._fitted_lenses(cell, train))
            lenses = "".join(fitted.values()) + self._lenses.file(cell)
            references = self.references(cell)
            against = f"\n{digest(references)}" if references else ""
            keys["probe"] = _combine("probe", train + lenses + self._probe(cell) + against)
            if against and self._compared(cell):
                keys["differences"] = _combine("differences", train + self._differences(cell) + against)
        if self._followed(cell):
            # What it does is what those two stages do.
            versions = f"evaluate {VERSIONS['evaluate']};probe {VERSIONS['probe']};"
            keys["along"] = _combine("along", f"{versions}{train}{lenses}{self._along(cell)}")
        if sources := self.sources(cell):
            done = [
                [done_by(settings), sources[settings.name], *self._taken(cell, settings, donor, keys)]
                for settings, donor in self._matrix.interventions(cell)
                if settings.name in sources
            ]
            keys["intervene"] = _combine("intervene", f"{train}{self._intervene(cell)}\n{digest(done)}")
        return keys

    def _taken(
        self, cell: Cell, settings: Intervention, donor: Cell | None, keys: Mapping[str, str]
    ) -> Iterator[str]:
        """Identify what an intervention takes from beside the adapter: its name, an input, a difference."""
        yield "own" if settings.takes_own else self._matrix.donor_name(cell, donor)
        if settings.kind == "steer":
            yield keys.get("differences", "")
        if settings.reads.startswith("other") or (settings.kind == "steer" and settings.random_directions):
            yield f"seed {self._matrix.seed(cell)}"  # draws examples and directions
        if settings.reads == "donor" and donor is not None:
            yield self._intervene(donor)

    def sources(self, cell: Cell) -> dict[str, str]:
        """Give, by the interventions that change the cell's model, the train key of what each takes from.

        "" is the model without adapter. Ablation takes from no other model, and goes to every cell.
        """
        taken_from: dict[str, str] = {}
        if not (interventions := self._matrix.interventions(cell)):
            return taken_from
        own_adapter = self._adapter(cell)
        for settings, donor in interventions:
            source = "" if donor is None else self._adapter(donor)
            if settings.takes_own:
                source = own_adapter
            other_input = settings.reads != "same"
            if settings.kind in ("heads", "ablate") or other_input or source != own_adapter:
                taken_from[settings.name] = source
        return taken_from

    def is_steered(self, cell: Cell) -> bool:
        """Tell whether an intervention on the cell reads what its `differences` give."""
        sources = self.sources(cell)
        return any(
            settings.kind == "steer" and settings.name in sources
            for settings, _ in self._matrix.interventions(cell)
        )

    def references(self, cell: Cell) -> dict[str, str]:
        """Give, by the names of what `probe.against` asks for, the train key of each; "": without adapter."""
        if not self._probed(cell):
            return {}
        others = self._matrix.references(cell)
        return {name: "" if other is None else self._adapter(other) for name, other in others.items()}

    def _fitted_lenses(self, cell: Cell, train: str) -> dict[str, str]:
        """Give the keys of the stages that fit the lenses of the cell's probe."""
        probe, untrained = self._matrix.table("probe", cell), _combine("train", self._model(cell))
        fitted = {*probe.fitted("trained"), *probe.fitted("base")}
        return {
            stage: _combine(stage, self._lenses.fitted(stage, cell, train, untrained))
            for stage in FIT_STAGES
            if stage in fitted
        }

    def _train_key(self, cell: Cell) -> str:
        return _combine("train", self._model(cell) if self._untrained(cell) else self._train(cell))

    def _adapter(self, cell: Cell) -> str:
        """Give the train key of a cell that has an adapter, "" of one that has none."""
        return "" if self._untrained(cell) else self._train_key(cell)

    def _labels(self, cell: Cell) -> list[str]:
        return self._matrix.table("evaluate", cell).labels

    def _labels_closed(self, cell: Cell) -> str:
        """Mark labels of which one begins another: what follows them may be a label's token, too."""
        labels = [label.casefold() for label in self._labels(cell)]
        begun = any(other.startswith(label) for label in labels for other in labels if other != label)
        return "labels closed;" if begun else ""

    def _trained_size(self, cell: Cell) -> str:
        """Identify how many examples are trained on and, where a training stops early, validated on."""
        data = self._matrix.table("data", cell)
        if not self._matrix.table("train", cell).early_stopping:
            data = evolve(data, validation=None)
        return digest(settings_read(data, "data", "train"))

    def _is_untrained(self, cell: Cell) -> str:
        return "untrained" if self._matrix.table("train", cell).steps == 0 else ""

    def _is_base_evaluated(self, cell: Cell) -> str:
        return "evaluated" if self._matrix.table("evaluate", cell).base_model else ""

    def _neutral_text(self, cell: Cell) -> str:
        """Identify the neutral text on which the cell's model is measured, "" where on none."""
        source = self._matrix.table("evaluate", cell).neutral_text
        return text_identity(source) if source else ""

    def _is_probed(self, cell: Cell) -> str:
        return "probed" if self._matrix.table("probe", cell).enabled else ""

    def _is_followed(self, cell: Cell) -> str:
        """Tell whether the adapters along the cell's training are measured."""
        probe = self._matrix.table("probe", cell)
        return "followed" if probe.at and probe.enabled and not self._is_untrained(cell) else ""

    def _is_compared(self, cell: Cell) -> str:
        return "compared" if self._matrix.table("probe", cell).differences else ""

    def _label_alone(self, cell: Cell, data: Data) -> str:
        """Mark a target whose empty explanations leave the label alone; any other has none that are empty."""
        has_more = self._matrix.table("target", cell).content != "label"
        return "label alone;" if has_more and data.empty_explanations == "label" else ""

    def _evaluated(self, cell: Cell) -> Evaluate:
        """Give the settings of the cell's evaluation, as far as its target can have what they ask for."""
        return self._matrix.table("evaluate", cell).of(self._matrix.table("target", cell))

    def _evaluation_seed(self, cell: Cell) -> str:
        """Give the seed where it draws something that is evaluated; elsewhere the evaluation ignores it."""
        return f"seed {self._matrix.seed(cell)};" if self._evaluated(cell).draws else ""

    def _shuffling_seed(self, cell: Cell) -> str:
        """Give the seed where it draws the text that is watched; elsewhere the probe ignores it."""
        target = self._matrix.table("target", cell).in_one_spelling()
        drawn = target.permuted > 0 or _is_drawn(target)
        return f"seed {self._matrix.seed(cell)};" if drawn else ""


def _is_drawn(target: Target) -> bool:
    """Tell whether the run seed draws a pseudo-explanation."""
    name = CONTENT.name(target.content)
    entry: Any = None if name is None else CONTENT.registry.get(name, object)
    return entry is not None and bool(entry.seeded)


def _combine(stage: str, text: str) -> str:
    whole = f"{stage} {VERSIONS[stage]}\n{text}"
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


def data_key(data: Data, labels: Sequence[str], remembered: Mapping[str, str] = NONE) -> str:
    """Give the data stage's key; `labels` are those that a row may have."""
    settings = settings_read(data, "data", "data")
    del settings["source"]  # its content counts, not its path
    # "error" and "label" make the same rows; which of them may be trained on, and how, is the train stage's.
    settings["empty_explanations"] = data.empty_explanations == "drop"
    formats = [data_suffix(source.path) for source in sources(data) if source.path]
    return _combine("data", f"{source_identity(data, remembered)}\n{digest([settings, labels, formats])}")


def model_key(model: Model) -> str:
    """Identify a model as it is loaded, whatever device it is on."""
    settings = settings_read(model, "model", "train")
    for name in ("id", "revision", "gguf_file"):
        del settings[name]
    return digest([model_identity(model), settings])


assert set(VERSIONS) == set(STAGES)
