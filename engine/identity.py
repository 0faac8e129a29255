"""Stage keys: the hash of exactly the inputs that can change a stage's result.

A key is a BLAKE2b over the stage's name and version, the settings that the stage reads, and the keys of the
stages it consumes: a Merkle tree. Names, comments, key order, spelled-out defaults, output paths and settings
that only say how to run (an empty `stages` in the field's metadata) are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from engine import fingerprints, graded
from engine.data import BUILT_IN
from engine.errors import DataError
from specs import Matrix
from specs.model import STAGES, TABLE_STAGES, Data, Model
from specs.paths import DATA_FILES

# Raise a stage's number when a change to the code alters its results.
VERSIONS = {"data": 1, "train": 1, "evaluate": 1, "probe": 1}

Cell = tuple[int, ...]


def digest(value: Any) -> str:
    """Hash the canonical JSON of a value (sorted keys, no spaces): 32 hex digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fields_read(table: str, cls: type, stage: str) -> list[str]:
    """Name the fields of a table's class that can change a stage's result."""
    return [
        field.name
        for field in attrs.fields(cls)
        if stage in field.metadata.get("stages", TABLE_STAGES[table])
    ]


def source_identity(data: Data) -> str:
    """Identify the content of a data source: file fingerprint, hub revision or the built-in's version.

    Raises DataError where `data.fingerprint` names another content than is found.
    """
    if data.source == BUILT_IN:
        found = f"{BUILT_IN} {graded.VERSION}"
    elif Path(data.source).suffix in DATA_FILES:
        path = Path(data.source)
        if not path.is_file():
            raise DataError(f'data.source: found "{data.source}", which is no file')
        found = fingerprints.fingerprint_path(path)
    else:
        found = f"hub {data.source} {data.config} {data.revision}"
    if data.fingerprint is not None and data.fingerprint != found:
        raise DataError(f'data.fingerprint: expected "{data.fingerprint}", but "{data.source}" has "{found}"')
    return found


def model_identity(model: Model) -> str:
    """Identify the content of a model: fingerprint of its files, or hub id and revision."""
    from engine.models import local_path

    path = local_path(model.id)
    if path is None:
        return f"hub {model.id} {model.revision} {model.gguf_file}"
    return fingerprints.fingerprint_path(path / model.gguf_file if model.gguf_file else path)


class Keys:
    """The stage keys of a matrix's cells, each part hashed once and remembered."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix
        self._memory: dict[tuple[Any, ...], str] = {}

    def of(self, cell: Cell) -> dict[str, str]:
        """Give the cell's keys: data, train, evaluate, test_data and, if enabled, probe."""
        probe = self._matrix.table("probe", cell)
        keys = {
            "data": self.data(cell),
            "test_data": self.test_data(cell),
            "train": self.train(cell),
            "evaluate": self.evaluate(cell),
        }
        if probe.enabled:
            keys["probe"] = self.probe(cell)
        return keys

    def data(self, cell: Cell) -> str:
        """Key of the training data's stage."""
        return self._once(("data", *self._choices(cell, "data")), lambda: self._data_key(cell, test=False))

    def test_data(self, cell: Cell) -> str:
        """Key of the test data's stage: the same as `data` unless `evaluate.data` is given."""
        choices = self._choices(cell, "data", "evaluate")
        return self._once(("test data", *choices), lambda: self._data_key(cell, test=True))

    def train(self, cell: Cell) -> str:
        """Key of the training; an untrained model's depends on the model alone."""
        if self._matrix.table("train", cell).steps == 0:
            return self._combine("train", [self._model(cell)])
        tables = ("model", "data", "prompt", "target", "lora", "train", "evaluate")
        parts = [self._part(table, "train", cell) for table in tables]
        return self._combine("train", [self.data(cell), *parts, str(self._matrix.seed(cell))])

    def evaluate(self, cell: Cell) -> str:
        """Key of the evaluation."""
        parts = [self._part(table, "evaluate", cell) for table in ("prompt", "target", "train", "evaluate")]
        return self._combine(
            "evaluate", [self.train(cell), self.test_data(cell), self._test_size(cell, "evaluate"), *parts]
        )

    def probe(self, cell: Cell) -> str:
        """Key of the probe. The seed enters once more where it shuffles the text that is watched."""
        tables = ("prompt", "target", "train", "evaluate", "probe")
        parts = [self._part(table, "probe", cell) for table in tables]
        inputs = [self.train(cell), self.test_data(cell), self._test_size(cell, "probe"), *parts]
        if self._matrix.table("target", cell).content == "label+shuffled":
            inputs.append(str(self._matrix.seed(cell)))
        return self._combine("probe", inputs)

    def _choices(self, cell: Cell, *tables: str) -> tuple[Any, ...]:
        return tuple(self._matrix.choice(table, cell) for table in tables)

    def _once(self, name: tuple[Any, ...], compute: Callable[[], str]) -> str:
        known = self._memory.get(name)
        if known is None:
            known = self._memory[name] = compute()
        return known

    def _combine(self, stage: str, parts: list[str]) -> str:
        text = "\n".join([stage, str(VERSIONS[stage]), *parts])
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def _data_key(self, cell: Cell, *, test: bool) -> str:
        data = test_data(self._matrix, cell) if test else self._matrix.table("data", cell)
        settings = _read_settings("data", data, "data")
        del settings["source"]  # its content counts, not its path
        return self._combine("data", [source_identity(data), digest(settings)])

    def _part(self, table: str, stage: str, cell: Cell) -> str:
        return self._once(
            (table, stage, self._matrix.choice(table, cell)),
            lambda: (
                self._model(cell)
                if table == "model"
                else digest(_read_settings(table, self._matrix.table(table, cell), stage))
            ),
        )

    def _test_size(self, cell: Cell, stage: str) -> str:
        return self._once(
            ("test size", stage, *self._choices(cell, "data", "evaluate")),
            lambda: digest(_read_settings("data", test_data(self._matrix, cell), stage)),
        )

    def _model(self, cell: Cell) -> str:
        def compute() -> str:
            model = self._matrix.table("model", cell)
            settings = _read_settings("model", model, "train")
            for name in ("id", "revision", "gguf_file"):
                del settings[name]
            return digest([model_identity(model), settings])

        return self._once(("model", *self._choices(cell, "model")), compute)


def test_data(matrix: Matrix, cell: Cell) -> Data:
    """Give the data settings that the cell is evaluated and probed on."""
    overlay: Data | None = matrix.table("evaluate", cell).data
    data: Data = matrix.table("data", cell) if overlay is None else overlay
    return data


def _read_settings(table: str, value: Any, stage: str) -> dict[str, Any]:
    names = fields_read(table, type(value), stage)
    return {
        name: attrs.asdict(part) if attrs.has(type(part := getattr(value, name))) else part for name in names
    }


assert set(VERSIONS) == set(STAGES)
