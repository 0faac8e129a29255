"""A spec whose paths are spelled from the current folder, so that its text means the same there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from specs.axes import Axis
from specs.errors import SpecError
from specs.load import Spec
from specs.matrix import Matrix
from specs.tables.experiment import Experiment
from specs.toml import keys, overlay
from specs.toml.convert import structure
from specs.toml.paths import PATHS, anchor, from_here, holds_path
from specs.toml.text import absolute

_ANNOTATED = ("output", "golden")  # files, whatever is there


def from_current_folder(matrix: Matrix) -> Experiment:
    """Give the experiment with its paths relative to the current folder, absolute where they lead out of it.

    What is found from here as it is written stays so.
    """
    spec = matrix.spec
    raw = _moved(spec.raw, spec.folder)
    factors = {axis.name: factor for axis in matrix.axes if (factor := _moved_factor(spec, axis))}
    if factors:
        raw["factors"] = raw["factors"] | factors
    if spec.experiment.annotate is not None:
        raw["annotate"] = raw["annotate"] | _moved_annotation(spec)
    if absolute(spec.folder(("store",))) != absolute(Path()):
        raw["store"] = spec.store
    experiment, problems = structure(overlay.expand(raw), Experiment)
    if experiment is None:
        raise SpecError(problems)
    return experiment


def _moved(tree: Mapping[str, Any], folder: Callable[[keys.Path], Path]) -> dict[str, Any]:
    """Give tables with what stands at `PATHS` as it is spelled from here."""
    moved, there, here = dict(tree), anchor(tree, folder), anchor(tree, lambda _: Path())
    for key in PATHS:
        if keys.exists(tree, key):
            value = _spelled(*(keys.leaf(known, key) for known in (tree, there, here)))
            moved = keys.merge(moved, keys.nest(key, value))
    return moved


def _spelled(written: Any, there: Any, here: Any) -> Any:
    """Give a path, or a list of these: as it is written if it means the same from here."""
    if isinstance(written, list):
        return [_spelled(*item) for item in zip(written, there, here, strict=True)]
    return written if there in (written, here) else _from_here(Path(), there)


def _from_here(folder: Path, path: str) -> str:
    """Give the path for a spec in the current folder; absolute where a colon would make it a name."""
    found = from_here(folder, path)
    spelled = f"./{found.as_posix()}"
    return str(absolute(found)) if found.is_absolute() or ":" in spelled else spelled


def _moved_factor(spec: Spec, axis: Axis) -> dict[str, Any]:
    """Give the table of a factor with levels whose paths are spelled otherwise from here, else nothing."""
    levels: dict[str, Any] = {}
    changed = False
    for level in axis.levels:
        levels[str(level.label)] = {}
        for key, value in level.overrides.items():
            tree = keys.nest(keys.split(key), value)
            moved = (
                _moved(tree, lambda _: spec.folder(("factors", axis.name)))
                if holds_path(keys.split(key))
                else tree
            )
            changed |= moved != tree
            levels[str(level.label)] = keys.merge(levels[str(level.label)], moved)
    if not changed:
        return {}
    others = {
        key: value for key, value in spec.raw["factors"][axis.name].items() if key not in ("path", "values")
    }
    return others | {"levels": levels}


def _moved_annotation(spec: Spec) -> dict[str, str]:
    """Give the files of `[annotate]`, by key."""
    here = absolute(Path())
    moved = {}
    for key in _ANNOTATED:
        written, folder = getattr(spec.experiment.annotate, key), spec.folder(("annotate", key))
        if written is not None and absolute(folder) != here:
            moved[key] = _from_here(folder, written)
    return moved
