"""Stage keys: the hash of exactly the inputs that can change a stage's result.

A key is a BLAKE2b over the stage's name and version, the settings that the stage reads, and the keys of the
stages it consumes: a Merkle tree. Names, comments, key order, spelled-out defaults, output paths and settings
that only say how to run (an empty `stages` in the field's metadata) are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

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
    """The stage keys of a matrix's cells. Each part of a key is hashed once and remembered."""

    def __init__(self, matrix: Matrix) -> None:
        self._matrix = matrix

        def part(table: str, stage: str) -> _Part:
            return _Part(
                (table,), lambda cell: digest(_settings_read(matrix.table(table, cell), table, stage))
            )

        def parts(stage: str, *tables: str) -> list[_Part]:
            return [part(table, stage) for table in tables]

        def test_size(stage: str) -> _Part:
            return _Part(
                ("data", "evaluate"),
                lambda cell: digest(_settings_read(test_data(matrix, cell), "data", stage)),
            )

        model = _Part(("model",), lambda cell: _model_digest(matrix.table("model", cell)))
        seed = _Part(("seed",), lambda cell: f"seed {matrix.seed(cell)};")
        shuffled = _Part(("target", "seed"), self._shuffling_seed)
        data = _Part(("data",), lambda cell: _data_key(matrix.table("data", cell)))
        test = _Part(("data", "evaluate"), lambda cell: _data_key(test_data(matrix, cell)))
        trained = parts("train", "data", "prompt", "target", "lora", "train", "evaluate")
        self._data, self._test, self._model = (_Joined(matrix, [p]) for p in (data, test, model))
        self._untrained = _Joined(matrix, [_Part(("train",), self._is_untrained)])
        self._train = _Joined(matrix, [model, data, *trained, seed])
        self._evaluate = _Joined(
            matrix,
            [test, test_size("evaluate"), *parts("evaluate", "prompt", "target", "train", "evaluate")],
        )
        self._probe = _Joined(
            matrix,
            [
                test,
                test_size("probe"),
                *parts("probe", "prompt", "target", "train", "evaluate", "probe"),
                shuffled,
            ],
        )
        self._probed = _Joined(matrix, [_Part(("probe",), self._is_probed)])

    def of(self, cell: Cell) -> dict[str, str]:
        """Give the cell's keys: data, test_data, train, evaluate and, if it is probed, probe.

        `test_data` is the data stage's key for the test examples, the same as `data` unless `evaluate.data`
        is given. An untrained model's train key depends on the model alone.
        """
        untrained = self._untrained(cell)
        train = _combine("train", self._model(cell) if untrained else self._train(cell))
        keys = {
            "data": self._data(cell),
            "test_data": self._test(cell),
            "train": train,
            "evaluate": _combine("evaluate", train + self._evaluate(cell)),
        }
        if self._probed(cell):
            keys["probe"] = _combine("probe", train + self._probe(cell))
        return keys

    def _is_untrained(self, cell: Cell) -> str:
        return "untrained" if self._matrix.table("train", cell).steps == 0 else ""

    def _is_probed(self, cell: Cell) -> str:
        return "probed" if self._matrix.table("probe", cell).enabled else ""

    def _shuffling_seed(self, cell: Cell) -> str:
        """Give the seed where it shuffles the text that is watched; elsewhere the probe ignores it."""
        shuffles = self._matrix.table("target", cell).content == "label+shuffled"
        return f"seed {self._matrix.seed(cell)};" if shuffles else ""


@frozen
class _Part:
    """A piece of a key: the tables whose levels decide it, and its text for a cell."""

    tables: tuple[str, ...]
    compute: Callable[[Cell], str]


class _Joined:
    """The joined text of some parts, for any cell; parts that no axis touches are computed once in all.

    Texts are digests of one length, or end with a semicolon, so joining them loses nothing.
    """

    def __init__(self, matrix: Matrix, parts: list[_Part]) -> None:
        first = matrix.cells[0]
        self._constant = ""
        self._varying: list[tuple[Callable[[Cell], Any], dict[Any, str], Callable[[Cell], str]]] = []
        for part in parts:
            touched = [table for table in part.tables if matrix.choice(table, first)]
            if touched:
                self._varying.append((_chooser(matrix, touched), {}, part.compute))
            else:
                self._constant += part.compute(first)

    def __call__(self, cell: Cell) -> str:
        text = self._constant
        for choose, known, compute in self._varying:
            choice = choose(cell)
            piece = known.get(choice)
            if piece is None:
                piece = known[choice] = compute(cell)
            text += piece
        return text


def _chooser(matrix: Matrix, tables: list[str]) -> Callable[[Cell], Any]:
    if len(tables) == 1:
        return partial(matrix.choice, tables[0])
    return lambda cell: tuple(matrix.choice(table, cell) for table in tables)


def _combine(stage: str, text: str) -> str:
    whole = f"{stage} {VERSIONS[stage]}\n{text}"
    return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


def _data_key(data: Data) -> str:
    settings = _settings_read(data, "data", "data")
    del settings["source"]  # its content counts, not its path
    return _combine("data", f"{source_identity(data)}\n{digest(settings)}")


def _model_digest(model: Model) -> str:
    settings = _settings_read(model, "model", "train")
    for name in ("id", "revision", "gguf_file"):
        del settings[name]
    return digest([model_identity(model), settings])


def test_data(matrix: Matrix, cell: Cell) -> Data:
    """Give the data settings that the cell is evaluated and probed on."""
    overlay: Data | None = matrix.table("evaluate", cell).data
    data: Data = matrix.table("data", cell) if overlay is None else overlay
    return data


def _settings_read(settings: Any, table: str, stage: str) -> dict[str, Any]:
    values = ((name, getattr(settings, name)) for name in fields_read(table, type(settings), stage))
    return {name: attrs.asdict(value) if attrs.has(type(value)) else value for name, value in values}


assert set(VERSIONS) == set(STAGES)
