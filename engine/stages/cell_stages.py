"""One cell's stages on a loaded model, each streamed into the store and committed last."""

from __future__ import annotations

from typing import Any

import numpy as np
from attrs import evolve, frozen

from engine.data import prepare as data_stage
from engine.data.missing_explanations import check_explanations, label_alone
from engine.data.sources import sources
from engine.errors import DamagedAdapterError, DamagedDataError, DamagedLensError, DataError, UsageError
from engine.models import loading as models
from engine.models import translators
from engine.models.attention_heads import check_heads
from engine.models.base_model import BaseModel, as_it_was
from engine.models.batching import padding_id
from engine.models.lens import find_lens
from engine.models.translators import Translators
from engine.planning.changes import Model, entries, expand
from engine.planning.plan import PlannedCell
from engine.planning.stage_keys import data_key, test_data
from engine.progress import Report
from engine.stages.evaluate import evaluate, evaluation_family, summarise
from engine.stages.interventions.adapter_layout import adapted_sites, arrangement
from engine.stages.interventions.intervene import Experiment, intervention_family
from engine.stages.measured_examples import Measured, Stage, measured, trained_and_evaluated
from engine.stages.probe import (
    backend_of,
    layer_numbers,
    probe_family,
    probe_layers,
    token_texts,
    watched_tokens,
)
from engine.stages.records import StageRecords, checked
from engine.stages.training.adapter import attach_adapter
from engine.stages.training.files import ADAPTER, Trained, check_adapter, load_adapter, saved_training
from engine.stages.training.history import UNITS, curves_family
from engine.stages.training.trackers import check_trackers
from engine.stages.training.train import short_enough, train_adapter
from engine.stages.tuned_lens import lens_family, tune
from engine.text.lengths import Limit, limit_of
from engine.text.targets import Writer, cell_writer
from engine.text.token_checks import (
    check_generated,
    check_tokens,
    check_watched,
    encoded_split,
    token_count,
)
from kernels import choose_backend
from specs.tables.data import Data
from specs.tables.experiment import Target
from specs.tables.probe import Probe
from store import write_vocabulary
from store.backend.location import Place


@frozen
class Stages(StageRecords):
    """Runs single stages of a plan's cells."""

    def prepare_data(self, cell: PlannedCell, _report: Report, *, test: bool) -> None:
        """Run the data stage of a cell's training or test data."""
        key = cell.keys["test_data" if test else "data"]
        with self._committing("data", key) as record:
            data, labels = self._data(cell, test=test), self.settings("evaluate", cell).labels
            here = not any(source.missing for source in sources(data))
            if here and data_key(data, labels) != key:
                raise DataError(
                    f"data.source: {data.source} has changed since the plan was made; run it again"
                )
            home = self.home("data", key)
            record |= self.ranks.lead(lambda: data_stage.prepare(data, labels, home))

    def base(self, cell: PlannedCell) -> BaseModel:
        """Load the model that the cell starts from, and its tokenizer."""
        return BaseModel(*models.load(self.settings("model", cell), self.ranks))

    def train(self, cell: PlannedCell, base: BaseModel, report: Report) -> None:
        """Train the cell's adapter; the base model is left as it was."""
        settings, key = self.settings("train", cell), cell.keys["train"]
        with self._committing("train", key, base) as record:
            if settings.steps == 0:
                record["summary"] = {}
                return
            text = self._text(cell, base.tokenizer, test=False)
            rows = self._trained_rows(cell)
            encoded = {split: encoded_split(text, part, split) for split, part in rows.items()}
            check_tokens(text, rows["train"], token_count(base.model))
            claim = self._claim("train", key)
            trained = self._saved(cell) or train_adapter(
                base.model,
                base.tokenizer,
                encoded["train"],
                encoded.get("validation", []),
                lora=self.settings("lora", cell),
                settings=settings,
                seed=self.plan.matrix.seed(cell.choice),
                home=self.home("train", key),
                fenced=claim.fenced,
                report=checked(report, claim),
                stop=self.stop,
                ranks=self.ranks,
            )
            family = curves_family(len(trained.curves["loss"]))
            with self._sink(family, key, resume=False) as sink:
                sink.append(trained.curves)
            alone = {
                f"{split}_examples_label_alone": float(label_alone(part, text.target))
                for split, part in rows.items()
            }
            record |= {
                **sink.placement,
                "summary": trained.summary | alone,
                "units": UNITS,
                "modules": trained.modules,
            }

    def load(self, cell: PlannedCell, base: BaseModel) -> Any:
        """Give the base model with the cell's trained adapter."""
        if self.settings("train", cell).steps == 0:
            return base.model
        return load_adapter(base.model, self._adapter(cell.keys["train"]))

    def evaluate_base(self, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Evaluate the model without adapter on the cell's test examples, asked for the label alone."""
        settings, key, tokenizer = self.settings("evaluate", cell), cell.keys["base"], base.tokenizer
        with self._committing("base", key, base) as record:
            asked = Target(prefix=self.settings("target", cell).prefix)
            text = cell_writer(self.plan, cell, tokenizer, self._data(cell, test=True), list, asked)
            test = self._measured(cell, "evaluate", model, text)
            family = evolve(evaluation_family(test.rows, settings, asked), stage="base")
            report = checked(report, self._claim("base", key))
            values = evaluate(model, tokenizer, text, test.rows, settings, report, self.stop)
            with self._sink(family, key, resume=False) as sink:
                sink.append(values)
            summary = summarise(test.rows, values, settings.labels) | test.summary
            record |= {**sink.placement, "summary": {f"base_{name}": own for name, own in summary.items()}}

    def evaluate(self, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Evaluate the cell's model on its test examples."""
        settings, key = self.settings("evaluate", cell), cell.keys["evaluate"]
        with self._committing("evaluate", key, base) as record:
            text = self._text(cell, base.tokenizer, test=True)
            test = self._measured(cell, "evaluate", model, text)
            rows = test.rows
            family = evaluation_family(rows, settings, text.target)
            report = checked(report, self._claim("evaluate", key))
            values = evaluate(model, base.tokenizer, text, rows, settings, report, self.stop)
            # Predictions are few, and their summary needs them all: a killed evaluation starts again.
            with self._sink(family, key, resume=False) as sink:
                sink.append(values)
            summary = summarise(rows, values, settings.labels)
            if settings.train_examples and self.settings("train", cell).steps != 0:
                summary |= self._training_accuracy(cell, model, base.tokenizer, report)
            record |= {**sink.placement, "summary": summary | test.summary}

    def _training_accuracy(
        self, cell: PlannedCell, model: Any, tokenizer: Any, report: Report
    ) -> dict[str, float]:
        """Give the accuracies on some of the examples that the model was trained on (`train_…`)."""
        settings = self.settings("evaluate", cell)
        used = self._rows(cell, "data", "train", self.settings("data", cell).train)
        text, limit = self._text(cell, tokenizer, test=False), self._limit(cell, model)
        rows = trained_and_evaluated(used, settings.train_examples, text, limit, settings)
        values = evaluate(model, tokenizer, text, rows, settings, report, self.stop)
        found = summarise(rows, values, settings.labels)
        return {f"train_{name}": value for name, value in found.items() if name.endswith("accuracy")}

    def tune(self, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Train the translators of the cell's tuned lens; goes on from its checkpoint."""
        settings, key = self.settings("probe", cell), cell.keys["lens"]
        with self._committing("lens", key, base) as record:
            text = self._text(cell, base.tokenizer, test=False)
            rows = self._trained_rows(cell)["train"]
            examples = short_enough(encoded_split(text, rows, "train"), self._limit(cell, model))
            lens, home = find_lens(model), self.home("lens", key)
            saved = self._saved_lens(home, lens.device)
            if saved is None:
                claim, checkpoint = self._claim("lens", key), translators.checkpoint_of(home)
                saved = tune(
                    lens,
                    examples,
                    settings.tuned,
                    batch_size=settings.batch_size,
                    padding=padding_id(base.tokenizer),
                    backend=backend_of(settings, "lens_divergence"),
                    report=checked(report, claim),
                    stop=self.stop,
                    checkpoint=checkpoint,
                )
                claim.check()
                found = saved
                if not self.ranks.lead(lambda: translators.save(home, *found)):
                    saved = translators.read(home, lens.device) or saved
                checkpoint.drop()
            curve = saved[1]
            with self._sink(lens_family(*curve.shape), key, resume=False) as sink:
                sink.append({"translator_kl": curve})
            record |= {
                **sink.placement,
                "summary": {
                    "lens_kl": float(curve[-1].mean()),
                    "lens_kl_untrained": float(curve[0].mean()),
                    "lens_examples": float(len(examples)),
                },
                "units": {"lens_kl": "nat", "lens_kl_untrained": "nat"},
            }

    def probe(self, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Probe every layer of the cell's model; goes on behind the last batch that is on disk."""
        settings, key, tokenizer = self.settings("probe", cell), cell.keys["probe"], base.tokenizer
        with self._committing("probe", key, base) as record:
            text = self._text(cell, tokenizer, test=True)
            test = self._measured(cell, "probe", model, text)
            rows = test.rows
            lens = find_lens(model)
            layers = layer_numbers(settings, len(lens.layers))
            watched = watched_tokens(tokenizer, text, rows[0], settings)
            family = probe_family(rows, layers, watched, settings, lens.heads)
            backend = choose_backend(lens.device, settings.backend)
            with self._sink(family, key) as sink:
                report = checked(report, self._claim("probe", key))
                remaining = rows[sink.start :]
                lens = evolve(lens, translators=self._translators(cell, lens.device))
                batches = probe_layers(lens, tokenizer, text, remaining, family, settings, report, self.stop)
                for backend, values in batches:  # noqa: B007 - a backend may leave what it cannot do to another
                    sink.append(values)
            record |= {
                **sink.placement,
                "attributes": {
                    "backend": backend,
                    "lens": settings.lens,
                    "vocabulary": self.ranks.lead(
                        lambda: write_vocabulary(self.plan.root, token_texts(tokenizer))
                    ),
                },
                "summary": {"probed_examples": float(len(rows)), **test.summary},
            }

    def intervene(self, cell: PlannedCell, model: Any, base: BaseModel, report: Report) -> None:
        """Do the cell's interventions; goes on behind the last batch that is on disk."""
        key, probe = cell.keys["intervene"], self.settings("probe", cell)
        evaluate_settings = self.settings("evaluate", cell)
        with self._committing("intervene", key, base) as record:
            text = self._text(cell, base.tokenizer, test=True)
            test = self._measured(cell, "intervene", model, text)
            rows, lens = test.rows, find_lens(model)
            layers = len(lens.layers)
            changes = expand(entries(self.plan, cell), Model(layers, lens.heads))
            family = intervention_family(rows, changes, layers, evaluate_settings.labels)
            donors = {donor: self._adapter(donor) for donor in sorted(cell.donors)}
            with arrangement(model, donors) as arranged, self._sink(family, key) as sink:
                experiment = Experiment(arranged, base.tokenizer, text, evaluate_settings, probe)
                report = checked(report, self._claim("intervene", key))
                for values in experiment.run(rows, changes, report, self.stop, start=sink.start):
                    sink.append(values)
            record |= {**sink.placement, "summary": {"interventions": float(len(changes))} | test.summary}

    def check(self, cell: PlannedCell, stage: Stage, base: BaseModel) -> None:
        """Raise what a stage would fail of.

        That is a backend, layers or heads that are not here, an adapter outside the layers by which
        interventions take it apart, long examples, and labels that cannot be scored, watched, or read once
        they are written.
        """
        if stage == "probe":
            self._check_probe(self.settings("probe", cell), base)
        if stage == "intervene" and self.settings("train", cell).steps != 0:
            with as_it_was(base.model):
                adapted_sites(attach_adapter(base.model, self.settings("lora", cell), self.ranks))
        text = self._text(cell, base.tokenizer, test=True)
        rows = self._measured(cell, stage, base.model, text).rows
        check_tokens(text, rows, token_count(base.model))
        if stage == "evaluate" and self.settings("evaluate", cell).generates(text.target):
            check_generated(text, rows[0])
        if stage == "probe":
            watched_tokens(base.tokenizer, text, rows[0], self.settings("probe", cell))
            if self.settings("probe", cell).watch == "labels":
                check_watched(text, rows)

    def _check_probe(self, settings: Probe, base: BaseModel) -> None:
        lens = find_lens(base.model)
        try:
            choose_backend(lens.device, settings.backend)  # warns where a slower one has to serve
        except ValueError as error:
            raise UsageError(f"probe.{error}") from error
        layer_numbers(settings, len(lens.layers))
        if settings.heads:
            check_heads(lens)

    def check_training(self, cell: PlannedCell) -> None:
        """Raise what a training would fail of before a model is loaded for it.

        That is examples that lack, or whose explanation does, and trackers that are not here.
        """
        settings = self.settings("train", cell)
        if settings.steps != 0:
            check_trackers(settings.report_to)
            self._trained_rows(cell)

    def _data(self, cell: PlannedCell, *, test: bool) -> Data:
        return test_data(self.plan.matrix, cell.choice) if test else self.settings("data", cell)

    def _rows(self, cell: PlannedCell, key: str, split: str, count: int | None) -> list[dict[str, str]]:
        return data_stage.load(self._examples(cell.keys[key]), split, count)

    def _examples(self, key: str) -> Place:
        """Give the home of prepared data, checked against what was recorded of them."""
        home, files = self.home("data", key), self.ledger.record("data", key).get("files", {})
        try:
            data_stage.check(home, files)
        except DamagedDataError as error:
            self._put_aside(home, data_stage.FILE)
            self.ledger.clear("data", key)
            raise DamagedDataError(f"{error}; --retry-failed makes it again") from error
        return home

    def _trained_rows(self, cell: PlannedCell) -> dict[str, list[dict[str, str]]]:
        """Give the examples of a training by split; DataError for a split or explanation that lacks."""
        data, target = self._data(cell, test=False), self.settings("target", cell)
        rows = {"train": self._rows(cell, "data", "train", data.train)}
        if self.settings("train", cell).early_stopping:
            rows["validation"] = self._rows(cell, "data", "validation", data.validation)
            if not rows["validation"]:
                raise DataError(data_stage.no_validation(self.settings("train", cell).early_stopping))
        for split, part in rows.items():
            check_explanations(part, split, data, target)
        return rows

    def _measured(self, cell: PlannedCell, stage: Stage, model: Any, text: Writer) -> Measured:
        """Give the test examples of a stage; DataError for those that cannot be measured."""
        data, probe = self._data(cell, test=True), self.settings("probe", cell)
        rows = self._rows(cell, "test_data", "test", data.test)
        return measured(
            stage,
            rows if stage == "evaluate" else rows[: probe.examples],
            text,
            self._limit(cell, model),
            data=data,
            evaluate=self.settings("evaluate", cell),
            probe=probe,
        )

    def _limit(self, cell: PlannedCell, model: Any) -> Limit:
        return limit_of(model, self.settings("train", cell).max_length)

    def _text(self, cell: PlannedCell, tokenizer: Any, *, test: bool) -> Writer:
        """Give the writer of a cell's training or test examples."""
        key, data = "test_data" if test else "data", self._data(cell, test=test)
        return cell_writer(self.plan, cell, tokenizer, data, lambda: self._rows(cell, key, "train", None))

    def _saved(self, cell: PlannedCell) -> Trained | None:
        """Give what is saved of a training that has ended, but was never committed."""
        home = self.home("train", cell.keys["train"])
        trained = saved_training(home)
        if trained is None:
            return None
        try:
            check_adapter(home, {})
        except DamagedAdapterError:
            self._put_aside(home, ADAPTER)
            return None
        return trained

    def _adapter(self, key: str) -> Place:
        """Give the home of a trained adapter, checked against what was recorded of it."""
        home = self.home("train", key)
        try:
            check_adapter(home, self.ledger.record("train", key).get("files", {}))
        except DamagedAdapterError as error:
            self._put_aside(home, ADAPTER)
            self.ledger.clear("train", key)
            raise DamagedAdapterError(f"{error}; --retry-failed trains it again") from error
        return home

    def _saved_lens(self, home: Place, device: Any) -> tuple[Translators, np.ndarray] | None:
        """Give the translators of a training that has ended, but was never committed."""
        try:
            return translators.read(home, device)
        except DamagedLensError:
            self._put_aside(home, translators.FILE)
            return None

    def _translators(self, cell: PlannedCell, device: Any) -> Translators | None:
        """Give the translators of the cell's tuned lens, checked against what was recorded of them."""
        if "lens" not in cell.keys:
            return None
        key = cell.keys["lens"]
        home, files = self.home("lens", key), self.ledger.record("lens", key)["files"]
        try:
            return translators.checked(home, device, files)
        except DamagedLensError as error:
            self._put_aside(home, translators.FILE)
            self.ledger.clear("lens", key)
            raise DamagedLensError(f"{error}; --retry-failed trains it again") from error
