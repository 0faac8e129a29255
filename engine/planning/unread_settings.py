"""Settings that a spec writes and that no stage of its cells reads: found by leaving each out of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import attrs
from attrs import evolve, frozen

from engine.errors import EngineError
from engine.planning.key_parts import Cell
from engine.planning.plan import Plan
from engine.planning.stage_keys import Keys
from specs import Matrix, SpecError
from specs.axes import Level
from specs.tables.experiment import OVERLAID, TABLE_STAGES
from specs.toml import keys
from specs.toml.known_keys import field_types, table_class, tables
from specs.toml.unset import pruned

Told = Callable[[Matrix, Cell], bool]


def _of(table: str, holds: Callable[[Any], bool]) -> Told:
    return lambda matrix, cell: holds(matrix.table(table, cell))


_UNTRAINED = _of("train", lambda train: train.steps == 0)
_NO_PROBE = _of("probe", lambda probe: not probe.enabled)
# Which keys, where nothing reads them, and why: the first that holds in all cells is told.
REASONS: tuple[tuple[tuple[str, ...], Told, str], ...] = (
    (("lora", "train"), _UNTRAINED, "train.steps = 0 leaves the model untrained"),
    (("probe",), _NO_PROBE, "nothing is probed (probe.enabled = false)"),
    (("probe.tuned",), _of("probe", lambda probe: "tuned" not in probe.lenses), 'probe.lens has no "tuned"'),
    (
        ("probe.jacobian",),
        _of("probe", lambda probe: "jacobian" not in probe.lenses),
        'probe.lens has no "jacobian"',
    ),
    (("probe.differences",), _of("probe", lambda probe: not probe.against), "probe.against names no model"),
    (
        ("target.placement", "target.separator", "target.loss.explanation", "data.empty_explanations"),
        _of("target", lambda target: target.content == "label"),
        'target.content = "label" has no explanation',
    ),
    (
        ("target.permuted",),
        _of("target", lambda target: target.content != "label+explanation"),
        'it is of target.content = "label+explanation" alone',
    ),
    (
        ("target.filler",),
        _of("target", lambda target: target.content != "label+filler"),
        'it is of target.content = "label+filler" alone',
    ),
    (
        ("train.epochs",),
        _of("train", lambda train: train.steps is not None or train.tokens or train.label_tokens),
        "train.steps, tokens or label_tokens says how long is trained",
    ),
    (
        ("train.validate_every", "data.validation"),
        _of("train", lambda train: not train.early_stopping),
        "nothing is validated (train.early_stopping = 0)",
    ),
    (
        ("evaluate.sampling",),
        _of("evaluate", lambda evaluate: not evaluate.sampling.samples),
        "nothing is sampled (evaluate.sampling.samples = 0)",
    ),
    (
        ("evaluate.task_examples", "evaluate.task_shots", "evaluate.task_folder"),
        _of("evaluate", lambda evaluate: not evaluate.tasks),
        "evaluate.tasks names none",
    ),
    (
        ("evaluate.inspect",),
        _of("evaluate", lambda evaluate: not evaluate.inspect.tasks),
        "evaluate.inspect.tasks names none",
    ),
)
MOST = 8  # settings that a sentence names
OF_NONE = "no stage of these cells reads it"
# What other warnings speak of.
ELSEWHERE = ("probe.at", "evaluate.counterfactuals")


@frozen
class Written:
    """A setting as a spec writes it, for all cells or for those of a level."""

    path: keys.Path
    at: str  # the place in the spec
    cells: list[Cell]  # one for every distinct setting
    without: Matrix


def unread_settings(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each reason why settings of the spec change no result of its cells."""
    found = dict[str, list[str]]()
    known = {cell.choice: cell.keys for cell in plan.cells}
    keys_of = lru_cache(1)(lambda matrix: Keys(matrix, plan.remembered))
    for setting in (*_of_tables(plan.matrix), *_of_levels(plan.matrix)):
        name = keys.join(setting.path)
        if name not in ELSEWHERE and _is_unread(plan, setting, known, keys_of):
            found.setdefault(_reason(plan.matrix, name, setting.cells), []).append(setting.at)
    for reason, names in found.items():
        many = len(names) > 1
        yield (
            f"{_listed(names)}: {'change' if many else 'changes'} no result, for {reason}; expected "
            f"{'them' if many else 'it'} beside settings that read {'them' if many else 'it'}, or left out"
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _of_tables(matrix: Matrix) -> Iterator[Written]:
    """Yield the settings in the tables of a spec, of which results can hang on all but how to run."""
    raw, cells = matrix.spec.raw, matrix.distinct(*TABLE_STAGES)
    for table in TABLE_STAGES:
        for path in _paths(raw.get(table, {}), tables()[table], (table,)):
            spec = evolve(matrix.spec, raw=pruned(raw, path))
            without = Matrix(spec, matrix.axes, matrix.rules, matrix.cells)
            yield Written(path, keys.join(path), cells, without)


def _paths(given: Any, cls: type, at: keys.Path) -> Iterator[keys.Path]:
    types = field_types(cls)
    for field in attrs.fields(cls):
        if not isinstance(given, Mapping) or field.name not in given:
            continue
        path, inner = (*at, field.name), table_class(types[field.name])
        if inner is not None:
            yield from _paths(given[field.name], inner, path)
        elif field.metadata.get("stages") != ():
            yield path


def _of_levels(matrix: Matrix) -> Iterator[Written]:
    """Yield the settings of levels, but of factors of one key: levels without effect are alike there."""
    told = matrix.distinct(*TABLE_STAGES)
    for position, axis in enumerate(matrix.axes):
        names = dict.fromkeys(name for level in axis.levels for name in level.overrides)
        for name in names if len(names) > 1 else ():
            axes = list(matrix.axes)  # one matrix for all levels, for a cell reads its own level alone
            axes[position] = evolve(axis, levels=tuple(_without(level, name) for level in axis.levels))
            without = Matrix(matrix.spec, axes, matrix.rules, matrix.cells)
            for index, level in enumerate(axis.levels):
                cells = [cell for cell in told if cell[position] == index]
                if cells and name in level.overrides:
                    place = f"{matrix.written(name, cells[0])} ({name})"
                    yield Written(keys.split(name), place, cells, without)


def _without(level: Level, name: str) -> Level:
    return evolve(level, overrides={key: value for key, value in level.overrides.items() if key != name})


def _is_unread(
    plan: Plan, setting: Written, known: Mapping[Cell, Mapping[str, str]], keys_of: Callable[[Matrix], Keys]
) -> bool:
    """Tell whether a setting says something in some cell, and no cell has another key without it."""
    table, without, cells = str(setting.path[0]), setting.without, setting.cells
    read_in = [table, "evaluate"] if table in OVERLAID else [table]
    try:
        if all(
            without.table(name, cell) == plan.matrix.table(name, cell) for name in read_in for cell in cells
        ):
            return False  # what holds anyhow, written out, or replaced by a level of every cell
        others = keys_of(without)
        return all(others.of(cell) == known[cell] for cell in cells)
    except (SpecError, EngineError):  # no cell can do without it
        return False


def _reason(matrix: Matrix, key: str, told: list[Cell]) -> str:
    """Say why no stage reads a key."""
    for names, holds, words in REASONS:
        if any(key == name or key.startswith(f"{name}.") for name in names) and all(
            holds(matrix, cell) for cell in told
        ):
            return words
    return OF_NONE
