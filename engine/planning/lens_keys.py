"""What fitted lenses are made of, as their keys name it: model, texts, settings, or a file's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from attrs import evolve

from engine.data.neutral_text import text_identity
from engine.errors import DataError
from engine.fingerprints import fingerprint_path
from engine.planning.identities import digest
from engine.planning.key_parts import Cell, Part, joined, settings_read, table_part
from specs import Matrix
from specs.common.names import FIT_STAGES, TRAINED_TEXTS, FitStage
from specs.tables.jacobian import Jacobian
from specs.tables.probe import Probe
from specs.tables.tuned import Tuned
from specs.toml.paths import near_file

TABLES: Mapping[FitStage, str] = {"lens": "tuned", "jacobian": "jacobian"}  # under [probe]
_READING = ("prompt", "target", "train", "evaluate")  # by which a training example becomes text


def fit_settings(probe: Probe, stage: FitStage) -> Tuned | Jacobian:
    """Give the settings of a stage that fits a lens."""
    settings: Tuned | Jacobian = getattr(probe, TABLES[stage])
    return settings


def corpus_key(stage: FitStage) -> str:
    """Name the key of the spec that says on what a lens is fitted."""
    return f"probe.{TABLES[stage]}.corpus"


class LensKeys:
    """The texts and settings of a matrix's fitted lenses. Each part is hashed once and remembered."""

    def __init__(self, matrix: Matrix, data: Part, drawn: Sequence[Part]) -> None:
        """Take the part that identifies a cell's training examples, and those of what is drawn for them."""
        self._matrix = matrix
        prefix = Part(("target",), lambda cell: digest(matrix.table("target", cell).prefix))
        self._of_cell, self._of_base, self._of_file = {}, {}, {}
        for stage in FIT_STAGES:
            settings = self._settings(stage)
            read = {name: table_part(matrix, name, stage) for name in ("data", *_READING)}
            asked = [part for name, part in read.items() if name != "target"]
            self._of_cell[stage] = joined(matrix, data, *read.values(), settings, *drawn)
            self._of_base[stage] = joined(matrix, data, *asked, prefix, settings)
            self._of_file[stage] = joined(matrix, settings)

    def _settings(self, stage: FitStage) -> Part:
        """Give the part of a lens's settings, without those that say on what it is fitted."""

        def read(cell: Cell) -> str:
            probe: Probe = self._matrix.table("probe", cell)
            tuned = evolve(probe.tuned, corpus=TRAINED_TEXTS, fitted_on="trained")
            jacobian = evolve(probe.jacobian, corpus=TRAINED_TEXTS, fitted_on="trained")
            plain = evolve(probe, tuned=tuned, jacobian=jacobian)
            return digest(settings_read(plain, "probe", stage))

        return Part(("probe",), read)

    def fitted(self, stage: FitStage, cell: Cell, trained: str, untrained: str) -> str:
        """Give what a stage's key is made of.

        Args:
            stage: by which the lens is fitted.
            cell: whose lens it is.
            trained: the train key of the cell.
            untrained: that of the model without training.
        """
        probe: Probe = self._matrix.table("probe", cell)
        settings = fit_settings(probe, stage)
        on_base = settings.fitted_on == "base"
        if settings.corpus != TRAINED_TEXTS:
            content = text_identity(settings.corpus, corpus_key(stage))
            text = f"text {content};{self._of_file[stage](cell)}"
        else:
            text = (self._of_base if on_base else self._of_cell)[stage](cell)
        released = f"transformers {metadata.version('transformers')};" if stage == "jacobian" else ""
        return (untrained if on_base else trained) + text + released

    def file(self, cell: Cell) -> str:
        """Identify the file of a Jacobian lens that a cell's probe reads, "" where it reads none.

        Raises DataError where it is missing.
        """
        probe: Probe = self._matrix.table("probe", cell)
        if "jacobian" not in probe.lenses or probe.jacobian.path is None:
            return ""
        path = Path(probe.jacobian.path)
        if not path.is_file():
            near = near_file(path)
            hint = f'; did you mean "{near}"?' if near else ""
            raise DataError(f'probe.jacobian.path: found no file "{path}"{hint}')
        return f"file {fingerprint_path(path)};"
